//! The kinds of `resource.k8s.io/v1`.
//!
//! Selectors in CEL are checked when they are written; nothing evaluates them.

mod allocation;
mod claim;
mod device;
pub mod device_class;
mod parts;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;

#[cfg(test)]
mod tests;

/// The group.
pub const GROUP: &str = "resource.k8s.io";

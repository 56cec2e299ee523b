//! The kinds of `resource.k8s.io/v1`.
//!
//! CEL expressions are stored as they come: they are neither parsed nor checked for types yet.

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

//! The kinds of `admissionregistration.k8s.io/v1`.
//!
//! CEL expressions are stored as they come: they are neither parsed nor checked for types yet.

mod binding;
mod matching;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod mutating_webhook_configuration;
mod policy;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
pub(crate) mod webhook;

#[cfg(test)]
mod tests;

/// The group.
pub const GROUP: &str = "admissionregistration.k8s.io";

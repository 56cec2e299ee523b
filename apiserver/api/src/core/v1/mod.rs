//! Version v1 of the group.

pub mod config_map;
pub mod endpoints;
pub mod event;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod pod_spec;
pub mod secret;
pub mod service;
pub mod service_account;

#[cfg(test)]
mod tests;

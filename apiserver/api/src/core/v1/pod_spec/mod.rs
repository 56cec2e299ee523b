//! The spec of a pod: rules that Pods share with every kind that carries a template of Pods.

pub mod annotations;
pub mod containers;
pub mod defaults;
pub mod disks;
pub mod pod_level;
pub mod qos;
pub mod resize;
pub mod scheduling;
pub mod security;
pub mod subresources;
pub mod template;
pub mod update;
pub mod validation;
pub mod volumes;
pub mod warnings;

#[cfg(test)]
mod tests;

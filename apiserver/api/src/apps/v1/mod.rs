//! Version v1 of the group.

pub mod deployment;
pub mod replica_set;

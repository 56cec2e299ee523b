//! `resource.k8s.io`: devices, and who gets them.

pub mod v1;

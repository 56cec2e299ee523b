//! Group `node.k8s.io`.

pub mod v1;

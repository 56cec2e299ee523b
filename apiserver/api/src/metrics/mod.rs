//! Group `metrics.k8s.io`: what nodes and pods use, measured and not stored.

pub mod v1beta1;

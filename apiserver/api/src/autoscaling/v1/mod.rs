//! Version v1 of the group.

pub mod horizontal_pod_autoscaler;

mod metrics;

//! Version v1 of the group.

pub mod pod_disruption_budget;

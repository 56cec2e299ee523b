//! `admissionregistration.k8s.io`: who else is asked about a write, and by which rules.

pub mod v1;

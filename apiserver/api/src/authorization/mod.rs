//! `authorization.k8s.io`: what somebody may do.

pub mod v1;

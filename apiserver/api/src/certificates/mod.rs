//! `certificates.k8s.io`: who gets a certificate.

pub mod v1;

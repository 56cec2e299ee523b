//! `apiextensions.k8s.io`: kinds that users bring.

pub mod v1;

//! The API group of `apps`.

pub mod v1;

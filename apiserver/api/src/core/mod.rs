//! The API group of `core`.

pub mod v1;

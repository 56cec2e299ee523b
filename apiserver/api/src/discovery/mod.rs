//! The API group of `discovery`.

pub mod v1;

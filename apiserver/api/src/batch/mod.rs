//! The API group of `batch`.

pub mod v1;

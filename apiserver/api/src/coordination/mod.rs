//! The API group of `coordination`.

pub mod v1;

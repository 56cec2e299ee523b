//! Group `policy`.

pub mod v1;

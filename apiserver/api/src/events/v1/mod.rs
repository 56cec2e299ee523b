//! Version v1 of the group.

pub mod event;

//! Paths below an object that are not just another view of it. `status` and `finalize` are: see
//! [`crate::verbs::update::Part`].

pub mod binding;
pub mod log;
pub mod scale;

//! Paths below an object that are not just another view of it. `status` and `finalize` are: see
//! [`crate::verbs::update::Part`].

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod log;
pub(crate) mod scale;

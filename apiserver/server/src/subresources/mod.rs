//! Paths below an object that are not just another view of it. `status` and `finalize` are: see
//! [`crate::verbs::update::Part`].

pub(crate) mod binding;
pub(crate) mod connect;
pub(crate) mod eviction;
mod forward;
pub(crate) mod log;
mod onward;
mod pages;
mod proxy;
pub(crate) mod scale;
pub(crate) mod token;

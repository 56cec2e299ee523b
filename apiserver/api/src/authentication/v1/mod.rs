//! The kinds of `authentication.k8s.io/v1`. None is stored: they are questions that the server answers.

pub mod self_subject_review;
pub mod token_request;
pub mod token_review;

/// The group.
pub const GROUP: &str = "authentication.k8s.io";

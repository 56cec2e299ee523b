//! SelfSubjectReview: who the server takes the asker for.

use crate::kinds::review;
use crate::{Resource, Strategy};

/// What the pipeline knows of self subject reviews.
pub static RESOURCE: Resource = review(
    super::GROUP,
    "SelfSubjectReview",
    ["selfsubjectreviews", "selfsubjectreview"],
    false,
    &SelfSubjectReview,
);

/// SelfSubjectReview: who the server takes the asker for.
pub struct SelfSubjectReview;

impl Strategy for SelfSubjectReview {}

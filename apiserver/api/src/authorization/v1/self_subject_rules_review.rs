//! SelfSubjectRulesReview: what may I do in a namespace?

use crate::kinds::review;
use crate::{Resource, Strategy};

/// What the pipeline knows of self subject rules reviews.
pub static RESOURCE: Resource = review(
    super::GROUP,
    "SelfSubjectRulesReview",
    ["selfsubjectrulesreviews", "selfsubjectrulesreview"],
    false,
    &SelfSubjectRulesReview,
);

/// SelfSubjectRulesReview: what may I do in a namespace?
pub struct SelfSubjectRulesReview;

impl Strategy for SelfSubjectRulesReview {}

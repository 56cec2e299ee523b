//! TokenReview: whose a bearer token is.

use crate::kinds::review;
use crate::{Resource, Strategy};

/// What the pipeline knows of token reviews.
pub static RESOURCE: Resource = review(
    super::GROUP,
    "TokenReview",
    ["tokenreviews", "tokenreview"],
    false,
    &TokenReview,
);

/// TokenReview: whose a bearer token is.
pub struct TokenReview;

impl Strategy for TokenReview {}

//! SelfSubjectAccessReview: may I do something?

use super::{attributes, no_metadata, selectors};
use crate::kinds::review;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of self subject access reviews.
pub static RESOURCE: Resource = review(
    super::GROUP,
    "SelfSubjectAccessReview",
    ["selfsubjectaccessreviews", "selfsubjectaccessreview"],
    false,
    &SelfSubjectAccessReview,
);

/// SelfSubjectAccessReview: may I do something?
pub struct SelfSubjectAccessReview;

impl Strategy for SelfSubjectAccessReview {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        attributes(&spec, errors);
        selectors(&spec, errors);
        no_metadata(new, &[], "must be empty", errors);
    }
}

//! SubjectAccessReview: may somebody do something?

use super::{attributes, no_metadata, selectors, subject};
use crate::kinds::review;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of subject access reviews.
pub static RESOURCE: Resource = review(
    super::GROUP,
    "SubjectAccessReview",
    ["subjectaccessreviews", "subjectaccessreview"],
    false,
    &SubjectAccessReview,
);

/// SubjectAccessReview: may somebody do something?
pub struct SubjectAccessReview;

impl Strategy for SubjectAccessReview {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        attributes(&spec, errors);
        subject(&spec, errors);
        selectors(&spec, errors);
        no_metadata(new, &[], "must be empty", errors);
    }
}

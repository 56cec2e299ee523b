//! LocalSubjectAccessReview: may somebody do something in this namespace?

use super::{attributes, no_metadata, selectors, subject};
use crate::field_errors::ErrorType;
use crate::kinds::review;
use crate::schema::internal_form;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of local subject access reviews.
pub static RESOURCE: Resource = review(
    super::GROUP,
    "LocalSubjectAccessReview",
    ["localsubjectaccessreviews", "localsubjectaccessreview"],
    true,
    &LocalSubjectAccessReview,
);

/// LocalSubjectAccessReview: may somebody do something in this namespace?
pub struct LocalSubjectAccessReview;

impl Strategy for LocalSubjectAccessReview {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        attributes(&spec, errors);
        subject(&spec, errors);
        selectors(&spec, errors);
        let detail = "must be empty except for namespace";
        no_metadata(new, &["namespace"], detail, errors);
        let namespace = spec.at("resourceAttributes.namespace");
        if spec.key("resourceAttributes").exists() && namespace.str() != new.namespace() {
            let shown = Some(namespace.str().into());
            let detail = "must match metadata.namespace";
            errors.push(ErrorType::Invalid, namespace.path(), shown, detail);
        }
        let other = spec.key("nonResourceAttributes");
        if other.exists() {
            let definition = "io.k8s.api.authorization.v1.NonResourceAttributes";
            let shown = internal_form(definition, other.value());
            let detail = "disallowed on this kind of request";
            errors.push(ErrorType::Invalid, other.path(), Some(shown), detail);
        }
    }
}

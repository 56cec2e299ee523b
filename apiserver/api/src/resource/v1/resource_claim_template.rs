//! ResourceClaimTemplate: claims that are made for each pod anew.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::claim;
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, NAME, NameRule, Storage, age};
use crate::schema::internal_form;
use crate::validation::metadata;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of resource claim templates.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: &[NAME, AGE],
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ResourceClaimTemplate,
};

/// ResourceClaimTemplate: claims that are made for each pod anew.
pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Object) {
        if let Some(spec) = object.get_mut("spec.spec").and_then(Value::as_object_mut) {
            claim::default_spec(spec);
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        metadata::annotations(&spec.at("metadata.annotations"), errors);
        metadata::labels(&spec.at("metadata.labels"), errors);
        claim::spec(&spec.key("spec"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        if new.at("spec").value() != old.at("spec").value() {
            let definition = "io.k8s.api.resource.v1.ResourceClaimTemplateSpec";
            let shown = internal_form(definition, new.at("spec").value());
            errors.push(
                ErrorType::Invalid,
                "spec",
                Some(shown),
                "field is immutable",
            );
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), age(object, now)]
    }
}

//! ResourceClaim: devices that pods of one namespace ask for together.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::{allocation, claim};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::schema::internal_form;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of resource claims.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ResourceClaim,
};

/// ResourceClaim: devices that pods of one namespace ask for together.
pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Object) {
        claim::default_spec(object.map_mut("spec"));
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        new.restore(old, "metadata.labels");
        new.restore(old, "metadata.annotations");
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        claim::spec(&new.at("spec"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        if new.at("spec").value() != old.at("spec").value() {
            let definition = "io.k8s.api.resource.v1.ResourceClaimSpec";
            let shown = internal_form(definition, new.at("spec").value());
            errors.push(
                ErrorType::Invalid,
                "spec",
                Some(shown),
                "field is immutable",
            );
        }
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        allocation::status(new, old, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut states = Vec::new();
        if object.is_terminating() {
            states.push("deleted");
        }
        if object.at("status.allocation").exists() {
            states.push("allocated");
            if !object.at("status.reservedFor").is_empty() {
                states.push("reserved");
            }
        } else if !object.is_terminating() {
            states.push("pending");
        }
        vec![
            object.name().into(),
            states.join(",").into(),
            age(object, now),
        ]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "State",
        "A summary of the current state (allocated, pending, reserved, etc.).",
    ),
    AGE,
];

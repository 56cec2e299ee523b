//! VolumeAttributesClass: what a volume can be changed to.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::{driver, forbid_updates, parameters};
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of volume attributes classes.
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &VolumeAttributesClass,
};

/// VolumeAttributesClass: what a volume can be changed to.
pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let at = new.at("parameters");
        driver(&new.at("driverName"), errors);
        parameters(&at, errors);
        if at.is_empty() {
            errors.required(&at, "must contain at least one key/value pair");
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        forbid_updates(new, old, &["driverName", "parameters"], errors);
        self.validate(new, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("driverName").str().into(),
            age(object, now),
        ]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "DriverName",
        "Name of the CSI driver This field is immutable.",
    ),
    AGE,
];

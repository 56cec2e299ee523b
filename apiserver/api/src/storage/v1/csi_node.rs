//! CSINode: the storage drivers of a node.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::csi_driver_name;
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::schema::{SchemaRef, go_form};
use crate::validation::{names, numbers};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Most bytes of a driver's own name of a node.
const LONGEST_NODE_ID: usize = 256;

/// What the pipeline knows of CSI nodes.
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &CSINode,
};

/// CSINode: the storage drivers of a node.
pub struct CSINode;

impl Strategy for CSINode {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let mut drivers = HashSet::new();
        for driver in new.at("spec.drivers").items() {
            csi_driver_name(&driver.key("name"), errors);
            node_id(&driver.key("nodeID"), errors);
            numbers::non_negative(&driver.at("allocatable.count"), errors);
            let name = driver.key("name");
            if !drivers.insert(name.str().to_owned()) {
                let shown = Some(Value::from(name.str()));
                errors.push(ErrorType::Duplicate, name.path(), shown, "");
            }
            topology_keys(&driver, errors);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let schema = SchemaRef::for_kind("storage.k8s.io", "v1", "CSINode")
            .and_then(|kind| kind.child("spec")?.child("drivers")?.elem())
            .unwrap_or_else(SchemaRef::any);
        // The driver's limits may change; nothing else of a driver may.
        let fixed = |driver: &At<'_>| {
            let mut driver = driver.value().cloned().unwrap_or_default();
            if let Some(map) = driver.as_object_mut() {
                map.shift_remove("allocatable");
            }
            go_form(&driver, &schema)
        };
        let (now, before) = (new.at("spec.drivers"), old.at("spec.drivers"));
        for had in before.items() {
            for has in now.items() {
                let same_name = had.key("name").str() == has.key("name").str();
                if same_name && fixed(&had) != fixed(&has) {
                    errors.invalid_as(&now, fixed(&has), "field is immutable");
                }
            }
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            json!(object.at("spec.drivers").len()),
            age(object, now),
        ]
    }
}

fn node_id(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
    }
    if at.str().len() > LONGEST_NODE_ID {
        errors.invalid(at, format!("must be {LONGEST_NODE_ID} characters or less"));
    }
}

/// Findings name the driver, not the key.
fn topology_keys(driver: &At<'_>, errors: &mut FieldErrors) {
    let mut seen = HashSet::new();
    for key in driver.key("topologyKeys").items() {
        let shown = || Some(Value::from(key.str()));
        if key.is_empty() {
            errors.required(driver, "");
        }
        if !seen.insert(key.str().to_owned()) {
            errors.push(ErrorType::Duplicate, driver.path(), shown(), "");
        }
        for message in names::qualified_name(key.str()) {
            errors.push(ErrorType::Invalid, driver.path(), shown(), message);
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Drivers",
        "Drivers indicates the number of CSI drivers registered on the node",
    ),
    AGE,
];

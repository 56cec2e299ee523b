//! CSIStorageCapacity: how much a storage driver has left somewhere.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::core::v1::pod_spec::warnings;
use crate::kinds::{ALL_VERBS, DEFAULT_COLUMNS, NameRule, Storage};
use crate::quantity::Quantity;
use crate::validation::{names, selectors};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of storage capacities.
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: DEFAULT_COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &CSIStorageCapacity,
};

/// CSIStorageCapacity: how much a storage driver has left somewhere.
pub struct CSIStorageCapacity;

impl Strategy for CSIStorageCapacity {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        selectors::label_selector(&new.at("nodeTopology"), errors);
        errors.text(&new.at("storageClassName"), names::dns1123_subdomain);
        let capacity = new.at("capacity");
        let amount = capacity
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok());
        if amount.is_some_and(|amount| amount.is_negative()) {
            errors.invalid(&capacity, "must be greater than or equal to 0");
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.unchanged(new, old, &["nodeTopology"]);
        errors.unchanged_texts(new, old, &["storageClassName"]);
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let topology = new.at("nodeTopology");
        let mut found = Vec::new();
        for key in topology
            .key("matchExpressions")
            .items()
            .map(|expression| expression.key("key"))
        {
            if let Some(why) = warnings::deprecated_label(key.str()) {
                found.push(format!("{}: {} is {why}", key.path(), key.str()));
            }
        }
        for (label, _) in topology.key("matchLabels").entries() {
            if let Some(why) = warnings::deprecated_label(label) {
                found.push(format!("nodeTopology.matchLabels.{label}: {why}"));
            }
        }
        found
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.metadata("creationTimestamp").into(),
        ]
    }
}

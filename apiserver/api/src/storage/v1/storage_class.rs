//! StorageClass: how volumes that are asked for are made.

use std::collections::{BTreeMap, BTreeSet};

use coracle_clock::Timestamp;
use serde_json::Value;

use super::{driver, forbid_updates, parameters};
use crate::core::v1::pod_spec::warnings;
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::object::default_value;
use crate::validation::selectors;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of storage classes.
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
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
    strategy: &StorageClass,
};

/// StorageClass: how volumes that are asked for are made.
pub struct StorageClass;

/// Whether claims that name no class get this one.
pub fn is_default(class: &Object) -> bool {
    let annotations = class.at("metadata.annotations");
    [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .iter()
    .any(|key| annotations.entry(key).str() == "true")
}

impl Strategy for StorageClass {
    fn default(&self, object: &mut Object) {
        default_value(object.root_mut(), "reclaimPolicy", || "Delete".into());
        default_value(object.root_mut(), "volumeBindingMode", || {
            "Immediate".into()
        });
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        driver(&new.at("provisioner"), errors);
        parameters(&new.at("parameters"), errors);
        let policy = new.at("reclaimPolicy");
        if !policy.is_empty() {
            errors.one_of(&policy, &["Delete", "Retain"]);
        }
        errors.one_of(
            &new.at("volumeBindingMode"),
            &["Immediate", "WaitForFirstConsumer"],
        );
        topologies(&new.at("allowedTopologies"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let fields = ["parameters", "provisioner", "reclaimPolicy"];
        forbid_updates(new, old, &fields, errors);
        errors.unchanged(new, old, &["volumeBindingMode"]);
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let topologies = new.at("allowedTopologies");
        let mut found = Vec::new();
        for topology in topologies.items() {
            for expression in topology.key("matchLabelExpressions").items() {
                let key = expression.key("key");
                let why = warnings::deprecated_label(key.str());
                found.extend(why.map(|why| format!("{}: {why}", key.path())));
            }
        }
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut name = object.name().to_owned();
        if is_default(object) {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            object.at("provisioner").str().into(),
            object.at("reclaimPolicy").str().into(),
            object.at("volumeBindingMode").str().into(),
            object.at("allowVolumeExpansion").is_true().into(),
            age(object, now),
        ]
    }
}

/// Reports what is wrong with the places where volumes may be made.
fn topologies(at: &At<'_>, errors: &mut FieldErrors) {
    // Upstream compares every term with those before it, and with as many empty ones as there are terms.
    let mut seen: Vec<BTreeMap<String, BTreeSet<String>>> = vec![BTreeMap::new(); at.len()];
    for term in at.items() {
        let mut expressions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for requirement in term.key("matchLabelExpressions").items() {
            let values = requirement.key("values");
            let mut set = BTreeSet::new();
            if values.is_empty() {
                errors.required(&values, "");
            }
            for value in values.items() {
                if !set.insert(value.str().to_owned()) {
                    errors.duplicate(&value);
                }
            }
            let key = requirement.key("key");
            selectors::label_key(&key, errors);
            if expressions.insert(key.str().to_owned(), set).is_some() {
                errors.push(ErrorType::Duplicate, key.path(), Some(key.str().into()), "");
            }
        }
        for _ in seen.iter().filter(|other| **other == expressions) {
            let path = term.key("matchLabelExpressions").path().to_owned();
            errors.push(ErrorType::Duplicate, &path, Some("".into()), "");
        }
        seen.push(expressions);
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Provisioner",
        "provisioner indicates the type of the provisioner.",
    ),
    Column::string(
        "ReclaimPolicy",
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage \
         class. Defaults to Delete.",
    ),
    Column::string(
        "VolumeBindingMode",
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, \
         VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling \
         feature.",
    ),
    Column::string(
        "AllowVolumeExpansion",
        "allowVolumeExpansion shows whether the storage class allow volume expand.",
    ),
    AGE,
];

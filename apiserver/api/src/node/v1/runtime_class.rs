//! RuntimeClass: a way to run containers, and what it costs.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::core::v1::pod_spec::{containers, scheduling, warnings};
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::validation::{metadata, names};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of runtime classes.
pub static RESOURCE: Resource = Resource {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: true,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &RuntimeClass,
};

/// RuntimeClass: a way to run containers, and what it costs.
pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let handler = new.at("handler");
        if handler.is_empty() {
            errors.required(&handler, "");
        } else {
            errors.text(&handler, names::dns1123_label);
        }
        let overhead = new.at("overhead.podFixed");
        if let Some(fixed) = overhead.value() {
            // Findings name it as the limits of a container.
            let limits = json!({"limits": fixed});
            let none = At::maybe(None, "");
            containers::resources(&At::root(&limits, "overhead"), &none, errors);
        }
        let rules = new.at("scheduling");
        metadata::labels(&rules.key("nodeSelector"), errors);
        scheduling::tolerations(&rules.key("tolerations"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.unchanged_texts(new, old, &["handler"]);
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let selector = new.at("scheduling.nodeSelector");
        let labels = selector.entries();
        labels
            .filter_map(|(key, _)| warnings::deprecated_label(key))
            .map(|why| format!("scheduling.nodeSelector: {why}"))
            .collect()
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("handler").str().into(),
            age(object, now),
        ]
    }
}

static COLUMNS: &[Column] = &[NAME, Column::string("Handler", ""), AGE];

//! ReplicaSet: a number of equal Pods.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::{selector_and_template, template_defaults};
use crate::core::v1::pod_spec::template;
use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, SCALE, STATUS, Storage, age, selector_text,
};
use crate::object::default_value;
use crate::validation::numbers;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of replicasets.
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[SCALE, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ReplicaSet,
};

/// ReplicaSet: a number of equal Pods.
pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Object) {
        default_value(object.map_mut("spec"), "replicas", || json!(1));
        template_defaults(object);
        default_value(object.map_mut("status"), "replicas", || json!(0));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({"replicas": 0}));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        numbers::non_negative(&spec.key("replicas"), errors);
        numbers::non_negative(&spec.key("minReadySeconds"), errors);
        selector_and_template(&spec, errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("spec.selector"), &old.at("spec.selector"));
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        template::replica_status(&new.at("status"), errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        template::template_warnings(new, old, "spec.template")
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let number = |path: &str| Value::from(object.at(path).as_i64().unwrap_or(0));
        let (containers, images) =
            template::containers_and_images(&object.at("spec.template.spec"));
        vec![
            object.name().into(),
            number("spec.replicas"),
            number("status.replicas"),
            number("status.readyReplicas"),
            age(object, now),
            containers.into(),
            images.into(),
            selector_text(&object.at("spec.selector")).into(),
        ]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Desired",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and \
         unspecified. Defaults to 1. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    Column::integer(
        "Current",
        "Replicas is the most recently observed number of non-terminating pods. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    Column::integer(
        "Ready",
        "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    ),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. Label keys and values that \
         must match in order to be controlled by this replica set. It must match the pod template's labels. \
         More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

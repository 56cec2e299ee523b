//! ReplicationController: a number of equal Pods; the forerunner of ReplicaSets.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::pod_spec::{defaults, template, validation};
use crate::field_errors::ErrorType;
use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, SCALE, STATUS, Storage, age, labels_text,
};
use crate::object::default_value;
use crate::validation::{numbers, selectors};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of replicationcontrollers.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
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
    strategy: &ReplicationController,
};

/// ReplicationController: a number of equal Pods; the forerunner of ReplicaSets.
pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Object) {
        let labels = object.at("spec.template.metadata.labels");
        if let Some(labels) = labels.value().filter(|_| !labels.is_empty()).cloned() {
            if object.at("spec.selector").is_empty() {
                object.set("spec.selector", labels.clone());
            }
            if object.at("metadata.labels").is_empty() {
                object.metadata_mut().insert("labels".to_owned(), labels);
            }
        }
        default_value(object.map_mut("spec"), "replicas", || json!(1));
        if object.at("spec.template").exists() {
            defaults::pod_spec(object.map_mut("spec.template.spec"));
        }
        object.set_default("status.replicas", 0);
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({"replicas": 0}));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        numbers::non_negative(&spec.key("minReadySeconds"), errors);
        if spec.key("selector").is_empty() {
            errors.required(&spec.key("selector"), "");
        }
        numbers::non_negative(&spec.key("replicas"), errors);
        pod_template(&spec, errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        template::replica_status(&new.at("status"), errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        template::template_warnings(new, old, "spec.template")
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let replicas = object.at("status.replicas").as_i64().unwrap_or(0);
        vec![("status.replicas", replicas.to_string())]
    }

    fn orphans_by_default(&self) -> bool {
        true
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
            labels_text(&object.at("spec.selector")).into(),
        ]
    }
}

fn pod_template(spec: &At<'_>, errors: &mut FieldErrors) {
    let (selector, pods) = (spec.key("selector"), spec.key("template"));
    if !pods.exists() {
        return errors.required(&pods, "");
    }
    let labels = pods.at("metadata.labels");
    // The selector is a map of labels here.
    let as_selector = json!({"matchLabels": selector.value()});
    if !selector.is_empty() && !selectors::matches(&At::root(&as_selector, ""), &labels) {
        errors.push(
            ErrorType::Invalid,
            labels.path(),
            labels.value().cloned().or(Some(Value::Null)),
            "`selector` does not match template `labels`",
        );
    }
    validation::template(&pods, errors);
    let replicas = spec.key("replicas").as_i64().unwrap_or(0);
    template::shared_disks(&pods, replicas, errors);
    template::always_running(&pods, "ReplicationController", errors);
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Desired",
        "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and \
         unspecified. Defaults to 1. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    Column::integer(
        "Current",
        "Replicas is the most recently observed number of replicas. More info: \
         https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    Column::integer(
        "Ready",
        "The number of ready replicas for this replication controller.",
    ),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is \
         defaulted to the labels present on the Pod template. Label keys and values that must match in order to be \
         controlled by this replication controller, if empty defaulted to labels on Pod template. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(spec: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "x"}, "spec": spec});
        let mut object = Object::from_value(object).expect("an object");
        ReplicationController.default(&mut object);
        let mut errors = FieldErrors::default();
        ReplicationController.validate(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn accepted_and_refused_side_by_side() {
        let pods = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
        assert!(findings(json!({"template": pods})).is_empty());
        assert_eq!(
            findings(json!({})),
            [
                "spec.selector: Required value",
                "spec.template: Required value"
            ]
        );
        assert_eq!(
            findings(json!({"template": pods, "selector": {"c": "d"}})),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
    }
}

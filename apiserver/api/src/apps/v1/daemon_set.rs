//! DaemonSet: one Pod on every node that it selects.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use super::{amount, amount_invalid, at_most_all, number_or_percentage, template_defaults};
use crate::core::v1::pod_spec::{template, validation, warnings};
use crate::field_errors::ErrorType;
use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age, labels_text, selector_text,
};
use crate::object::{default_text, default_value};
use crate::schema::internal_form;
use crate::validation::{numbers, selectors};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of daemonsets.
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &DaemonSet,
};

/// Where clients of old versions find how often the template has changed; the server alone writes it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// DaemonSet: one Pod on every node that it selects.
pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_value(spec, "updateStrategy", || json!({}));
        if let Some(strategy) = spec
            .get_mut("updateStrategy")
            .and_then(Value::as_object_mut)
        {
            default_text(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate" {
                default_value(strategy, "rollingUpdate", || json!({}));
                if let Some(rolling) = strategy
                    .get_mut("rollingUpdate")
                    .and_then(Value::as_object_mut)
                {
                    default_value(rolling, "maxUnavailable", || json!(1));
                    default_value(rolling, "maxSurge", || json!(0));
                }
            }
        }
        default_value(spec, "revisionHistoryLimit", || json!(10));
        template_defaults(object);
        let generation = template_generation(object);
        set_template_generation(object, generation);
        for count in COUNTS {
            object.set_default(&format!("status.{count}"), 0);
        }
    }

    fn prepare_for_create(&self, new: &mut Object) {
        let generation = template_generation(new).max(1);
        set_template_generation(new, generation);
        let counts = COUNTS.map(|count| (count.to_owned(), json!(0)));
        new.set("status", Value::Object(counts.into_iter().collect()));
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        let changed = new.at("spec.template").value() != old.at("spec.template").value();
        set_template_generation(new, template_generation(old) + i64::from(changed));
    }

    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        set_template_generation(new, template_generation(old));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        let (selector, pods) = (spec.key("selector"), spec.key("template"));
        selectors::label_selector(&selector, errors);
        let labels = pods.at("metadata.labels");
        if selectors::is_valid(&selector) && !selectors::matches(&selector, &labels) {
            errors.invalid(&labels, "`selector` does not match template `labels`");
        }
        if selector.exists() && selectors::is_empty(&selector) {
            errors.invalid(&selector, "empty selector is invalid for daemonset");
        }
        validation::template(&pods, errors);
        template::always_running(&pods, "DaemonSet", errors);
        numbers::non_negative(&spec.key("minReadySeconds"), errors);
        update_strategy(&spec.key("updateStrategy"), errors);
        numbers::non_negative(&spec.key("revisionHistoryLimit"), errors);
    }

    fn validate_replacement(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("spec.selector"), &old.at("spec.selector"));
        self.validate(new, errors);
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let status = new.at("status");
        for field in COUNTS.into_iter().chain([
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ]) {
            numbers::non_negative(&status.key(field), errors);
        }
        template::collisions(new, old, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let changed = old.is_none_or(|old| template_generation(new) != template_generation(old));
        if changed {
            warnings::template(&new.at("spec.template"))
        } else {
            Vec::new()
        }
    }

    fn metadata_form(&self, metadata: &mut Map<String, Value>) {
        // Upstream adds this annotation as it writes a DaemonSet, and here it does not write one.
        if let Some(Value::Object(annotations)) = metadata.get_mut("annotations")
            && annotations.shift_remove(TEMPLATE_GENERATION).is_some()
            && annotations.is_empty()
        {
            metadata.shift_remove("annotations");
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec.template.spec");
        let count = |field: &str| {
            let at = object.at("status").key(field);
            Value::from(at.as_i64().unwrap_or(0))
        };
        let (containers, images) = template::containers_and_images(&spec);
        vec![
            object.name().into(),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            labels_text(&spec.key("nodeSelector")).into(),
            age(object, now),
            containers.into(),
            images.into(),
            selector_text(&object.at("spec.selector")).into(),
        ]
    }
}

/// The counts that a status always has.
const COUNTS: [&str; 4] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
];

fn template_generation(object: &Object) -> i64 {
    let annotation = object.at("metadata.annotations").entry(TEMPLATE_GENERATION);
    annotation.str().parse().unwrap_or(0)
}

fn set_template_generation(object: &mut Object, generation: i64) {
    object.map_mut("metadata.annotations").insert(
        TEMPLATE_GENERATION.to_owned(),
        generation.to_string().into(),
    );
}

fn update_strategy(strategy: &At<'_>, errors: &mut FieldErrors) {
    let rolling = strategy.key("rollingUpdate");
    match strategy.key("type").str() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.exists() => errors.required(&rolling, ""),
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.push(
            ErrorType::NotSupported,
            strategy.path(),
            Some(internal_form(
                "io.k8s.api.apps.v1.DaemonSetUpdateStrategy",
                strategy.value(),
            )),
            "supported values: \"RollingUpdate\", \"OnDelete\"",
        ),
    }
}

/// Either Pods may be missing during an update, or there may be more of them, but not both.
fn rolling_update(rolling: &At<'_>, errors: &mut FieldErrors) {
    let (unavailable, surge) = (rolling.key("maxUnavailable"), rolling.key("maxSurge"));
    number_or_percentage(&unavailable, errors);
    number_or_percentage(&surge, errors);
    at_most_all(&unavailable, errors);
    at_most_all(&surge, errors);
    match (amount(&unavailable) != 0, amount(&surge) != 0) {
        (true, true) => amount_invalid(
            &surge,
            "may not be set when maxUnavailable is non-zero",
            errors,
        ),
        (false, false) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Desired",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the \
         daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    Column::integer(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More \
         info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    Column::integer(
        "Ready",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon \
         pod running with a Ready Condition.",
    ),
    Column::integer(
        "Up-to-date",
        "The total number of nodes that are running updated daemon pod",
    ),
    Column::integer(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and \
         available (ready for at least spec.minReadySeconds)",
    ),
    Column::string(
        "Node Selector",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a \
         node's labels for the pod to be scheduled on that node. More info: \
         https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must \
         match the pod template's labels. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set(rolling: Value) -> Object {
        let labels = json!({"app": "x"});
        let mut object = Object::from_value(json!({
            "metadata": {"name": "x"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}},
                "updateStrategy": {"rollingUpdate": rolling},
            },
        }))
        .expect("an object");
        DaemonSet.default(&mut object);
        DaemonSet.prepare_for_create(&mut object);
        object
    }

    fn findings(object: &Object) -> Vec<String> {
        let mut errors = FieldErrors::default();
        DaemonSet.validate(object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn accepted_and_refused_side_by_side() {
        for rolling in [
            json!({}),
            json!({"maxUnavailable": "20%"}),
            json!({"maxUnavailable": 0, "maxSurge": 2}),
        ] {
            assert_eq!(findings(&daemon_set(rolling)), Vec::<String>::new());
        }
        let refused = [
            (
                json!({"maxUnavailable": 0}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                json!({"maxSurge": 1}),
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is \
                 non-zero",
            ),
            (
                json!({"maxUnavailable": "101%"}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than \
                 100%",
            ),
        ];
        for (rolling, finding) in refused {
            assert_eq!(findings(&daemon_set(rolling)), [finding]);
        }
    }

    #[test]
    fn changes_of_the_template_are_counted() {
        let old = daemon_set(json!({}));
        let mut new = old.clone();
        new.remove("metadata.annotations");
        DaemonSet.prepare_for_update(&mut new, &old);
        assert_eq!(template_generation(&new), 1);
        new.set("spec.template.spec.nodeName", "n");
        DaemonSet.prepare_for_update(&mut new, &old);
        assert_eq!(template_generation(&new), 2);
    }
}

//! HorizontalPodAutoscaler: how many replicas something has, by what is measured. This version is the stored one.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use super::validation;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::object::default_value;
use crate::validation::numbers;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Metrics that a row shows.
const SHOWN_METRICS: usize = 2;

/// What the pipeline knows of autoscalers.
pub static RESOURCE: Resource = Resource {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
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
    strategy: &HorizontalPodAutoscaler,
};

/// HorizontalPodAutoscaler: how many replicas something has, by what is measured.
pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_value(spec, "minReplicas", || json!(1));
        if spec
            .get("metrics")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
        {
            spec.insert("metrics".to_owned(), json!([default_metric()]));
        }
        default_behavior(spec);
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set(
            "status",
            json!({"desiredReplicas": 0, "currentMetrics": null}),
        );
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        validation::spec(&new.at("spec"), None, errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        validation::spec(&new.at("spec"), Some(&old.at("spec")), errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        for field in ["currentReplicas", "desiredReplicas"] {
            numbers::non_negative(&new.at("status").key(field), errors);
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (object.at("spec"), object.at("status"));
        let target = spec.key("scaleTargetRef");
        let reference = format!("{}/{}", target.key("kind").str(), target.key("name").str());
        let least = match spec.key("minReplicas").as_i64() {
            Some(number) => number.to_string(),
            None => "<unset>".to_owned(),
        };
        vec![
            object.name().into(),
            reference.into(),
            metrics_text(&spec.key("metrics"), &status.key("currentMetrics")).into(),
            least.into(),
            spec.key("maxReplicas").as_i64().unwrap_or(0).into(),
            status.key("currentReplicas").as_i64().unwrap_or(0).into(),
            age(object, now),
        ]
    }
}

/// What is measured when nothing is said.
pub(crate) fn default_metric() -> Value {
    json!({
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    })
}

/// Fills in the rules of both directions, if there are any.
pub(crate) fn default_behavior(spec: &mut Map<String, Value>) {
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else {
        return;
    };
    let double = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let four = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    let directions = [
        ("scaleUp", Some(0), vec![four, double.clone()]),
        ("scaleDown", None, vec![double]),
    ];
    for (direction, window, policies) in directions {
        let rules = behavior.entry(direction).or_insert_with(|| json!({}));
        if rules.is_null() {
            *rules = json!({});
        }
        let Some(rules) = rules.as_object_mut() else {
            continue;
        };
        if let Some(seconds) = window {
            default_value(rules, "stabilizationWindowSeconds", || json!(seconds));
        }
        default_value(rules, "selectPolicy", || json!("Max"));
        default_value(rules, "policies", || Value::Array(policies));
    }
}

/// What is measured and wanted, on one line.
fn metrics_text(specs: &At<'_>, statuses: &At<'_>) -> String {
    let mut texts: Vec<String> = specs
        .items()
        .enumerate()
        .map(|(index, spec)| metric_text(&spec, &statuses.index(index)))
        .collect();
    if texts.is_empty() {
        return "<none>".to_owned();
    }
    let more = texts.len().saturating_sub(SHOWN_METRICS);
    texts.truncate(SHOWN_METRICS);
    match more {
        0 => texts.join(", "),
        more => format!("{} + {more} more...", texts.join(", ")),
    }
}

fn metric_text(spec: &At<'_>, status: &At<'_>) -> String {
    let (field, name) = match spec.key("type").str() {
        "External" => ("external", None),
        "Pods" => ("pods", None),
        "Object" => ("object", None),
        "Resource" => ("resource", Some(spec.at("resource.name"))),
        "ContainerResource" => ("containerResource", Some(spec.at("containerResource.name"))),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (
        spec.key(field).key("target"),
        status.key(field).key("current"),
    );
    let text = |at: At<'_>| match at.value() {
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => "<unknown>".to_owned(),
    };
    let share = |at: At<'_>| at.as_i64().map(|percent| format!("{percent}%"));
    let average = target.key("averageValue").exists();
    if let Some(name) = name {
        let (now, wanted) = if average {
            (
                text(current.key("averageValue")),
                text(target.key("averageValue")),
            )
        } else {
            let unknown = || "<unknown>".to_owned();
            (
                share(current.key("averageUtilization")).unwrap_or_else(unknown),
                share(target.key("averageUtilization")).unwrap_or_else(|| "<auto>".to_owned()),
            )
        };
        return format!("{}: {now}/{wanted}", name.str());
    }
    let amount = if average { "averageValue" } else { "value" };
    let suffix = if average && field != "pods" {
        " (avg)"
    } else {
        ""
    };
    format!(
        "{}/{}{suffix}",
        text(current.key(amount)),
        text(target.key(amount))
    )
}

pub(crate) static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Reference",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics \
         should be collected, as well as to actually change the replica count.",
    ),
    Column::string(
        "Targets",
        "metrics contains the specifications for which to use to calculate the desired replica count (the \
         maximum replica count across all metrics will be used).  The desired replica count is calculated \
         multiplying the ratio between the target value and the current value by the current number of \
         pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the \
         individual metric source types for more information about how each type of metric must respond. If not \
         set, the default metric will be set to 80% average CPU utilization.",
    ),
    Column::string(
        "MinPods",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It \
         defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled \
         and at least one Object or External metric is configured.  Scaling is active as long as at least one \
         metric value is available.",
    ),
    Column::string(
        "MaxPods",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It \
         cannot be less that minReplicas.",
    ),
    Column::string(
        "Replicas",
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the \
         autoscaler.",
    ),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn autoscaler(spec: Value) -> Object {
        let mut object = Object::from_value(json!({"spec": spec})).expect("an object");
        HorizontalPodAutoscaler.default(&mut object);
        object
    }

    fn findings(spec: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        HorizontalPodAutoscaler.validate_create(&autoscaler(spec), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_target_and_a_maximum_are_enough() {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let with = |field: &str, value: Value| {
            let mut spec = json!({"scaleTargetRef": target, "maxReplicas": 3});
            spec[field] = value;
            spec
        };
        assert_eq!(
            findings(with("minReplicas", json!(1))),
            Vec::<String>::new()
        );
        for refused in [
            with("maxReplicas", json!(-1)),
            with("minReplicas", json!(4)),
            with("metrics", json!([{"type": "Pods"}])),
            with("behavior", json!({"scaleUp": {"policies": []}})),
            with(
                "behavior",
                json!({"scaleDown": {"stabilizationWindowSeconds": 3601}}),
            ),
        ] {
            assert!(!findings(refused.clone()).is_empty(), "{refused}");
        }
    }

    #[test]
    fn rows_show_what_is_measured() {
        let mut object = autoscaler(
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}),
        );
        let row = |object: &Object| {
            let now = "2030-01-01T00:00:00Z".parse().expect("a time");
            HorizontalPodAutoscaler.cells(object, now)[2].clone()
        };
        assert_eq!(row(&object), "cpu: <unknown>/80%");
        let current = json!({"averageUtilization": 50, "averageValue": "5m"});
        object.set(
            "status.currentMetrics",
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}]),
        );
        assert_eq!(row(&object), "cpu: 50%/80%");
    }
}

//! HorizontalPodAutoscaler as it was before it could measure more than CPU; what it has no fields for is in annotations.
//!
//! ```text
//! v2, stored                                       v1
//! spec.metrics  the first CPU utilization   ◀──▶  spec.targetCPUUtilizationPercentage
//!               the others                  ◀──▶  annotation …/metrics
//! spec.behavior                             ◀──▶  annotation …/behavior
//! status.currentMetrics                     ◀──▶  annotation …/current-metrics
//! status.conditions                         ◀──▶  annotation …/conditions
//! ```

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use super::metrics;
use crate::autoscaling::v2::horizontal_pod_autoscaler as v2;
use crate::kinds::{ALL_VERBS, NameRule, STATUS, Storage};
use crate::object::default_value;
use crate::schema::{SchemaRef, decode_value, go_form};
use crate::{Object, Resource, Strategy};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// What the pipeline knows of autoscalers in this version.
pub static RESOURCE: Resource = Resource {
    group: "autoscaling",
    version: "v1",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: v2::COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::SharedWith("autoscaling", "horizontalpodautoscalers"),
    deprecation: None,
    strategy: &HorizontalPodAutoscaler,
};

/// HorizontalPodAutoscaler as it was before it could measure more than CPU.
pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Object) {
        default_value(object.map_mut("spec"), "minReplicas", || json!(1));
    }

    fn to_stored(&self, object: Object) -> Object {
        to_v2(object)
    }

    fn to_served(&self, object: Object) -> Object {
        to_v1(object)
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        v2::HorizontalPodAutoscaler.cells(&to_v2(object.clone()), now)
    }
}

fn schema(version: &str) -> SchemaRef {
    SchemaRef::for_kind("autoscaling", version, "HorizontalPodAutoscaler")
        .unwrap_or_else(SchemaRef::any)
}

/// The object with its fields in Go's order, and those that Go always writes.
fn written(root: Map<String, Value>, version: &str) -> Object {
    let whole = Value::Object(root);
    let decoded = decode_value(whole.clone(), &schema(version)).map(|decoded| decoded.value);
    Object::from_value(decoded.unwrap_or(whole)).unwrap_or_default()
}

/// Takes the annotations that stand for fields off the object.
fn take_annotations(object: &mut Object) -> [Option<Value>; 4] {
    let Some(annotations) = object
        .get_mut("metadata.annotations")
        .and_then(Value::as_object_mut)
    else {
        return Default::default();
    };
    let taken = [METRICS, BEHAVIOR, CURRENT_METRICS, CONDITIONS].map(|key| {
        let text = annotations.shift_remove(key)?;
        serde_json::from_str(text.as_str()?).ok()
    });
    if annotations.is_empty() {
        object.metadata_mut().shift_remove("annotations");
    }
    taken
}

fn to_v2(mut object: Object) -> Object {
    let [others, behavior, current, conditions] = take_annotations(&mut object);
    object.set("apiVersion", "autoscaling/v2");
    let spec = object.map_mut("spec");
    let mut measured: Vec<Value> = match others {
        Some(Value::Array(others)) => others.iter().map(metrics::spec_to_v2).collect(),
        _ => Vec::new(),
    };
    if let Some(percent) = spec
        .shift_remove("targetCPUUtilizationPercentage")
        .filter(|percent| !percent.is_null())
    {
        let mut cpu = v2::default_metric();
        cpu["resource"]["target"]["averageUtilization"] = percent;
        measured.push(cpu);
    }
    if measured.is_empty() {
        measured.push(v2::default_metric());
    }
    spec.insert("metrics".to_owned(), Value::Array(measured));
    let behavior = behavior.map(|behavior| metrics::json_names(&behavior));
    let said = |behavior: &Value| behavior.as_object().is_some_and(|map| !map.is_empty());
    if let Some(behavior) = behavior.filter(said) {
        spec.insert("behavior".to_owned(), behavior);
        v2::default_behavior(spec);
    }
    let status = object.map_mut("status");
    let percent = status
        .shift_remove("currentCPUUtilizationPercentage")
        .filter(|percent| !percent.is_null());
    let current = match current {
        Some(Value::Array(current)) => {
            Value::Array(current.iter().map(metrics::status_to_v2).collect())
        }
        _ => percent.map_or(Value::Null, |percent| {
            let current = json!({"averageUtilization": percent});
            json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}])
        }),
    };
    status.insert("currentMetrics".to_owned(), current);
    if let Some(conditions @ Value::Array(_)) = conditions {
        status.insert("conditions".to_owned(), conditions);
    }
    written(std::mem::take(object.root_mut()), "v2")
}

/// The share of CPU that a metric of the stored version asks for or reports, if it is about that.
fn cpu_share<'a>(metric: &'a Value, place: &str) -> Option<&'a Value> {
    let resource = metric.get("resource")?;
    let about_cpu =
        metric.get("type")?.as_str()? == "Resource" && resource.get("name")?.as_str()? == "cpu";
    let share = resource.get(place)?.get("averageUtilization")?;
    (about_cpu && !share.is_null()).then_some(share)
}

fn to_v1(mut object: Object) -> Object {
    take_annotations(&mut object);
    object.set("apiVersion", "autoscaling/v1");
    let list = |value: Option<Value>| match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let text = |value: &Value| Value::String(value.to_string());
    let mut annotations: Vec<(&str, Value)> = Vec::new();
    let spec = object.map_mut("spec");
    let measured = list(spec.shift_remove("metrics"));
    let (shares, others): (Vec<&Value>, Vec<&Value>) = measured
        .iter()
        .partition(|metric| cpu_share(metric, "target").is_some());
    if let Some(share) = shares
        .first()
        .and_then(|metric| cpu_share(metric, "target"))
    {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), share.clone());
    }
    if !others.is_empty() {
        let others = others.into_iter().map(metrics::spec_to_v1).collect();
        annotations.push((METRICS, text(&Value::Array(others))));
    }
    if let Some(behavior) = spec
        .shift_remove("behavior")
        .filter(|value| !value.is_null())
    {
        let form = schema("v2")
            .child("spec")
            .and_then(|spec| spec.child("behavior"));
        let shown = form.map_or(Value::Null, |form| go_form(&behavior, &form));
        annotations.push((BEHAVIOR, text(&shown)));
    }
    let status = object.map_mut("status");
    let current = list(status.shift_remove("currentMetrics"));
    if let Some(share) = current
        .iter()
        .filter_map(|metric| cpu_share(metric, "current"))
        .next_back()
    {
        status.insert("currentCPUUtilizationPercentage".to_owned(), share.clone());
    }
    if !current.is_empty() {
        let current = current.iter().map(metrics::status_to_v1).collect();
        annotations.push((CURRENT_METRICS, text(&Value::Array(current))));
    }
    let conditions = list(status.shift_remove("conditions"));
    if !conditions.is_empty() {
        annotations.push((CONDITIONS, text(&Value::Array(conditions))));
    }
    for (key, value) in annotations {
        object
            .map_mut("metadata.annotations")
            .insert(key.to_owned(), value);
    }
    written(std::mem::take(object.root_mut()), "v1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_older_version_lacks_survives_in_annotations() {
        let stored = json!({
            "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2",
            "metadata": {"name": "x", "annotations": {"own": "1"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
                "minReplicas": 1, "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "External", "external": {"metric": {"name": "e"}, "target": {"type": "Value", "value": "5"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                ],
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
                    "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                },
            },
            "status": {"currentReplicas": 1, "desiredReplicas": 2, "currentMetrics": null, "conditions": [
                {"type": "AbleToScale", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z", "reason": "R"},
            ]},
        });
        let stored = Object::from_value(stored).expect("an object");
        let older = to_v1(stored.clone());
        assert_eq!(
            older.at("spec.targetCPUUtilizationPercentage").as_i64(),
            Some(60)
        );
        let annotations = older.at("metadata.annotations");
        assert_eq!(annotations.len(), 4);
        assert!(
            annotations
                .entry(METRICS)
                .str()
                .contains(r#"{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"10"}}"#)
        );
        assert!(
            annotations
                .entry(BEHAVIOR)
                .str()
                .starts_with(r#"{"ScaleUp":{"StabilizationWindowSeconds":0,"#)
        );
        assert_eq!(to_v2(older), stored);
    }
}

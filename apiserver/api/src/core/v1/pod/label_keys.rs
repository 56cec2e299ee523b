//! What a new pod's own labels add to what it looks for in other pods (upstream's `mutatePodAffinity` and
//! `mutateTopologySpreadConstraints`).

use serde_json::{Map, Value, json};

use crate::Object;
use crate::object::each_object;

/// Turns the keys of labels into expressions of the selectors beside them, with the pod's values.
pub(super) fn merge(pod: &mut Object) {
    let labels = pod.at("metadata.labels").value().cloned();
    let Some(Value::Object(labels)) = labels else {
        return;
    };
    let spec = pod.map_mut("spec");
    each_object(spec, "topologySpreadConstraints", |constraint| {
        select(constraint, "matchLabelKeys", "In", &labels);
    });
    let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) else {
        return;
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(kind) = affinity.get_mut(kind).and_then(Value::as_object_mut) else {
            continue;
        };
        let term = |term: &mut Map<String, Value>| {
            select(term, "matchLabelKeys", "In", &labels);
            select(term, "mismatchLabelKeys", "NotIn", &labels);
        };
        each_object(
            kind,
            "preferredDuringSchedulingIgnoredDuringExecution",
            |preferred| {
                let own = preferred.get_mut("podAffinityTerm");
                if let Some(own) = own.and_then(Value::as_object_mut) {
                    term(own);
                }
            },
        );
        each_object(kind, "requiredDuringSchedulingIgnoredDuringExecution", term);
    }
}

/// Adds an expression for each of the `keys` that the pod has a label of.
fn select(term: &mut Map<String, Value>, keys: &str, operator: &str, labels: &Map<String, Value>) {
    let keys = term.get(keys).and_then(Value::as_array).cloned();
    // Without a selector a term matches nothing, and stays so.
    let selector = term.get_mut("labelSelector").and_then(Value::as_object_mut);
    let (Some(keys), Some(selector)) = (keys, selector) else {
        return;
    };
    let known = keys.iter().filter_map(Value::as_str);
    let known = known.filter_map(|key| Some((key, labels.get(key)?)));
    let added: Vec<Value> = known
        .map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]}))
        .collect();
    if added.is_empty() {
        return;
    }
    match selector
        .get_mut("matchExpressions")
        .and_then(Value::as_array_mut)
    {
        Some(expressions) => expressions.extend(added),
        None => drop(selector.insert("matchExpressions".to_owned(), added.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_labels_become_expressions() {
        let own = json!({"key": "o", "operator": "Exists"});
        let term = |expressions: Value| {
            json!({
                "labelSelector": {"matchExpressions": expressions}, "matchLabelKeys": ["a", "none"],
                "mismatchLabelKeys": ["b"],
            })
        };
        let pod = |terms: &Value, spread: Value| {
            let pod = json!({
                "metadata": {"name": "x", "labels": {"a": "1", "b": "2"}},
                "spec": {
                    "affinity": {
                        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [terms]},
                        "podAntiAffinity": {
                            "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": terms}],
                        },
                    },
                    "topologySpreadConstraints": [spread, {"matchLabelKeys": ["a"]}],
                },
            });
            Object::from_value(pod).expect("an object")
        };
        let spread = json!({"labelSelector": {}, "matchLabelKeys": ["b"]});
        let mut given = pod(&term(json!([own])), spread);
        merge(&mut given);
        let a = json!({"key": "a", "operator": "In", "values": ["1"]});
        let b = json!({"key": "b", "operator": "NotIn", "values": ["2"]});
        let spread = json!({
            "labelSelector": {"matchExpressions": [{"key": "b", "operator": "In", "values": ["2"]}]},
            "matchLabelKeys": ["b"],
        });
        let expected = pod(&term(json!([own, a, b])), spread);
        assert_eq!(given.root(), expected.root());
    }
}

//! Whether a pod's selector and required affinity accept a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

/// Whether the labels of its node matter to the pod.
pub(crate) fn chooses_nodes(spec: &PodSpec) -> bool {
    let selector = spec.node_selector.as_ref();
    selector.is_some_and(|selector| !selector.is_empty()) || required(spec).is_some()
}

/// Whether the pod may be on the node of that name and labels.
pub(super) fn accepts(spec: &PodSpec, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut selector = spec.node_selector.iter().flatten();
    selector.all(|(key, value)| labels.get(key) == Some(value))
        && required(spec).is_none_or(|required| {
            let mut terms = required.node_selector_terms.iter();
            terms.any(|term| matches(term, name, labels))
        })
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

/// Whether all of a term's requirements hold; an empty term holds nowhere.
fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| {
            let value = labels.get(&requirement.key).map(String::as_str);
            holds(requirement, value)
        })
        && fields
            .iter()
            .all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.iter().any(|other| other == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let (value_number, limit) = (number(value), number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => matches!((value_number, limit), (Some(value), Some(limit)) if value > limit),
        "Lt" => matches!((value_number, limit), (Some(value), Some(limit)) if value < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn accepted(term: Value) -> bool {
        let required = json!({"nodeSelectorTerms": [term]});
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
        let spec = json!({"containers": [], "affinity": affinity});
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        assert!(chooses_nodes(&spec));
        let labels = [("disk", "ssd"), ("cores", "8")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        accepts(&spec, "node-a", &labels.into())
    }

    #[test]
    fn requirements_hold_or_not() {
        let labels = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (term, expected) in [
            (labels("disk", "In", &["ssd", "nvme"]), true),
            (labels("disk", "NotIn", &["ssd"]), false),
            (labels("gpu", "Exists", &[]), false),
            (labels("gpu", "DoesNotExist", &[]), true),
            (labels("cores", "Gt", &["4"]), true),
            (labels("cores", "Lt", &["4"]), false),
            (labels("cores", "Sometimes", &["4"]), false),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]}),
                true,
            ),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-b"]}]}),
                false,
            ),
            (json!({}), false),
        ] {
            assert_eq!(accepted(term.clone()), expected, "{term}");
        }
    }
}

//! Which nodes a Pod may or would like to run on: selectors, affinity, taints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint,
    Toleration,
};

/// Whether the Pod's node selector and required node affinity accept the node.
pub(crate) fn accepts(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = pod.spec.as_ref() else {
        return true;
    };
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = node_affinity(pod).and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected && required.is_none_or(|required| selects(required, node))
}

/// Whether any term of the selector picks the node.
pub(crate) fn selects(selector: &NodeSelector, node: &Node) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| matches(term, node))
}

/// The sum of the weights of the preferences that the node meets.
pub(crate) fn preference(pod: &Pod, node: &Node) -> i64 {
    let preferred = node_affinity(pod).and_then(|affinity| {
        affinity
            .preferred_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let met = preferred
        .into_iter()
        .flatten()
        .filter(|preferred| matches(&preferred.preference, node));
    met.map(|preferred| i64::from(preferred.weight)).sum()
}

/// The first taint with one of these effects that the Pod does not tolerate.
pub(crate) fn untolerated<'a>(pod: &Pod, node: &'a Node, effects: &[&str]) -> Option<&'a Taint> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    taints
        .iter()
        .find(|taint| effects.contains(&taint.effect.as_str()) && !tolerates(pod, taint))
}

/// How many taints advise against the node.
pub(crate) fn advised_against(pod: &Pod, node: &Node) -> usize {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    taints
        .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerates(pod, taint))
        .count()
}

/// Whether the Pod tolerates being put on a node that takes no new Pods.
pub(crate) fn tolerates_unschedulable(pod: &Pod) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    };
    tolerates(pod, &taint)
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let tolerations = pod
        .spec
        .iter()
        .flat_map(|spec| spec.tolerations.iter().flatten());
    tolerations
        .into_iter()
        .any(|toleration| tolerated_by(toleration, taint))
}

fn tolerated_by(toleration: &Toleration, taint: &Taint) -> bool {
    let said = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (said(&toleration.effect), said(&toleration.key));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let (value, taint_value) = (
        said(&toleration.value),
        taint.value.clone().unwrap_or_default(),
    );
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => value == taint_value,
        Some("Exists") => true,
        Some(operator @ ("Gt" | "Lt")) => {
            match (taint_value.parse::<i64>(), value.parse::<i64>()) {
                (Ok(taint), Ok(limit)) if operator == "Gt" => taint > limit,
                (Ok(taint), Ok(limit)) => taint < limit,
                _ => false,
            }
        }
        Some(_) => false,
    }
}

fn node_affinity(pod: &Pod) -> Option<&NodeAffinity> {
    pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()
}

/// Whether all of a term's requirements hold; an empty term holds nowhere.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.metadata.name.clone();
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|requirement| {
            let value = node
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(&requirement.key));
            holds(requirement, value)
        })
        && fields.iter().all(|requirement| {
            requirement.key == "metadata.name" && holds(requirement, name.as_ref())
        })
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = value.is_some_and(|value| values.contains(value));
    let number = |text: Option<&String>| text.and_then(|text| text.parse::<i64>().ok());
    match requirement.operator.as_str() {
        "In" => among,
        "NotIn" => !among,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => {
            matches!((number(value), number(values.first())), (Some(value), Some(limit)) if value > limit)
        }
        "Lt" => {
            matches!((number(value), number(values.first())), (Some(value), Some(limit)) if value < limit)
        }
        _ => false,
    }
}

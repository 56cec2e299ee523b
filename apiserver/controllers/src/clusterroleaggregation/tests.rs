use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::reconcile::{World, reconcile};

fn rule(resource: &str) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: vec!["get".to_owned()],
        ..Default::default()
    }
}

/// A role with a label `to: LABEL` and rules about resources.
fn role(name: &str, label: &str, resources: &[&str]) -> ClusterRole {
    ClusterRole {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([("to".to_owned(), label.to_owned())])),
            ..Default::default()
        },
        rules: Some(resources.iter().map(|resource| rule(resource)).collect()),
        ..Default::default()
    }
}

/// The same, gathering from roles that are labelled with one of `from`.
fn gathering(role: ClusterRole, from: &[&str]) -> ClusterRole {
    let selector = |label: &&str| LabelSelector {
        match_labels: Some(BTreeMap::from([("to".to_owned(), (*label).to_owned())])),
        ..Default::default()
    };
    ClusterRole {
        aggregation_rule: Some(AggregationRule {
            cluster_role_selectors: Some(from.iter().map(selector).collect()),
        }),
        ..role
    }
}

fn world(role: &ClusterRole, others: &[ClusterRole]) -> World {
    let all = others.iter().chain([role]).cloned().map(Arc::new);
    World {
        role: Arc::new(role.clone()),
        all: all.collect(),
    }
}

fn gathered(rules: &[PolicyRule]) -> Vec<&str> {
    let resources = rules
        .iter()
        .flat_map(|rule| rule.resources.iter().flatten());
    resources.map(String::as_str).collect()
}

#[test]
fn rules_come_from_each_selector_by_name_and_once() {
    let others = [
        role("z", "edit", &["secrets", "pods"]),
        role("a", "edit", &["pods"]),
        role("m", "view", &["nodes"]),
        role("other", "nobody", &["leases"]),
    ];
    let edit = gathering(role("edit", "edit", &["stale"]), &["view", "edit"]);
    let rules = reconcile(&world(&edit, &others)).expect("the rules are others");
    assert_eq!(gathered(&rules), ["nodes", "pods", "secrets"]);
    let settled = ClusterRole {
        rules: Some(rules),
        ..edit
    };
    assert_eq!(reconcile(&world(&settled, &others)), None);
}

#[test]
fn a_role_that_gathers_nothing_is_left_without_rules() {
    let lonely = gathering(role("lonely", "x", &["stale"]), &["nobody-has-it"]);
    assert_eq!(reconcile(&world(&lonely, &[])), Some(Vec::new()));
    let empty = ClusterRole {
        rules: None,
        ..lonely
    };
    assert_eq!(reconcile(&world(&empty, &[])), None);
}

#[test]
fn a_role_without_an_aggregation_rule_keeps_its_own() {
    let plain = role("plain", "edit", &["pods"]);
    assert_eq!(
        reconcile(&world(&plain, &[role("a", "edit", &["nodes"])])),
        None
    );
}

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::reconcile::{Change, GRACE, World, look_again, reconcile};
use crate::fixtures::{now, pod};

fn node(ready: Option<&str>, taints: &[(&str, &str)]) -> Node {
    let condition = |status: &str| NodeCondition {
        type_: "Ready".into(),
        status: status.into(),
        ..Default::default()
    };
    let taint = |(key, effect): &(&str, &str)| Taint {
        key: (*key).into(),
        effect: (*effect).into(),
        ..Default::default()
    };
    Node {
        metadata: ObjectMeta {
            name: Some("a".into()),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            taints: Some(taints.iter().map(taint).collect()),
            ..Default::default()
        }),
        status: Some(NodeStatus {
            conditions: ready.map(|ready| vec![condition(ready)]),
            ..Default::default()
        }),
    }
}

fn world(node: Node, silent_for: u64) -> World {
    World {
        node: Arc::new(node),
        pods: vec![],
        silent_for: Duration::from_secs(silent_for),
        now: now(),
    }
}

fn new_taints(changes: &[Change]) -> Vec<(String, String)> {
    let taints = changes.iter().find_map(|change| match change {
        Change::SetTaints(taints) => Some(taints.clone()),
        _ => None,
    });
    let taints = taints.unwrap_or_else(|| panic!("no taints in {changes:?}"));
    taints
        .into_iter()
        .map(|taint| (taint.key, taint.effect))
        .collect()
}

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

#[test]
fn a_lively_node_is_left_alone_until_its_grace_ends() {
    let world = world(node(Some("True"), &[]), 10);
    assert_eq!(reconcile(&world), []);
    assert_eq!(look_again(&world), Some(GRACE - Duration::from_secs(10)));
}

#[test]
fn a_silent_node_becomes_unknown_and_its_pods_not_ready() {
    let mut world = world(node(Some("True"), &[]), 40);
    world.pods = vec![
        pod("web").on("a").ready().build(),
        pod("new").on("a").build(),
    ];
    let changes = reconcile(&world);
    let Change::SetConditions(conditions) = &changes[0] else {
        panic!("got {changes:?}")
    };
    assert_eq!(conditions.len(), 4);
    assert!(
        conditions
            .iter()
            .all(|condition| condition.status == "Unknown")
    );
    assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
    assert_eq!(
        conditions[1].reason.as_deref(),
        Some("NodeStatusNeverUpdated")
    );
    let expected = [
        (UNREACHABLE.to_owned(), "NoSchedule".to_owned()),
        (UNREACHABLE.to_owned(), "NoExecute".to_owned()),
    ];
    assert_eq!(new_taints(&changes), expected);
    let marked: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::MarkNotReady(pod, condition) => {
                Some((pod.metadata.name.clone(), condition.status.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(marked, [(Some("web".to_owned()), "False".to_owned())]);
}

#[test]
fn a_node_that_is_back_loses_our_taints_and_keeps_others() {
    let tainted = node(
        Some("True"),
        &[
            (UNREACHABLE, "NoExecute"),
            ("gpu", "NoSchedule"),
            (UNREACHABLE, "NoSchedule"),
        ],
    );
    let changes = reconcile(&world(tainted, 0));
    assert_eq!(
        new_taints(&changes),
        [("gpu".to_owned(), "NoSchedule".to_owned())]
    );
}

#[test]
fn a_node_that_says_it_is_not_ready_takes_no_pods() {
    let changes = reconcile(&world(node(Some("False"), &[]), 0));
    assert_eq!(new_taints(&changes)[0].0, "node.kubernetes.io/not-ready");
    let mut cordoned = node(Some("True"), &[]);
    cordoned.spec.get_or_insert_default().unschedulable = Some(true);
    let changes = reconcile(&world(cordoned, 0));
    assert_eq!(
        new_taints(&changes),
        [(
            "node.kubernetes.io/unschedulable".to_owned(),
            "NoSchedule".to_owned()
        )]
    );
}

#[test]
fn a_world_settles_in_two_rounds() {
    for (ready, silent_for) in [
        (None, 0),
        (None, 50),
        (Some("True"), 50),
        (Some("False"), 0),
        (Some("Unknown"), 50),
    ] {
        let mut world = world(node(ready, &[]), silent_for);
        world.pods = vec![pod("web").on("a").ready().build()];
        for _ in 0..2 {
            for change in reconcile(&world) {
                let node = Arc::make_mut(&mut world.node);
                match change {
                    Change::SetConditions(new) => {
                        let conditions = node
                            .status
                            .get_or_insert_default()
                            .conditions
                            .get_or_insert_default();
                        conditions.retain(|known| !new.iter().any(|new| new.type_ == known.type_));
                        conditions.extend(new);
                    }
                    Change::SetTaints(taints) => {
                        node.spec.get_or_insert_default().taints = Some(taints)
                    }
                    Change::MarkNotReady(_, condition) => {
                        let pod = Arc::make_mut(&mut world.pods[0]);
                        pod.status.get_or_insert_default().conditions = Some(vec![*condition]);
                    }
                }
            }
        }
        assert_eq!(reconcile(&world), [], "from {ready:?} after {silent_for} s");
    }
}

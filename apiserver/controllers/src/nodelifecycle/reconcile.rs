//! What is known of a node from what it says and from its silence.

use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

/// How long a node may be silent.
pub(crate) const GRACE: Duration = Duration::from_secs(40);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep new Pods away while they hold.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];
/// Conditions that nobody but the node itself can know.
const SAID_BY_THE_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) node: Arc<Node>,
    /// The Pods bound to the node.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// How long ago the node's Lease or status was last seen to change.
    pub(crate) silent_for: Duration,
    pub(crate) now: Timestamp,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Conditions of the node that became unknown.
    SetConditions(Vec<NodeCondition>),
    /// The node's whole list of taints.
    SetTaints(Vec<Taint>),
    /// The Pod is no longer ready, as far as anyone can tell.
    MarkNotReady(Arc<Pod>, Box<PodCondition>),
}

/// Draws the conclusions from a node's silence and from what it says of itself.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let known = world
        .node
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let unknown = if world.silent_for >= GRACE {
        become_unknown(&known, world.now)
    } else {
        Vec::new()
    };
    let status_of = |type_: &str| {
        let newest = unknown
            .iter()
            .chain(&known)
            .find(|condition| condition.type_ == type_);
        newest.map(|condition| condition.status.clone())
    };
    let ready = status_of("Ready");

    let old = world
        .node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let new = taints(world, &old, ready.as_deref(), &status_of);
    if !unknown.is_empty() {
        changes.push(Change::SetConditions(unknown));
    }
    if new != old {
        changes.push(Change::SetTaints(new));
    }
    // A node that never said anything has no Pods that it could have lost.
    if ready.is_some_and(|ready| ready != "True") {
        for pod in world.pods.iter().filter(|pod| pods::is_ready(pod)) {
            let Some(condition) = pods::condition(pod, "Ready") else {
                continue;
            };
            let condition = PodCondition {
                status: "False".to_owned(),
                last_transition_time: Some(Time(world.now)),
                ..condition.clone()
            };
            changes.push(Change::MarkNotReady(pod.clone(), Box::new(condition)));
        }
    }
    changes
}

/// When to look again although nothing changes.
pub(crate) fn look_again(world: &World) -> Option<Duration> {
    Some(GRACE.saturating_sub(world.silent_for)).filter(|left| !left.is_zero())
}

fn become_unknown(known: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let unknown = |type_: &&str| match known.iter().find(|condition| condition.type_ == **type_) {
        Some(condition) if condition.status == "Unknown" => None,
        Some(condition) => Some(NodeCondition {
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusUnknown".to_owned()),
            message: Some("Kubelet stopped posting node status.".to_owned()),
            last_transition_time: Some(Time(now)),
            ..condition.clone()
        }),
        None => Some(NodeCondition {
            type_: (**type_).to_owned(),
            status: "Unknown".to_owned(),
            reason: Some("NodeStatusNeverUpdated".to_owned()),
            message: Some("Kubelet never posted node status.".to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        }),
    };
    SAID_BY_THE_NODE.iter().filter_map(unknown).collect()
}

/// The taints that follow from the conditions; all others stay as they are.
fn taints(
    world: &World,
    old: &[Taint],
    ready: Option<&str>,
    status_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        _ => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
    }
    for (condition, taint) in PRESSURES {
        if status_of(condition).as_deref() == Some("True") {
            wanted.push((taint, "NoSchedule"));
        }
    }
    if world
        .node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
    {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }

    let is_ours = |taint: &Taint| {
        let ready = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        let blocks = [UNSCHEDULABLE]
            .into_iter()
            .chain(PRESSURES.map(|(_, key)| key))
            .any(|key| key == taint.key);
        (ready && ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()))
            || (blocks && taint.effect == "NoSchedule")
    };
    let is =
        |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut taints: Vec<Taint> = old
        .iter()
        .filter(|taint| !is_ours(taint) || wanted.iter().any(|wanted| is(taint, *wanted)))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, (key, effect))) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                // Evictions count from here, which only concerns running Pods.
                time_added: (effect == "NoExecute").then_some(Time(world.now)),
                value: None,
            });
        }
    }
    taints
}

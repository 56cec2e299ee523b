//! Whether a pod that was bound to this node may run on it: upstream's `canAdmitPod`.
//!
//! The scheduler has asked the same before; a pod whose `nodeName` somebody wrote by hand was never
//! asked. One that is refused fails, with the reasons and words of pkg/kubelet/lifecycle.

mod affinity;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;

use crate::kubelet::Capacity;
use crate::resources::Requests;
use crate::step::{Failure, ResizeRefusal};

pub(crate) use affinity::chooses_nodes;

/// What comes before the words of a refusal in the status of a pod, and not in its Event.
pub(crate) const REJECTED: &str = "Pod was rejected: ";

/// What pods are measured against.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    /// Its name.
    pub(crate) name: String,
    /// What it has for pods.
    pub(crate) capacity: Capacity,
    /// Its labels as last seen.
    pub(crate) labels: BTreeMap<String, String>,
}

/// What the pods of the node have been promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pods: u64,
    requests: Requests,
}

impl Used {
    /// Promises a pod what it asks for.
    pub(crate) fn add(&mut self, requests: &Requests) {
        self.pods += 1;
        self.requests = self.requests.plus(requests);
    }

    /// Takes it back.
    pub(crate) fn subtract(&mut self, requests: &Requests) {
        self.pods = self.pods.saturating_sub(1);
        self.requests = self.requests.minus(requests);
    }
}

/// Why the pod cannot run here beside what is `used`, if so.
pub(crate) fn refusal(
    pod: &Pod,
    requests: &Requests,
    used: &Used,
    node: &NodeFacts,
) -> Option<Failure> {
    let spec = pod.spec.as_ref()?;
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Some(refused("PodOSNotSupported", message));
    }
    if let Some(missing) = missing(requests, used, &node.capacity) {
        let reason = format!("OutOf{}", missing.name);
        return Some(refused(&reason, &missing.to_string()));
    }
    if !affinity::accepts(spec, &node.name, &node.labels) {
        let message =
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(refused("NodeAffinity", message));
    }
    None
}

/// Why a pod that is let in cannot have `requests` instead of what it has, beside what others have.
pub(crate) fn resize_refusal(
    requests: &Requests,
    others: &Used,
    capacity: &Capacity,
) -> Option<ResizeRefusal> {
    if let Some(missing) = missing(requests, &Used::default(), capacity) {
        let (name, asked, capacity) = (missing.name, missing.asked, missing.capacity);
        let message = format!(
            "Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}"
        );
        return Some(ResizeRefusal::Infeasible(message));
    }
    let missing = missing(requests, others, capacity)?;
    Some(ResizeRefusal::Deferred(missing.to_string()))
}

/// A resource of which there is not enough.
struct Missing {
    name: &'static str,
    asked: u64,
    used: u64,
    capacity: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, asked, used, capacity) = (self.name, self.asked, self.used, self.capacity);
        write!(
            f,
            "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
        )
    }
}

/// The first resource of which there is not enough left.
fn missing(requests: &Requests, used: &Used, capacity: &Capacity) -> Option<Missing> {
    let (asks, held) = (requests, &used.requests);
    let resources = [
        ("pods", 1, used.pods, u64::from(capacity.pods)),
        ("cpu", asks.cpu_millis, held.cpu_millis, capacity.cpu_millis),
        ("memory", asks.memory, held.memory, capacity.memory),
        (
            "ephemeral-storage",
            asks.ephemeral_storage,
            held.ephemeral_storage,
            capacity.ephemeral_storage,
        ),
    ];
    let all = resources.map(|(name, asked, used, capacity)| Missing {
        name,
        asked,
        used,
        capacity,
    });
    all.into_iter().find(|resource| {
        resource.asked > 0 && resource.asked > resource.capacity.saturating_sub(resource.used)
    })
}

fn refused(reason: &str, message: &str) -> Failure {
    Failure {
        reason: reason.to_owned(),
        message: format!("{REJECTED}{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> NodeFacts {
        NodeFacts {
            name: "node-a".into(),
            capacity: Capacity {
                cpu_millis: 2000,
                memory: 1 << 30,
                ephemeral_storage: 1 << 30,
                pods: 2,
            },
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        }
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn asking(requests: Value) -> Pod {
        let resources = json!({"requests": requests});
        pod(json!({"containers": [{"name": "a", "resources": resources}]}))
    }

    fn found(pod: &Pod, others: &[Pod]) -> Option<(String, String)> {
        let mut used = Used::default();
        others.iter().for_each(|pod| used.add(&Requests::of(pod)));
        let failure = refusal(pod, &Requests::of(pod), &used, &node())?;
        Some((failure.reason, failure.message))
    }

    #[test]
    fn a_pod_needs_what_others_have_left() {
        let half = asking(json!({"cpu": "1"}));
        assert_eq!(found(&half, std::slice::from_ref(&half)), None);
        let more = asking(json!({"cpu": "1001m"}));
        let (reason, message) = found(&more, std::slice::from_ref(&half)).expect("refused");
        assert_eq!(reason, "OutOfcpu");
        let expected = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1001, used: 1000, capacity: 2000";
        assert_eq!(message, expected);
        for (requests, reason) in [
            (json!({"memory": "2Gi"}), "OutOfmemory"),
            (
                json!({"ephemeral-storage": "2Gi"}),
                "OutOfephemeral-storage",
            ),
        ] {
            let found = found(&asking(requests), &[]).map(|(reason, _)| reason);
            assert_eq!(found.as_deref(), Some(reason));
        }
        let small = asking(json!({}));
        let full = [small.clone(), small.clone()];
        let (reason, _) = found(&small, &full).expect("refused");
        assert_eq!(reason, "OutOfpods");
    }

    #[test]
    fn what_was_given_back_can_be_had_again() {
        let mut used = Used::default();
        let half = Requests::of(&asking(json!({"cpu": "1"})));
        used.add(&half);
        used.add(&half);
        used.subtract(&half);
        assert_eq!(
            refusal(&asking(json!({"cpu": "1"})), &half, &used, &node()),
            None
        );
    }

    #[test]
    fn a_pod_goes_where_it_may() {
        let labelled =
            |value: &str| pod(json!({"containers": [], "nodeSelector": {"disk": value}}));
        assert_eq!(found(&labelled("ssd"), &[]), None);
        let (reason, message) = found(&labelled("tape"), &[]).expect("refused");
        assert_eq!(reason, "NodeAffinity");
        assert!(message.ends_with("failed: node(s) didn't match Pod's node affinity/selector"));
        let windows = pod(json!({"containers": [], "os": {"name": "windows"}}));
        assert_eq!(
            found(&windows, &[]).map(|f| f.0).as_deref(),
            Some("PodOSNotSupported")
        );
    }
}

//! Whether a Pod has anyone left to look after it.

use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

/// How long a node may be missing before its Pods are given up.
pub(crate) const QUARANTINE: Duration = Duration::from_secs(40);

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) pod: Arc<Pod>,
    /// How long the Pod's node has been missing; `None` if it is there or the Pod has none.
    pub(crate) missing_for: Option<Duration>,
    pub(crate) now: Timestamp,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The Pod's phase becomes `Failed`, with this condition as the reason.
    Fail(Box<PodCondition>),
    /// At once: there is nobody to end it gracefully.
    Delete,
}

/// Gives up Pods whose node is gone, and those that were told to go before they had one.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let pod = world.pod.as_ref();
    let never_placed = pod.metadata.deletion_timestamp.is_some() && pods::node_name(pod).is_none();
    let node_gone = world
        .missing_for
        .is_some_and(|missing| missing >= QUARANTINE);
    if !never_placed && !node_gone {
        return Vec::new();
    }
    let mut changes = Vec::new();
    if !pods::is_finished(pod) && node_gone {
        changes.push(Change::Fail(Box::new(PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("DeletionByPodGC".to_owned()),
            message: Some("PodGC: node no longer exists".to_owned()),
            last_transition_time: Some(Time(world.now)),
            ..Default::default()
        })));
    }
    changes.push(Change::Delete);
    changes
}

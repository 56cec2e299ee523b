//! Whether a claim's finalizer stays: upstream's `pvc_protection_controller.go`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use crate::pods;

/// What keeps a claim.
pub(crate) const FINALIZER: &str = "kubernetes.io/pvc-protection";

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) claim: Arc<PersistentVolumeClaim>,
    /// The pods of its namespace.
    pub(crate) pods: Vec<Arc<Pod>>,
}

/// The merge patch that gives a claim its finalizer, or takes it from one that goes and is not used.
pub(crate) fn reconcile(world: &World) -> Option<Value> {
    let meta = &world.claim.metadata;
    let mut finalizers: Vec<&str> = meta
        .finalizers
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let has = finalizers.contains(&FINALIZER);
    if meta.deletion_timestamp.is_none() {
        if has {
            return None;
        }
        finalizers.push(FINALIZER);
    } else {
        let name = meta.name.as_deref().unwrap_or_default();
        // A pod without a node is none's: no kubelet starts it with a claim that goes.
        let uses = |pod: &Arc<Pod>| {
            pods::node_name(pod).is_some() && claims_of(pod).iter().any(|claim| claim == name)
        };
        if !has || world.pods.iter().any(uses) {
            return None;
        }
        finalizers.retain(|finalizer| *finalizer != FINALIZER);
    }
    Some(json!({"metadata": {"finalizers": finalizers}}))
}

/// The names of the claims that a pod mounts.
pub(crate) fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(source) => Some(source.claim_name.clone()),
            None => volume
                .ephemeral
                .as_ref()
                .map(|_| format!("{pod}-{}", volume.name)),
        })
        .collect()
}

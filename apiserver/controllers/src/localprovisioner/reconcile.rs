//! Which volumes are made, grow and go, as values.

use std::sync::Arc;

use coracle_client::EventKind;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::PROVISIONER;
use crate::persistentvolume::matching::{annotation, capacity, class_of, requested};
use crate::persistentvolume::reconcile::{PROVISIONED_BY, PROVISIONER as WANTED, SELECTED_NODE};

/// Keeps the object of a volume until its folder is removed; the name is that of upstream's provisioners.
const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// A new volume.
    Create(Box<PersistentVolume>),
    /// A merge patch of the volume.
    Volume(Value),
    /// The volume's folder goes.
    Remove,
    /// The volume's object goes.
    Delete,
    /// An Event of the object that the round is about.
    Tell(EventKind, &'static str, String),
}

/// All that a round about a claim may know.
#[derive(Clone, Debug)]
pub(crate) struct ClaimWorld {
    pub(crate) claim: Arc<PersistentVolumeClaim>,
    pub(crate) class: Option<Arc<StorageClass>>,
    /// The volume that it is bound to, or that was made for it.
    pub(crate) volume: Option<Arc<PersistentVolume>>,
    /// The node whose folders they are.
    pub(crate) node: String,
    /// Where the claim's volume would lie.
    pub(crate) path: String,
}

/// What the volume for a claim is called, as upstream's provisioners do.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> String {
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    format!("pvc-{uid}")
}

/// Makes the claim's volume, or lets it grow.
pub(crate) fn claim(world: &ClaimWorld) -> Vec<Change> {
    let claim = world.claim.as_ref();
    let spec = claim.spec.as_ref();
    let is_bound = spec.is_some_and(|s| s.volume_name.as_ref().is_some_and(|n| !n.is_empty()));
    if is_bound {
        return world
            .volume
            .as_deref()
            .map_or_else(Vec::new, |volume| grow(volume, claim));
    }
    let is_ours = annotation(&claim.metadata.annotations, WANTED) == Some(PROVISIONER);
    let selected = annotation(&claim.metadata.annotations, SELECTED_NODE);
    let is_here = selected.is_none_or(|node| node == world.node);
    let is_going = claim.metadata.deletion_timestamp.is_some();
    if !is_ours || !is_here || is_going || world.volume.is_some() {
        return Vec::new();
    }
    // Its class may have been replaced by one of another provisioner.
    let Some(class) = world
        .class
        .as_ref()
        .filter(|c| c.provisioner == PROVISIONER)
    else {
        return Vec::new();
    };
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    if waits && selected.is_none() {
        return Vec::new();
    }
    if let Some(problem) = refusal(claim) {
        let name = class_of(claim);
        let message = format!("failed to provision volume with StorageClass {name:?}: {problem}");
        return vec![Change::Tell(
            EventKind::Warning,
            "ProvisioningFailed",
            message,
        )];
    }
    let (namespace, name) = names(claim);
    let volume = volume_name(claim);
    let began =
        format!("External provisioner is provisioning volume for claim \"{namespace}/{name}\"");
    let done = format!("Successfully provisioned volume {volume}");
    vec![
        Change::Tell(EventKind::Normal, "Provisioning", began),
        Change::Create(Box::new(new_volume(world, class))),
        Change::Tell(EventKind::Normal, "ProvisioningSucceeded", done),
    ]
}

/// What of a claim a folder cannot be.
fn refusal(claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let spec = claim.spec.as_ref()?;
    if spec.selector.is_some() {
        return Some("claim Selector is not supported");
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some("block volumes are not supported: a volume is a folder");
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return Some("data sources are not supported: a new volume is empty");
    }
    None
}

fn new_volume(world: &ClaimWorld, class: &StorageClass) -> PersistentVolume {
    let claim = world.claim.as_ref();
    let spec = claim.spec.clone().unwrap_or_default();
    let asked = spec.resources.and_then(|r| r.requests).unwrap_or_default();
    let host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [world.node]});
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": volume_name(claim),
            "annotations": {PROVISIONED_BY: PROVISIONER},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "accessModes": spec.access_modes,
            "capacity": {"storage": asked.get("storage")},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace, "name": claim.metadata.name,
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            },
            "hostPath": {"path": world.path, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}},
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.metadata.name,
            "volumeMode": "Filesystem",
        },
    });
    serde_json::from_value(volume).unwrap_or_default()
}

/// A claim may ask for more later, if its class allows it (the API server sees to that). A folder has no
/// size of its own, so that saying it is all there is to do; the binder shows it in the claim.
fn grow(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Vec<Change> {
    let is_bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    if !is_ours(volume) || !is_bound || requested(claim) <= capacity(volume) {
        return Vec::new();
    }
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let asked = resources.and_then(|r| r.requests.as_ref()?.get("storage"));
    let message = "Resize volume succeeded".to_owned();
    vec![
        Change::Volume(json!({"spec": {"capacity": {"storage": asked}}})),
        Change::Tell(EventKind::Normal, "VolumeResizeSuccessful", message),
    ]
}

/// All that a round about a volume may know.
#[derive(Clone, Debug)]
pub(crate) struct VolumeWorld {
    pub(crate) volume: Arc<PersistentVolume>,
    /// Where a volume of its name lies.
    pub(crate) path: String,
}

/// Removes a volume that nobody claims any more, as its policy says.
pub(crate) fn volume(world: &VolumeWorld) -> Vec<Change> {
    let volume = world.volume.as_ref();
    if !is_ours(volume) {
        return Vec::new();
    }
    let (spec, meta) = (volume.spec.as_ref(), &volume.metadata);
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    let policy = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let is_going = meta.deletion_timestamp.is_some();
    let is_free = match phase {
        Some("Released" | "Failed") => true,
        // One that never had a claim goes when its object does.
        phase => is_going && phase != Some("Bound"),
    };
    let holds = meta.finalizers.iter().flatten().any(|f| f == FINALIZER);
    let let_go = || {
        let kept = meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER);
        let kept: Vec<&String> = kept.collect();
        Change::Volume(json!({"metadata": {"finalizers": kept}}))
    };
    if policy != Some("Delete") {
        // The data stays, whatever becomes of the object.
        return Vec::from_iter((is_going && holds).then(let_go));
    }
    let path = spec.and_then(|s| s.host_path.as_ref().map(|h| h.path.as_str()));
    if !is_free || is_going && !holds {
        return Vec::new();
    }
    if path != Some(&world.path) {
        let message = "its path is not the one that this provisioner gave it, so it is left alone";
        let kind = EventKind::Warning;
        return vec![Change::Tell(kind, "VolumeFailedDelete", message.to_owned())];
    }
    if is_going {
        return vec![Change::Remove, let_go()];
    }
    // The finalizer is let go when the deletion is seen.
    vec![Change::Remove, Change::Delete]
}

fn is_ours(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata.annotations, PROVISIONED_BY) == Some(PROVISIONER)
}

fn names(claim: &PersistentVolumeClaim) -> (&str, &str) {
    let meta = &claim.metadata;
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

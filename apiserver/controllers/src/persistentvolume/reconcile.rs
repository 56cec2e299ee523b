//! What binds a claim and a volume to each other: upstream's `pv_controller.go`, as values.
//!
//! ```text
//! claim:   Pending ─▶ Bound ─▶ Lost (its volume went, or is another's)
//! volume:  Available ─▶ Bound ─▶ Released ─▶ gone (Delete) | stays (Retain) | Failed
//! ```
//!
//! A binding is four writes, the volume's before the claim's; whatever stops between two of them is found
//! half done by the next round, and completed.

use std::sync::Arc;

use coracle_client::EventKind;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Map, Value, json};

use super::matching::{annotation, best, class_of, is_for, mismatch, names_class};

/// Set on a claim when both sides of its binding were written.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Set on the side whose reference this controller wrote, and not a user.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Who made a volume.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Who is to make a volume for a claim, and the name that this had before.
pub(crate) const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node of the first consumer, written by the scheduler.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes an administrator makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// One write. Patches are JSON merge patches of the object as the caches have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Of the claim.
    Claim(Value),
    /// Of the claim's status.
    ClaimStatus(Value),
    /// Of the volume.
    Volume(Value),
    /// Of the volume's status.
    VolumeStatus(Value),
    /// An Event of the claim.
    Tell(EventKind, &'static str, String),
    /// An Event of the volume.
    TellOfVolume(EventKind, &'static str, String),
}

/// All that a round about a claim may know.
#[derive(Clone, Debug)]
pub(crate) struct ClaimWorld {
    pub(crate) claim: Arc<PersistentVolumeClaim>,
    pub(crate) volumes: Vec<Arc<PersistentVolume>>,
    pub(crate) classes: Vec<Arc<StorageClass>>,
}

/// What is to be done, and with which volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) volume: Option<Arc<PersistentVolume>>,
    pub(crate) changes: Vec<Change>,
}

impl Plan {
    fn of(changes: Vec<Change>) -> Self {
        Self {
            volume: None,
            changes,
        }
    }
}

/// Brings a claim nearer to its volume.
pub(crate) fn claim(world: &ClaimWorld) -> Plan {
    let claim = world.claim.as_ref();
    let named = claim
        .spec
        .as_ref()
        .and_then(|s| s.volume_name.as_deref())
        .filter(|name| !name.is_empty());
    let volume = named.and_then(|name| {
        let mut volumes = world.volumes.iter();
        volumes.find(|volume| volume.metadata.name.as_deref() == Some(name))
    });
    let annotations = &claim.metadata.annotations;
    match (annotation(annotations, BIND_COMPLETED), named, volume) {
        (Some(_), None, _) => lost(
            claim,
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        ),
        (Some(_), Some(_), None) => lost(
            claim,
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ),
        (Some(_), _, Some(volume)) => {
            let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
            match reference {
                Some(reference) if reference.uid != claim.metadata.uid => lost(
                    claim,
                    "ClaimMisbound",
                    "Two claims are bound to the same volume, this one is bound incorrectly",
                ),
                _ => bind(volume, claim),
            }
        }
        (None, Some(_), None) => Plan::of(pending(claim)),
        (None, Some(_), Some(volume)) => asked_for(volume, claim),
        (None, None, _) => unbound(world),
    }
}

/// A claim that leaves it to us which volume it gets.
fn unbound(world: &ClaimWorld) -> Plan {
    let claim = world.claim.as_ref();
    if claim.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    let default = default_class(&world.classes);
    if !names_class(claim)
        && let Some(default) = default
    {
        let name = default.metadata.name.as_deref();
        let class = json!({"spec": {"storageClassName": name}});
        return Plan::of(vec![Change::Claim(class)]);
    }
    let class_name = class_of(claim);
    let mut classes = world.classes.iter();
    let class = classes.find(|class| class.metadata.name.as_deref() == Some(class_name));
    let waits_for_consumer =
        class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let selected = annotation(&claim.metadata.annotations, SELECTED_NODE);
    let waits = waits_for_consumer && selected.is_none();
    let node = selected.filter(|_| waits_for_consumer);
    if let Some(volume) = best(claim, &world.volumes, waits, node) {
        return bind(volume, claim);
    }
    let mut changes = pending(claim);
    let tell = |kind, reason, message: String| Change::Tell(kind, reason, message);
    if waits {
        let message = "waiting for first consumer to be created before binding".to_owned();
        changes.push(tell(EventKind::Normal, "WaitForFirstConsumer", message));
    } else if class_name.is_empty() {
        let message =
            "no persistent volumes available for this claim and no storage class is set".to_owned();
        changes.push(tell(EventKind::Normal, "FailedBinding", message));
    } else {
        changes.extend(provision(claim, class_name, class));
    }
    Plan::of(changes)
}

/// Has whoever makes volumes of the class make one.
fn provision(
    claim: &PersistentVolumeClaim,
    name: &str,
    class: Option<&Arc<StorageClass>>,
) -> Vec<Change> {
    let failed = |message: String| {
        let reason = "ProvisioningFailed";
        vec![Change::Tell(EventKind::Warning, reason, message)]
    };
    let Some(class) = class else {
        return failed(format!("storageclass.storage.k8s.io {name:?} not found"));
    };
    let provisioner = class.provisioner.as_str();
    if provisioner == NO_PROVISIONER {
        return failed(format!("no volume plugin matched name: {provisioner}"));
    }
    let mut changes = Vec::new();
    if annotation(&claim.metadata.annotations, PROVISIONER) != Some(provisioner) {
        let annotations = json!({PROVISIONER: provisioner, BETA_PROVISIONER: provisioner});
        changes.push(Change::Claim(
            json!({"metadata": {"annotations": annotations}}),
        ));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    changes.push(Change::Tell(
        EventKind::Normal,
        "ExternalProvisioning",
        message,
    ));
    changes
}

/// A claim whose user named the volume.
fn asked_for(volume: &Arc<PersistentVolume>, claim: &PersistentVolumeClaim) -> Plan {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let taken = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
    if taken && is_for(volume, claim) {
        return bind(volume, claim);
    }
    let (reason, message) = if taken {
        let message = format!("volume {name:?} already bound to a different claim.");
        ("FailedBinding", message)
    } else {
        match mismatch(volume, claim) {
            None => return bind(volume, claim),
            Some(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                ("VolumeMismatch", message)
            }
        }
    };
    let mut changes = pending(claim);
    changes.push(Change::Tell(EventKind::Warning, reason, message));
    Plan::of(changes)
}

/// What is missing for both to be bound to each other; nothing if all is there.
fn bind(volume: &Arc<PersistentVolume>, claim: &PersistentVolumeClaim) -> Plan {
    let mut changes = Vec::new();
    let (name, spec) = (volume.metadata.name.as_deref(), volume.spec.as_ref());
    let reference = spec.and_then(|spec| spec.claim_ref.as_ref());
    if reference.is_none_or(|reference| reference.uid != claim.metadata.uid) {
        let mut patch = json!({"spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace, "name": claim.metadata.name,
            "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
        }}});
        if !is_for(volume, claim) {
            patch["metadata"]["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
        }
        changes.push(Change::Volume(patch));
    }
    changes.extend(phase(volume, "Bound"));
    let mut patch = Map::new();
    let mut annotations = Map::new();
    if claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) != name {
        patch.insert("spec".to_owned(), json!({"volumeName": name}));
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), json!("yes"));
    }
    if annotation(&claim.metadata.annotations, BIND_COMPLETED).is_none() {
        annotations.insert(BIND_COMPLETED.to_owned(), json!("yes"));
    }
    if !annotations.is_empty() {
        patch.insert("metadata".to_owned(), json!({"annotations": annotations}));
    }
    if !patch.is_empty() {
        changes.push(Change::Claim(Value::Object(patch)));
    }
    let status = claim.status.clone().unwrap_or_default();
    let (modes, capacity) = spec.map_or((None, None), |spec| {
        (spec.access_modes.clone(), spec.capacity.clone())
    });
    let is_shown = status.phase.as_deref() == Some("Bound")
        && status.access_modes == modes
        && status.capacity == capacity;
    if !is_shown {
        let status = json!({"phase": "Bound", "accessModes": modes, "capacity": capacity});
        changes.push(Change::ClaimStatus(json!({"status": status})));
    }
    Plan {
        volume: Some(Arc::clone(volume)),
        changes,
    }
}

fn pending(claim: &PersistentVolumeClaim) -> Vec<Change> {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let status = json!({"status": {"phase": "Pending", "accessModes": null, "capacity": null}});
    match phase {
        Some("Pending") => Vec::new(),
        _ => vec![Change::ClaimStatus(status)],
    }
}

fn lost(claim: &PersistentVolumeClaim, reason: &'static str, message: &str) -> Plan {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    if phase == Some("Lost") {
        return Plan::default();
    }
    let status = json!({"status": {"phase": "Lost", "accessModes": null, "capacity": null}});
    Plan::of(vec![
        Change::ClaimStatus(status),
        Change::Tell(EventKind::Warning, reason, message.to_owned()),
    ])
}

/// The class of claims that name none: of several the newest, of those the first by name.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let is_default = |class: &&Arc<StorageClass>| {
        [
            "storageclass.kubernetes.io/is-default-class",
            "storageclass.beta.kubernetes.io/is-default-class",
        ]
        .iter()
        .any(|key| annotation(&class.metadata.annotations, key) == Some("true"))
    };
    classes.iter().filter(is_default).min_by_key(|class| {
        let created = class
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0);
        (std::cmp::Reverse(created), class.metadata.name.clone())
    })
}

/// All that a round about a volume may know.
#[derive(Clone, Debug)]
pub(crate) struct VolumeWorld {
    pub(crate) volume: Arc<PersistentVolume>,
    /// The claim that it is bound to, if that is there and the one that is meant.
    pub(crate) claim: Option<Arc<PersistentVolumeClaim>>,
}

/// Brings a volume's phase to what became of its claim.
pub(crate) fn volume(world: &VolumeWorld) -> Vec<Change> {
    let volume = world.volume.as_ref();
    let spec = volume.spec.as_ref();
    let reference = spec.and_then(|spec| spec.claim_ref.as_ref());
    let uid = reference.and_then(|reference| reference.uid.as_deref());
    if uid.is_none_or(str::is_empty) {
        return phase(volume, "Available");
    }
    let Some(claim) = &world.claim else {
        return released(volume);
    };
    let name = volume.metadata.name.as_deref();
    match claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) {
        // The claim's own round completes it.
        None | Some("") => Vec::new(),
        bound if bound == name => phase(volume, "Bound"),
        Some(_) => {
            let annotations = &volume.metadata.annotations;
            let policy = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
            let is_made = annotation(annotations, PROVISIONED_BY).is_some();
            if is_made && policy == Some("Delete") {
                return released(volume);
            }
            // Bound elsewhere: given back, or left to the claim that its user meant it for.
            let patch = match annotation(annotations, BOUND_BY_CONTROLLER) {
                Some(_) => json!({
                    "metadata": {"annotations": {BOUND_BY_CONTROLLER: null}},
                    "spec": {"claimRef": null},
                }),
                None => json!({"spec": {"claimRef": {"uid": null}}}),
            };
            let mut changes = vec![Change::Volume(patch)];
            changes.extend(phase(volume, "Available"));
            changes
        }
    }
}

/// Its claim is gone: the volume is released, and goes if its policy says so. Whoever made it removes it.
fn released(volume: &PersistentVolume) -> Vec<Change> {
    let status = volume.status.as_ref();
    let mut changes = match status.and_then(|s| s.phase.as_deref()) {
        Some("Released" | "Failed") => Vec::new(),
        _ => phase(volume, "Released"),
    };
    let policy = volume
        .spec
        .as_ref()
        .and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let is_made = annotation(&volume.metadata.annotations, PROVISIONED_BY).is_some();
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let (reason, message) = match policy {
        Some("Delete") if !is_made => {
            let why = "no deletable volume plugin matched";
            let message = format!("error getting deleter volume plugin for volume {name:?}: {why}");
            ("VolumeFailedDelete", message)
        }
        Some("Recycle") => {
            let message = "No recycler plugin found for the volume!".to_owned();
            ("VolumeFailedRecycle", message)
        }
        _ => return changes,
    };
    if status.and_then(|s| s.phase.as_deref()) != Some("Failed") {
        let status = json!({"status": {"phase": "Failed", "message": message}});
        changes = vec![
            Change::VolumeStatus(status),
            Change::TellOfVolume(EventKind::Warning, reason, message),
        ];
    }
    changes
}

fn phase(volume: &PersistentVolume, phase: &str) -> Vec<Change> {
    let now = volume.status.as_ref().and_then(|s| s.phase.as_deref());
    let status = json!({"status": {"phase": phase, "message": null}});
    match now {
        Some(now) if now == phase => Vec::new(),
        _ => vec![Change::VolumeStatus(status)],
    }
}

//! Volumes behind claims: which folder of the host a bound claim stands for.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::Problem;
use super::host_path::{self, Closed};
use crate::environment::Sources;

/// What the pod's volume wants, if it is a claim: its name, and whether it was made for this pod alone.
pub(super) fn name(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some((format!("{pod}-{}", volume.name), true))
}

/// A claim's folder, found.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
}

/// The folder behind the claim that `volume` wants; made if its volume says so. The error is in the words of
/// upstream's `desired_state_of_world_populator.go`, which the user meets only where nobody scheduled the pod.
pub(super) fn resolve(
    pod: &Pod,
    volume: &Volume,
    sources: &dyn Sources,
    closed: &Closed<'_>,
) -> Result<Found, Problem> {
    let (name, is_own) = name(pod, volume).ok_or(Problem::NoVolume)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(claim) = sources.claim(&name) else {
        return Err(Problem::NotFound {
            kind: "persistentvolumeclaim",
            name,
        });
    };
    if is_own && !belongs(&claim, pod) {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        return Err(Problem::Claim(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        )));
    }
    let bound = bound(&claim).ok_or_else(|| not_bound(&claim, namespace, &name))?;
    let Some(stored) = sources.volume(bound) else {
        return Err(Problem::NotFound {
            kind: "persistentvolume",
            name: bound.to_owned(),
        });
    };
    if !is_for(&stored, &claim) {
        return Err(Problem::Claim(format!(
            "PV {bound:?} is not bound to PVC {namespace}/{name}"
        )));
    }
    let spec = stored.spec.as_ref();
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Err(Problem::Claim(format!(
            "volume {} has volumeMode Block, but is specified in volumeMounts",
            volume.name
        )));
    }
    let source = volume.persistent_volume_claim.as_ref();
    Ok(Found {
        path: path(&stored, closed)?,
        read_only: source.and_then(|source| source.read_only) == Some(true),
    })
}

/// The folder of a volume of the cluster, as far as it lies on this host.
fn path(volume: &PersistentVolume, closed: &Closed<'_>) -> Result<PathBuf, Problem> {
    let spec = volume.spec.as_ref().ok_or(Problem::NoVolume)?;
    if let Some(source) = &spec.host_path {
        let kind = source.type_.as_deref().unwrap_or_default();
        return host_path::resolve(&source.path, kind, closed);
    }
    if let Some(source) = &spec.local {
        return host_path::resolve(&source.path, "Directory", closed);
    }
    let fields = serde_json::to_value(spec).unwrap_or_default();
    let common = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let names = fields.as_object().into_iter().flat_map(|map| map.keys());
    let mut names = names.filter(|name| !common.contains(&name.as_str()));
    let kind = names.next();
    Err(Problem::UnsupportedClaim(
        kind.cloned().unwrap_or_else(|| "unset".to_owned()),
    ))
}

/// The volume that the claim is bound to.
fn bound(claim: &PersistentVolumeClaim) -> Option<&str> {
    let phase = claim.status.as_ref()?.phase.as_deref();
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    (phase == Some("Bound") && !name.is_empty()).then_some(name)
}

fn not_bound(claim: &PersistentVolumeClaim, namespace: &str, name: &str) -> Problem {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    let (phase, volume) = (phase.unwrap_or_default(), volume.unwrap_or_default());
    Problem::Claim(format!(
        "PVC {namespace}/{name} has non-bound phase ({phase:?}) or empty pvc.Spec.VolumeName ({volume:?})"
    ))
}

fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    reference.is_some_and(|reference| reference.uid == claim.metadata.uid)
}

fn belongs(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| {
        owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref()
    })
}

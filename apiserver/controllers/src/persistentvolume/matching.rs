//! Which volume suits a claim: upstream's `component-helpers/storage/volume` and `pv_helpers.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::quantity::Quantity;
use coracle_client::Selector;
use coracle_client::kube::core::SelectorExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// The annotation that named a claim's class before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The annotation `key` of an object.
pub(crate) fn annotation<'a>(
    annotations: &'a Option<BTreeMap<String, String>>,
    key: &str,
) -> Option<&'a str> {
    annotations.as_ref()?.get(key).map(String::as_str)
}

/// The class of a claim; empty for none.
pub(crate) fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let field = claim
        .spec
        .as_ref()
        .and_then(|s| s.storage_class_name.as_deref());
    annotation(&claim.metadata.annotations, CLASS_ANNOTATION)
        .or(field)
        .unwrap_or_default()
}

/// Whether the claim says anything about its class, if only that it wants none.
pub(crate) fn names_class(claim: &PersistentVolumeClaim) -> bool {
    let spec = claim.spec.as_ref();
    annotation(&claim.metadata.annotations, CLASS_ANNOTATION).is_some()
        || spec.is_some_and(|spec| spec.storage_class_name.is_some())
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = volume
        .spec
        .as_ref()
        .and_then(|s| s.storage_class_name.as_deref());
    annotation(&volume.metadata.annotations, CLASS_ANNOTATION)
        .or(field)
        .unwrap_or_default()
}

/// Whether the volume says that it is this claim's; one that the user made so has no UID yet.
pub(crate) fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    reference.is_some_and(|reference| {
        let uid = reference.uid.as_deref().filter(|uid| !uid.is_empty());
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_none() || uid == claim.metadata.uid.as_deref())
    })
}

/// Bytes of a quantity in a map.
pub(crate) fn storage(map: Option<&BTreeMap<String, ApiQuantity>>) -> Option<i64> {
    let quantity: Quantity = map?.get("storage")?.0.parse().ok()?;
    Some(quantity.value())
}

/// Bytes that the claim asks for.
pub(crate) fn requested(claim: &PersistentVolumeClaim) -> i64 {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    storage(resources.and_then(|r| r.requests.as_ref())).unwrap_or(0)
}

/// Bytes that the volume has.
pub(crate) fn capacity(volume: &PersistentVolume) -> i64 {
    storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref())).unwrap_or(0)
}

/// Why a volume that a claim names cannot be its own, in upstream's words (`checkVolumeSatisfyClaim`).
pub(crate) fn mismatch(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Option<&'static str> {
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small");
    }
    if class_of_volume(volume) != class_of(claim) {
        return Some("storageClassName does not match");
    }
    if mode(volume) != mode_of(claim) {
        return Some("incompatible volumeMode");
    }
    if !has_modes(volume, claim) {
        return Some("incompatible accessMode");
    }
    None
}

/// Whether the volume can be reached from the node, as far as its affinity speaks of host names.
fn is_on(volume: &PersistentVolume, node: &str) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else {
        return true;
    };
    required.node_selector_terms.iter().any(|term| {
        let mut said = term.match_expressions.iter().flatten();
        said.all(|said| {
            let is_host = said.key == "kubernetes.io/hostname" && said.operator == "In";
            let values = said.values.as_ref();
            !is_host || values.is_some_and(|values| values.iter().any(|value| value == node))
        })
    })
}

/// The smallest volume that is free and suits the claim, or the one that was made for it. A claim that
/// waits for its first consumer gets no other than the latter; one whose consumer has a `node` gets one that
/// is there.
pub(crate) fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    waits: bool,
    node: Option<&str>,
) -> Option<&'a Arc<PersistentVolume>> {
    let there = |volume: &&Arc<PersistentVolume>| volume.metadata.deletion_timestamp.is_none();
    let mut own = volumes
        .iter()
        .filter(there)
        .filter(|volume| is_for(volume, claim));
    let fits = |volume: &&Arc<PersistentVolume>| {
        mode(volume) == mode_of(claim)
            && has_modes(volume, claim)
            && capacity(volume) >= requested(claim)
    };
    if let Some(volume) = own.find(fits) {
        return Some(volume);
    }
    if waits {
        return None;
    }
    let none = BTreeMap::new();
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.clone());
    // One that cannot be read (the API refuses it) selects nothing.
    let selector = selector.map(|selector| Selector::try_from(selector).ok());
    let selects = |volume: &PersistentVolume| match &selector {
        None => true,
        Some(selector) => {
            let labels = volume.metadata.labels.as_ref().unwrap_or(&none);
            selector.as_ref().is_some_and(|s| s.matches(labels))
        }
    };
    let free = volumes.iter().filter(there).filter(|volume| {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        let taken = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
        phase == Some("Available") && !taken
    });
    free.filter(fits)
        .filter(|volume| class_of_volume(volume) == class_of(claim))
        .filter(|volume| selects(volume))
        .filter(|volume| node.is_none_or(|node| is_on(volume, node)))
        .min_by_key(|volume| (capacity(volume), volume.metadata.name.clone()))
}

fn mode(volume: &PersistentVolume) -> &str {
    let mode = volume.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
    mode.unwrap_or("Filesystem")
}

fn mode_of(claim: &PersistentVolumeClaim) -> &str {
    let mode = claim.spec.as_ref().and_then(|s| s.volume_mode.as_deref());
    mode.unwrap_or("Filesystem")
}

fn has_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    let of_claim = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    let has = |mode| of_volume.is_some_and(|modes| modes.contains(mode));
    of_claim.into_iter().flatten().all(has)
}

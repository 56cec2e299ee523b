//! Which ReplicaSet a template belongs to, and the numbers that `kubectl rollout` goes by.

use std::collections::BTreeMap;

use coracle_client::uid;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const HASH: &str = "pod-template-hash";
/// Annotations that say something about the Deployment itself, never about one of its revisions.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];
/// Upstream's bound on the list of a ReplicaSet's former revisions.
const HISTORY_LENGTH: usize = 2000;

/// Whether both templates make the same Pods; the hash label is the controller's own.
pub(super) fn same_template(one: &PodTemplateSpec, two: &PodTemplateSpec) -> bool {
    let plain = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template
            .metadata
            .as_mut()
            .and_then(|meta| meta.labels.as_mut())
        {
            labels.remove(HASH);
        }
        let meta = template.metadata.take().unwrap_or_default();
        // Absent and empty mean the same here.
        (
            meta.labels.unwrap_or_default(),
            meta.annotations.unwrap_or_default(),
            template.spec,
        )
    };
    plain(one) == plain(two)
}

/// A short name for a template: equal templates have equal names, whatever wrote them.
///
/// The scheme is upstream's (FNV-1a over the template, in the alphabet of generated names), the
/// bytes that go in are the template's JSON, so the names differ from upstream's.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let json = serde_json::to_vec(template).unwrap_or_default();
    let salt = if collisions > 0 {
        collisions.to_string()
    } else {
        String::new()
    };
    for byte in json.iter().chain(salt.as_bytes()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// A ReplicaSet for the Deployment's current template, without replicas and annotations.
pub(super) fn new_replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment
        .status
        .as_ref()
        .and_then(|status| status.collision_count)
        .unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let mut template = spec.template;
    template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default()
        .insert(HASH.into(), hash.clone());
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH.into(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-{hash}",
                deployment.metadata.name.as_deref().unwrap_or_default()
            )),
            namespace: deployment.metadata.namespace.clone(),
            labels: template
                .metadata
                .as_ref()
                .and_then(|meta| meta.labels.clone()),
            owner_references: Some(vec![owner_reference(deployment)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

pub(super) fn owner_reference(deployment: &Deployment) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: deployment.metadata.name.clone().unwrap_or_default(),
        uid: uid(deployment).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The revision that the object's annotation names; 0 without one.
pub(super) fn revision_of(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).unwrap_or(0)
}

/// An annotation that holds a number.
pub(super) fn annotation<T: std::str::FromStr>(meta: &ObjectMeta, name: &str) -> Option<T> {
    meta.annotations.as_ref()?.get(name)?.parse().ok()
}

/// Gives the current ReplicaSet the Deployment's annotations and the newest revision.
pub(super) fn annotate_new(set: &mut ReplicaSet, deployment: &Deployment, newest: i64) {
    let own = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            own.insert(key.clone(), value.clone());
        }
    }
    let known = own.get(REVISION).cloned();
    let current: i64 = known
        .as_deref()
        .and_then(|revision| revision.parse().ok())
        .unwrap_or(0);
    if current >= newest {
        return;
    }
    own.insert(REVISION.into(), newest.to_string());
    // A rollback gives an old ReplicaSet a new number; the old numbers are kept for those who ask.
    if let Some(known) = known {
        remember(own, &known);
    }
}

fn remember(annotations: &mut BTreeMap<String, String>, revision: &str) {
    let mut history = annotations.get(HISTORY).cloned().unwrap_or_default();
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(revision);
    while history.len() > HISTORY_LENGTH {
        let Some((_, rest)) = history.split_once(',') else {
            return;
        };
        history = rest.to_owned();
    }
    annotations.insert(HISTORY.into(), history);
}

/// Notes the size that a ReplicaSet was made for, which proportional scaling goes by.
pub(super) fn annotate_size(set: &mut ReplicaSet, desired: i32, maximum: i32) {
    let own = set.metadata.annotations.get_or_insert_default();
    own.insert(DESIRED.into(), desired.to_string());
    own.insert(MAXIMUM.into(), maximum.to_string());
}

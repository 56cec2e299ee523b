//! Whether a token is to be marked, or to go.

use std::sync::Arc;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, LocalObjectReference, Pod, Secret, ServiceAccount, Volume,
};

use super::UNUSED;
use crate::days::{day, midnight};

/// The type of Secrets that hold a token.
const TYPE: &str = "kubernetes.io/service-account-token";
/// Whose token it is.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// Which account of that name.
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The day of the last use, which the API server writes.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day on which a token was marked.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

const DAY_SECONDS: i64 = 86_400;

/// All that a round may know of one Secret.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) secret: Arc<Secret>,
    /// The account of the name that the Secret says.
    pub(crate) account: Option<Arc<ServiceAccount>>,
    /// Whether a pod of the namespace names the Secret.
    pub(crate) is_mounted: bool,
    pub(crate) now: Timestamp,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Refused from now on; the label says this day.
    Mark(String),
    Delete,
}

/// Whether uses are written down for long enough to tell what is not used; the first day may have been a part of one.
pub(super) fn is_due(since: Option<Timestamp>, now: Timestamp) -> bool {
    since.is_some_and(|since| now.as_second() >= since.as_second() + DAY_SECONDS + unused())
}

fn unused() -> i64 {
    UNUSED.as_secs() as i64
}

/// The write that is due for a Secret at a moment at which [`is_due`] holds.
pub(super) fn reconcile(world: &World) -> Option<Change> {
    let World {
        secret,
        account,
        is_mounted,
        now,
    } = world;
    let meta = &secret.metadata;
    if secret.type_.as_deref() != Some(TYPE) || meta.deletion_timestamp.is_some() {
        return None;
    }
    let limit = Timestamp::from_second(now.as_second() - unused()).ok()?;
    if meta.creation_timestamp.as_ref()?.0 >= limit {
        return None;
    }
    let limit = day(limit);
    let label = |name: &str| meta.labels.as_ref()?.get(name).map(String::as_str);
    // One that cannot be read says nothing; one that is missing, that there was no use. Days compare as texts.
    let recent = |used: &str| midnight(used).is_none() || used >= limit.as_str();
    if label(LAST_USED).is_some_and(recent) {
        return None;
    }
    let uid = annotation(secret, ACCOUNT_UID).filter(|uid| !uid.is_empty());
    let account = account
        .as_ref()
        .filter(|account| uid.is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid)))?;
    let listed = account.secrets.iter().flatten();
    let mut listed = listed.map(|reference| &reference.name);
    if !listed.any(|name| *name == meta.name) || *is_mounted {
        return None;
    }
    match label(INVALID_SINCE).filter(|day| midnight(day).is_some()) {
        None => Some(Change::Mark(day(*now))),
        Some(since) if since >= limit.as_str() => None,
        Some(_) => Some(Change::Delete),
    }
}

/// The name of the Secret's account.
pub(super) fn account_name(secret: &Secret) -> Option<&str> {
    annotation(secret, ACCOUNT).filter(|name| !name.is_empty())
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    let annotations = secret.metadata.annotations.as_ref()?;
    annotations.get(name).map(String::as_str)
}

/// Every Secret that a pod names (`VisitPodSecretNames`).
pub(super) fn secrets_of(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let pulls = spec.image_pull_secrets.iter().flatten();
    let mut names: Vec<String> = pulls.map(|secret| secret.name.clone()).collect();
    let init = spec.init_containers.iter().flatten();
    for container in init.chain(&spec.containers) {
        names.extend(of_variables(&container.env, &container.env_from));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        names.extend(of_variables(&container.env, &container.env_from));
    }
    names.extend(spec.volumes.iter().flatten().flat_map(of_volume));
    names
}

fn of_variables(
    variables: &Option<Vec<EnvVar>>,
    sources: &Option<Vec<EnvFromSource>>,
) -> Vec<String> {
    let variables = variables.iter().flatten().filter_map(|variable| {
        let source = variable.value_from.as_ref()?;
        Some(source.secret_key_ref.as_ref()?.name.clone())
    });
    let sources = sources.iter().flatten();
    let sources = sources.filter_map(|source| Some(source.secret_ref.as_ref()?.name.clone()));
    variables.chain(sources).collect()
}

fn of_volume(volume: &Volume) -> Vec<String> {
    let local = |reference: Option<&LocalObjectReference>| reference.map(|one| one.name.clone());
    let mut names: Vec<String> = [
        volume.secret.as_ref().and_then(|v| v.secret_name.clone()),
        volume.azure_file.as_ref().map(|v| v.secret_name.clone()),
        volume
            .cephfs
            .as_ref()
            .and_then(|v| local(v.secret_ref.as_ref())),
        volume
            .cinder
            .as_ref()
            .and_then(|v| local(v.secret_ref.as_ref())),
        volume
            .csi
            .as_ref()
            .and_then(|v| local(v.node_publish_secret_ref.as_ref())),
        volume
            .flex_volume
            .as_ref()
            .and_then(|v| local(v.secret_ref.as_ref())),
        volume
            .iscsi
            .as_ref()
            .and_then(|v| local(v.secret_ref.as_ref())),
        volume
            .rbd
            .as_ref()
            .and_then(|v| local(v.secret_ref.as_ref())),
        volume.scale_io.as_ref().map(|v| v.secret_ref.name.clone()),
        volume
            .storageos
            .as_ref()
            .and_then(|v| local(v.secret_ref.as_ref())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let sources = volume
        .projected
        .iter()
        .flat_map(|v| v.sources.iter().flatten());
    names.extend(sources.filter_map(|source| Some(source.secret.as_ref()?.name.clone())));
    names
}

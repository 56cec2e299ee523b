//! What a namespace that goes should say, and when it may be gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The finalizer that stands for the namespace's content.
const FINALIZER: &str = "kubernetes";

/// What was found after everything had been told to go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Survey {
    /// Why the served resources could not be listed.
    pub(crate) discovery: Option<String>,
    /// Why some content could not be deleted or counted.
    pub(crate) failures: Vec<String>,
    /// How many objects are left, by resource.
    pub(crate) remaining: BTreeMap<String, usize>,
    /// How many objects wait for each finalizer.
    pub(crate) finalizers: BTreeMap<String, usize>,
}

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) survey: Survey,
    pub(crate) now: Timestamp,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The whole list of conditions.
    SetConditions(Vec<NamespaceCondition>),
    /// The namespace without its finalizer.
    Finalize(Box<Namespace>),
}

/// Whether the namespace's content has to be deleted.
pub(crate) fn has_to_be_emptied(namespace: &Namespace) -> bool {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers
            .is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

/// Says what is left, and lets the namespace go once nothing is.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    let old = world
        .namespace
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let new = conditions(&old, &world.survey, world.now);
    if new != old {
        changes.push(Change::SetConditions(new));
    }
    if is_empty(&world.survey) && has_to_be_emptied(&world.namespace) {
        let mut namespace = world.namespace.as_ref().clone();
        let finalizers = namespace
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        // The conditions are on their way by a write of their own.
        namespace.metadata.resource_version = None;
        changes.push(Change::Finalize(Box::new(namespace)));
    }
    changes
}

/// Whether nothing is left and nobody failed to look.
pub(crate) fn is_empty(survey: &Survey) -> bool {
    survey.discovery.is_none() && survey.failures.is_empty() && survey.remaining.is_empty()
}

fn conditions(
    old: &[NamespaceCondition],
    survey: &Survey,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let listed = |counts: &BTreeMap<String, usize>, form: &dyn Fn(&String, &usize) -> String| {
        counts
            .iter()
            .map(|(name, count)| form(name, count))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let remaining = listed(&survey.remaining, &|name, count| {
        format!("{name} has {count} resource instances")
    });
    let finalizers = listed(&survey.finalizers, &|name, count| {
        format!("{name} in {count} resource instances")
    });
    let said = [
        match &survey.discovery {
            Some(error) => (
                "NamespaceDeletionDiscoveryFailure",
                true,
                "DiscoveryFailed",
                format!("Discovery failed for some groups, 1 failing: {error}"),
            ),
            None => (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
        },
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        match survey.failures.is_empty() {
            false => (
                "NamespaceDeletionContentFailure",
                true,
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    survey.failures.len(),
                    survey.failures.join(", ")
                ),
            ),
            true => (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
        },
        match remaining.is_empty() {
            false => (
                "NamespaceContentRemaining",
                true,
                "SomeResourcesRemain",
                format!("Some resources are remaining: {remaining}"),
            ),
            true => (
                "NamespaceContentRemaining",
                false,
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            ),
        },
        match finalizers.is_empty() {
            false => (
                "NamespaceFinalizersRemaining",
                true,
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {finalizers}"),
            ),
            true => (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            ),
        },
    ];
    let mut conditions = old.to_vec();
    for (type_, holds, reason, message) in said {
        let status = if holds { "True" } else { "False" };
        let new = NamespaceCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|known| known.type_ == type_) {
            Some(known) => {
                let since = if known.status == new.status {
                    known.last_transition_time.clone()
                } else {
                    None
                };
                let since = since.or_else(|| new.last_transition_time.clone());
                *known = NamespaceCondition {
                    last_transition_time: since,
                    ..new
                };
            }
            None => conditions.push(new),
        }
    }
    conditions
}

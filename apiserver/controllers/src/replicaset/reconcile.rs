//! Which Pods a ReplicaSet should gain, lose, adopt or let go.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Selector, controller_of, is_controlled_by, is_terminating, uid};
use coracle_clock::Timestamp;
use k8s_openapi::api::apps::v1::{
    ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use coracle_client::kube::core::SelectorExt;

use crate::pods;

/// No round creates or deletes more Pods than this.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) replica_set: Arc<ReplicaSet>,
    /// Every Pod of the namespace that the selector picks or that the ReplicaSet controls.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// How many active Pods of the same application each node carries.
    pub(crate) neighbours: HashMap<String, usize>,
    pub(crate) now: Timestamp,
    /// New Pods' names are drawn from it.
    pub(crate) seed: u64,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Adopt(Arc<Pod>, Vec<OwnerReference>),
    Release(Arc<Pod>, Vec<OwnerReference>),
    Create(Box<Pod>),
    Delete(Arc<Pod>),
    SetStatus(Box<ReplicaSetStatus>),
}

/// Why the last round could not do all it wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Brings the number of active Pods to the number asked for, and reports what is there.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let mut changes = Vec::new();
    if selector(&world.replica_set).is_none() {
        return changes; // validation refuses such a selector; creating Pods for it would never end
    }
    let owned = claim(world, &mut changes);
    if !is_terminating(world.replica_set.as_ref()) {
        let want = usize::try_from(replicas(&world.replica_set)).unwrap_or(0);
        for n in owned.len()..want.min(owned.len().saturating_add(BURST)) {
            changes.push(Change::Create(Box::new(new_pod(world, n - owned.len()))));
        }
        if owned.len() > want {
            let victims = ranked(&owned, world)
                .into_iter()
                .take((owned.len() - want).min(BURST));
            changes.extend(victims.map(Change::Delete));
        }
    }
    changes.extend(status_change(world, None));
    changes
}

/// The status write that the world calls for, given how the round went.
pub(crate) fn status_change(world: &World, failure: Option<&Failure>) -> Option<Change> {
    let owned = claim(world, &mut Vec::new());
    let status = status(world, &owned, failure);
    let current = world.replica_set.status.as_ref();
    (current != Some(&status)).then(|| Change::SetStatus(Box::new(status)))
}

/// When to look again although nothing changes: a ready Pod becomes available with time.
pub(crate) fn look_again(world: &World) -> Option<Duration> {
    let min_ready = spec(&world.replica_set)?.min_ready_seconds.unwrap_or(0);
    claim(world, &mut Vec::new())
        .iter()
        .filter_map(|pod| pods::available_in(pod, min_ready, world.now))
        .filter(|left| !left.is_zero())
        .min()
}

/// The active Pods that are the ReplicaSet's, including those it adopts in this round.
fn claim(world: &World, changes: &mut Vec<Change>) -> Vec<Arc<Pod>> {
    let set = world.replica_set.as_ref();
    let Some(selector) = selector(set) else {
        return Vec::new();
    };
    let none = BTreeMap::new();
    let mut owned = Vec::new();
    for pod in world.pods.iter().filter(|pod| pods::is_active(pod)) {
        let picked = selector.matches(pod.metadata.labels.as_ref().unwrap_or(&none));
        match controller_of(pod.as_ref()) {
            Some(owner) if owner.uid != uid(set) => {}
            Some(_) if picked => owned.push(pod.clone()),
            Some(_) if !is_terminating(set) => {
                let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
                owners.retain(|owner| owner.uid != uid(set));
                changes.push(Change::Release(pod.clone(), owners));
            }
            None if picked && !is_terminating(set) => {
                let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
                owners.retain(|owner| owner.uid != uid(set));
                owners.push(owner_reference(set));
                changes.push(Change::Adopt(pod.clone(), owners));
                owned.push(pod.clone());
            }
            _ => {}
        }
    }
    owned
}

fn status(world: &World, owned: &[Arc<Pod>], failure: Option<&Failure>) -> ReplicaSetStatus {
    let set = world.replica_set.as_ref();
    let template_labels = spec(set)
        .and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.clone())
        .unwrap_or_default();
    let min_ready = spec(set)
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or(0);
    let count = |keep: &dyn Fn(&Pod) -> bool| {
        let number = owned.iter().filter(|pod| keep(pod)).count();
        Some(i32::try_from(number).unwrap_or(i32::MAX)).filter(|number| *number != 0)
    };
    let fully_labeled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template_labels
            .iter()
            .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
    };
    let leaving = world.pods.iter().filter(|pod| {
        is_terminating(pod.as_ref())
            && !pods::is_finished(pod)
            && is_controlled_by(pod.as_ref(), uid(set))
    });
    let old = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: i32::try_from(owned.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: count(&fully_labeled),
        ready_replicas: count(&pods::is_ready),
        available_replicas: count(&|pod| {
            pods::available_in(pod, min_ready, world.now).is_some_and(|left| left.is_zero())
        }),
        terminating_replicas: Some(i32::try_from(leaving.count()).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, failure, world.now),
    }
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let known = conditions
        .iter()
        .any(|condition| condition.type_ == "ReplicaFailure");
    match failure {
        Some(_) if known => {}
        Some(failure) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

/// The Pods in the order in which they should go, by upstream's rules: the less a Pod does for the
/// user, the sooner (`controller.ActivePodsWithRanks`).
fn ranked(owned: &[Arc<Pod>], world: &World) -> Vec<Arc<Pod>> {
    let mut pods = owned.to_vec();
    pods.sort_by(|one, two| {
        let assigned = |pod: &Pod| pods::node_name(pod).is_some();
        let phase = |pod: &Pod| match pods::phase(pod) {
            "Pending" => 0,
            "Unknown" => 1,
            _ => 2,
        };
        let neighbours = |pod: &Pod| {
            pods::node_name(pod)
                .and_then(|node| world.neighbours.get(node))
                .copied()
                .unwrap_or(0)
        };
        assigned(one)
            .cmp(&assigned(two))
            .then_with(|| phase(one).cmp(&phase(two)))
            .then_with(|| pods::is_ready(one).cmp(&pods::is_ready(two)))
            .then_with(|| deletion_cost(one).cmp(&deletion_cost(two)))
            .then_with(|| neighbours(two).cmp(&neighbours(one)))
            .then_with(|| younger_first(pods::ready_since(one), pods::ready_since(two), world.now))
            .then_with(|| restarts(two).cmp(&restarts(one)))
            .then_with(|| younger_first(created(one), created(two), world.now))
            .then_with(|| uid(one.as_ref()).cmp(uid(two.as_ref())))
    });
    pods
}

/// Compares on a logarithmic scale, so that Pods of about the same age are picked at random
/// (by UID) rather than all of the newest first.
fn younger_first(one: Option<Timestamp>, two: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |since: Option<Timestamp>| {
        let age = now.duration_since(since?).as_nanos().max(0);
        Some(i128::BITS - age.leading_zeros())
    };
    magnitude(one).cmp(&magnitude(two))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .map(|status| status.restart_count)
        .max()
        .unwrap_or(0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|a| a.get(DELETION_COST)?.parse().ok())
        .unwrap_or(0)
}

/// The `n`th new Pod of this round.
fn new_pod(world: &World, n: usize) -> Pod {
    let set = world.replica_set.as_ref();
    let template = spec(set)
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let prefix = format!("{}-", set.metadata.name.as_deref().unwrap_or_default());
    // Names are labels too: what is too long is cut, as the server does for generateName.
    let base: String = prefix.chars().take(58).collect();
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{base}{}", suffix(world.seed, n))),
            generate_name: Some(prefix),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_reference(set)]),
            ..Default::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// Five characters of the alphabet of generated names, different for every `n` of one seed.
fn suffix(seed: u64, n: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const NAMES: u64 = 27 * 27 * 27 * 27 * 27;
    // A step that shares no factor with the number of names visits each before repeating one.
    let mut number = (seed % NAMES + (n as u64 % NAMES) * 7_368_787) % NAMES;
    let letter = |_| {
        let letter = ALPHABET[(number % 27) as usize];
        number /= 27;
        char::from(letter)
    };
    (0..5).map(letter).collect()
}

pub(crate) fn owner_reference(set: &ReplicaSet) -> OwnerReference {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: set.metadata.name.clone().unwrap_or_default(),
        uid: uid(set).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn spec(set: &ReplicaSet) -> Option<&ReplicaSetSpec> {
    set.spec.as_ref()
}

pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    spec(set).and_then(|spec| spec.replicas).unwrap_or(1)
}

/// The ReplicaSet's selector; `None` if it cannot be read or picks everything.
pub(crate) fn selector(set: &ReplicaSet) -> Option<Selector> {
    let selector = spec(set)?.selector.clone();
    let selector = Selector::try_from(selector).ok()?;
    (!selector.selects_all()).then_some(selector)
}

/// Whether a Pod concerns this ReplicaSet at all.
pub(crate) fn concerns(set: &ReplicaSet, selector: &Selector, pod: &Pod) -> bool {
    let none = BTreeMap::new();
    is_controlled_by(pod, uid(set))
        || selector.matches(pod.metadata.labels.as_ref().unwrap_or(&none))
}

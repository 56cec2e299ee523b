//! How a Deployment's ReplicaSets should look next.
//!
//! A round works on copies of the ReplicaSets, and what differs in the end becomes the writes:
//!
//! ```text
//!   claim ─▶ find or make the current one ─▶ paused or resized? ─▶ scale in proportion
//!                                          └▶ roll: more of the new, fewer of the old, clean up
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::kube::core::SelectorExt;
use coracle_client::{Selector, controller_of, is_controlled_by, is_terminating, uid};
use coracle_clock::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::revision::{
    DESIRED, annotate_new, annotate_size, annotation, new_replica_set, owner_reference,
    revision_of, same_template,
};
use super::{scale, status};
use crate::pods;

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) deployment: Arc<Deployment>,
    /// Every ReplicaSet of the namespace that the selector picks or that the Deployment controls.
    pub(crate) sets: Vec<Arc<ReplicaSet>>,
    /// The Pods of those ReplicaSets.
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) now: Timestamp,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Adopt(Arc<ReplicaSet>, Vec<OwnerReference>),
    Release(Arc<ReplicaSet>, Vec<OwnerReference>),
    Create(Box<ReplicaSet>),
    Update {
        old: Arc<ReplicaSet>,
        new: Box<ReplicaSet>,
    },
    Delete(Arc<ReplicaSet>),
    /// The Deployment's own revision annotation.
    SetRevision(i64),
    SetStatus(Box<DeploymentStatus>),
}

/// One step of the rollout, and the status that goes with it.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let deployment = world.deployment.as_ref();
    if selector(deployment).is_none() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    let mut round = Round::begin(world, &mut changes);
    if changes
        .iter()
        .any(|change| matches!(change, Change::Adopt(..)))
    {
        return changes; // what is adopted may be the very one that is missing: look again
    }
    if is_terminating(deployment) {
        round.status = round.counted();
        return round.finish(changes);
    }
    status::note_pause(&mut round.status, deployment, world.now);
    round.find_current();
    if status::is_paused(deployment) || round.is_resized() {
        scale::in_proportion(&mut round);
        if status::is_paused(deployment) {
            round.clean_up();
        }
        round.status = round.counted();
    } else {
        match recreates(deployment) {
            true => round.recreate(),
            false => round.roll(),
        }
        let counted = round.counted();
        let (sets, new) = (round.all(), round.current());
        round.status = status::progressed(counted, deployment, &sets, new, world.now);
    }
    round.finish(changes)
}

/// When to look again although nothing changes: a stuck rollout misses its deadline with time.
pub(crate) fn look_again(world: &World) -> Option<Duration> {
    let deployment = world.deployment.as_ref();
    let known = deployment.status.as_ref()?;
    if status::is_paused(deployment) || is_terminating(deployment) {
        return None;
    }
    status::stuck_in(deployment, known, world.now)
}

/// The status to write after the current ReplicaSet could not be created.
pub(crate) fn creation_failed(world: &World, name: &str, message: &str) -> DeploymentStatus {
    let status = world.deployment.status.clone().unwrap_or_default();
    status::creation_failed(status, name, message, world.now)
}

/// Whether a ReplicaSet concerns this Deployment at all.
pub(crate) fn concerns(deployment: &Deployment, selector: &Selector, set: &ReplicaSet) -> bool {
    let none = BTreeMap::new();
    is_controlled_by(set, uid(deployment))
        || selector.matches(set.metadata.labels.as_ref().unwrap_or(&none))
}

/// The Deployment's selector; `None` if it cannot be read or picks everything.
pub(crate) fn selector(deployment: &Deployment) -> Option<Selector> {
    let selector = Selector::try_from(deployment.spec.as_ref()?.selector.clone()).ok()?;
    (!selector.selects_all()).then_some(selector)
}

/// A ReplicaSet as it was and as it should be.
pub(super) struct Set {
    was: Option<Arc<ReplicaSet>>,
    pub(super) is: ReplicaSet,
    deleted: bool,
}

/// The working copies of one round.
pub(super) struct Round<'a> {
    world: &'a World,
    pub(super) sets: Vec<Set>,
    /// Which of them carries the current template.
    pub(super) new: Option<usize>,
    status: DeploymentStatus,
    revision: Option<i64>,
}

impl<'a> Round<'a> {
    fn begin(world: &'a World, changes: &mut Vec<Change>) -> Self {
        let mut sets: Vec<Set> = claim(world, changes)
            .into_iter()
            .map(|set| Set {
                is: set.as_ref().clone(),
                was: Some(set),
                deleted: false,
            })
            .collect();
        sets.sort_by_key(|set| age(&set.is));
        let status = world.deployment.status.clone().unwrap_or_default();
        Self {
            world,
            sets,
            new: None,
            status,
            revision: None,
        }
    }

    pub(super) fn deployment(&self) -> &'a Deployment {
        self.world.deployment.as_ref()
    }

    /// The ReplicaSet of the current template.
    pub(super) fn current(&self) -> Option<&ReplicaSet> {
        self.new.map(|index| &self.sets[index].is)
    }

    fn all(&self) -> Vec<&ReplicaSet> {
        self.sets.iter().map(|set| &set.is).collect()
    }

    /// Indices of all but the current one, oldest first.
    pub(super) fn old(&self) -> Vec<usize> {
        (0..self.sets.len())
            .filter(|index| Some(*index) != self.new)
            .collect()
    }

    pub(super) fn total(&self) -> i32 {
        sum(self.sets.iter().map(|set| replicas(&set.is)))
    }

    /// Finds the ReplicaSet of the current template, and gives it the newest revision.
    fn find_current(&mut self) {
        let deployment = self.deployment();
        let Some(spec) = deployment.spec.as_ref() else {
            return;
        };
        self.new = self.sets.iter().position(|set| {
            let template = set.is.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.is_some_and(|template| same_template(template, &spec.template))
        });
        // Nothing is made here: a Deployment that is paused or recreates has to wait.
        let Some(index) = self.new else { return };
        let newest = self.newest_old_revision() + 1;
        let set = &mut self.sets[index].is;
        annotate_new(set, deployment, newest);
        if let Some(own) = set.spec.as_mut()
            && own.min_ready_seconds.unwrap_or(0) != spec.min_ready_seconds.unwrap_or(0)
        {
            own.min_ready_seconds = spec.min_ready_seconds;
        }
        self.revision = Some(revision_of(&set.metadata));
        let name = set.metadata.name.clone().unwrap_or_default();
        status::note_new_set(&mut self.status, &name, false, self.world.now);
    }

    fn newest_old_revision(&self) -> i64 {
        self.old()
            .iter()
            .map(|index| revision_of(&self.sets[*index].is.metadata))
            .max()
            .unwrap_or(0)
    }

    /// Makes the ReplicaSet of the current template with as many replicas as it may have at once.
    fn make_current(&mut self) -> usize {
        if let Some(index) = self.new {
            return index;
        }
        let deployment = self.deployment();
        let revision = self.newest_old_revision() + 1;
        let mut set = new_replica_set(deployment);
        annotate_new(&mut set, deployment, revision);
        let name = set.metadata.name.clone().unwrap_or_default();
        self.sets.push(Set {
            was: None,
            is: set,
            deleted: false,
        });
        let index = self.sets.len() - 1;
        self.new = Some(index);
        self.revision = Some(revision);
        let size = self.room_for_new(index);
        self.resize(index, size);
        status::note_new_set(&mut self.status, &name, true, self.world.now);
        index
    }

    /// How many replicas the current ReplicaSet may have without exceeding the surge.
    fn room_for_new(&self, index: usize) -> i32 {
        let deployment = self.deployment();
        let (want, has) = (desired(deployment), replicas(&self.sets[index].is));
        if recreates(deployment) {
            return want;
        }
        let room = want.saturating_add(max_surge(deployment)) - self.total();
        if room <= 0 {
            has
        } else {
            has + room.min(want - has)
        }
    }

    /// Sets the size, and notes what it was made for.
    pub(super) fn resize(&mut self, index: usize, size: i32) {
        let deployment = self.deployment();
        let set = &mut self.sets[index].is;
        set.spec.get_or_insert_default().replicas = Some(size);
        let want = desired(deployment);
        annotate_size(set, want, want.saturating_add(max_surge(deployment)));
    }

    /// Whether the number asked for differs from the one the ReplicaSets were made for.
    fn is_resized(&self) -> bool {
        self.sets.iter().any(|set| {
            let noted: Option<i32> = annotation(&set.is.metadata, DESIRED);
            replicas(&set.is) > 0 && noted.is_some_and(|noted| noted != desired(self.deployment()))
        })
    }

    /// Replaces Pods a few at a time: up within the surge, down within what may be unavailable.
    fn roll(&mut self) {
        let new = self.make_current();
        let (want, has) = (desired(self.deployment()), replicas(&self.sets[new].is));
        let size = if has > want {
            want
        } else {
            self.room_for_new(new)
        };
        if size != has {
            return self.resize(new, size);
        }
        if !self.shrink_old(new) {
            self.clean_up_if_complete();
        }
    }

    /// Takes replicas from the old ReplicaSets, from the broken ones first; whether it took any.
    fn shrink_old(&mut self, new: usize) -> bool {
        let deployment = self.deployment();
        let old = self.old();
        let before = sum(old.iter().map(|index| replicas(&self.sets[*index].is)));
        if before == 0 {
            return false;
        }
        let least = desired(deployment) - max_unavailable(deployment);
        let current = &self.sets[new].is;
        let missing = replicas(current) - available(current);
        let mut spare = self.total().saturating_sub(least).saturating_sub(missing);
        if spare <= 0 {
            return false;
        }
        // Replicas that are not available serve nobody: they go before the new ones are up.
        for index in &old {
            let (has, works) = (
                replicas(&self.sets[*index].is),
                available(&self.sets[*index].is),
            );
            let broken = (has - works).max(0).min(spare);
            if broken > 0 {
                self.resize(*index, has - broken);
                spare -= broken;
            }
        }
        let working = sum(self.sets.iter().map(|set| available(&set.is)));
        let mut spare = working.saturating_sub(least);
        for index in &old {
            let has = replicas(&self.sets[*index].is);
            let fewer = has.min(spare);
            if fewer > 0 {
                self.resize(*index, has - fewer);
                spare -= fewer;
            }
        }
        sum(old.iter().map(|index| replicas(&self.sets[*index].is))) < before
    }

    /// Removes every old Pod before the first new one.
    fn recreate(&mut self) {
        let old = self.old();
        let active: Vec<_> = old
            .iter()
            .copied()
            .filter(|index| replicas(&self.sets[*index].is) > 0)
            .collect();
        for index in &active {
            self.resize(*index, 0);
        }
        if !active.is_empty() || self.old_pods_run(&old) {
            return;
        }
        let new = self.make_current();
        let want = desired(self.deployment());
        if replicas(&self.sets[new].is) != want {
            return self.resize(new, want);
        }
        self.clean_up_if_complete();
    }

    fn old_pods_run(&self, old: &[usize]) -> bool {
        old.iter().map(|index| &self.sets[*index].is).any(|set| {
            let counted = set
                .status
                .as_ref()
                .is_some_and(|status| status.replicas > 0);
            let mut own = self
                .world
                .pods
                .iter()
                .filter(|pod| is_controlled_by(pod.as_ref(), uid(set)));
            counted || own.any(|pod| !pods::is_finished(pod))
        })
    }

    fn clean_up_if_complete(&mut self) {
        if status::is_complete(self.deployment(), &self.counted()) {
            self.clean_up();
        }
    }

    /// Deletes the oldest of the empty old ReplicaSets that the history has no room for.
    fn clean_up(&mut self) {
        let limit = self
            .deployment()
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut old: Vec<_> = self
            .old()
            .into_iter()
            .filter(|index| !is_terminating(&self.sets[*index].is))
            .collect();
        let surplus = old
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|index| (revision_of(&self.sets[*index].is.metadata), *index));
        for index in old.into_iter().take(surplus) {
            let set = &mut self.sets[index];
            let observed = set.is.status.as_ref();
            let empty =
                replicas(&set.is) == 0 && observed.is_none_or(|status| status.replicas == 0);
            let seen = observed.and_then(|status| status.observed_generation)
                >= set.is.metadata.generation;
            set.deleted = empty && seen;
        }
    }

    fn counted(&self) -> DeploymentStatus {
        status::counted(
            self.deployment(),
            &self.status,
            &self.all(),
            self.current(),
            self.world.now,
        )
    }

    /// Turns what differs from the beginning into writes.
    fn finish(self, mut changes: Vec<Change>) -> Vec<Change> {
        let deployment = self.world.deployment.as_ref();
        for set in self.sets {
            changes.extend(match set.was {
                None => Some(Change::Create(Box::new(set.is))),
                Some(was) if set.deleted => Some(Change::Delete(was)),
                Some(was) if *was != set.is => Some(Change::Update {
                    old: was,
                    new: Box::new(set.is),
                }),
                Some(_) => None,
            });
        }
        if let Some(revision) = self
            .revision
            .filter(|revision| *revision != revision_of(&deployment.metadata))
        {
            changes.push(Change::SetRevision(revision));
        }
        if deployment.status.as_ref() != Some(&self.status) {
            changes.push(Change::SetStatus(Box::new(self.status)));
        }
        changes
    }
}

/// The ReplicaSets that are the Deployment's, including those it adopts in this round.
fn claim(world: &World, changes: &mut Vec<Change>) -> Vec<Arc<ReplicaSet>> {
    let deployment = world.deployment.as_ref();
    let Some(selector) = selector(deployment) else {
        return Vec::new();
    };
    let none = BTreeMap::new();
    let mut owned = Vec::new();
    for set in &world.sets {
        let picked = selector.matches(set.metadata.labels.as_ref().unwrap_or(&none));
        let mut owners = set.metadata.owner_references.clone().unwrap_or_default();
        owners.retain(|owner| owner.uid != uid(deployment));
        match controller_of(set.as_ref()) {
            Some(owner) if owner.uid != uid(deployment) => {}
            Some(_) if picked => owned.push(set.clone()),
            Some(_) if !is_terminating(deployment) => {
                changes.push(Change::Release(set.clone(), owners))
            }
            None if picked && !is_terminating(deployment) && !is_terminating(set.as_ref()) => {
                owners.push(owner_reference(deployment));
                changes.push(Change::Adopt(set.clone(), owners));
            }
            _ => {}
        }
    }
    owned
}

/// Orders by age; equal ages by name.
fn age(set: &ReplicaSet) -> (Option<Timestamp>, Option<String>) {
    (
        set.metadata.creation_timestamp.as_ref().map(|time| time.0),
        set.metadata.name.clone(),
    )
}

fn spec(deployment: &Deployment) -> Option<&DeploymentSpec> {
    deployment.spec.as_ref()
}

/// A sum that stays in range: anyone may ask for as many replicas as a number holds.
fn sum(counts: impl Iterator<Item = i32>) -> i32 {
    counts.fold(0, i32::saturating_add)
}

/// The number of replicas asked for.
pub(super) fn desired(deployment: &Deployment) -> i32 {
    spec(deployment)
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
        .max(0)
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

pub(super) fn recreates(deployment: &Deployment) -> bool {
    let strategy = spec(deployment).and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many replicas more than asked for there may be during a rollout.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    fences(deployment).0
}

/// How many replicas of those asked for may be missing during a rollout.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    fences(deployment).1.min(desired(deployment))
}

/// Surge (rounded up) and unavailable (rounded down); if both come to nothing, one may be missing,
/// or else nothing could ever move.
fn fences(deployment: &Deployment) -> (i32, i32) {
    if recreates(deployment) {
        return (0, 0);
    }
    let rolling = spec(deployment).and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let surge = rolling
        .and_then(|rolling| rolling.max_surge.as_ref())
        .unwrap_or(&quarter);
    let unavailable = rolling
        .and_then(|rolling| rolling.max_unavailable.as_ref())
        .unwrap_or(&quarter);
    let want = desired(deployment);
    match (
        resolve(surge, want, true),
        resolve(unavailable, want, false),
    ) {
        (0, 0) => (0, 1),
        fences => fences,
    }
}

/// A number, or a share of `total` in percent.
fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = i64::from(total)
                .saturating_mul(percent)
                .saturating_add(if round_up { 99 } else { 0 });
            i32::try_from(hundredths / 100).unwrap_or(i32::MAX).max(0)
        }
    }
}

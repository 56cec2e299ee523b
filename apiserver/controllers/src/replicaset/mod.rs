//! Keeps as many Pods as a ReplicaSet asks for.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use coracle_client::{
    Context, DeletePropagation, Error, EventKind, Lister, ObjectKey, Outcome, PendingWrites,
    Precondition, controller_of, uid,
};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::pace::Pace;
use crate::worker::{outcome, work};
use crate::{patch, pods};
use reconcile::{Change, Failure, World, concerns, reconcile, selector};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "replicaset-controller";

/// How many ReplicaSets are worked on at once.
const WORKERS: usize = 16;
/// How many Pods of one ReplicaSet are created or deleted at once: enough to share group commits.
const AT_ONCE: usize = 64;
/// Rounds of one ReplicaSet are this far apart for each of its Pods, and [`LONGEST`] at most.
const PER_POD: Duration = Duration::from_micros(100);
const LONGEST: Duration = Duration::from_millis(200);

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        sets: ctx.lister(),
        pods: ctx.lister(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        pace: Pace::new(ctx.clock().clone(), PER_POD, LONGEST),
        ctx: ctx.clone(),
    };
    let sets = ctx.lister::<ReplicaSet>();
    let queue = ctx
        .watch::<ReplicaSet>()
        .and_owned::<Pod>()
        // A Pod that nobody controls may be adopted by whoever's selector picks it.
        .and::<Pod>(move |change| {
            let pod = change.object().as_ref();
            if controller_of(pod).is_some() {
                return Vec::new();
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let candidates = sets.in_namespace(namespace);
            let picking = candidates
                .iter()
                .filter(|set| selector(set).is_some_and(|selector| concerns(set, &selector, pod)));
            picking.map(|set| ObjectKey::of(set.as_ref())).collect()
        })
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

struct Controller {
    ctx: Context,
    sets: Lister<ReplicaSet>,
    pods: Lister<Pod>,
    pending: PendingWrites<ObjectKey>,
    pace: Pace,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        if let Some(later) = self.pace.too_early(&key) {
            return later;
        }
        // Gone: the garbage collector follows the owner references.
        let Some(world) = self.observe(&key) else {
            return Outcome::Done;
        };
        self.pace.begins(&key, world.pods.len());
        outcome(NAME, &key, self.apply(&key, &world).await)
    }

    fn observe(&self, key: &ObjectKey) -> Option<World> {
        let replica_set = self.sets.get(key)?;
        let selector = selector(&replica_set)?;
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| concerns(&replica_set, &selector, pod));
        Some(World {
            neighbours: self.neighbours(&replica_set),
            replica_set,
            pods,
            now: self.ctx.clock().now(),
            seed: self.ctx.clock().random_u64(),
        })
    }

    /// Counts, per node, the active Pods of every ReplicaSet with the same controller.
    fn neighbours(&self, set: &ReplicaSet) -> HashMap<String, usize> {
        let siblings: Vec<_> = match controller_of(set) {
            Some(owner) => self
                .sets
                .owned_by(&owner.uid)
                .iter()
                .map(|sibling| uid(sibling.as_ref()).to_owned())
                .collect(),
            None => vec![uid(set).to_owned()],
        };
        let mut counts = HashMap::new();
        for pod in siblings
            .iter()
            .flat_map(|sibling| self.pods.owned_by(sibling))
        {
            if let Some(node) = pods::node_name(&pod).filter(|_| pods::is_active(&pod)) {
                *counts.entry(node.to_owned()).or_default() += 1;
            }
        }
        counts
    }

    async fn apply(&self, key: &ObjectKey, world: &World) -> Result<Outcome, Error> {
        let (mut creations, mut deletions) = (Vec::new(), Vec::new());
        let mut status = None;
        for change in reconcile(world) {
            match change {
                Change::Adopt(pod, owners) | Change::Release(pod, owners) => {
                    let owners = json!({"metadata": {"ownerReferences": owners}});
                    let when = Precondition::unchanged(pod.as_ref());
                    let pod_key = ObjectKey::of(pod.as_ref());
                    let written = self
                        .ctx
                        .objects()
                        .patch::<Pod>(&pod_key, &when, owners)
                        .await?;
                    self.pending.wrote(key, &self.pods, &written);
                }
                Change::Create(pod) => creations.push(*pod),
                Change::Delete(pod) => deletions.push(pod),
                Change::SetStatus(new) => status = Some(Change::SetStatus(new)),
            }
        }
        let set = world.replica_set.as_ref();
        let failure = match self.create(key, set, creations).await {
            Ok(()) => self.delete(key, set, deletions).await,
            failed => failed,
        };
        let error = match failure {
            Ok(()) => None,
            Err((failure, error)) => {
                status = reconcile::status_change(world, Some(&failure));
                Some(error)
            }
        };
        if let Some(Change::SetStatus(new)) = status {
            self.set_status(key, set, *new).await?;
        }
        match error {
            Some(error) => Err(error),
            None => Ok(reconcile::look_again(world).map_or(Outcome::Done, Outcome::After)),
        }
    }

    /// Creates the Pods in batches that double, so that a quota or a policy that refuses the first
    /// one is not asked five hundred times.
    async fn create(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        pods: Vec<Pod>,
    ) -> Result<(), (Failure, Error)> {
        let mut pods = pods.into_iter();
        let mut batch = 1;
        while pods.len() > 0 {
            let creating = pods
                .by_ref()
                .take(batch)
                .map(|pod| async move { self.ctx.objects().create(&pod).await });
            let answers: Vec<_> = stream::iter(creating)
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let mut failed = None;
            for answer in answers {
                match answer {
                    Ok(pod) => {
                        self.pending.wrote(key, &self.pods, &pod);
                        let name = pod.metadata.name.clone().unwrap_or_default();
                        let message = format!("Created pod: {name}");
                        self.ctx.recorder().event(
                            set,
                            EventKind::Normal,
                            "SuccessfulCreate",
                            message,
                        );
                    }
                    // Its content is being removed: there is nothing to tell and nobody to tell it.
                    Err(error) if error.is_namespace_terminating() => return Ok(()),
                    Err(error) => {
                        let message = format!("Error creating: {}", error.message());
                        self.ctx
                            .recorder()
                            .event(set, EventKind::Warning, "FailedCreate", message);
                        failed = Some(error);
                    }
                }
            }
            if let Some(error) = failed {
                return Err((
                    Failure {
                        reason: "FailedCreate",
                        message: error.message(),
                    },
                    error,
                ));
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        pods: Vec<std::sync::Arc<Pod>>,
    ) -> Result<(), (Failure, Error)> {
        let deleting = pods.into_iter().map(|pod| async move {
            let when = Precondition::uid_of(pod.as_ref());
            let pod_key = ObjectKey::of(pod.as_ref());
            let answer = self
                .ctx
                .objects()
                .delete::<Pod>(&pod_key, &when, DeletePropagation::Default, None)
                .await;
            (pod, answer)
        });
        let answers: Vec<_> = stream::iter(deleting)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut failed = None;
        for (pod, answer) in answers {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match answer {
                Ok(()) => {
                    self.pending.deleted(key, &self.pods, uid(pod.as_ref()));
                    let message = format!("Deleted pod: {name}");
                    self.ctx
                        .recorder()
                        .event(set, EventKind::Normal, "SuccessfulDelete", message);
                }
                Err(error) if error.is_conflict() => {} // another Pod of that name: not ours to delete
                Err(error) => {
                    let message = format!("Error deleting: {}", error.message());
                    self.ctx
                        .recorder()
                        .event(set, EventKind::Warning, "FailedDelete", message);
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) => Err((
                Failure {
                    reason: "FailedDelete",
                    message: error.message(),
                },
                error,
            )),
            None => Ok(()),
        }
    }

    async fn set_status(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Result<(), Error> {
        let old = set.status.clone().unwrap_or_default();
        let Some(difference) = patch::difference(&old, &status) else {
            return Ok(());
        };
        let patch = json!({"status": difference});
        let written = self.ctx.objects().update_status(set, &patch).await?;
        self.pending.wrote(key, &self.sets, &written);
        Ok(())
    }
}

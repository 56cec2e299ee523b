//! Rolls a Deployment's template out through ReplicaSets.

mod reconcile;
mod revision;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{
    Context, DeletePropagation, Error, EventKind, Lister, ObjectKey, Outcome, PendingWrites,
    Precondition, controller_of, is_controlled_by, uid,
};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::patch;
use crate::worker::{outcome, work};
use reconcile::{Change, World, concerns, creation_failed, look_again, reconcile, selector};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "deployment-controller";

/// How many Deployments are worked on at once.
const WORKERS: usize = 16;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        deployments: ctx.lister(),
        sets: ctx.lister(),
        pods: ctx.lister(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        ctx: ctx.clone(),
    };
    let deployments = ctx.lister::<Deployment>();
    let sets = ctx.lister::<ReplicaSet>();
    let queue = ctx
        .watch::<Deployment>()
        .and_owned::<ReplicaSet>()
        // A ReplicaSet that nobody controls may be adopted by whoever's selector picks it.
        .and::<ReplicaSet>(move |change| {
            let set = change.object().as_ref();
            if controller_of(set).is_some() {
                return Vec::new();
            }
            let candidates =
                deployments.in_namespace(set.metadata.namespace.as_deref().unwrap_or_default());
            let picking = candidates.iter().filter(|deployment| {
                selector(deployment).is_some_and(|selector| concerns(deployment, &selector, set))
            });
            picking
                .map(|deployment| ObjectKey::of(deployment.as_ref()))
                .collect()
        })
        // Recreate waits for the last old Pod to go; nothing else depends on single Pods.
        .and::<Pod>(move |change| {
            let pod = change.object().as_ref();
            let set = controller_of(pod)
                .filter(|_| change.is_deleted())
                .and_then(|owner| sets.by_uid(&owner.uid));
            let owner = set.as_ref().and_then(|set| controller_of(set.as_ref()));
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            owner
                .map(|owner| ObjectKey::new(namespace, owner.name.clone()))
                .into_iter()
                .collect()
        })
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

struct Controller {
    ctx: Context,
    deployments: Lister<Deployment>,
    sets: Lister<ReplicaSet>,
    pods: Lister<Pod>,
    pending: PendingWrites<ObjectKey>,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        // Gone: the garbage collector follows the owner references.
        let Some(world) = self.observe(&key) else {
            return Outcome::Done;
        };
        outcome(NAME, &key, self.apply(&key, &world).await)
    }

    fn observe(&self, key: &ObjectKey) -> Option<World> {
        let deployment = self.deployments.get(key)?;
        let Some(selector) = selector(&deployment) else {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            self.ctx.recorder().event(
                deployment.as_ref(),
                EventKind::Warning,
                "SelectingAll",
                message,
            );
            return None;
        };
        let mut sets = self.sets.in_namespace(&key.namespace);
        sets.retain(|set| concerns(&deployment, &selector, set));
        let own = sets
            .iter()
            .filter(|set| is_controlled_by(set.as_ref(), uid(deployment.as_ref())));
        let pods = own
            .flat_map(|set| self.pods.owned_by(uid(set.as_ref())))
            .collect();
        Some(World {
            deployment,
            sets,
            pods,
            now: self.ctx.clock().now(),
        })
    }

    async fn apply(&self, key: &ObjectKey, world: &World) -> Result<Outcome, Error> {
        // Each write of a round goes by what the one before it made.
        let mut known = Arc::clone(&world.deployment);
        for change in reconcile(world) {
            let deployment = known.as_ref();
            match change {
                Change::Adopt(set, owners) | Change::Release(set, owners) => {
                    let owners = json!({"metadata": {"ownerReferences": owners}});
                    self.patch_set(key, &set, owners).await?;
                }
                Change::Create(set) => self.create(key, world, *set).await?,
                Change::Update { old, new } => self.update(key, deployment, &old, &new).await?,
                Change::Delete(set) => {
                    let when = Precondition::unchanged(set.as_ref());
                    let set_key = ObjectKey::of(set.as_ref());
                    let how = DeletePropagation::Background;
                    self.ctx
                        .objects()
                        .delete::<ReplicaSet>(&set_key, &when, how, None)
                        .await?;
                    self.pending.deleted(key, &self.sets, uid(set.as_ref()));
                }
                Change::SetRevision(revision) => {
                    let revision = json!({"metadata": {"annotations": {revision::REVISION: revision.to_string()}}});
                    let written = self.ctx.objects().update(deployment, &revision).await?;
                    self.pending.wrote(key, &self.deployments, &written);
                    known = Arc::new(written);
                }
                Change::SetStatus(status) => self.set_status(key, deployment, &status).await?,
            }
        }
        Ok(look_again(world).map_or(Outcome::Done, Outcome::After))
    }

    async fn create(&self, key: &ObjectKey, world: &World, set: ReplicaSet) -> Result<(), Error> {
        let deployment = world.deployment.as_ref();
        let name = set.metadata.name.clone().unwrap_or_default();
        match self.ctx.objects().create(&set).await {
            Ok(written) => {
                self.pending.wrote(key, &self.sets, &written);
                self.scaled(deployment, &name, 0, reconcile::replicas(&written));
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                self.collide(key, deployment, &set, error).await
            }
            Err(error) if error.is_namespace_terminating() => Err(error),
            Err(error) => {
                let message = format!(
                    "Failed to create new replica set \"{name}\": {}",
                    error.message()
                );
                self.ctx.recorder().event(
                    deployment,
                    EventKind::Warning,
                    "ReplicaSetCreateError",
                    message,
                );
                let status = creation_failed(world, &name, &error.message());
                self.set_status(key, deployment, &status).await?;
                Err(error)
            }
        }
    }

    /// The name is taken. If the cache was behind, the one who has it is the one we want; else
    /// counting the collision gives the next attempt another name.
    async fn collide(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: Error,
    ) -> Result<(), Error> {
        let template = |set: &ReplicaSet| {
            set.spec
                .as_ref()
                .and_then(|spec| spec.template.clone())
                .unwrap_or_default()
        };
        let existing = self
            .ctx
            .objects()
            .get::<ReplicaSet>(&ObjectKey::of(set))
            .await?;
        let ours = existing.as_ref().is_some_and(|existing| {
            is_controlled_by(existing, uid(deployment))
                && revision::same_template(&template(existing), &template(set))
        });
        match existing {
            Some(existing) if ours => {
                self.pending.wrote(key, &self.sets, &existing);
                Ok(())
            }
            _ => {
                let known = deployment
                    .status
                    .as_ref()
                    .and_then(|status| status.collision_count)
                    .unwrap_or(0);
                let patch = json!({"status": {"collisionCount": known.saturating_add(1)}});
                let written = self.ctx.objects().update_status(deployment, &patch).await?;
                self.pending.wrote(key, &self.deployments, &written);
                Err(error)
            }
        }
    }

    async fn update(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        old: &Arc<ReplicaSet>,
        new: &ReplicaSet,
    ) -> Result<(), Error> {
        let Some(difference) = patch::difference(old.as_ref(), new) else {
            return Ok(());
        };
        self.patch_set(key, old, difference).await?;
        let (from, to) = (reconcile::replicas(old), reconcile::replicas(new));
        self.scaled(
            deployment,
            old.metadata.name.as_deref().unwrap_or_default(),
            from,
            to,
        );
        Ok(())
    }

    fn scaled(&self, deployment: &Deployment, name: &str, from: i32, to: i32) {
        let direction = match to.cmp(&from) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return,
        };
        let message = format!("Scaled {direction} replica set {name} from {from} to {to}");
        self.ctx
            .recorder()
            .event(deployment, EventKind::Normal, "ScalingReplicaSet", message);
    }

    async fn patch_set(
        &self,
        key: &ObjectKey,
        set: &Arc<ReplicaSet>,
        patch: serde_json::Value,
    ) -> Result<(), Error> {
        let when = Precondition::unchanged(set.as_ref());
        let set_key = ObjectKey::of(set.as_ref());
        let written = self
            .ctx
            .objects()
            .patch::<ReplicaSet>(&set_key, &when, patch)
            .await?;
        self.pending.wrote(key, &self.sets, &written);
        Ok(())
    }

    async fn set_status(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        status: &DeploymentStatus,
    ) -> Result<(), Error> {
        let old = deployment.status.clone().unwrap_or_default();
        let Some(difference) = patch::difference(&old, status) else {
            return Ok(());
        };
        let patch = json!({"status": difference});
        let written = self.ctx.objects().update_status(deployment, &patch).await?;
        self.pending.wrote(key, &self.deployments, &written);
        Ok(())
    }
}

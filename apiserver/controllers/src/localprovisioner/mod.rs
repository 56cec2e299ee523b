//! Makes volumes for claims out of folders of this node, and removes them when they are released.
//!
//! ```text
//! claim with our name in its annotation ─▶ PersistentVolume, already bound to the claim
//! PersistentVolume of ours, released, Delete ─▶ its folder is removed ─▶ it is deleted
//! ```
//!
//! It is to the [binder](crate::persistentvolume) what an external provisioner is upstream, with the same
//! annotations, finalizer and Events. The folder is made by the kubelet when a pod first mounts it.

mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_client::{
    Context, DeletePropagation, Error, EventRecorder, Lister, ObjectKey, Outcome, Precondition,
    supervise,
};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::persistentvolume::NAME as BINDER;
use crate::worker::{outcome, work};
use reconcile::{Change, ClaimWorld, VolumeWorld};

/// What StorageClasses call this provisioner; its Events say so too.
pub const PROVISIONER: &str = "coracle.dev/local-path";

const WORKERS: usize = 2;

/// How long a folder that could not be removed waits before the next attempt.
const REMOVE_RETRY: Duration = Duration::from_secs(15);

/// The node's folder of volumes: given by whoever knows the disk.
#[async_trait]
pub trait LocalVolumes: Send + Sync {
    /// The node whose pods can reach the volumes.
    fn node(&self) -> &str;

    /// Where the volume of that name lies: an absolute path of the host.
    fn path(&self, volume: &str) -> String;

    /// Removes the volume with all that is in it. One that is not there counts as removed.
    async fn remove(&self, volume: &str) -> Result<(), String>;
}

/// Runs until the context is stopped, under upstream's user `persistent-volume-binder`; started again
/// should it panic.
pub async fn run_local_provisioner(ctx: Context, local: Arc<dyn LocalVolumes>) {
    let ctx = ctx.for_component(BINDER);
    let (clock, stop) = (ctx.clock().clone(), ctx.stop().clone());
    supervise("local-provisioner", clock, stop, move || {
        run(ctx.clone(), Arc::clone(&local))
    })
    .await;
}

async fn run(ctx: Context, local: Arc<dyn LocalVolumes>) {
    let (objects, clock, stop) = (
        ctx.objects().clone(),
        ctx.clock().clone(),
        ctx.stop().clone(),
    );
    let provisioner = Provisioner {
        claims: ctx.lister(),
        volumes: ctx.lister(),
        classes: ctx.lister(),
        recorder: EventRecorder::new(objects, clock, stop, PROVISIONER, None),
        ctx: ctx.clone(),
        local,
    };
    let queue = ctx
        .watch::<PersistentVolumeClaim>()
        .and::<PersistentVolume>(|change| vec![ObjectKey::of(change.object().as_ref())])
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let result = match key.namespace.is_empty() {
            true => provisioner.volume(&key).await,
            false => provisioner.claim(&key).await,
        };
        outcome(PROVISIONER, &key, result)
    };
    work(queue, WORKERS, sync).await;
}

struct Provisioner {
    ctx: Context,
    recorder: EventRecorder,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    classes: Lister<StorageClass>,
    local: Arc<dyn LocalVolumes>,
}

impl Provisioner {
    async fn claim(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(claim) = self.claims.get(key) else {
            return Ok(Outcome::Done);
        };
        let name = reconcile::volume_name(&claim);
        let spec = claim.spec.as_ref();
        let bound = spec.and_then(|spec| spec.volume_name.clone());
        let volume = bound.filter(|n| !n.is_empty()).unwrap_or(name.clone());
        let class = crate::persistentvolume::matching::class_of(&claim);
        let world = ClaimWorld {
            class: self.classes.get(&ObjectKey::cluster(class)),
            volume: self.volumes.get(&ObjectKey::cluster(volume)),
            node: self.local.node().to_owned(),
            path: self.local.path(&name),
            claim: Arc::clone(&claim),
        };
        let objects = self.ctx.objects();
        for change in reconcile::claim(&world) {
            match change {
                Change::Create(volume) => match objects.create(volume.as_ref()).await {
                    Err(error) if error.is_already_exists() => {}
                    made => drop(made?),
                },
                Change::Volume(patch) => {
                    if let Some(volume) = &world.volume {
                        objects.update(volume.as_ref(), &patch).await?;
                    }
                }
                Change::Tell(kind, reason, message) => {
                    self.recorder.event(claim.as_ref(), kind, reason, message);
                }
                Change::Remove | Change::Delete => {}
            }
        }
        Ok(Outcome::Done)
    }

    async fn volume(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(Outcome::Done);
        };
        let world = VolumeWorld {
            path: self.local.path(&key.name),
            volume: Arc::clone(&volume),
        };
        let objects = self.ctx.objects();
        for change in reconcile::volume(&world) {
            match change {
                Change::Remove => {
                    if let Err(problem) = self.local.remove(&key.name).await {
                        let kind = coracle_client::EventKind::Warning;
                        self.recorder
                            .event(volume.as_ref(), kind, "VolumeFailedDelete", problem);
                        return Ok(Outcome::After(REMOVE_RETRY));
                    }
                }
                Change::Delete => {
                    let when = Precondition::uid_of(volume.as_ref());
                    let propagation = DeletePropagation::Background;
                    objects
                        .delete::<PersistentVolume>(key, &when, propagation, None)
                        .await?;
                }
                Change::Volume(patch) => {
                    objects.update(volume.as_ref(), &patch).await?;
                }
                Change::Tell(kind, reason, message) => {
                    self.recorder.event(volume.as_ref(), kind, reason, message);
                }
                Change::Create(_) => {}
            }
        }
        Ok(Outcome::Done)
    }
}

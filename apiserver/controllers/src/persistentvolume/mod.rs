//! Binds claims and volumes to each other, and says what became of both.
//!
//! Making and removing volumes is left to provisioners, of which this process has
//! [one](crate::localprovisioner): a claim is told, by an annotation, who is to make its volume.

pub(crate) mod matching;
pub(crate) mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{Context, Error, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::worker::{outcome, work};
use reconcile::{Change, ClaimWorld, VolumeWorld};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "persistent-volume-binder";

/// One: two claims must not choose the same volume.
const WORKERS: usize = 1;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let binder = Binder {
        claims: ctx.lister(),
        volumes: ctx.lister(),
        classes: ctx.lister(),
        ctx: ctx.clone(),
    };
    let (waiting, waiting_for_class) = (binder.claims.clone(), binder.claims.clone());
    let queue = ctx
        .watch::<PersistentVolumeClaim>()
        .and::<PersistentVolumeClaim>(|change| {
            // Its volume is released when it goes.
            let claim = change.object();
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
            volume.map(ObjectKey::cluster).into_iter().collect()
        })
        .and::<PersistentVolume>(move |change| {
            let volume = change.object();
            let mut keys = vec![ObjectKey::of(volume.as_ref())];
            match volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
                Some(claim) => keys.push(ObjectKey::new(
                    claim.namespace.clone().unwrap_or_default(),
                    claim.name.clone().unwrap_or_default(),
                )),
                // A volume that is free may be what somebody waits for.
                None => keys.extend(unbound(&waiting)),
            }
            keys
        })
        .and::<StorageClass>(move |_| unbound(&waiting_for_class))
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let result = match key.namespace.is_empty() {
            true => binder.volume(&key).await,
            false => binder.claim(&key).await,
        };
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    };
    work(queue, WORKERS, sync).await;
}

/// The claims that have no volume.
fn unbound(claims: &Lister<PersistentVolumeClaim>) -> Vec<ObjectKey> {
    let is_unbound = |claim: &Arc<PersistentVolumeClaim>| {
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        phase.is_none_or(|phase| phase == "Pending")
    };
    let all = claims.list().into_iter().filter(is_unbound);
    all.map(|claim| ObjectKey::of(claim.as_ref())).collect()
}

struct Binder {
    ctx: Context,
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    classes: Lister<StorageClass>,
}

impl Binder {
    async fn claim(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.get(key) else {
            return Ok(());
        };
        let world = ClaimWorld {
            claim: Arc::clone(&claim),
            volumes: self.volumes.list(),
            classes: self.classes.list(),
        };
        let plan = reconcile::claim(&world);
        let lost = |change: &Change| matches!(change, Change::ClaimStatus(patch) if patch["status"]["phase"] == "Lost");
        if plan.changes.iter().any(lost) && self.is_behind(&claim).await? {
            return Ok(());
        }
        let volume = plan.volume.map(|volume| volume.as_ref().clone());
        self.apply(plan.changes, Some(claim.as_ref().clone()), volume)
            .await
    }

    /// Whether the claim's volume is there though the cache does not show it: its event brings the claim
    /// round again.
    async fn is_behind(&self, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(false);
        };
        let key = ObjectKey::cluster(name);
        let is_known = self.volumes.get(&key).is_some();
        let objects = self.ctx.objects();
        Ok(!is_known && objects.get::<PersistentVolume>(&key).await?.is_some())
    }

    async fn volume(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(volume) = self.volumes.get(key) else {
            return Ok(());
        };
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let mut claim = None;
        if let Some(reference) = reference {
            let key = ObjectKey::new(
                reference.namespace.clone().unwrap_or_default(),
                reference.name.clone().unwrap_or_default(),
            );
            claim = self.claims.get(&key);
            let is_it = |uid: &Option<String>| *uid == reference.uid;
            if !claim.as_ref().is_some_and(|c| is_it(&c.metadata.uid)) {
                // Data may depend on it, so the cache is not enough.
                let objects = self.ctx.objects();
                let found = objects.get::<PersistentVolumeClaim>(&key).await?;
                claim = found.filter(|c| is_it(&c.metadata.uid)).map(Arc::new);
            }
        }
        let changes = reconcile::volume(&VolumeWorld {
            volume: Arc::clone(&volume),
            claim,
        });
        self.apply(changes, None, Some(volume.as_ref().clone()))
            .await
    }

    /// Writes in order; each write is of the object as the one before left it.
    async fn apply(
        &self,
        changes: Vec<Change>,
        mut claim: Option<PersistentVolumeClaim>,
        mut volume: Option<PersistentVolume>,
    ) -> Result<(), Error> {
        let (objects, recorder) = (self.ctx.objects(), self.ctx.recorder());
        for change in changes {
            match (change, &mut claim, &mut volume) {
                (Change::Claim(patch), Some(claim), _) => {
                    *claim = objects.update(claim, &patch).await?;
                }
                (Change::ClaimStatus(patch), Some(claim), _) => {
                    *claim = objects.update_status(claim, &patch).await?;
                }
                (Change::Volume(patch), _, Some(volume)) => {
                    *volume = objects.update(volume, &patch).await?;
                }
                (Change::VolumeStatus(patch), _, Some(volume)) => {
                    *volume = objects.update_status(volume, &patch).await?;
                }
                (Change::Tell(kind, reason, message), Some(claim), _) => {
                    recorder.event(claim, kind, reason, message);
                }
                (Change::TellOfVolume(kind, reason, message), _, Some(volume)) => {
                    recorder.event(volume, kind, reason, message);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

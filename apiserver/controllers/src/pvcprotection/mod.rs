//! Keeps a claim that is being deleted until no pod uses it.

mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{Context, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::worker::{outcome, work};
use reconcile::{World, claims_of, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "pvc-protection-controller";

const WORKERS: usize = 2;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let (claims, pods): (Lister<PersistentVolumeClaim>, Lister<Pod>) = (ctx.lister(), ctx.lister());
    let queue = ctx
        .watch::<PersistentVolumeClaim>()
        .and::<Pod>(|change| {
            let pod = change.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let claims = claims_of(pod).into_iter();
            claims.map(|name| ObjectKey::new(namespace, name)).collect()
        })
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let Some(claim) = claims.get(&key) else {
            return Outcome::Done;
        };
        let mut world = World {
            pods: pods.in_namespace(&key.namespace),
            claim: Arc::clone(&claim),
        };
        let Some(mut patch) = reconcile(&world) else {
            return Outcome::Done;
        };
        if claim.metadata.deletion_timestamp.is_some() {
            // A pod that the cache does not show yet would lose its data.
            let params = Default::default();
            let live = ctx.objects().list::<Pod>(Some(&key.namespace), &params);
            match live.await {
                Ok(live) => world.pods = live.items.into_iter().map(Arc::new).collect(),
                Err(error) => return outcome(NAME, &key, Err(error)),
            }
            match reconcile(&world) {
                Some(still) => patch = still,
                None => return Outcome::Done,
            }
        }
        let written = ctx.objects().update(claim.as_ref(), &patch).await;
        outcome(NAME, &key, written.map(|_| Outcome::Done))
    };
    work(queue, WORKERS, sync).await;
}

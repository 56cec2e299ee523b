//! Makes the claims of pods' `ephemeral` volumes; they go with their pods.

mod reconcile;

use coracle_client::{Context, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use crate::worker::{outcome, work};
use reconcile::reconcile;

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "ephemeral-volume-controller";

const WORKERS: usize = 2;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let (pods, claims): (Lister<Pod>, Lister<PersistentVolumeClaim>) = (ctx.lister(), ctx.lister());
    let queue = ctx
        .watch::<Pod>()
        .and::<PersistentVolumeClaim>(|change| {
            // One that was deleted is made again.
            if !change.is_deleted() {
                return Vec::new();
            }
            let claim = change.object();
            let namespace = claim.metadata.namespace.clone().unwrap_or_default();
            let mut owners = claim.metadata.owner_references.iter().flatten();
            let owner = owners.find(|o| o.kind == "Pod" && o.controller == Some(true));
            let key = owner.map(|owner| ObjectKey::new(namespace, owner.name.clone()));
            key.into_iter().collect()
        })
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let Some(pod) = pods.get(&key) else {
            return Outcome::Done;
        };
        for claim in reconcile(&pod, |name| {
            claims
                .get(&ObjectKey::new(key.namespace.clone(), name))
                .is_some()
        }) {
            match ctx.objects().create(&claim).await {
                Err(error) if !error.is_already_exists() => {
                    return outcome(NAME, &key, Err(error));
                }
                _ => {}
            }
        }
        Outcome::Done
    };
    work(queue, WORKERS, sync).await;
}

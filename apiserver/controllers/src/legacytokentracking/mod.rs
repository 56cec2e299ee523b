//! Keeps the ConfigMap that says since when uses of tokens in Secrets are written down.
//!
//! The API server writes uses down; who cleans up must know how long it has done so. Upstream runs this within the API
//! server (pkg/controlplane/controller/legacytokentracking).

mod reconcile;
#[cfg(test)]
mod tests;

use std::time::Duration;

use coracle_client::{Context, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::worker::{outcome, work};
use reconcile::{Change, World, reconcile};
pub(crate) use reconcile::{MAP, NAMESPACE, since};

/// The user's name; upstream's is a part of the API server.
pub(crate) const NAME: &str = "legacy-token-tracking-controller";

/// A ConfigMap that is deleted again and again is made again no more often than this.
const REMAKE_EVERY: Duration = Duration::from_secs(1800);

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let ours = format!("metadata.namespace={NAMESPACE},metadata.name={MAP}");
    let maps: Lister<ConfigMap> = ctx.lister_of(&ours);
    let key = ObjectKey::new(NAMESPACE, MAP);
    let queue = ctx.watch_of::<ConfigMap>(&ours).into_queue().await;
    queue.add(key.clone());
    let made = parking_lot::Mutex::new(None);
    let sync = async |key: ObjectKey| {
        let world = World {
            map: maps.get(&key),
            now: ctx.clock().now(),
        };
        let result = match reconcile(&world) {
            None => Ok(()),
            Some(Change::Create(map)) => {
                let now = ctx.clock().monotonic();
                let last: Option<Duration> = *made.lock();
                if let Some(wait) = last.and_then(|last| (last + REMAKE_EVERY).checked_sub(now))
                    && !wait.is_zero()
                {
                    return Outcome::After(wait);
                }
                match ctx.objects().create(&map).await {
                    // The cache may not show yet what is there.
                    Err(error) if error.is_already_exists() => Ok(()),
                    Err(error) => Err(error),
                    Ok(_) => {
                        *made.lock() = Some(now);
                        Ok(())
                    }
                }
            }
            Some(Change::Replace(map)) => ctx.objects().replace(&map).await.map(drop),
        };
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    };
    work(queue, 1, sync).await;
}

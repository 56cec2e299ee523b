//! Gives every namespace its ServiceAccount `default`.

mod reconcile;
#[cfg(test)]
mod tests;

use coracle_client::{Context, Lister, ObjectKey, Outcome, PendingWrites};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};

use crate::worker::{outcome, work};
use reconcile::{World, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "service-account-controller";

const WORKERS: usize = 4;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let namespaces: Lister<Namespace> = ctx.lister();
    let accounts: Lister<ServiceAccount> = ctx.lister();
    let pending = PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE);
    let queue = ctx
        .watch::<Namespace>()
        .and::<ServiceAccount>(|change| {
            let namespace = change
                .object()
                .metadata
                .namespace
                .clone()
                .filter(|_| change.is_deleted());
            namespace.map(ObjectKey::cluster).into_iter().collect()
        })
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        if let Some(wait) = pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        let namespace = namespaces.get(&key);
        let account = accounts.get(&ObjectKey::new(key.name.clone(), "default"));
        let Some(missing) = reconcile(&World { namespace, account }) else {
            return Outcome::Done;
        };
        let result = match ctx.objects().create(&missing).await {
            Ok(written) => {
                pending.wrote(&key, &accounts, &written);
                Ok(Outcome::Done)
            }
            Err(error) if error.is_already_exists() => Ok(Outcome::Done),
            Err(error) => Err(error),
        };
        outcome(NAME, &key, result)
    };
    work(queue, WORKERS, sync).await;
}

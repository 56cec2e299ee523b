//! Publishes how the API server knows its clients, for API servers that are asked in its place.
//!
//! Upstream runs this within the API server (pkg/controlplane/controller/clusterauthenticationtrust). There several servers
//! add to one ConfigMap; here is one, so the ConfigMap says what it believes and nothing else.

mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{Context, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::worker::{outcome, work};
use crate::{ClusterTrust, when_published_anew};
use reconcile::{Change, MAP, NAMESPACE, World, reconcile};

/// The user's name; upstream's is a part of the API server.
pub(crate) const NAME: &str = "cluster-authentication-trust-controller";

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context, trust: Arc<ClusterTrust>) {
    let ours = format!("metadata.namespace={NAMESPACE},metadata.name={MAP}");
    let maps: Lister<ConfigMap> = ctx.lister_of(&ours);
    let key = ObjectKey::new(NAMESPACE, MAP);
    let queue = ctx.watch_of::<ConfigMap>(&ours).into_queue().await;
    queue.add(key.clone());
    let sync = async |key: ObjectKey| {
        let world = World {
            map: maps.get(&key),
            authentication: trust.published.borrow().authentication.clone(),
        };
        let result = match reconcile(&world) {
            None => Ok(()),
            Some(Change::Create(map)) => match ctx.objects().create(&map).await {
                // The cache may not show yet what is there.
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            },
            Some(Change::Replace(map)) => ctx.objects().replace(&map).await.map(drop),
        };
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    };
    let anew = when_published_anew(&trust, || queue.add(key.clone()));
    tokio::select! {
        () = work(queue.clone(), 1, sync) => {}
        () = anew => {}
    }
}

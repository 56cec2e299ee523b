//! Puts the certificates of the cluster's authority into every namespace, where pods' volumes find them.

mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{Context, Lister, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

use crate::worker::{outcome, work};
use crate::{ClusterTrust, when_published_anew};
use reconcile::{Change, MAP, World, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "root-ca-cert-publisher";

const WORKERS: usize = 4;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context, trust: Arc<ClusterTrust>) {
    let namespaces: Lister<Namespace> = ctx.lister();
    // Of all ConfigMaps of the cluster no other is of interest.
    let ours = format!("metadata.name={MAP}");
    let maps: Lister<ConfigMap> = ctx.lister_of(&ours);
    let queue = ctx
        .watch::<Namespace>()
        .and_of::<ConfigMap>(&ours, |change| {
            let namespace = change.object().metadata.namespace.clone();
            namespace.map(ObjectKey::cluster).into_iter().collect()
        })
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let world = World {
            namespace: namespaces.get(&key),
            map: maps.get(&ObjectKey::new(key.name.clone(), MAP)),
            authority: trust.authority(),
        };
        let result = match reconcile(&world) {
            None => Ok(()),
            // The cache may not show yet what is there.
            Some(Change::Create(map)) => match ctx.objects().create(&map).await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            },
            Some(Change::Replace(map)) => ctx.objects().replace(&map).await.map(drop),
        };
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    };
    let everywhere = when_published_anew(&trust, || {
        for namespace in namespaces.list() {
            queue.add(ObjectKey::of(namespace.as_ref()));
        }
    });
    tokio::select! {
        () = work(queue.clone(), WORKERS, sync) => {}
        () = everywhere => {}
    }
}

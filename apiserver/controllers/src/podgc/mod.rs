//! Removes Pods that no kubelet will ever look after again.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use coracle_client::{
    Context, DeletePropagation, Error, Lister, ObjectClient, ObjectKey, Outcome, Precondition,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;

use crate::pods;
use crate::worker::{outcome, work};
use reconcile::{Change, QUARANTINE, World, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "pod-garbage-collector";

const WORKERS: usize = 8;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let (nodes, all): (Lister<Node>, Lister<Pod>) = (ctx.lister(), ctx.lister());
    let of_node = all.clone();
    let queue = ctx
        .watch::<Pod>()
        .and::<Node>(move |change| {
            if !change.is_deleted() {
                return Vec::new();
            }
            let name = change.object().metadata.name.as_deref();
            let left = of_node
                .list()
                .into_iter()
                .filter(|pod| pods::node_name(pod) == name);
            left.map(|pod| ObjectKey::of(pod.as_ref())).collect()
        })
        .into_queue()
        .await;
    // When each node was first missed; a node that comes back is forgotten here.
    let missed: Mutex<HashMap<String, std::time::Duration>> = Mutex::default();
    let sync = async |key: ObjectKey| {
        let Some(pod) = all.get(&key) else {
            return Outcome::Done;
        };
        let missing_for = pods::node_name(&pod).and_then(|name| {
            let mut missed = missed.lock();
            missed.retain(|name, _| nodes.get(&ObjectKey::cluster(name.as_str())).is_none());
            if nodes.get(&ObjectKey::cluster(name)).is_some() {
                return None;
            }
            let now = ctx.clock().monotonic();
            Some(now.saturating_sub(*missed.entry(name.to_owned()).or_insert(now)))
        });
        let world = World {
            pod,
            missing_for,
            now: ctx.clock().now(),
        };
        let changes = reconcile(&world);
        if changes.is_empty() {
            return missing_for.map_or(Outcome::Done, |missing| {
                Outcome::After(QUARANTINE.saturating_sub(missing))
            });
        }
        outcome(
            NAME,
            &key,
            apply(ctx.objects(), &key, &world, changes).await,
        )
    };
    work(queue, WORKERS, sync).await;
}

async fn apply(
    objects: &ObjectClient,
    key: &ObjectKey,
    world: &World,
    changes: Vec<Change>,
) -> Result<Outcome, Error> {
    let pod = world.pod.as_ref();
    // The cache may be behind: a node that has just joined keeps its Pods.
    if let Some(node) = pods::node_name(pod).filter(|_| world.missing_for.is_some())
        && objects
            .get::<Node>(&ObjectKey::cluster(node))
            .await?
            .is_some()
    {
        return Ok(Outcome::Retry);
    }
    let when = Precondition::uid_of(pod);
    for change in changes {
        match change {
            Change::Fail(condition) => {
                let patch = json!({"status": {"phase": "Failed", "conditions": [condition]}});
                objects
                    .strategic_patch_status::<Pod>(key, &when, patch)
                    .await?;
            }
            Change::Delete => {
                objects
                    .delete::<Pod>(key, &when, DeletePropagation::Default, Some(0))
                    .await?;
            }
        }
    }
    Ok(Outcome::Done)
}

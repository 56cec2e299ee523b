//! Keeps the EndpointSlices of Services with a selector.

pub(crate) mod reconcile;
#[cfg(test)]
mod tests;

use std::time::Duration;

use coracle_client::{
    Change as Seen, Context, DeletePropagation, Error, Lister, ObjectKey, Outcome, PendingWrites,
    Precondition, is_controlled_by, uid,
};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::pace::Pace;
use crate::worker::{outcome, services_of, work};
use crate::{patch, pods};
use reconcile::{Change, MANAGED_BY, MANAGER, SERVICE_NAME, World, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "endpointslice-controller";

const WORKERS: usize = 16;
/// Rounds of one Service are this far apart for each of its Pods, and [`LONGEST`] at most: as far as upstream's proxies
/// take them over (`minSyncPeriod`).
const PER_POD: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 16;
/// The label that says where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        services: ctx.lister(),
        pods: ctx.lister(),
        slices: ctx.lister(),
        nodes: ctx.lister(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        pace: Pace::new(ctx.clock().clone(), PER_POD, LONGEST),
        ctx: ctx.clone(),
    };
    let queue = ctx
        .watch::<Service>()
        .and::<Pod>(services_of(ctx.lister()))
        .and::<Node>(all_if_moved(ctx.lister()))
        .and::<EndpointSlice>(|change| {
            let labels = change.object().metadata.labels.clone().unwrap_or_default();
            let ours = labels
                .get(MANAGED_BY)
                .is_some_and(|manager| manager == MANAGER);
            let namespace = change
                .object()
                .metadata
                .namespace
                .clone()
                .unwrap_or_default();
            let service = labels.get(SERVICE_NAME).filter(|_| ours);
            service
                .map(|service| ObjectKey::new(namespace, service.clone()))
                .into_iter()
                .collect()
        })
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

/// All Services, when a node is somewhere else than before.
fn all_if_moved(services: Lister<Service>) -> impl Fn(&Seen<Node>) -> Vec<ObjectKey> {
    move |change| {
        let now = zone(change.object()).filter(|_| !change.is_deleted());
        let before = change.old().and_then(|old| zone(old));
        match now == before {
            true => Vec::new(),
            false => {
                let all = services.list();
                all.iter()
                    .map(|service| ObjectKey::of(service.as_ref()))
                    .collect()
            }
        }
    }
}

fn zone(node: &Node) -> Option<&String> {
    let labels = node.metadata.labels.as_ref()?;
    labels.get(ZONE).filter(|zone| !zone.is_empty())
}

struct Controller {
    ctx: Context,
    services: Lister<Service>,
    pods: Lister<Pod>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
    pending: PendingWrites<ObjectKey>,
    pace: Pace,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        if let Some(later) = self.pace.too_early(&key) {
            return later;
        }
        // Gone: the garbage collector follows the owner references.
        let Some(world) = self.observe(&key) else {
            return Outcome::Done;
        };
        self.pace.begins(&key, world.pods.len());
        let changes = reconcile(&world);
        let writes = changes.into_iter().map(|change| self.apply(&key, change));
        let answers: Vec<_> = stream::iter(writes)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let result: Result<(), Error> = answers.into_iter().collect();
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    }

    fn observe(&self, key: &ObjectKey) -> Option<World> {
        let service = self.services.get(key)?;
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| pods::selects(&service, pod.metadata.labels.as_ref()));
        // Slices that somebody else made for the Service are theirs.
        let mut slices = self.slices.owned_by(uid(service.as_ref()));
        slices.retain(|slice| {
            let manager = slice
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(MANAGED_BY));
            manager.is_some_and(|manager| manager == MANAGER)
                && is_controlled_by(slice.as_ref(), uid(service.as_ref()))
        });
        let nodes = self.nodes.list();
        let placed = nodes
            .iter()
            .filter_map(|node| Some((node.metadata.name.clone()?, zone(node)?.clone())));
        Some(World {
            service,
            pods,
            slices,
            zones: placed.collect(),
        })
    }

    async fn apply(&self, key: &ObjectKey, change: Change) -> Result<(), Error> {
        match change {
            Change::Create(slice) => {
                let written = self.ctx.objects().create(slice.as_ref()).await?;
                self.pending.wrote(key, &self.slices, &written);
            }
            Change::Update { old, new } => {
                let Some(difference) = patch::difference(old.as_ref(), new.as_ref()) else {
                    return Ok(());
                };
                let written = self.ctx.objects().update(old.as_ref(), &difference).await?;
                self.pending.wrote(key, &self.slices, &written);
            }
            Change::Delete(slice) => {
                let when = Precondition::uid_of(slice.as_ref());
                let name = ObjectKey::of(slice.as_ref());
                let how = DeletePropagation::Default;
                self.ctx
                    .objects()
                    .delete::<EndpointSlice>(&name, &when, how, None)
                    .await?;
                self.pending.deleted(key, &self.slices, uid(slice.as_ref()));
            }
        }
        Ok(())
    }
}

//! Keeps the Endpoints of Services with a selector, for readers that know no EndpointSlices.

pub(crate) mod reconcile;
#[cfg(test)]
mod tests;

use std::time::Duration;

use coracle_client::{
    Context, DeletePropagation, Error, Lister, ObjectKey, Outcome, PendingWrites, Precondition, uid,
};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};

use crate::pace::Pace;
use crate::worker::{outcome, services_of, work};
use crate::{patch, pods};
use reconcile::{Change, World, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "endpoint-controller";

const WORKERS: usize = 16;
/// Rounds of one Service are this far apart for each of its Pods, and [`LONGEST`] at most. Nothing here reads Endpoints,
/// and each round writes all addresses; slices are sooner.
const PER_POD: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_secs(2);

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        services: ctx.lister(),
        pods: ctx.lister(),
        endpoints: ctx.lister(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        pace: Pace::new(ctx.clock().clone(), PER_POD, LONGEST),
        ctx: ctx.clone(),
    };
    let queue = ctx
        .watch::<Service>()
        .and::<Pod>(services_of(ctx.lister()))
        .and::<Endpoints>(|change| vec![ObjectKey::of(change.object().as_ref())])
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

struct Controller {
    ctx: Context,
    services: Lister<Service>,
    pods: Lister<Pod>,
    endpoints: Lister<Endpoints>,
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
        let service = self.services.get(&key);
        let pods = match &service {
            Some(service) => {
                let mut pods = self.pods.in_namespace(&key.namespace);
                pods.retain(|pod| pods::selects(service, pod.metadata.labels.as_ref()));
                pods
            }
            None => Vec::new(),
        };
        let world = World {
            service,
            pods,
            endpoints: self.endpoints.get(&key),
        };
        self.pace.begins(&key, world.pods.len());
        let result = match reconcile(&world) {
            Some(change) => self.apply(&key, change).await,
            None => Ok(()),
        };
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    }

    async fn apply(&self, key: &ObjectKey, change: Change) -> Result<(), Error> {
        match change {
            Change::Create(endpoints) => {
                let written = self.ctx.objects().create(endpoints.as_ref()).await?;
                self.pending.wrote(key, &self.endpoints, &written);
            }
            Change::Update { old, new } => {
                let Some(difference) = patch::difference(old.as_ref(), new.as_ref()) else {
                    return Ok(());
                };
                let written = self.ctx.objects().update(old.as_ref(), &difference).await?;
                self.pending.wrote(key, &self.endpoints, &written);
            }
            Change::Delete(endpoints) => {
                let when = Precondition::uid_of(endpoints.as_ref());
                self.ctx
                    .objects()
                    .delete::<Endpoints>(key, &when, DeletePropagation::Default, None)
                    .await?;
                self.pending
                    .deleted(key, &self.endpoints, uid(endpoints.as_ref()));
            }
        }
        Ok(())
    }
}

//! Keeps EndpointSlices of what somebody wrote as Endpoints by hand, for a Service without a selector.

mod reconcile;
#[cfg(test)]
mod tests;

use coracle_client::{
    Change as Seen, Context, DeletePropagation, Error, Lister, ObjectKey, Outcome, PendingWrites,
    Precondition, uid,
};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpointslice::reconcile::{Change, MANAGED_BY, SERVICE_NAME};
use crate::patch;
use crate::worker::{outcome, work};
use reconcile::{MANAGER, World, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "endpointslicemirroring-controller";

const WORKERS: usize = 4;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        services: ctx.lister(),
        endpoints: ctx.lister(),
        slices: ctx.lister(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        ctx: ctx.clone(),
    };
    let queue = ctx
        .watch::<Endpoints>()
        .and::<Service>(|change| vec![ObjectKey::of(change.object().as_ref())])
        .and::<EndpointSlice>(mirrored)
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

/// The Endpoints that a slice of ours mirrors.
fn mirrored(change: &Seen<EndpointSlice>) -> Vec<ObjectKey> {
    source_of(change.object()).into_iter().collect()
}

fn source_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, name.as_str()))
}

struct Controller {
    ctx: Context,
    services: Lister<Service>,
    endpoints: Lister<Endpoints>,
    slices: Lister<EndpointSlice>,
    pending: PendingWrites<ObjectKey>,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        // Gone: the garbage collector follows the owner references.
        let Some(endpoints) = self.endpoints.get(&key) else {
            return Outcome::Done;
        };
        let mut slices = self.slices.in_namespace(&key.namespace);
        slices.retain(|slice| source_of(slice).as_ref() == Some(&key));
        let changes = reconcile(&World {
            service: self.services.get(&key),
            endpoints,
            slices,
        });
        let mut result = Ok(());
        for change in changes {
            result = result.and(self.apply(&key, change).await);
        }
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    }

    async fn apply(&self, key: &ObjectKey, change: Change) -> Result<(), Error> {
        let objects = self.ctx.objects();
        match change {
            Change::Create(slice) => {
                let written = objects.create(slice.as_ref()).await?;
                self.pending.wrote(key, &self.slices, &written);
            }
            Change::Update { old, new } => {
                if let Some(difference) = patch::difference(old.as_ref(), new.as_ref()) {
                    let written = objects.update(old.as_ref(), &difference).await?;
                    self.pending.wrote(key, &self.slices, &written);
                }
            }
            Change::Delete(slice) => {
                let when = Precondition::uid_of(slice.as_ref());
                let name = ObjectKey::of(slice.as_ref());
                let how = DeletePropagation::Default;
                objects
                    .delete::<EndpointSlice>(&name, &when, how, None)
                    .await?;
                self.pending.deleted(key, &self.slices, uid(slice.as_ref()));
            }
        }
        Ok(())
    }
}

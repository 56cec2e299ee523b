//! Load balancers' addresses, from a pool of this host's.
//!
//! What a cloud does elsewhere: a Service of type LoadBalancer gets an address, which stands in its
//! status; the [doors](crate::exposed) open its ports there. Several Services share an address
//! while their ports differ. The status of every Service says so while a port of the host that it wants is not open.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_client::{Context, EventKind, ObjectKey, Outcome};
use k8s_openapi::api::core::v1::Service;
use tokio::sync::watch;

use crate::exposed::{Door, Doors, OpenDoors};
use reconcile::{Change, World, concerns, reconcile};

/// The user's name, as that of upstream's controller for the same work.
const NAME: &str = "service-controller";

/// Gives Services their addresses until the context is stopped.
pub(crate) async fn run(context: &Context, pool: Arc<[IpAddr]>, doors: OpenDoors) {
    let context = context.for_component(NAME);
    let services = context.lister::<Service>();
    let queue = context.watch::<Service>().into_queue().await;
    let mut seen = doors.subscribe();
    // Those that were looked at last time: one that is deleted gives its address to others.
    let mut known: BTreeMap<ObjectKey, String> = BTreeMap::new();
    // What could not be opened at that time.
    let mut failed = BTreeMap::new();
    loop {
        let key = tokio::select! {
            key = queue.next() => match key {
                Some(key) => Some(key),
                None => return,
            },
            changed = other_failures(&mut seen, &failed) => match changed {
                true => None,
                false => return,
            },
        };
        let concerned = key.as_ref().is_none_or(|key| {
            let is_closed = failed.keys().any(|(_, owner)| owner == key);
            let found = || services.get(key).is_some_and(|service| concerns(&service));
            known.contains_key(key) || is_closed || found()
        });
        let mut outcome = Outcome::Done;
        if concerned {
            failed = doors.borrow().failed.clone();
            let world = World {
                services: services.list(),
                pool: &pool,
                failed: &failed,
                now: context.clock().now(),
            };
            let changes = reconcile(&world);
            known.retain(|key, _| services.get(key).is_some_and(|service| concerns(&service)));
            for service in world.services.iter().filter(|service| concerns(service)) {
                known.entry(ObjectKey::of(service.as_ref())).or_default();
            }
            for Change {
                service,
                patch,
                problem,
            } in changes
            {
                let key = ObjectKey::of(service.as_ref());
                let told = known.insert(key.clone(), problem.clone().unwrap_or_default());
                if let Some(problem) = problem.filter(|problem| told.as_ref() != Some(problem)) {
                    let recorder = context.recorder();
                    recorder.event(
                        service.as_ref(),
                        EventKind::Warning,
                        "SyncLoadBalancerFailed",
                        problem,
                    );
                }
                let written = context
                    .objects()
                    .update_status(service.as_ref(), &patch)
                    .await;
                if let Err(error) = &written {
                    tracing::debug!(service = %key, error = error.message(), "the status was not written");
                }
                outcome = outcome.or_sooner(written.into());
            }
        }
        match key {
            Some(key) => queue.finish(key, outcome),
            // Any Service brings the rest round again.
            None if !matches!(outcome, Outcome::Done) => {
                if let Some(key) = known.keys().next() {
                    queue.add(key.clone());
                }
            }
            None => {}
        }
    }
}

/// Waits until other doors cannot be opened than `before`; false at the end.
async fn other_failures(
    seen: &mut watch::Receiver<Doors>,
    before: &BTreeMap<(Door, ObjectKey), io::ErrorKind>,
) -> bool {
    let other = |doors: &Doors| doors.failed != *before;
    seen.wait_for(other).await.is_ok()
}

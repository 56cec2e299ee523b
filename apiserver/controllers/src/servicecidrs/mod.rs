//! Says which ranges of Service addresses are ready, and keeps those in use from going.

pub(crate) mod reconcile;
#[cfg(test)]
mod tests;

use coracle_client::{
    Context, Error, EventKind, Lister, ObjectKey, Outcome, PendingWrites, Precondition,
    is_terminating,
};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;

use crate::worker::{outcome, work};
use reconcile::{Change, World, holds, is_claimed, overlap, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "service-cidrs-controller";

const WORKERS: usize = 4;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        ranges: ctx.lister(),
        addresses: ctx.lister(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        ctx: ctx.clone(),
    };
    let (ranges, others) = (controller.ranges.clone(), controller.ranges.clone());
    let leaving = move |picked: &dyn Fn(&ServiceCIDR) -> bool| -> Vec<ObjectKey> {
        let all = ranges.list();
        let picked = all
            .iter()
            .filter(|range| is_terminating(range.as_ref()) && picked(range));
        picked.map(|range| ObjectKey::of(range.as_ref())).collect()
    };
    let queue = ctx
        .watch::<ServiceCIDR>()
        // A range that comes or goes may let another one go, or hold it.
        .and::<ServiceCIDR>(move |change| {
            let changed = change.object();
            let all = others.list();
            let touching = all.iter().filter(|other| overlap(other, changed));
            touching
                .map(|other| ObjectKey::of(other.as_ref()))
                .collect()
        })
        .and::<IPAddress>(move |change| {
            let address = change.object();
            let parsed = address
                .metadata
                .name
                .as_deref()
                .and_then(|name| name.parse().ok());
            match parsed.filter(|_| is_claimed(address)) {
                Some(address) => leaving(&|range| holds(range, address)),
                None => Vec::new(),
            }
        })
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

struct Controller {
    ctx: Context,
    ranges: Lister<ServiceCIDR>,
    addresses: Lister<IPAddress>,
    pending: PendingWrites<ObjectKey>,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        let Some(range) = self.ranges.get(&key) else {
            return Outcome::Done;
        };
        let addresses = match is_terminating(range.as_ref()) {
            true => self.addresses.list(),
            false => Vec::new(),
        };
        let world = World {
            range,
            ranges: self.ranges.list(),
            addresses,
            now: self.ctx.clock().now(),
        };
        outcome(NAME, &key, self.apply(&key, &world).await)
    }

    async fn apply(&self, key: &ObjectKey, world: &World) -> Result<Outcome, Error> {
        let (objects, range) = (self.ctx.objects(), world.range.as_ref());
        let mut when = Precondition::unchanged(range);
        for change in reconcile(world) {
            let written = match change {
                Change::Wait(wait) => return Ok(Outcome::After(wait)),
                Change::SetFinalizers(finalizers) => {
                    let patch = json!({"metadata": {"finalizers": finalizers}});
                    objects.patch::<ServiceCIDR>(key, &when, patch).await?
                }
                Change::SetCondition(condition) => {
                    let patch = json!({"status": {"conditions": [condition]}});
                    let written = objects
                        .strategic_patch_status::<ServiceCIDR>(key, &when, patch)
                        .await;
                    if written.is_err() && condition.status == "True" {
                        let message = "The ServiceCIDR Status can not be set to Ready=True";
                        let reason = "KubernetesServiceCIDRError";
                        let recorder = self.ctx.recorder();
                        recorder.event(range, EventKind::Warning, reason, message);
                    }
                    written?
                }
            };
            when = Precondition::unchanged(&written);
            self.pending.wrote(key, &self.ranges, &written);
        }
        Ok(Outcome::Done)
    }
}

//! Repairs claims of Service addresses while the cluster runs; the API server does the same when it starts.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use coracle_client::{
    Context, DeletePropagation, Error, EventKind, Lister, ObjectKey, Outcome, Precondition,
};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use parking_lot::Mutex;

use crate::worker::{outcome, work};
use reconcile::{
    ClaimWorld, Finding, Repair, ServiceWorld, Verdict, addresses, parent, reconcile_claim,
    reconcile_service,
};

/// The user's name; upstream's runs within the API server and writes Events under this one.
pub(crate) const NAME: &str = "ipallocator-repair-controller";

const WORKERS: usize = 4;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        services: ctx.lister(),
        claims: ctx.lister(),
        ranges: ctx.lister(),
        idle: Mutex::default(),
        ctx: ctx.clone(),
    };
    let services = ctx
        .watch::<Service>()
        .and::<IPAddress>(|change| parent(change.object()).into_iter().collect())
        .into_queue()
        .await;
    let claims = ctx
        .watch::<IPAddress>()
        // What a Service had before and has no more should be nobody's soon.
        .and::<Service>(|change| {
            let (now, before) = (change.object(), change.old());
            let left = match change.is_deleted() {
                true => addresses(now).collect::<Vec<_>>(),
                false => {
                    let before = before.into_iter().flat_map(|old| addresses(old));
                    let kept = |address: &&str| addresses(now).any(|held| held == *address);
                    before.filter(|address| !kept(address)).collect()
                }
            };
            left.into_iter().map(ObjectKey::cluster).collect()
        })
        .into_queue()
        .await;
    tokio::join!(
        work(services, WORKERS, |key| controller.look_at_service(key)),
        work(claims, WORKERS, |key| controller.look_at_claim(key)),
    );
}

struct Controller {
    ctx: Context,
    services: Lister<Service>,
    claims: Lister<IPAddress>,
    ranges: Lister<ServiceCIDR>,
    /// Since when each claim without a use has been seen to be without.
    idle: Mutex<HashMap<ObjectKey, Duration>>,
}

impl Controller {
    async fn look_at_service(&self, key: ObjectKey) -> Outcome {
        let Some(service) = self.services.get(&key) else {
            return Outcome::Done;
        };
        let of_address = |address: &str| self.claims.get(&ObjectKey::cluster(address));
        let claims: Vec<_> = addresses(&service).filter_map(of_address).collect();
        let holders = claims.iter().filter_map(|claim| parent(claim));
        let world = ServiceWorld {
            holders: holders
                .filter_map(|holder| self.services.get(&holder))
                .collect(),
            claims: claims
                .into_iter()
                .map(|claim| (claim.metadata.name.clone().unwrap_or_default(), claim))
                .collect(),
            ranges: self.ranges.list(),
            service,
        };
        for finding in reconcile_service(&world) {
            let repaired = self.repair(&world, finding).await;
            match outcome(NAME, &key, repaired.map(|()| Outcome::Done)) {
                Outcome::Done => {}
                other => return other,
            }
        }
        Outcome::Done
    }

    async fn repair(&self, world: &ServiceWorld, finding: Finding) -> Result<(), Error> {
        let (objects, service) = (self.ctx.objects(), world.service.as_ref());
        let when = match &finding.repair {
            Repair::Claim(new) | Repair::Replace { new, .. } => {
                // One cache may be ahead of the other, and both behind: only what is there now counts.
                let address = ObjectKey::of(new.as_ref());
                let current = objects.get::<Service>(&ObjectKey::of(service)).await?;
                let claim = objects.get::<IPAddress>(&address).await?;
                let held = current
                    .is_some_and(|current| addresses(&current).any(|held| held == address.name));
                let seen = match (&finding.repair, &claim) {
                    (Repair::Replace { old, .. }, Some(claim)) => {
                        claim.metadata.resource_version == old.metadata.resource_version
                    }
                    (Repair::Claim(_), None) => true,
                    _ => false,
                };
                if !held || !seen {
                    return Ok(());
                }
                claim.map(|claim| Precondition::unchanged(&claim))
            }
            Repair::GiveBack | Repair::Tell => None,
        };
        if !finding.message.is_empty() {
            let recorder = self.ctx.recorder();
            recorder.event(service, EventKind::Warning, finding.reason, finding.message);
        }
        let (Repair::Claim(new) | Repair::Replace { new, .. }) = finding.repair else {
            return Ok(());
        };
        if let Some(when) = when {
            let address = ObjectKey::of(new.as_ref());
            objects
                .delete::<IPAddress>(&address, &when, DeletePropagation::Default, None)
                .await?;
        }
        objects.create(new.as_ref()).await.map(|_| ())
    }

    async fn look_at_claim(&self, key: ObjectKey) -> Outcome {
        let Some(claim) = self.claims.get(&key) else {
            self.idle.lock().remove(&key);
            return Outcome::Done;
        };
        let now = self.ctx.clock().monotonic();
        let since = *self.idle.lock().entry(key.clone()).or_insert(now);
        let world = ClaimWorld {
            service: parent(&claim).and_then(|parent| self.services.get(&parent)),
            claim,
            idle_for: now.saturating_sub(since),
        };
        let finding = match reconcile_claim(&world) {
            Verdict::Keep => {
                self.idle.lock().remove(&key);
                return Outcome::Done;
            }
            Verdict::Wait(wait) => return Outcome::After(wait),
            Verdict::Drop(finding) => finding,
        };
        let given_back = self.give_back(&key, &world, finding).await;
        outcome(NAME, &key, given_back.map(|()| Outcome::Done))
    }

    async fn give_back(
        &self,
        key: &ObjectKey,
        world: &ClaimWorld,
        finding: Finding,
    ) -> Result<(), Error> {
        let (objects, claim) = (self.ctx.objects(), world.claim.as_ref());
        // Somebody may have come while the caches were behind.
        if let Some(parent) = parent(claim)
            && let Some(service) = objects.get::<Service>(&parent).await?
            && addresses(&service).any(|held| held == key.name)
        {
            return Ok(());
        }
        let recorder = self.ctx.recorder();
        recorder.event(claim, EventKind::Warning, finding.reason, finding.message);
        let when = Precondition::unchanged(claim);
        objects
            .delete::<IPAddress>(key, &when, DeletePropagation::Default, None)
            .await
    }
}

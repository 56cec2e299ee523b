//! Keeps the status of PodDisruptionBudgets, from which evictions take.

mod owners;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use coracle_client::{
    Change, Context, Error, EventKind, Lister, ObjectKey, Outcome, PendingWrites, Precondition,
    controller_of,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::json;

use crate::worker::{outcome, work};
use crate::{patch, pods};
use owners::Owners;
use reconcile::{Mark, World, covers, needs_scale, reconcile, selector, stale_mark};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "disruption-controller";

const WORKERS: usize = 8;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let controller = Controller {
        budgets: ctx.lister(),
        pods: ctx.lister(),
        owners: Owners::new(&ctx),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        ctx: ctx.clone(),
    };
    let covering = budgets_of(ctx.lister(), ctx.clone());
    let budgets = ctx.watch::<PodDisruptionBudget>().and(covering);
    let budgets = budgets.into_queue().await;
    let marked = ctx.watch::<Pod>().into_queue().await;
    tokio::join!(
        work(budgets, WORKERS, |key| controller.sync(key)),
        work(marked, WORKERS, |key| controller.look_at_mark(key)),
    );
}

struct Controller {
    ctx: Context,
    budgets: Lister<PodDisruptionBudget>,
    pods: Lister<Pod>,
    owners: Owners,
    pending: PendingWrites<ObjectKey>,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        let Some(world) = self.observe(&key).await else {
            return Outcome::Done;
        };
        outcome(NAME, &key, self.apply(&key, &world).await)
    }

    async fn observe(&self, key: &ObjectKey) -> Option<World> {
        let budget = self.budgets.get(key)?;
        let pods = match selector(&budget) {
            Some(selector) => self.pods.matching(&key.namespace, &selector),
            None => Vec::new(),
        };
        let mut scales = HashMap::new();
        if needs_scale(&budget) {
            for owner in pods.iter().filter_map(|pod| controller_of(pod.as_ref())) {
                if !scales.contains_key(&owner.uid) {
                    let scale = self.owners.scale(&key.namespace, owner).await;
                    scales.insert(owner.uid.clone(), scale);
                }
            }
        }
        Some(World {
            budget,
            pods,
            scales,
            now: self.ctx.clock().now(),
        })
    }

    async fn apply(&self, key: &ObjectKey, world: &World) -> Result<Outcome, Error> {
        let decision = reconcile(world);
        let budget = world.budget.as_ref();
        if let Some(status) = decision.status {
            let before = budget.status.clone().unwrap_or_default();
            // An eviction that came in between took from a number that is not this one: look again.
            let status = patch::difference(&before, status.as_ref()).unwrap_or_default();
            let patch = json!({"status": status});
            let written = self.ctx.objects().update_status(budget, &patch).await?;
            self.pending.wrote(key, &self.budgets, &written);
        }
        let recorder = self.ctx.recorder();
        for note in decision.notes {
            match &note.pod {
                Some(pod) => recorder.event(pod.as_ref(), note.kind, note.reason, note.message),
                None => recorder.event(budget, note.kind, note.reason, note.message),
            }
        }
        // A controller that was not in the caches yet may be there the next time.
        Ok(match decision.again {
            _ if decision.failed => Outcome::Retry,
            Some(again) => Outcome::After(again),
            None => Outcome::Done,
        })
    }

    /// Corrects a mark that has not come true.
    async fn look_at_mark(&self, key: ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(&key) else {
            return Outcome::Done;
        };
        let condition = match stale_mark(&pod, self.ctx.clock().now()) {
            Mark::Fine => return Outcome::Done,
            Mark::Wait(wait) => return Outcome::After(wait),
            Mark::Clear(condition) => condition,
        };
        let mut condition = json!(condition);
        for field in ["reason", "message"] {
            condition[field] = serde_json::Value::Null;
        }
        let when = Precondition::unchanged(pod.as_ref());
        let patch = json!({"status": {"conditions": [condition]}});
        let written = self
            .ctx
            .objects()
            .strategic_patch_status::<Pod>(&key, &when, patch)
            .await;
        outcome(NAME, &key, written.map(|_| Outcome::Done))
    }
}

/// The budgets that cover a changed Pod, or covered it before; a Pod that several cover is warned about.
fn budgets_of(
    budgets: Lister<PodDisruptionBudget>,
    ctx: Context,
) -> impl Fn(&Change<Pod>) -> Vec<ObjectKey> + Send + Sync + 'static {
    move |change| {
        let pod = change.object();
        if change.old().is_some_and(|old| counted(old) == counted(pod)) {
            return Vec::new();
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut all = budgets.in_namespace(namespace);
        let now = |budget: &PodDisruptionBudget| covers(budget, pod);
        let before =
            |budget: &PodDisruptionBudget| change.old().is_some_and(|old| covers(budget, old));
        let (count, ever) = (
            all.iter().filter(|budget| now(budget)).count(),
            all.iter().filter(|budget| before(budget)).count(),
        );
        all.retain(|budget| now(budget) || before(budget));
        if count > 1 && ever <= 1 && !change.is_deleted() {
            let chosen = all.iter().find(|budget| now(budget));
            let chosen = chosen.and_then(|budget| budget.metadata.name.as_deref());
            let message = format!(
                "Pod {namespace:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                pod.metadata.name.as_deref().unwrap_or_default(),
                chosen.unwrap_or_default(),
            );
            let reason = "MultiplePodDisruptionBudgets";
            ctx.recorder()
                .event(pod.as_ref(), EventKind::Warning, reason, message);
        }
        all.iter()
            .map(|budget| ObjectKey::of(budget.as_ref()))
            .collect()
    }
}

/// What a budget counts of a Pod.
fn counted(pod: &Pod) -> impl PartialEq + use<'_> {
    (
        &pod.metadata.uid,
        &pod.metadata.labels,
        &pod.metadata.owner_references,
        pod.metadata.deletion_timestamp.is_some(),
        pods::is_ready(pod),
    )
}

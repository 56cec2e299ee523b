//! Fills the ClusterRoles that gather their rules from others: `admin`, `edit`, `view`, and those of users.

mod reconcile;
#[cfg(test)]
mod tests;

use coracle_client::{Context, Lister, ObjectKey, Outcome, PendingWrites};
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::json;

use crate::worker::{outcome, work};
use reconcile::{World, gathers, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "clusterrole-aggregation-controller";

const WORKERS: usize = 2;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let roles: Lister<ClusterRole> = ctx.lister();
    let pending = PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE);
    let gathering = roles.clone();
    let queue = ctx
        .watch::<ClusterRole>()
        .and::<ClusterRole>(move |_| {
            // Whichever role changed, a gathering one may have picked it or pick it now.
            let all = gathering.list();
            let gathering = all.iter().filter(|role| gathers(role));
            gathering.map(|role| ObjectKey::of(role.as_ref())).collect()
        })
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        if let Some(wait) = pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        let Some(role) = roles.get(&key).filter(|role| gathers(role)) else {
            return Outcome::Done;
        };
        let all = roles.list();
        let Some(rules) = reconcile(&World { role, all }) else {
            return Outcome::Done;
        };
        let wanted = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": key.name}, "rules": rules,
        });
        let applied = ctx.objects().apply::<ClusterRole>(&key, NAME, &wanted);
        let result = applied.await.map(|written| {
            pending.wrote(&key, &roles, &written);
            Outcome::Done
        });
        outcome(NAME, &key, result)
    };
    work(queue, WORKERS, sync).await;
}

//! Takes away tokens in Secrets that nobody has used for a year: marks them first, and a year later deletes them.
//!
//! ```text
//! not used for a year, listed by its account, mounted by no pod
//!     ─▶ label kubernetes.io/legacy-token-invalid-since=DAY  (the token is refused; taking the label away brings it back)
//!     ─▶ another year without a use ─▶ deleted
//! ```
//!
//! Only Secrets that their ServiceAccount lists count: those were made by Kubernetes before 1.24, not by somebody. Rules:
//! upstream's pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use coracle_client::{Context, DeletePropagation, Error, Lister, ObjectKey, Precondition};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use serde_json::json;

use crate::legacytokentracking as tracking;
use crate::serviceaccounttoken::TOKENS;
use reconcile::{Change, INVALID_SINCE, World, is_due, reconcile, secrets_of};

/// The controller's name, as upstream's.
pub(crate) const NAME: &str = "legacy-service-account-token-cleaner";

/// Between two looks at all Secrets.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// How long a token may be unused, upstream's default of `--legacy-service-account-token-clean-up-period`.
pub(crate) const UNUSED: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let cleaner = Cleaner {
        secrets: ctx.lister_of(TOKENS),
        accounts: ctx.lister(),
        pods: ctx.lister(),
        ctx: ctx.clone(),
    };
    let rounds = async {
        tokio::join!(
            cleaner.secrets.synced(),
            cleaner.accounts.synced(),
            cleaner.pods.synced()
        );
        loop {
            if let Err(error) = cleaner.clean().await {
                tracing::warn!(%error, message = error.message(), "no token was cleaned up");
            }
            ctx.clock().sleep(EVERY).await;
        }
    };
    tokio::select! {
        () = ctx.stop().cancelled() => {}
        () = rounds => {}
    }
}

struct Cleaner {
    ctx: Context,
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccount>,
    pods: Lister<Pod>,
}

impl Cleaner {
    async fn clean(&self) -> Result<(), Error> {
        let now = self.ctx.clock().now();
        let map = ObjectKey::new(tracking::NAMESPACE, tracking::MAP);
        let map: Option<ConfigMap> = self.ctx.objects().get(&map).await?;
        if !is_due(map.as_ref().and_then(tracking::since), now) {
            return Ok(());
        }
        let mut mounted: HashMap<String, HashSet<String>> = HashMap::new();
        for secret in self.secrets.list() {
            let key = ObjectKey::of(secret.as_ref());
            let account = reconcile::account_name(&secret);
            let account = account.map(|name| ObjectKey::new(key.namespace.clone(), name));
            let mounted = mounted.entry(key.namespace.clone()).or_insert_with(|| {
                let pods = self.pods.in_namespace(&key.namespace);
                pods.iter().flat_map(|pod| secrets_of(pod)).collect()
            });
            let world = World {
                account: account.and_then(|key| self.accounts.get(&key)),
                is_mounted: mounted.contains(&key.name),
                secret,
                now,
            };
            let Some(change) = reconcile(&world) else {
                continue;
            };
            if let Err(error) = self.apply(&world, &key, change).await
                && !error.is_conflict()
                && !error.is_not_found()
            {
                tracing::warn!(%key, %error, message = error.message(), "a token was not cleaned up");
            }
        }
        Ok(())
    }

    async fn apply(&self, world: &World, key: &ObjectKey, change: Change) -> Result<(), Error> {
        let (objects, secret) = (self.ctx.objects(), world.secret.as_ref());
        tracing::info!(%key, ?change, "a token that nobody uses");
        match change {
            Change::Mark(day) => {
                let patch = json!({"metadata": {"labels": {INVALID_SINCE: day}}});
                let when = Precondition::uid_of(secret);
                objects.patch::<Secret>(key, &when, patch).await.map(drop)
            }
            Change::Delete => {
                let when = Precondition::unchanged(secret);
                let propagation = DeletePropagation::Default;
                objects
                    .delete::<Secret>(key, &when, propagation, None)
                    .await
            }
        }
    }
}

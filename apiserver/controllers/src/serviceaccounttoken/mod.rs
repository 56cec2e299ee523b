//! Fills Secrets of type `kubernetes.io/service-account-token`, and removes those whose account is gone.
//!
//! Nobody makes such Secrets by themselves any more; whoever wants a token without an end makes one, and names the account
//! in the annotation `kubernetes.io/service-account.name`. Rules: upstream's pkg/controller/serviceaccount/tokens_controller.go.

mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_client::{Context, DeletePropagation, Lister, ObjectKey, Outcome, Precondition};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};

use crate::worker::{outcome, work};
use crate::{ClusterTrust, when_published_anew};
use reconcile::{Change, World, account_name, is_token, reconcile};

/// The controller's name, as upstream's.
pub(crate) const NAME: &str = "serviceaccount-token-controller";

const WORKERS: usize = 2;

/// The Secrets that matter here; a type never changes.
pub(crate) const TOKENS: &str = "type=kubernetes.io/service-account-token";

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context, trust: Arc<ClusterTrust>) {
    let secrets: Lister<Secret> = ctx.lister_of(TOKENS);
    let accounts: Lister<ServiceAccount> = ctx.lister();
    let of_account = {
        let secrets = secrets.clone();
        move |account: &ServiceAccount| -> Vec<ObjectKey> {
            let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
            let name = account.metadata.name.as_deref();
            let all = secrets.in_namespace(namespace).into_iter();
            let named = all.filter(|secret| is_token(secret) && account_name(secret) == name);
            named.map(|secret| ObjectKey::of(secret.as_ref())).collect()
        }
    };
    let queue = ctx
        .watch_of::<Secret>(TOKENS)
        .and::<ServiceAccount>(move |change| of_account(change.object()))
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let Some(secret) = secrets.get(&key).filter(|secret| is_token(secret)) else {
            return Outcome::Done;
        };
        let named = account_name(&secret).map(|name| ObjectKey::new(key.namespace.clone(), name));
        let account = named.as_ref().and_then(|named| accounts.get(named));
        let result = match reconcile(&World { secret, account }, &trust) {
            Ok(None) => Ok(()),
            Ok(Some(Change::Replace(secret))) => ctx.objects().replace(&*secret).await.map(drop),
            Ok(Some(Change::Delete(secret))) => {
                // The cache may be late: an account is often made together with its Secret.
                let account = match &named {
                    Some(named) => ctx.objects().get::<ServiceAccount>(named).await,
                    None => Ok(None),
                };
                let account = match account {
                    Ok(account) => account.map(Arc::new),
                    Err(error) => return outcome(NAME, &key, Err(error)),
                };
                let world = World {
                    secret: Arc::clone(&secret),
                    account,
                };
                if !matches!(reconcile(&world, &trust), Ok(Some(Change::Delete(_)))) {
                    return Outcome::Retry;
                }
                let when = Precondition::unchanged(secret.as_ref());
                let propagation = DeletePropagation::Background;
                let objects = ctx.objects();
                objects
                    .delete::<Secret>(&key, &when, propagation, None)
                    .await
            }
            Err(problem) => {
                tracing::warn!(%key, problem, "failed to sign a token");
                return Outcome::Retry;
            }
        };
        outcome(NAME, &key, result.map(|()| Outcome::Done))
    };
    let everywhere = when_published_anew(&trust, || {
        let all = secrets.list().into_iter();
        for secret in all.filter(|secret| is_token(secret)) {
            queue.add(ObjectKey::of(secret.as_ref()));
        }
    });
    tokio::select! {
        () = work(queue.clone(), WORKERS, sync) => {}
        () = everywhere => {}
    }
}

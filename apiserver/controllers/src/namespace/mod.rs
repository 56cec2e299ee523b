//! Empties a namespace that goes, and lets it go.

mod reconcile;
#[cfg(test)]
mod tests;

use std::time::Duration;

use coracle_client::{Context, Error, Lister, ObjectKey, Outcome, Precondition, ServedResource};
use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use serde_json::json;

use crate::worker::{outcome, work};
use reconcile::{Change, Survey, World, has_to_be_emptied, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "namespace-controller";

const WORKERS: usize = 4;
/// How many resources are emptied at once.
const AT_ONCE: usize = 16;
/// What has finalizers of others goes without an event that leads back here.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let namespaces: Lister<Namespace> = ctx.lister();
    let own = namespaces.clone();
    let queue = ctx
        .watch::<Namespace>()
        // Pods are what takes its time: the last one's end is the moment to look.
        .and::<Pod>(move |change| {
            let key = ObjectKey::cluster(
                change
                    .object()
                    .metadata
                    .namespace
                    .clone()
                    .unwrap_or_default(),
            );
            let going = change.is_deleted()
                && own
                    .get(&key)
                    .is_some_and(|namespace| has_to_be_emptied(&namespace));
            going.then_some(key).into_iter().collect()
        })
        .into_queue()
        .await;
    let sync = async |key: ObjectKey| {
        let Some(namespace) = namespaces
            .get(&key)
            .filter(|namespace| has_to_be_emptied(namespace))
        else {
            return Outcome::Done;
        };
        let world = World {
            survey: empty(&ctx, &key.name).await,
            namespace,
            now: ctx.clock().now(),
        };
        outcome(NAME, &key, apply(&ctx, &world).await)
    };
    work(queue, WORKERS, sync).await;
}

/// Tells everything in the namespace to go, and counts what is left.
async fn empty(ctx: &Context, namespace: &str) -> Survey {
    let mut survey = Survey::default();
    let served = match ctx.objects().served().await {
        Ok(served) => served,
        Err(error) => {
            survey.discovery = Some(error.message());
            return survey;
        }
    };
    let within = served
        .into_iter()
        .filter(|served| served.namespaced && served.offers(&["list", "delete"]));
    let emptied = within.map(|served| empty_of(ctx, namespace, served));
    let answers: Vec<_> = stream::iter(emptied)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (name, answer) in answers {
        match answer {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                survey.remaining.insert(name, left.len());
                for finalizer in left.iter().flatten() {
                    *survey.finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            Err(error) => survey.failures.push(format!("{name}: {}", error.message())),
        }
    }
    survey.failures.sort();
    survey
}

/// The finalizers of each object that is left of one resource.
async fn empty_of(
    ctx: &Context,
    namespace: &str,
    served: ServedResource,
) -> (String, Result<Vec<Vec<String>>, Error>) {
    let resource = &served.resource;
    let name = match resource.group.as_str() {
        "" => format!("{}.", resource.plural),
        group => format!("{}.{group}", resource.plural),
    };
    let emptying = async {
        let objects = ctx.objects();
        let there = objects.list_metadata(resource, namespace).await?;
        if there.is_empty() {
            return Ok(Vec::new());
        }
        if there
            .iter()
            .any(|object| object.deletion_timestamp.is_none())
        {
            if served.offers(&["deletecollection"]) {
                objects.delete_all(resource, namespace).await?;
            } else {
                for object in &there {
                    let key = ObjectKey::new(namespace, object.name.clone().unwrap_or_default());
                    let when = Precondition {
                        uid: object.uid.clone(),
                        resource_version: None,
                    };
                    let how = coracle_client::DeletePropagation::Background;
                    objects.delete_any(resource, &key, &when, how).await?;
                }
            }
        }
        let left = objects.list_metadata(resource, namespace).await?;
        Ok(left
            .into_iter()
            .map(|object| object.finalizers.unwrap_or_default())
            .collect())
    };
    let answer = emptying.await;
    (name, answer)
}

async fn apply(ctx: &Context, world: &World) -> Result<Outcome, Error> {
    let mut finalized = false;
    for change in reconcile(world) {
        match change {
            Change::SetConditions(conditions) => {
                let patch = json!({"status": {"conditions": conditions}});
                ctx.objects()
                    .update_status(world.namespace.as_ref(), &patch)
                    .await?;
            }
            Change::Finalize(namespace) => {
                ctx.objects()
                    .replace_subresource(namespace.as_ref(), "finalize")
                    .await?;
                finalized = true;
            }
        }
    }
    Ok(if finalized {
        Outcome::Done
    } else {
        Outcome::After(LOOK_AGAIN)
    })
}

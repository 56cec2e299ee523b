//! Deletes what lost its last owner, and keeps the promises of foreground and orphan deletion.
//!
//! The caches decide whether there is anything to do; before anything is deleted the server is
//! asked about the object and about every owner that no cache knows (an owner that a cache has not
//! seen yet must not cost its dependents their lives).

mod kinds;
mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{
    Context, Error, MetadataChange, Outcome, Precondition, QueueConfig, WorkQueue,
};
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::RwLock;
use serde_json::json;

use kinds::{Kind, Kinds, group_of};
use reconcile::{Change, FOREGROUND, Item, Owner, World, lets_go, matters, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "generic-garbage-collector";

const WORKERS: usize = 16;
/// How often the served resources are looked through for new ones.
const REDISCOVER: Duration = Duration::from_secs(60);
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new(
        ctx.clock().clone(),
        ctx.stop().clone(),
        QueueConfig::default(),
    );
    let collector = Collector {
        kinds: Arc::default(),
        queue,
        ctx,
    };
    let workers = join_all((0..WORKERS).map(|_| collector.work()));
    // Wherever it waits: for an answer, or for a first list that may never come.
    let kinds = collector
        .ctx
        .stop()
        .run_until_cancelled(collector.follow_kinds());
    tokio::join!(kinds, workers);
}

struct Collector {
    ctx: Context,
    kinds: Arc<RwLock<Kinds>>,
    queue: WorkQueue<Item>,
}

impl Collector {
    /// Keeps the set of kinds up to date; never ends.
    async fn follow_kinds(&self) {
        loop {
            let pause = match self.ctx.objects().served().await {
                Ok(served) => {
                    let new = self.kinds.write().extend(&self.ctx, served);
                    // An owner whose cache is not filled yet must not look absent.
                    join_all(new.iter().map(|kind| kind.source.metadata_synced())).await;
                    new.into_iter().for_each(|kind| self.subscribe(kind));
                    REDISCOVER
                }
                Err(error) => {
                    tracing::debug!(
                        controller = NAME,
                        message = error.message(),
                        "discovery failed"
                    );
                    DISCOVERY_RETRY
                }
            };
            self.ctx.clock().sleep(pause).await;
        }
    }

    fn subscribe(&self, kind: Kind) {
        let (kinds, feed) = (self.kinds.clone(), self.queue.downgrade());
        let source = kind.source.clone();
        source.subscribe_metadata(Box::new(move |change| {
            if let Some(queue) = feed.upgrade() {
                on_change(&kinds.read(), &queue, &kind, change);
            }
        }));
    }

    async fn work(&self) {
        while let Some(item) = self.queue.next().await {
            let outcome = match self.sync(&item).await {
                Ok(()) => Outcome::Done,
                Err(error) if error.is_not_found() => Outcome::Done,
                Err(error) => {
                    tracing::debug!(controller = NAME, kind = item.kind, key = %item.key, message = error.message(), "looking again");
                    Outcome::Retry
                }
            };
            self.queue.finish(item, outcome);
        }
    }

    async fn sync(&self, item: &Item) -> Result<(), Error> {
        let Some(world) = self.observe(item) else {
            return Ok(());
        };
        if reconcile(&world).is_empty() {
            return Ok(());
        }
        // There is something to do: decide again on what the server says.
        let Some(kind) = self.kinds.read().get(&item.group, &item.kind).cloned() else {
            return Ok(());
        };
        let live = self
            .ctx
            .objects()
            .metadata_of(&kind.resource, &item.key)
            .await?;
        let Some(live) = live.filter(|live| live.uid.as_deref() == Some(item.uid.as_str())) else {
            return Ok(());
        };
        let world = self.world_of(live, item);
        let world = self.with_live_owners(world, item).await?;
        for change in reconcile(&world) {
            self.apply(item, &kind, &world.object, change).await?;
        }
        Ok(())
    }

    fn observe(&self, item: &Item) -> Option<World> {
        let source = self
            .kinds
            .read()
            .get(&item.group, &item.kind)?
            .source
            .clone();
        Some(self.world_of(source.metadata_by_uid(&item.uid)?, item))
    }

    fn world_of(&self, object: ObjectMeta, item: &Item) -> World {
        let kinds = self.kinds.read();
        let owners = object.owner_references.clone().unwrap_or_default();
        let owners = owners.into_iter().map(|owner| {
            let state = cached_owner(&kinds, &owner, &item.key.namespace);
            (owner, state)
        });
        World {
            owners: owners.collect(),
            dependents: kinds.dependents(&item.uid),
            object,
        }
    }

    /// Asks the server about owners that no cache knows.
    async fn with_live_owners(&self, mut world: World, item: &Item) -> Result<World, Error> {
        for (owner, state) in &mut world.owners {
            if *state != Owner::Unseen {
                continue;
            }
            let Some(kind) = self
                .kinds
                .read()
                .get(group_of(&owner.api_version), &owner.kind)
                .cloned()
            else {
                continue; // a kind that nobody serves: not ours to judge
            };
            let namespace = if kind.namespaced {
                item.key.namespace.clone()
            } else {
                String::new()
            };
            let key = coracle_client::ObjectKey::new(namespace, owner.name.clone());
            let live = self.ctx.objects().metadata_of(&kind.resource, &key).await?;
            *state = match live.filter(|live| live.uid.as_deref() == Some(owner.uid.as_str())) {
                Some(live) => state_of(&live),
                None => Owner::Absent,
            };
        }
        Ok(world)
    }

    async fn apply(
        &self,
        item: &Item,
        kind: &Kind,
        object: &ObjectMeta,
        change: Change,
    ) -> Result<(), Error> {
        let objects = self.ctx.objects();
        let same = Precondition {
            uid: object.uid.clone(),
            resource_version: None,
        };
        let unchanged = Precondition {
            resource_version: object.resource_version.clone(),
            ..same.clone()
        };
        match change {
            // Only an owner of a kind that nobody serves is still unseen here.
            Change::Look => Ok(()),
            Change::Delete(how) => {
                objects
                    .delete_any(&kind.resource, &item.key, &same, how)
                    .await
            }
            Change::KeepOwners(owners) => {
                let patch = json!({"metadata": {"ownerReferences": owners}});
                objects
                    .patch_any(&kind.resource, &item.key, &unchanged, patch)
                    .await
            }
            Change::KeepFinalizers(finalizers) => {
                let patch = json!({"metadata": {"finalizers": finalizers}});
                objects
                    .patch_any(&kind.resource, &item.key, &unchanged, patch)
                    .await
            }
            Change::Orphan(dependent, resource_version, owners) => {
                let Some(kind) = self
                    .kinds
                    .read()
                    .get(&dependent.group, &dependent.kind)
                    .cloned()
                else {
                    return Ok(());
                };
                let patch = json!({"metadata": {"ownerReferences": owners}});
                let when = Precondition {
                    uid: Some(dependent.uid.clone()),
                    resource_version,
                };
                match objects
                    .patch_any(&kind.resource, &dependent.key, &when, patch)
                    .await
                {
                    Err(error) if error.is_not_found() => Ok(()),
                    answer => answer,
                }
            }
            Change::Visit(dependents) => {
                dependents
                    .into_iter()
                    .for_each(|dependent| self.queue.add(dependent));
                Ok(())
            }
        }
    }
}

fn on_change(kinds: &Kinds, queue: &WorkQueue<Item>, kind: &Kind, change: &MetadataChange<'_>) {
    if !change.deleted {
        if matters(change.old, change.new) {
            queue.add(kind.item(change.new));
        }
        let Some(old) = change.old else { return };
        for (owner, meta) in kinds.owners(old) {
            if lets_go(old, change.new, &owner.uid) && state_of(&meta) == Owner::Waiting {
                queue.add(owner);
            }
        }
        return;
    }
    let uid = change.new.uid.as_deref().unwrap_or_default();
    kinds
        .dependents(uid)
        .into_iter()
        .for_each(|dependent| queue.add(dependent.item));
    // An owner that waits may have waited for this one.
    for (owner, meta) in kinds.owners(change.new) {
        if state_of(&meta) == Owner::Waiting {
            queue.add(owner);
        }
    }
}

fn cached_owner(kinds: &Kinds, owner: &OwnerReference, namespace: &str) -> Owner {
    let Some(kind) = kinds.get(group_of(&owner.api_version), &owner.kind) else {
        return Owner::Unseen;
    };
    match kind.source.metadata_by_uid(&owner.uid) {
        // A namespaced owner in another namespace is none, whatever its UID says.
        Some(meta)
            if kind.namespaced && meta.namespace.as_deref().unwrap_or_default() != namespace =>
        {
            Owner::Absent
        }
        Some(meta) => state_of(&meta),
        None => Owner::Unseen,
    }
}

fn state_of(owner: &ObjectMeta) -> Owner {
    let finalizers = owner.finalizers.iter().flatten();
    let waits = finalizers
        .into_iter()
        .any(|finalizer| finalizer == FOREGROUND);
    if owner.deletion_timestamp.is_some() && waits {
        Owner::Waiting
    } else {
        Owner::Solid
    }
}

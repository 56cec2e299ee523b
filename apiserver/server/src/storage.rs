//! Writes to the store, by resource and key; every one ends with the cache having it.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::{Object, Resource};
use coracle_store::{Error, Op, Precondition, Revision, Store};

use crate::cache::{Caches, Entry, ResourceCache, encode, key_below};
use crate::flowcontrol::FlowControl;
use crate::status::{ApiError, Result};

/// The store together with its caches.
pub(crate) struct Storage {
    store: Arc<dyn Store>,
    caches: Arc<Caches>,
    flow: Arc<FlowControl>,
}

/// Why a conditional write did not happen.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The object is there already, or has changed, or is gone.
    Conflict,
    /// Something else.
    Other(ApiError),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        match error {
            Error::Conflict { .. } | Error::NotFound { .. } => Self::Conflict,
            other => Self::Other(other.into()),
        }
    }
}

impl Storage {
    /// Joins the two; `flow` knows whether anybody waits while a write is prepared.
    pub(crate) fn new(store: Arc<dyn Store>, caches: Arc<Caches>, flow: Arc<FlowControl>) -> Self {
        Self {
            store,
            caches,
            flow,
        }
    }

    /// The caches.
    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    /// The cache of `resource`; a resource without storage is an unknown path.
    pub(crate) fn cache(&self, resource: &Resource) -> Result<&Arc<ResourceCache>> {
        self.caches.of(resource).ok_or_else(ApiError::unknown_path)
    }

    /// The object, consistent with every write that was answered before.
    pub(crate) async fn get(&self, resource: &Resource, key: &str) -> Result<Option<Arc<Entry>>> {
        let cache = self.cache(resource)?;
        self.catch_up().await;
        Ok(cache.get(key))
    }

    /// Waits until the caches hold every write that was published before the call, and returns that revision.
    pub(crate) async fn catch_up(&self) -> u64 {
        let revision = self.store.current_revision().0;
        self.caches.wait_for(revision).await;
        revision
    }

    /// Creates the object; [`WriteError::Conflict`] when the key is taken.
    pub(crate) async fn create(
        &self,
        resource: &'static Resource,
        key: &str,
        object: &Arc<Object>,
        ttl: Option<Duration>,
    ) -> Result<Arc<Entry>, WriteError> {
        self.put(resource, key, object, Precondition::Absent, ttl)
            .await
    }

    /// Replaces the object that was last changed at `revision`.
    pub(crate) async fn update(
        &self,
        resource: &'static Resource,
        key: &str,
        object: &Arc<Object>,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<Arc<Entry>, WriteError> {
        self.put(
            resource,
            key,
            object,
            Precondition::Revision(Revision(revision)),
            ttl,
        )
        .await
    }

    async fn put(
        &self,
        resource: &'static Resource,
        key: &str,
        object: &Arc<Object>,
        precondition: Precondition,
        ttl: Option<Duration>,
    ) -> Result<Arc<Entry>, WriteError> {
        self.flow.breathe().await;
        let stored = self.caches.stored(resource);
        let value = if std::ptr::eq(stored, resource) {
            encode(resource, object)
        } else {
            encode(stored, &resource.strategy.to_stored(Object::clone(object)))
        };
        let op = Op::put(format!("{}{key}", resource.prefix()), value.clone());
        let cache = self.caches.of(resource);
        let expected = cache.and_then(|cache| cache.expect(&value, object));
        let revision = self.store.write(op, precondition, ttl).await?;
        self.caches.wait_for(revision.0).await;
        drop(expected);
        // The cache has just taken the same bytes in, unless someone was faster still.
        let cached = cache.and_then(|cache| cache.get(key));
        if let Some(entry) = cached.filter(|entry| entry.revision == revision.0) {
            return Ok(entry);
        }
        let entry = Entry::from_stored(resource, key, &value, revision.0);
        entry
            .map(Arc::new)
            .map_err(|error| WriteError::Other(ApiError::internal(error)))
    }

    /// Deletes the object that was last changed at `revision`; the answer is the deletion's revision.
    pub(crate) async fn delete(
        &self,
        resource: &Resource,
        key: &str,
        revision: u64,
    ) -> Result<u64, WriteError> {
        let op = Op::delete(format!("{}{key}", resource.prefix()));
        let deleted = self
            .store
            .write(op, Precondition::Revision(Revision(revision)), None)
            .await?;
        self.caches.wait_for(deleted.0).await;
        Ok(deleted.0)
    }

    /// Up to `limit` objects below `scope` after the key `after`, as they were at `revision`; and whether there are more.
    pub(crate) async fn page(
        &self,
        resource: &'static Resource,
        scope: &str,
        revision: u64,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Arc<Entry>>, bool), Error> {
        let prefix = resource.prefix();
        let below = format!("{prefix}{scope}");
        let after = after.map(|after| format!("{prefix}{after}"));
        let after = after.as_ref().map(String::as_bytes);
        let page = self
            .store
            .range(below.as_bytes(), Some(Revision(revision)), after, limit)
            .await?;
        let mut entries = Vec::with_capacity(page.items.len());
        for item in &page.items {
            let entry = key_below(&prefix, &item.key).and_then(|key| {
                Entry::from_stored(resource, &key, &item.value, item.mod_revision.0)
            });
            match entry {
                Ok(entry) => entries.push(Arc::new(entry)),
                Err(error) => tracing::error!(%error, "left out of a list"),
            }
        }
        Ok((entries, page.more))
    }

    /// The oldest revision that can still be read.
    pub(crate) fn compacted(&self) -> u64 {
        self.store.compacted_revision().0
    }
}

/// The key of an object below its resource's prefix.
pub(crate) fn key(resource: &Resource, namespace: &str, name: &str) -> String {
    if resource.namespaced {
        format!("{namespace}/{name}")
    } else {
        name.to_owned()
    }
}

/// The key that upstream's messages name, which is not ours.
pub(crate) fn upstream_key(resource: &Resource, namespace: &str, name: &str) -> String {
    let folder = match (resource.group, resource.plural) {
        ("", "nodes") => "minions",
        ("", "replicationcontrollers") => "controllers",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("", "services") => "services/specs",
        ("", "endpoints") => "services/endpoints",
        (_, plural) => plural,
    };
    format!("/registry/{folder}/{}", key(resource, namespace, name))
}

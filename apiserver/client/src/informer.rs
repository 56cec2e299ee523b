//! One list-then-watch loop per kind and process, with handlers.
//!
//! ```text
//!           ┌────────── 410 Gone ──────────┐
//!           ▼                              │
//!   list (in pages) ──▶ replace cache ──▶ watch ──▶ apply, delete, bookmark
//!           ▲                              │ stream ends: watch again from the last version
//!           └── error: back off, again ◀───┘
//! ```
//!
//! The loop itself is kube-runtime's watcher; what is added here is the shared cache, the diff of a
//! second list against it (so that handlers hear of deletions that happened while nobody watched),
//! and handlers that run in the loop's own task, straight after the cache changed.

use std::any::Any;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::key::{Kind, ObjectKey};
use crate::lister::{Lister, revision_of};

/// What happened to one object, as far as the cache saw it. Steps may have been skipped.
#[derive(Debug)]
pub enum Change<K> {
    /// The object appeared or became different; `old` is what the cache held before.
    Applied {
        /// What the cache held before; `None` if the object is new.
        old: Option<Arc<K>>,
        /// What it holds now.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Deleted(last) => last,
        }
    }

    /// The state before, if the cache knew one and the object still exists.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Self::Applied { old, .. } => old.as_ref(),
            Self::Deleted(_) => None,
        }
    }

    /// Whether the object is gone.
    pub fn is_deleted(&self) -> bool {
        matches!(self, Self::Deleted(_))
    }
}

/// Answers whether it wants to hear of more.
type Handler<K> = Box<dyn Fn(&Change<K>) -> bool + Send + Sync>;

/// One kind's [`Lister`] with the handlers that hear of its changes.
pub struct Informer<K>(Arc<Inner<K>>);

struct Inner<K> {
    lister: Lister<K>,
    handlers: Mutex<Vec<Handler<K>>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource> Default for Informer<K> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            lister: Lister::default(),
            handlers: Mutex::default(),
        }))
    }
}

impl<K: Resource> Informer<K> {
    /// The cache that this informer fills.
    pub fn lister(&self) -> Lister<K> {
        self.0.lister.clone()
    }

    /// Calls `handler` for every object in the cache now, and for every change from now on.
    ///
    /// It runs in the loop that fills the cache, after the cache has changed: it must not block,
    /// and should do no more than put keys into a queue. A change may be told twice.
    pub fn subscribe(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.subscribe_while(move |change| {
            handler(change);
            true
        });
    }

    /// Like [`Informer::subscribe`], until `handler` answers `false`.
    pub fn subscribe_while(&self, handler: impl Fn(&Change<K>) -> bool + Send + Sync + 'static) {
        let mut handlers = self.0.handlers.lock();
        for new in self.0.lister.list() {
            call(&handler, &Change::Applied { old: None, new });
        }
        handlers.push(Box::new(handler));
    }

    /// Puts `object` into the cache and tells the handlers; for tests that play the API server.
    pub fn apply(&self, object: K) {
        let revision = revision_of(&object);
        let (new, old) = self.0.lister.insert(object);
        if old
            .as_ref()
            .is_some_and(|old| revision != 0 && revision_of(old.as_ref()) == revision)
        {
            return;
        }
        self.tell(&Change::Applied { old, new });
    }

    /// Takes `object` out of the cache and tells the handlers; for tests that play the API server.
    pub fn delete(&self, object: K) {
        self.0.lister.remove(&object);
        self.tell(&Change::Deleted(Arc::new(object)));
    }

    fn tell(&self, change: &Change<K>) {
        self.0
            .handlers
            .lock()
            .retain(|handler| call(handler.as_ref(), change));
    }

    /// Follows `events` until they end or `stop` is cancelled.
    async fn follow(
        &self,
        events: impl futures::Stream<Item = watcher::Result<Event<K>>>,
        kind: &str,
        stop: &CancellationToken,
    ) {
        let mut events = std::pin::pin!(events);
        // Keys the cache held when a list began and which the list has not named yet.
        let mut unlisted = BTreeSet::new();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.try_next() => event,
            };
            match event {
                Ok(Some(Event::Init)) => unlisted = self.0.lister.keys().into_iter().collect(),
                Ok(Some(Event::InitApply(object))) => {
                    unlisted.remove(&ObjectKey::of(&object));
                    self.apply(slim(object));
                }
                Ok(Some(Event::InitDone)) => {
                    for key in std::mem::take(&mut unlisted) {
                        if let Some(last) = self.0.lister.get(&key) {
                            self.0.lister.remove(last.as_ref());
                            self.tell(&Change::Deleted(last));
                        }
                    }
                    self.0.lister.set_synced();
                }
                Ok(Some(Event::Apply(object))) => self.apply(slim(object)),
                Ok(Some(Event::Delete(object))) => self.delete(slim(object)),
                Ok(None) => return,
                // The stream backs off and carries on by itself; 410 makes it list again.
                Err(error) => tracing::debug!(kind, %error, "watch interrupted"),
            }
        }
    }
}

/// Nobody reads managedFields from a cache, and they are often half of an object.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// A handler's panic must not take the cache, and with it every other component, along.
fn call<K>(handler: &(dyn Fn(&Change<K>) -> bool + Send + Sync), change: &Change<K>) -> bool {
    std::panic::catch_unwind(AssertUnwindSafe(|| handler(change))).unwrap_or_else(|_| {
        tracing::error!("an event handler panicked; its event is lost to it");
        true
    })
}

/// A change seen through metadata alone.
#[derive(Debug)]
pub struct MetadataChange<'a> {
    /// The state before, if the cache knew one.
    pub old: Option<&'a ObjectMeta>,
    /// The newest known state.
    pub new: &'a ObjectMeta,
    /// Whether the object is gone.
    pub deleted: bool,
}

/// What every cache can tell about its objects without knowing their kind.
pub trait MetadataSource: Send + Sync {
    /// Metadata of the object of that key.
    fn metadata(&self, key: &ObjectKey) -> Option<ObjectMeta>;
    /// Metadata of the object with that UID.
    fn metadata_by_uid(&self, uid: &str) -> Option<ObjectMeta>;
    /// Metadata of every object that names `uid` among its owners.
    fn metadata_owned_by(&self, uid: &str) -> Vec<ObjectMeta>;
    /// Keys of every object.
    fn all_keys(&self) -> Vec<ObjectKey>;
    /// Completes when the first list is in.
    fn metadata_synced(&self) -> BoxFuture<'static, ()>;
    /// Calls `handler` for all that is there and for every change; see [`Informer::subscribe`].
    fn subscribe_metadata(&self, handler: Box<dyn Fn(&MetadataChange<'_>) + Send + Sync>);
}

impl<K: Resource + Send + Sync + 'static> MetadataSource for Informer<K> {
    fn metadata(&self, key: &ObjectKey) -> Option<ObjectMeta> {
        self.0.lister.get(key).map(|object| object.meta().clone())
    }

    fn metadata_by_uid(&self, uid: &str) -> Option<ObjectMeta> {
        self.0
            .lister
            .by_uid(uid)
            .map(|object| object.meta().clone())
    }

    fn metadata_owned_by(&self, uid: &str) -> Vec<ObjectMeta> {
        self.0
            .lister
            .owned_by(uid)
            .iter()
            .map(|object| object.meta().clone())
            .collect()
    }

    fn all_keys(&self) -> Vec<ObjectKey> {
        self.0.lister.keys()
    }

    fn metadata_synced(&self) -> BoxFuture<'static, ()> {
        let lister = self.0.lister.clone();
        async move { lister.synced().await }.boxed()
    }

    fn subscribe_metadata(&self, handler: Box<dyn Fn(&MetadataChange<'_>) + Send + Sync>) {
        self.subscribe(move |change| {
            handler(&MetadataChange {
                old: change.old().map(|old| old.meta()),
                new: change.object().meta(),
                deleted: change.is_deleted(),
            });
        });
    }
}

/// Every informer of the process: the first who asks for a kind starts its loop.
#[derive(Clone)]
pub struct SharedInformers(Arc<Registry>);

struct Registry {
    client: Client,
    stop: CancellationToken,
    informers: Mutex<HashMap<(String, String), Entry>>,
    fields: Mutex<HashMap<(String, String), String>>,
}

#[derive(Clone)]
struct Entry {
    /// The `Informer<K>` itself, to be had back by type.
    typed: Arc<dyn Any + Send + Sync>,
    metadata: Arc<dyn MetadataSource>,
}

impl SharedInformers {
    /// Informers that read as `client` until `stop` is cancelled.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self(Arc::new(Registry {
            client,
            stop,
            informers: Mutex::default(),
            fields: Mutex::default(),
        }))
    }

    /// Restricts the cache of `K` to what a field selector accepts, such as `spec.nodeName=a` for a
    /// kubelet that runs alone. Only has an effect before the kind's first use.
    pub fn restrict<K: Kind>(&self, field_selector: &str) {
        self.0
            .fields
            .lock()
            .insert(resource_of::<K>(&()), field_selector.to_owned());
    }

    /// The informer of `K`, started at first use. Must be called within a tokio runtime.
    pub fn informer<K: Kind>(&self) -> Informer<K> {
        let resource = resource_of::<K>(&());
        let mut informers = self.0.informers.lock();
        if let Some(informer) = informers
            .get(&resource)
            .and_then(|entry| entry.typed.downcast_ref::<Informer<K>>())
        {
            return informer.clone();
        }
        let informer = Informer::<K>::default();
        let config = self.config(&resource);
        self.start(
            &informer,
            &resource.1,
            watcher::watcher(Api::all(self.0.client.clone()), config),
        );
        informers.insert(resource, Entry::of(informer.clone()));
        informer
    }

    /// The cache of `K`, started at first use.
    pub fn lister<K: Kind>(&self) -> Lister<K> {
        self.informer::<K>().lister()
    }

    /// Metadata of a kind known only at run time: from its typed cache if the process has one,
    /// else from a cache that holds nothing but metadata.
    pub fn metadata(&self, resource: &ApiResource) -> Arc<dyn MetadataSource> {
        let name = resource_of::<DynamicObject>(resource);
        let mut informers = self.0.informers.lock();
        if let Some(entry) = informers.get(&name) {
            return entry.metadata.clone();
        }
        let informer = Informer::<PartialObjectMeta<DynamicObject>>::default();
        let api =
            Api::<PartialObjectMeta<DynamicObject>>::all_with(self.0.client.clone(), resource);
        let events = watcher::watcher(api, self.config(&name));
        self.start(&informer, &name.1, events);
        let entry = Entry::of(informer);
        informers.insert(name, entry.clone());
        entry.metadata
    }

    /// Completes when every cache asked for so far is filled.
    pub async fn synced(&self) {
        let waiting: Vec<_> = {
            let informers = self.0.informers.lock();
            informers
                .values()
                .map(|entry| entry.metadata.metadata_synced())
                .collect()
        };
        futures::future::join_all(waiting).await;
    }

    fn config(&self, resource: &(String, String)) -> watcher::Config {
        let config = watcher::Config::default();
        match self.0.fields.lock().get(resource) {
            Some(fields) => config.fields(fields),
            None => config,
        }
    }

    fn start<K>(
        &self,
        informer: &Informer<K>,
        kind: &str,
        events: impl futures::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (informer, kind, stop) = (informer.clone(), kind.to_owned(), self.0.stop.clone());
        tokio::spawn(async move {
            informer
                .follow(events.default_backoff().boxed(), &kind, &stop)
                .await;
        });
    }
}

impl Entry {
    fn of<K: Resource + Send + Sync + 'static>(informer: Informer<K>) -> Self {
        Self {
            typed: Arc::new(informer.clone()),
            metadata: Arc::new(informer),
        }
    }
}

fn resource_of<K: Resource>(dynamic: &K::DynamicType) -> (String, String) {
    (
        K::group(dynamic).into_owned(),
        K::plural(dynamic).into_owned(),
    )
}

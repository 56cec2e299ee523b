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
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::key::{Kind, ObjectKey};
use crate::lister::{Lister, revision_of};
use crate::metadata::{Described, MetadataCache, MetadataSource};

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
            shielded(|| handler(&Change::Applied { old: None, new }));
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
        let mut handlers = self.0.handlers.lock();
        handlers.retain(|handler| shielded(|| handler(change)).unwrap_or(true));
    }
}

/// What a watch fills.
pub(crate) trait Cache<K>: Clone + Send + Sync + 'static {
    /// What tells objects apart.
    type Key: Ord + Send;
    /// The keys of all that is there.
    fn keys(&self) -> BTreeSet<Self::Key>;
    /// The key of an object.
    fn key(object: &K) -> Self::Key;
    /// The object is there, and this is what it is now.
    fn apply(&self, object: K);
    /// The object is gone; this is what it was last.
    fn delete(&self, object: K);
    /// What has that key is gone, and nobody saw it go.
    fn vanish(&self, key: &Self::Key);
    /// All that there is is in.
    fn set_synced(&self);
}

impl<K: Resource + Send + Sync + 'static> Cache<K> for Informer<K> {
    type Key = ObjectKey;

    fn keys(&self) -> BTreeSet<ObjectKey> {
        self.0.lister.keys().into_iter().collect()
    }

    fn key(object: &K) -> ObjectKey {
        ObjectKey::of(object)
    }

    fn apply(&self, object: K) {
        Self::apply(self, slim(object));
    }

    fn delete(&self, object: K) {
        Self::delete(self, slim(object));
    }

    fn vanish(&self, key: &ObjectKey) {
        if let Some(last) = self.0.lister.get(key) {
            self.0.lister.remove(last.as_ref());
            self.tell(&Change::Deleted(last));
        }
    }

    fn set_synced(&self) {
        self.0.lister.set_synced();
    }
}

/// Lets `cache` follow `events` until they end or `stop` is cancelled.
pub(crate) async fn follow<K, C: Cache<K>>(
    cache: C,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
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
            Ok(Some(Event::Init)) => unlisted = cache.keys(),
            Ok(Some(Event::InitApply(object))) => {
                unlisted.remove(&C::key(&object));
                cache.apply(object);
            }
            Ok(Some(Event::InitDone)) => {
                for key in std::mem::take(&mut unlisted) {
                    cache.vanish(&key);
                }
                cache.set_synced();
            }
            Ok(Some(Event::Apply(object))) => cache.apply(object),
            Ok(Some(Event::Delete(object))) => cache.delete(object),
            Ok(None) => return,
            // The stream backs off and carries on by itself; 410 makes it list again.
            Err(error) if is_forbidden(&error) => {
                tracing::warn!(kind, %error, "may not be watched");
            }
            Err(error) => tracing::debug!(kind, %error, "watch interrupted"),
        }
    }
}

/// Whether the server refuses the watch, which asking again alone does not mend.
pub(crate) fn is_forbidden(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    status.code == 403
}

/// Nobody reads managedFields from a cache, and they are often half of an object.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// A handler's panic must not take the cache, and with it every other component, along; it answers `None`.
pub(crate) fn shielded<T>(handler: impl FnOnce() -> T) -> Option<T> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(handler));
    if outcome.is_err() {
        tracing::error!("an event handler panicked; its event is lost to it");
    }
    outcome.ok()
}

/// Every informer of the process: the first who asks for a kind starts its loop.
#[derive(Clone)]
pub struct SharedInformers(Arc<Registry>);

struct Registry {
    client: Client,
    stop: CancellationToken,
    informers: Mutex<HashMap<Name, Entry>>,
    fields: Mutex<HashMap<(String, String), String>>,
}

/// What a cache holds: a group, a plural name, and the field selector that its objects match (empty: all of them).
type Name = (String, String, String);

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

    /// Restricts the caches of `K` to what a field selector accepts, such as `spec.nodeName=a` for a
    /// kubelet that runs alone. Only has an effect before the kind's first use.
    pub fn restrict<K: Kind>(&self, field_selector: &str) {
        let resource = (K::group(&()).into_owned(), K::plural(&()).into_owned());
        self.0
            .fields
            .lock()
            .insert(resource, field_selector.to_owned());
    }

    /// The informer of `K`, started at first use. Must be called within a tokio runtime.
    pub fn informer<K: Kind>(&self) -> Informer<K> {
        self.informer_of("")
    }

    /// The informer of those `K` that a field selector accepts, such as `metadata.name=settings`: for
    /// whoever needs a few of many. Started at first use; must be called within a tokio runtime.
    pub fn informer_of<K: Kind>(&self, field_selector: &str) -> Informer<K> {
        let name = name_of::<K>(&(), field_selector);
        let mut informers = self.0.informers.lock();
        if let Some(informer) = informers
            .get(&name)
            .and_then(|entry| entry.typed.downcast_ref::<Informer<K>>())
        {
            return informer.clone();
        }
        let informer = Informer::<K>::default();
        let events = watcher::watcher(Api::all(self.0.client.clone()), self.config(&name));
        self.start(&informer, &name.1, events);
        informers.insert(name, Entry::of(informer.clone()));
        informer
    }

    /// The cache of `K`, started at first use.
    pub fn lister<K: Kind>(&self) -> Lister<K> {
        self.informer::<K>().lister()
    }

    /// Metadata of a kind known only at run time: from its typed cache if the process has one of all objects,
    /// else from a cache that holds nothing but metadata.
    pub fn metadata(&self, resource: &ApiResource) -> Arc<dyn MetadataSource> {
        let name = name_of::<DynamicObject>(resource, "");
        let mut informers = self.0.informers.lock();
        if let Some(entry) = informers.get(&name) {
            return entry.metadata.clone();
        }
        let cache = MetadataCache::default();
        let api = Api::<Described>::all_with(self.0.client.clone(), resource);
        let events = watcher::watcher(api, self.config(&name));
        self.start(&cache, &name.1, events);
        let entry = Entry {
            typed: Arc::new(()),
            metadata: Arc::new(cache),
        };
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

    fn config(&self, (group, plural, fields): &Name) -> watcher::Config {
        let restricted = self.0.fields.lock();
        let restricted = restricted.get(&(group.clone(), plural.clone()));
        let selectors = [fields.as_str(), restricted.map_or("", String::as_str)];
        let selectors: Vec<_> = selectors.into_iter().filter(|s| !s.is_empty()).collect();
        let config = watcher::Config::default();
        match selectors.is_empty() {
            true => config,
            false => config.fields(&selectors.join(",")),
        }
    }

    fn start<K, C: Cache<K>>(
        &self,
        cache: &C,
        kind: &str,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    ) where
        K: Send + Sync + 'static,
    {
        let (cache, kind, stop) = (cache.clone(), kind.to_owned(), self.0.stop.clone());
        tokio::spawn(async move {
            follow(cache, events.default_backoff().boxed(), &kind, &stop).await;
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

fn name_of<K: Resource>(dynamic: &K::DynamicType, fields: &str) -> Name {
    let (group, plural) = (K::group(dynamic), K::plural(dynamic));
    (group.into_owned(), plural.into_owned(), fields.to_owned())
}

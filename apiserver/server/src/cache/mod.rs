//! The watch cache: every object of every stored resource, ready to send, and the recent changes.
//!
//! ```text
//! store ──one watch──▶ take ──▶ ResourceCache ──▶ bounded queue per watcher
//!                       │            ▲
//!                       ▼            └── get, list
//!                    progress ◀── wait_for(revision): a write answers when its revision is in the cache
//! ```
//!
//! Changes enter in the order of revisions, one at a time, on the thread that committed them, and `progress` moves after the change is in: whoever saw
//! `progress >= r` sees every change up to `r`. Nothing is read from the store but at start and for pages of the past.

mod entry;
mod expected;
mod history;
mod snapshot;
mod watcher;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use coracle_api::{Object, Registry, Resource, kinds::Storage};
use coracle_store::{Event, EventKind, Revision, Sink, Store};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::flowcontrol::Stats;

pub use entry::{DamagedValue, Entry, encode};
use expected::Expectations;
pub use history::{Change, History};
use watcher::Subscription;
pub use watcher::{Interest, Watcher};

/// Keys fetched from the store at a time while the cache is filled.
const FILL_PAGE: usize = 500;

/// The caches of all stored resources.
///
/// Versions that share a storage have a cache each, of objects in their own form.
pub struct Caches {
    by_prefix: HashMap<String, Vec<Arc<ResourceCache>>>,
    progress: Arc<Progress>,
}

/// The revision up to which the caches are complete.
struct Progress {
    revision: AtomicU64,
    changed: watch::Sender<u64>,
}

/// Why the caches could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error("failed to read the store")]
    Store(#[from] coracle_store::Error),
    /// A stored object cannot be understood.
    #[error(transparent)]
    Damaged(#[from] DamagedValue),
}

impl Caches {
    /// Fills the caches from `store` and keeps them up to date for as long as the store is open.
    pub async fn start(
        store: Arc<dyn Store>,
        registry: &Registry,
    ) -> Result<Arc<Self>, StartError> {
        let revision = store.current_revision();
        let mut by_prefix: HashMap<String, Vec<Arc<ResourceCache>>> = HashMap::new();
        for resource in registry
            .iter()
            .filter(|resource| resource.storage != Storage::None)
        {
            let objects = fill(&*store, resource, revision).await?;
            let cache = Arc::new(ResourceCache::new(resource, objects, revision.0));
            by_prefix.entry(resource.prefix()).or_default().push(cache);
        }
        let progress = Progress {
            revision: AtomicU64::new(revision.0),
            changed: watch::Sender::new(revision.0),
        };
        let caches = Arc::new(Self {
            by_prefix,
            progress: Arc::new(progress),
        });
        let watch = store.watch(revision).await?;
        watch.hand_over(caches.clone()).await?;
        Ok(caches)
    }

    /// The cache that holds the objects of `resource`.
    pub fn of(&self, resource: &Resource) -> Option<&Arc<ResourceCache>> {
        let same = |other: &Resource| {
            (other.group, other.version, other.plural)
                == (resource.group, resource.version, resource.plural)
        };
        let caches = self.by_prefix.get(&resource.prefix())?;
        caches.iter().find(|cache| same(cache.resource))
    }

    /// The resource whose version the objects of `resource` are stored in.
    pub fn stored(&self, resource: &'static Resource) -> &'static Resource {
        if resource.storage == Storage::Own {
            return resource;
        }
        let caches = self.by_prefix.get(&resource.prefix());
        caches
            .into_iter()
            .flatten()
            .map(|cache| cache.resource)
            .find(|other| other.storage == Storage::Own)
            .unwrap_or(resource)
    }

    /// The revision up to which the caches are complete.
    pub fn revision(&self) -> u64 {
        self.progress.revision.load(Ordering::Acquire)
    }

    /// Waits until the caches are complete up to `revision`.
    pub async fn wait_for(&self, revision: u64) {
        if self.revision() >= revision {
            return;
        }
        let mut changed = self.progress.changed.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = changed.wait_for(|reached| *reached >= revision).await;
    }

    /// Number of open watches.
    pub fn watches(&self) -> usize {
        self.by_prefix
            .values()
            .flatten()
            .map(|cache| cache.state.read().subscriptions.len())
            .sum()
    }

    fn advance(&self, revision: u64) {
        if revision > self.revision() {
            self.progress.revision.store(revision, Ordering::Release);
            self.progress.changed.send_replace(revision);
        }
    }

    fn apply(&self, event: &Event) {
        let Ok(path) = std::str::from_utf8(&event.key) else {
            return;
        };
        // `/registry/<group>/<plural>/<key>`
        let Some(end) = path.match_indices('/').nth(3).map(|(at, _)| at + 1) else {
            return;
        };
        for cache in self.by_prefix.get(&path[..end]).into_iter().flatten() {
            cache.apply(&path[end..], event.revision.0, &event.kind);
        }
    }
}

impl Sink for Caches {
    fn take(&self, events: &[Event]) {
        for event in events {
            // The committing thread is the store's: a bug here is no reason to end it.
            let applied = panic::catch_unwind(AssertUnwindSafe(|| self.apply(event)));
            if applied.is_err() {
                tracing::error!(key = %event.key.escape_ascii(), "the cache panicked at a change");
            }
            self.advance(event.revision.0);
        }
    }

    fn end(&self, error: coracle_store::Error) {
        if !matches!(error, coracle_store::Error::Closed) {
            tracing::error!(%error, "the store's watch failed; reads are stale from now on");
        }
        for cache in self.by_prefix.values().flatten() {
            cache.state.write().subscriptions.clear();
        }
    }
}

async fn fill(
    store: &dyn Store,
    resource: &Resource,
    at: Revision,
) -> Result<BTreeMap<Box<str>, Arc<Entry>>, StartError> {
    let prefix = resource.prefix();
    let mut objects = BTreeMap::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = store
            .range(prefix.as_bytes(), Some(at), after.as_deref(), FILL_PAGE)
            .await?;
        for item in &page.items {
            let key = key_below(&prefix, &item.key)?;
            let entry = Entry::from_stored(resource, &key, &item.value, item.mod_revision.0)?;
            objects.insert(entry.key.clone(), Arc::new(entry));
        }
        match page.items.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => return Ok(objects),
        }
    }
}

/// What follows `prefix` in the store's key.
pub fn key_below(prefix: &str, key: &[u8]) -> Result<String, DamagedValue> {
    let text = key
        .strip_prefix(prefix.as_bytes())
        .and_then(|rest| std::str::from_utf8(rest).ok());
    text.map(str::to_owned).ok_or_else(|| DamagedValue {
        key: key.escape_ascii().to_string(),
    })
}

/// Somebody in this process who must know of every change before the write that made it is answered.
pub trait Observer: Send + Sync {
    /// The object at `key` is this one from now on, or gone. Called in the order of revisions, under the cache's lock:
    /// it must be quick and must not read the cache.
    fn changed(&self, key: &str, object: Option<&Object>);
}

/// The objects of one resource.
pub struct ResourceCache {
    resource: &'static Resource,
    state: RwLock<State>,
    expected: Expectations,
}

struct State {
    objects: BTreeMap<Box<str>, Arc<Entry>>,
    /// The size of all objects as JSON.
    bytes: usize,
    /// The revision of the last change of this resource.
    revision: u64,
    history: History,
    subscriptions: Vec<Subscription>,
    observers: Vec<Arc<dyn Observer>>,
}

/// Objects as they were at one revision.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// In byte order of their keys.
    pub entries: Vec<Arc<Entry>>,
    /// The revision.
    pub revision: u64,
}

impl ResourceCache {
    fn new(
        resource: &'static Resource,
        objects: BTreeMap<Box<str>, Arc<Entry>>,
        revision: u64,
    ) -> Self {
        let state = State {
            bytes: objects.values().map(|entry| entry.item().len()).sum(),
            objects,
            revision,
            history: History::new(revision),
            subscriptions: Vec::new(),
            observers: Vec::new(),
        };
        Self {
            resource,
            state: RwLock::new(state),
            expected: Expectations::default(),
        }
    }

    /// The object at `key`.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// How many objects there are, how large they are and how many watch them.
    pub(crate) fn stats(&self) -> Stats {
        let state = self.state.read();
        Stats {
            objects: state.objects.len(),
            bytes: state.bytes,
            watchers: state.subscriptions.len(),
        }
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects whose keys begin with `scope`, as of now. `progress` is the revision that all caches had reached
    /// before the call.
    pub fn list(&self, scope: &str, progress: u64) -> Snapshot {
        let state = self.state.read();
        let entries = state.scoped(scope, None).cloned().collect();
        Snapshot {
            entries,
            revision: progress.max(state.revision),
        }
    }

    /// Follows the changes after `from`. When some of them are forgotten, the error is the oldest
    /// revision to start after.
    pub fn watch(&self, from: u64, interest: Interest) -> Result<Watcher, u64> {
        let mut state = self.state.write();
        let backlog = {
            let Some(changes) = state.history.after(from) else {
                return Err(state.history.floor());
            };
            changes
                .filter(|change| interest.concerns(change))
                .cloned()
                .collect()
        };
        Ok(state.subscribe(backlog, interest))
    }

    /// The objects now, and the changes after them.
    pub fn list_and_watch(
        &self,
        scope: &str,
        progress: u64,
        interest: Interest,
    ) -> (Snapshot, Watcher) {
        let mut state = self.state.write();
        let entries = state.scoped(scope, None).cloned().collect();
        let snapshot = Snapshot {
            entries,
            revision: progress.max(state.revision),
        };
        (snapshot, state.subscribe(Vec::new(), interest))
    }

    /// Shows `observer` every object, and from now on every change.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        let mut state = self.state.write();
        for (key, entry) in &state.objects {
            observer.changed(key, Some(&entry.object()));
        }
        state.observers.push(observer);
    }

    fn apply(&self, key: &str, revision: u64, kind: &EventKind) {
        let (new, object) = match kind {
            EventKind::Put { value, .. } => match self.read(key, value, revision) {
                Ok((entry, object)) => (Some(Arc::new(entry)), Some(object)),
                Err(error) => return tracing::error!(%error, "skipped a change"),
            },
            EventKind::Delete { .. } => (None, None),
        };
        let mut state = self.state.write();
        let old = match &new {
            Some(entry) => state.objects.insert(key.into(), Arc::clone(entry)),
            None => state.objects.remove(key),
        };
        if new.is_none() && old.is_none() {
            return;
        }
        let size = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |e| e.item().len());
        state.bytes = (state.bytes + size(&new)).saturating_sub(size(&old));
        state.revision = revision;
        for observer in &state.observers {
            observer.changed(key, object.as_deref());
        }
        let change = Arc::new(Change { revision, new, old });
        state
            .subscriptions
            .retain(|subscription| subscription.offer(&change));
        state.history.push(change);
    }
}

impl ResourceCache {
    /// The entry of a stored value, and the object: the one that it was made of, if that is at hand.
    fn read(
        &self,
        key: &str,
        value: &Bytes,
        revision: u64,
    ) -> Result<(Entry, Arc<Object>), DamagedValue> {
        if let Some((known, object)) = self.expected.take(value) {
            let entry = Entry::known(self.resource, key, value, known, revision)?;
            return Ok((entry, object));
        }
        let (entry, object) = Entry::parse(self.resource, key, value, revision)?;
        Ok((entry, Arc::new(object)))
    }
}

impl State {
    /// Those whose keys begin with `scope` and come after `after`.
    fn scoped<'a>(
        &'a self,
        scope: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = match after {
            Some(after) if after >= scope => Bound::Excluded(after),
            _ if scope.is_empty() => Bound::Unbounded,
            _ => Bound::Included(scope),
        };
        self.objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(scope))
            .map(|(_, entry)| entry)
    }

    fn subscribe(&mut self, backlog: Vec<Arc<Change>>, interest: Interest) -> Watcher {
        self.subscriptions.retain(Subscription::is_open);
        let (subscription, watcher) = watcher::pair(backlog, interest);
        self.subscriptions.push(subscription);
        watcher
    }
}

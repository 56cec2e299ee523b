//! Some objects of a kind, by name, each followed for as long as somebody needs it.
//!
//! ```text
//! want(owner, names) ──▶ a watch of `metadata.name=…` per name ──▶ get(name)
//! release(owner) ──▶ a name that nobody wants any more: its watch ends
//! ```
//!
//! As the kubelet of upstream follows the ConfigMaps and Secrets of its pods
//! (pkg/kubelet/util/manager/watch_based_manager.go): of many objects it holds those that it needs, and its
//! node may read no others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::informer::{Informer, follow, is_forbidden};
use crate::key::{Kind, ObjectKey};
use crate::lister::Lister;

/// How long whoever waits for a first answer waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Objects of a namespaced kind that somebody wants; cheap to clone. The last clone ends all watches.
pub struct NamedObjects<K>(Arc<Shared<K>>);

impl<K> Clone for NamedObjects<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<K> {
    client: Client,
    stop: CancellationToken,
    changed: Arc<dyn Fn(&ObjectKey) + Send + Sync>,
    state: Mutex<State<K>>,
}

struct State<K> {
    followed: HashMap<ObjectKey, Followed<K>>,
    wanted: HashMap<String, BTreeSet<ObjectKey>>,
}

struct Followed<K> {
    lister: Lister<K>,
    owners: usize,
    _until: DropGuard,
}

/// An object that the server has not told of yet.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {key} could not be read from the API server in time")]
pub struct Unread {
    kind: String,
    key: ObjectKey,
}

impl<K> NamedObjects<K>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    /// No objects yet. They are read as `client` until `stop` is cancelled, and `changed` is told of every
    /// change of one, in the task that follows it: it must not block. Must be used within a tokio runtime.
    pub fn new(
        client: Client,
        stop: CancellationToken,
        changed: impl Fn(&ObjectKey) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            client,
            stop,
            changed: Arc::new(changed),
            state: Mutex::new(State {
                followed: HashMap::new(),
                wanted: HashMap::new(),
            }),
        }))
    }

    /// Follows `keys` for `owner`, and no longer what else it wanted before; returns once all of them have been read.
    /// The error is one that was not read within ten seconds; it is followed all the same.
    pub async fn want(&self, owner: &str, keys: BTreeSet<ObjectKey>) -> Result<(), Unread> {
        for (key, lister) in self.set(owner, keys) {
            if lister.is_synced() {
                continue;
            }
            let read = tokio::time::timeout(PATIENCE, lister.synced()).await;
            read.map_err(|_| Unread {
                kind: K::kind(&()).into_owned(),
                key,
            })?;
        }
        Ok(())
    }

    /// `owner` needs nothing any more.
    pub fn release(&self, owner: &str) {
        self.set(owner, BTreeSet::new());
    }

    /// The object of that key, if it is followed and exists.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let state = self.0.state.lock();
        let lister = state.followed.get(key)?.lister.clone();
        drop(state);
        lister.get(key)
    }

    /// How many objects are followed.
    pub fn followed(&self) -> usize {
        self.0.state.lock().followed.len()
    }

    fn set(&self, owner: &str, keys: BTreeSet<ObjectKey>) -> Vec<(ObjectKey, Lister<K>)> {
        let mut state = self.0.state.lock();
        let before = match keys.is_empty() {
            true => state.wanted.remove(owner),
            false => state.wanted.insert(owner.to_owned(), keys.clone()),
        };
        let before = before.unwrap_or_default();
        for key in keys.difference(&before) {
            let followed = state.followed.entry(key.clone());
            followed.or_insert_with(|| self.follow(key)).owners += 1;
        }
        for key in before.difference(&keys) {
            if let Some(followed) = state.followed.get_mut(key) {
                followed.owners -= 1;
                if followed.owners == 0 {
                    state.followed.remove(key);
                }
            }
        }
        let listers = keys.into_iter().filter_map(|key| {
            let lister = state.followed.get(&key)?.lister.clone();
            Some((key, lister))
        });
        listers.collect()
    }

    fn follow(&self, key: &ObjectKey) -> Followed<K> {
        let informer = Informer::<K>::default();
        let changed = self.0.changed.clone();
        informer.subscribe(move |change| changed(&ObjectKey::of(change.object().as_ref())));
        let lister = informer.lister();
        let api = Api::<K>::namespaced(self.0.client.clone(), &key.namespace);
        let name = format!("metadata.name={}", key.name);
        let events = watcher::watcher(api, watcher::Config::default().fields(&name));
        let stop = self.0.stop.child_token();
        let until = stop.clone().drop_guard();
        tokio::spawn(async move {
            // A node may read what its pods name. When the last of them goes, the server knows that first.
            let told = |event: &watcher::Result<_>| {
                let refused = event.as_ref().is_err_and(is_forbidden);
                std::future::ready(!refused)
            };
            let events = events.default_backoff().filter(told).boxed();
            follow(informer, events, &K::kind(&()), &stop).await;
        });
        Followed {
            lister,
            owners: 0,
            _until: until,
        }
    }
}

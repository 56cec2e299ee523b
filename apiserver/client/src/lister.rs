//! The shared cache of one kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use kube::Resource;
use kube::core::{Selector, SelectorExt};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::key::{ObjectKey, uid};
use crate::uid::Uid;

/// Snapshot reads of one kind's cache; cheap to clone, never waits.
///
/// Every method answers from one consistent moment of the cache; two calls may see two moments.
/// Objects come in key order (namespace, then name) and without `metadata.managedFields`.
pub struct Lister<K>(Arc<Shared<K>>);

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<K> {
    state: RwLock<State<K>>,
    /// Counts changes, so that waiting needs no polling.
    changed: watch::Sender<u64>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    by_uid: HashMap<Uid, Arc<K>>,
    by_owner: HashMap<String, BTreeSet<ObjectKey>>,
    synced: bool,
    revision: u64,
}

impl<K: Resource> Default for Lister<K> {
    fn default() -> Self {
        Self(Arc::new(Shared {
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                by_uid: HashMap::new(),
                by_owner: HashMap::new(),
                synced: false,
                revision: 0,
            }),
            changed: watch::channel(0).0,
        }))
    }
}

impl<K: Resource> Lister<K> {
    /// A cache that holds `objects` and counts as filled, for tests of whoever reads one.
    pub fn of(objects: impl IntoIterator<Item = K>) -> Self {
        let lister = Self::default();
        for object in objects {
            lister.insert(object);
        }
        lister.set_synced();
        lister
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.0.state.read().objects.get(key).cloned()
    }

    /// The object with that UID.
    pub fn by_uid(&self, uid: &str) -> Option<Arc<K>> {
        self.0.state.read().by_uid.get(&Uid::of(uid)).cloned()
    }

    /// Every object.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.state.read().objects.values().cloned().collect()
    }

    /// Every object of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.0.state.read();
        state
            .objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Every object that names `uid` among its owners, in whatever namespace.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.0.state.read();
        let Some(keys) = state.by_owner.get(uid) else {
            return Vec::new();
        };
        keys.iter()
            .filter_map(|key| state.objects.get(key).cloned())
            .collect()
    }

    /// Every object of `namespace` whose labels `selector` accepts.
    pub fn matching(&self, namespace: &str, selector: &Selector) -> Vec<Arc<K>> {
        let mut objects = self.in_namespace(namespace);
        let none = BTreeMap::new();
        objects.retain(|object| selector.matches(object.meta().labels.as_ref().unwrap_or(&none)));
        objects
    }

    /// How many objects the cache holds.
    pub fn len(&self) -> usize {
        self.0.state.read().objects.len()
    }

    /// Whether the cache holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        self.0.state.read().synced
    }

    /// The highest resourceVersion seen. Events of one kind arrive in revision order, so a write
    /// of this kind that was answered with this version or a lower one is in the cache.
    pub fn revision(&self) -> u64 {
        self.0.state.read().revision
    }

    /// Completes when the first list is in.
    pub async fn synced(&self) {
        self.wait_until(Self::is_synced).await;
    }

    /// Completes when `condition` holds; it is asked again after every change of the cache.
    pub async fn wait_until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut changed = self.0.changed.subscribe();
        while !condition(self) {
            // The sender lives in self, so this cannot fail while it is borrowed.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Stores `object` and answers what it replaced.
    pub(crate) fn insert(&self, object: K) -> (Arc<K>, Option<Arc<K>>) {
        let object = Arc::new(object);
        let key = ObjectKey::of(object.as_ref());
        let old = {
            let mut state = self.0.state.write();
            let old = state.forget(&key);
            state.saw(object.as_ref());
            state
                .by_uid
                .insert(Uid::of(uid(object.as_ref())), object.clone());
            for owner in object.meta().owner_references.iter().flatten() {
                state
                    .by_owner
                    .entry(owner.uid.clone())
                    .or_default()
                    .insert(key.clone());
            }
            state.objects.insert(key, object.clone());
            old
        };
        self.0.changed.send_modify(|count| *count += 1);
        (object, old)
    }

    /// Drops the object and answers what the cache held.
    pub(crate) fn remove(&self, object: &K) -> Option<Arc<K>> {
        let old = {
            let mut state = self.0.state.write();
            state.saw(object);
            state.forget(&ObjectKey::of(object))
        };
        self.0.changed.send_modify(|count| *count += 1);
        old
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.0.state.read().objects.keys().cloned().collect()
    }

    pub(crate) fn set_synced(&self) {
        self.0.state.write().synced = true;
        self.0.changed.send_modify(|count| *count += 1);
    }
}

impl<K: Resource> State<K> {
    fn saw(&mut self, object: &K) {
        self.revision = self.revision.max(revision_of(object));
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        // A re-created object of the same name has taken over its key, never its UID.
        self.by_uid.remove(&Uid::of(uid(old.as_ref())));
        for owner in old.meta().owner_references.iter().flatten() {
            if let Some(keys) = self.by_owner.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }
}

/// The object's resourceVersion as a number; 0 if it has none.
///
/// Kubernetes declares resourceVersions of one kind comparable since 1.35; here they are the
/// store's revision.
pub(crate) fn revision_of<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    fn config_map(namespace: &str, name: &str, revision: u64, owner: Option<&str>) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some(namespace.into()),
                name: Some(name.into()),
                uid: Some(format!("uid-{name}")),
                resource_version: Some(revision.to_string()),
                labels: Some([("app".to_owned(), name.to_owned())].into()),
                owner_references: owner.map(|uid| {
                    vec![OwnerReference {
                        uid: uid.into(),
                        ..Default::default()
                    }]
                }),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[test]
    fn indexes_follow_every_replacement() {
        let lister = Lister::of([
            config_map("a", "one", 1, Some("x")),
            config_map("a", "two", 2, None),
            config_map("b", "three", 3, Some("x")),
        ]);
        assert_eq!(lister.in_namespace("a").len(), 2);
        assert_eq!(lister.owned_by("x").len(), 2);

        lister.insert(config_map("a", "one", 4, Some("y")));
        assert_eq!(lister.owned_by("x").len(), 1);
        assert_eq!(lister.owned_by("y").len(), 1);
        assert_eq!(lister.revision(), 4);

        lister.remove(&config_map("a", "one", 5, Some("y")));
        assert!(lister.owned_by("y").is_empty());
        assert!(lister.by_uid("uid-one").is_none());
        assert!(lister.by_uid("uid-two").is_some());
        assert_eq!(lister.revision(), 5);
    }

    #[test]
    fn a_namespace_is_not_a_prefix_of_another() {
        let lister = Lister::of([
            config_map("a", "one", 1, None),
            config_map("ab", "two", 2, None),
        ]);
        assert_eq!(lister.in_namespace("a").len(), 1);
        let selector: Selector = kube::core::Expression::Equal("app".into(), "two".into()).into();
        assert_eq!(lister.matching("ab", &selector).len(), 1);
        assert!(lister.matching("a", &selector).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_when_the_state_is_reached() {
        let lister = Lister::<ConfigMap>::default();
        let waiting = tokio::spawn({
            let lister = lister.clone();
            async move { lister.wait_until(|l| l.len() == 2).await }
        });
        lister.insert(config_map("a", "one", 1, None));
        lister.insert(config_map("a", "two", 2, None));
        waiting.await.expect("the wait ends");
    }
}

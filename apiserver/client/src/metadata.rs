//! Caches of metadata alone, for whoever looks at every object of every kind.
//!
//! A kind that the process caches anyway is read from there. Any other is kept as the few fields of metadata that decide
//! about the life of an object, in about 150 bytes each: of 100,000 ConfigMaps nothing else is held here.
//!
//! The server is asked for whole objects all the same: it has their bytes ready, while the metadata alone would have to be
//! cut out for this one reader. What is not kept is not even parsed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{ApiResource, DynamicObject};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Deserializer};
use tokio::sync::watch;

use crate::informer::{Cache, Informer, shielded};
use crate::uid::Uid;

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
///
/// Of the metadata these fields are certain: `namespace`, `name`, `uid`, `resourceVersion`, `deletionTimestamp`,
/// `ownerReferences`, `finalizers`. Others may be missing.
pub trait MetadataSource: Send + Sync {
    /// Metadata of the object with that UID.
    fn metadata_by_uid(&self, uid: &str) -> Option<ObjectMeta>;
    /// Metadata of every object that names `uid` among its owners.
    fn metadata_owned_by(&self, uid: &str) -> Vec<ObjectMeta>;
    /// Completes when the first list is in.
    fn metadata_synced(&self) -> BoxFuture<'static, ()>;
    /// Calls `handler` for all that is there and for every change; see [`Informer::subscribe`].
    fn subscribe_metadata(&self, handler: MetadataHandler);
}

/// Whoever hears of changes of metadata.
pub type MetadataHandler = Box<dyn Fn(&MetadataChange<'_>) + Send + Sync>;

impl<K: Resource + Send + Sync + 'static> MetadataSource for Informer<K> {
    fn metadata_by_uid(&self, uid: &str) -> Option<ObjectMeta> {
        let found = self.lister().by_uid(uid);
        found.map(|object| object.meta().clone())
    }

    fn metadata_owned_by(&self, uid: &str) -> Vec<ObjectMeta> {
        let found = self.lister().owned_by(uid);
        found.iter().map(|object| object.meta().clone()).collect()
    }

    fn metadata_synced(&self) -> BoxFuture<'static, ()> {
        let lister = self.lister();
        async move { lister.synced().await }.boxed()
    }

    fn subscribe_metadata(&self, handler: MetadataHandler) {
        self.subscribe(move |change| {
            handler(&MetadataChange {
                old: change.old().map(|old| old.meta()),
                new: change.object().meta(),
                deleted: change.is_deleted(),
            });
        });
    }
}

/// An object of any kind, of which only what [`MetadataCache`] keeps is read.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for Described {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            metadata: Kept,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Kept {
            namespace: Option<String>,
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            deletion_timestamp: Option<Time>,
            owner_references: Option<Vec<OwnerReference>>,
            finalizers: Option<Vec<String>>,
            /// A bookmark says with one that the initial events are over.
            annotations: Option<BTreeMap<String, String>>,
        }
        let kept = Wire::deserialize(deserializer)?.metadata;
        let metadata = ObjectMeta {
            namespace: kept.namespace,
            name: kept.name,
            uid: kept.uid,
            resource_version: kept.resource_version,
            deletion_timestamp: kept.deletion_timestamp,
            owner_references: kept.owner_references,
            finalizers: kept.finalizers,
            annotations: kept.annotations,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata })
    }
}

impl Resource for Described {
    type DynamicType = ApiResource;
    type Scope = <DynamicObject as Resource>::Scope;

    fn kind(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        DynamicObject::kind(resource)
    }

    fn group(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        DynamicObject::group(resource)
    }

    fn version(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        DynamicObject::version(resource)
    }

    fn plural(resource: &ApiResource) -> std::borrow::Cow<'_, str> {
        DynamicObject::plural(resource)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// The metadata of every object of one kind; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct MetadataCache(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: RwLock<State>,
    synced: watch::Sender<bool>,
    handlers: Mutex<Vec<MetadataHandler>>,
}

#[derive(Default)]
struct State {
    /// Objects keep no names of namespaces of their own.
    namespaces: HashSet<Arc<str>>,
    objects: HashMap<Uid, Node>,
    by_owner: HashMap<Uid, HashSet<Uid>>,
}

/// One object. Most have no `rest`.
struct Node {
    namespace: Arc<str>,
    name: Box<str>,
    /// The resourceVersion; 0 if it is in `rest`.
    revision: u64,
    rest: Option<Box<Rest>>,
}

#[derive(Default, PartialEq)]
struct Rest {
    /// A resourceVersion that is no number.
    version: Option<String>,
    deletion_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

impl Node {
    fn meta(&self, uid: &Uid) -> ObjectMeta {
        let none = Rest::default();
        let rest = self.rest.as_deref().unwrap_or(&none);
        let version = rest.version.clone();
        ObjectMeta {
            namespace: (!self.namespace.is_empty()).then(|| self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(uid.text()),
            resource_version: Some(version.unwrap_or_else(|| self.revision.to_string())),
            deletion_timestamp: rest.deletion_timestamp.clone(),
            owner_references: rest.owner_references.clone(),
            finalizers: rest.finalizers.clone(),
            ..ObjectMeta::default()
        }
    }

    fn owners(&self) -> impl Iterator<Item = Uid> {
        let rest = self.rest.iter();
        let owners = rest.flat_map(|rest| rest.owner_references.iter().flatten());
        owners.map(|owner| Uid::of(&owner.uid))
    }
}

impl State {
    /// Puts an object in place of what is known of its UID, and answers that.
    fn insert(&mut self, uid: Uid, meta: &ObjectMeta) -> Option<ObjectMeta> {
        let old = self.remove(&uid);
        let version = meta.resource_version.as_deref().unwrap_or("0");
        // Leading zeros and signs would not come back.
        let number = version.parse().ok();
        let number = number.filter(|number: &u64| number.to_string() == version);
        let rest = Rest {
            version: number.is_none().then(|| version.to_owned()),
            deletion_timestamp: meta.deletion_timestamp.clone(),
            owner_references: meta.owner_references.clone(),
            finalizers: meta.finalizers.clone(),
        };
        let node = Node {
            namespace: self.namespace(meta.namespace.as_deref().unwrap_or_default()),
            name: meta.name.as_deref().unwrap_or_default().into(),
            revision: number.unwrap_or(0),
            rest: (rest != Rest::default()).then(|| Box::new(rest)),
        };
        for owner in node.owners() {
            let owned = self.by_owner.entry(owner).or_default();
            owned.insert(uid.clone());
        }
        self.objects.insert(uid, node);
        old
    }

    fn remove(&mut self, uid: &Uid) -> Option<ObjectMeta> {
        let node = self.objects.remove(uid)?;
        for owner in node.owners() {
            if let Some(owned) = self.by_owner.get_mut(&owner) {
                owned.remove(uid);
                if owned.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
        }
        // After churn a table keeps its largest size.
        if self.objects.len() < self.objects.capacity() / 8 {
            self.objects.shrink_to(self.objects.len() * 2);
        }
        let meta = node.meta(uid);
        let namespace = node.namespace;
        if Arc::strong_count(&namespace) == 2 {
            self.namespaces.remove(&namespace);
        }
        Some(meta)
    }

    fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.namespaces.insert(new.clone());
        new
    }
}

fn uid_of(meta: &ObjectMeta) -> Uid {
    Uid::of(meta.uid.as_deref().unwrap_or_default())
}

impl MetadataCache {
    fn tell(&self, change: &MetadataChange<'_>) {
        let handlers = self.0.handlers.lock();
        for handler in handlers.iter() {
            shielded(|| handler(change));
        }
    }
}

impl Cache<Described> for MetadataCache {
    type Key = Uid;

    fn keys(&self) -> BTreeSet<Uid> {
        self.0.state.read().objects.keys().cloned().collect()
    }

    fn key(object: &Described) -> Uid {
        uid_of(&object.metadata)
    }

    fn apply(&self, object: Described) {
        let new = &object.metadata;
        let old = self.0.state.write().insert(uid_of(new), new);
        let same = |old: &ObjectMeta| old.resource_version == new.resource_version;
        if old.as_ref().is_some_and(same) {
            return;
        }
        let (old, deleted) = (old.as_ref(), false);
        self.tell(&MetadataChange { old, new, deleted });
    }

    fn delete(&self, object: Described) {
        let new = &object.metadata;
        self.0.state.write().remove(&uid_of(new));
        let (old, deleted) = (None, true);
        self.tell(&MetadataChange { old, new, deleted });
    }

    fn vanish(&self, uid: &Uid) {
        let last = self.0.state.write().remove(uid);
        if let Some(new) = &last {
            let (old, deleted) = (None, true);
            self.tell(&MetadataChange { old, new, deleted });
        }
    }

    fn set_synced(&self) {
        self.0.synced.send_replace(true);
    }
}

impl MetadataSource for MetadataCache {
    fn metadata_by_uid(&self, uid: &str) -> Option<ObjectMeta> {
        let uid = Uid::of(uid);
        let state = self.0.state.read();
        state.objects.get(&uid).map(|node| node.meta(&uid))
    }

    fn metadata_owned_by(&self, uid: &str) -> Vec<ObjectMeta> {
        let state = self.0.state.read();
        let owned = state.by_owner.get(&Uid::of(uid)).into_iter().flatten();
        owned
            .filter_map(|uid| Some(state.objects.get(uid)?.meta(uid)))
            .collect()
    }

    fn metadata_synced(&self) -> BoxFuture<'static, ()> {
        let mut synced = self.0.synced.subscribe();
        async move {
            // An error says that the cache is gone, and nobody waits for it.
            let _ = synced.wait_for(|synced| *synced).await;
        }
        .boxed()
    }

    fn subscribe_metadata(&self, handler: MetadataHandler) {
        let mut handlers = self.0.handlers.lock();
        // One at a time, for all of them at once would be many times what is kept.
        for uid in self.keys() {
            let state = self.0.state.read();
            let found = state.objects.get(&uid).map(|node| node.meta(&uid));
            drop(state);
            if let Some(new) = &found {
                let (old, deleted) = (None, false);
                shielded(|| handler(&MetadataChange { old, new, deleted }));
            }
        }
        handlers.push(handler);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn described(value: serde_json::Value) -> Described {
        serde_json::from_value(json!({"metadata": value, "data": {"a": "b"}})).expect("an object")
    }

    #[test]
    fn what_decides_about_an_object_comes_back_and_the_rest_does_not() {
        let owner =
            json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        let meta = json!({
            "namespace": "a", "name": "one", "uid": "0b7d1f4e-93a5-4c1e-8d2f-00ff10a2b3c4", "resourceVersion": "007",
            "deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["orphan"], "ownerReferences": [owner],
        });
        let mut more = meta.clone();
        more["labels"] = json!({"a": "b"});
        more["managedFields"] = json!([{"manager": "m", "fieldsV1": {"f:data": {}}}]);
        let cache = MetadataCache::default();
        cache.apply(described(more));
        let found = cache.metadata_owned_by("u");
        assert_eq!(serde_json::to_value(&found).expect("JSON"), json!([meta]));
    }

    #[test]
    fn indexes_follow_every_change() {
        let cache = MetadataCache::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let object = |version: &str, owners: &[&str]| {
            let owner =
                |uid: &&str| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid});
            let owners: Vec<_> = owners.iter().map(owner).collect();
            described(
                json!({"namespace": "a", "name": "one", "uid": "1", "resourceVersion": version, "ownerReferences": owners}),
            )
        };
        cache.apply(object("1", &["x", "y", "x"]));
        let note = heard.clone();
        cache.subscribe_metadata(Box::new(move |change| {
            let version = |meta: &ObjectMeta| meta.resource_version.clone().unwrap_or_default();
            let line = (change.old.map(version), version(change.new), change.deleted);
            note.lock().push(line);
        }));
        cache.apply(object("1", &["x", "y", "x"]));
        cache.apply(object("2", &["y"]));
        assert_eq!(cache.metadata_owned_by("x").len(), 0);
        assert_eq!(cache.metadata_owned_by("y").len(), 1);
        cache.delete(object("3", &["y"]));
        assert!(cache.metadata_by_uid("1").is_none());
        {
            let state = cache.0.state.read();
            assert!(state.by_owner.is_empty() && state.namespaces.is_empty());
        }
        let expected = [
            (None, "1".to_owned(), false),
            (Some("1".to_owned()), "2".to_owned(), false),
            (None, "3".to_owned(), true),
        ];
        assert_eq!(*heard.lock(), expected);
    }
}

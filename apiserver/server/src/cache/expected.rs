//! Values on their way to the store, of which everything is known: the cache need not read them again.
//!
//! Reading a value takes as long as encoding it, and most values come from a request that has the object at hand. A value
//! is known again by the place of its bytes in memory, which it keeps on its way through the store. One that was copied,
//! or comes from elsewhere, is read as ever.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::Object;
use parking_lot::Mutex;

use super::ResourceCache;
use super::entry::Known;

/// A value, what is known of it, and the object that it was made of.
type OnItsWay = (Bytes, Known, Arc<Object>);

/// The values that are on their way.
#[derive(Default)]
pub(super) struct Expectations {
    /// By the place of the value, which can't be used again while it is held here.
    known: Mutex<HashMap<usize, OnItsWay>>,
}

impl Expectations {
    /// What is known of `value`, and the object that it was made of, once.
    pub(super) fn take(&self, value: &Bytes) -> Option<(Known, Arc<Object>)> {
        match self.known.lock().entry(place(value)) {
            Entry::Occupied(found) if found.get().0.len() == value.len() => {
                let (_, known, object) = found.remove();
                Some((known, object))
            }
            _ => None,
        }
    }
}

fn place(value: &Bytes) -> usize {
    value.as_ptr().addr()
}

/// A value that is expected, until this is dropped.
pub(crate) struct Expected<'a> {
    cache: &'a ResourceCache,
    place: usize,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        // The write may have failed.
        self.cache.expected.known.lock().remove(&self.place);
    }
}

impl ResourceCache {
    /// Notes what `value` says, which [`encode`](super::encode) has made of `object`, for when it comes from the store.
    /// `None` for kinds whose values have to be read all the same.
    pub(crate) fn expect(&self, value: &Bytes, object: &Arc<Object>) -> Option<Expected<'_>> {
        if !Known::is_all(self.resource) {
            return None;
        }
        let (known, place) = (Known::of(self.resource, object), place(value));
        let held = (value.clone(), known, Arc::clone(object));
        self.expected.known.lock().insert(place, held);
        Some(Expected { cache: self, place })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_api::{Registry, Resource};
    use coracle_store::{EventKind, Revision};
    use serde_json::json;

    use super::super::{Observer, encode};
    use super::*;

    fn cache(resource: &'static Resource) -> ResourceCache {
        ResourceCache::new(resource, BTreeMap::new(), 0)
    }

    fn object() -> Arc<Object> {
        let object = Object::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "one"},
        }));
        Arc::new(object.expect("an object"))
    }

    fn put(value: Bytes) -> EventKind {
        EventKind::Put {
            value,
            create_revision: Revision(2),
            previous: None,
        }
    }

    fn shown(cache: &ResourceCache) -> String {
        let entry = cache.get("n/a").expect("it was put");
        format!("{entry:?} {:?}", entry.object())
    }

    #[test]
    fn an_expected_value_is_taken_in_like_one_that_is_read() {
        for (group, version, plural) in [
            ("", "v1", "pods"),
            ("", "v1", "configmaps"),
            ("", "v1", "persistentvolumeclaims"),
            ("events.k8s.io", "v1", "events"),
        ] {
            let resource = Registry::builtin().by_plural(group, version, plural);
            let resource = resource.expect("it is served");
            let (read, told) = (cache(resource), cache(resource));
            let value = encode(resource, &object());
            read.apply("n/a", 2, &put(value.clone()));
            let expected = told.expect(&value, &object());
            assert_eq!(
                expected.is_some(),
                plural != "persistentvolumeclaims" && group.is_empty()
            );
            told.apply("n/a", 2, &put(value));
            assert_eq!(shown(&told), shown(&read), "{plural}");
            drop(expected);
            assert!(told.expected.known.lock().is_empty());
        }
    }

    #[test]
    fn other_bytes_than_the_expected_ones_are_read() {
        let resource = Registry::builtin().by_plural("", "v1", "pods");
        let resource = resource.expect("pods are served");
        let cache = cache(resource);
        let value = encode(resource, &object());
        let mut other = Object::clone(&object());
        other.set("metadata.labels.x", "z");
        let expected = cache.expect(&value, &Arc::new(other));
        let copy = Bytes::copy_from_slice(&value);
        cache.apply("n/a", 2, &put(copy));
        let entry = cache.get("n/a").expect("it was put");
        assert_eq!(entry.labels, [("x".to_owned(), "y".to_owned())]);
        drop(expected);
        cache.apply("n/a", 3, &put(value));
        let entry = cache.get("n/a").expect("it was put");
        assert_eq!(entry.labels, [("x".to_owned(), "y".to_owned())]);
    }

    /// Notes the names of the nodes that it sees.
    #[derive(Default)]
    struct Nodes(Mutex<Vec<Option<String>>>);

    impl Observer for Nodes {
        fn changed(&self, _: &str, object: Option<&Object>) {
            let name = object.map(|object| object.at("spec.nodeName").str().to_owned());
            self.0.lock().push(name);
        }
    }

    #[test]
    fn observers_see_an_expected_value() {
        let resource = Registry::builtin().by_plural("", "v1", "pods");
        let cache = cache(resource.expect("pods are served"));
        let nodes = Arc::new(Nodes::default());
        cache.observe(nodes.clone());
        let value = encode(cache.resource, &object());
        let mut other = Object::clone(&object());
        other.set("spec.nodeName", "told");
        let expected = cache.expect(&value, &Arc::new(other));
        cache.apply("n/a", 2, &put(value.clone()));
        assert_eq!(*nodes.0.lock(), [Some("told".to_owned())]);
        drop(expected);
        cache.apply("n/a", 3, &put(value));
        let read = nodes.0.lock().last().cloned();
        assert_eq!(read, Some(Some("one".to_owned())));
    }
}

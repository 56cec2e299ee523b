//! The pods of a node by UID and by name.

use std::collections::HashMap;
use std::collections::hash_map::{Iter, IterMut, Values, ValuesMut};

use coracle_client::ObjectKey;

use super::Entry;

/// The pods by UID, with an index of their names: a node has thousands, and is asked for one of them at every turn.
///
/// An entry's key never changes.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    by_uid: HashMap<String, Entry>,
    /// Never an empty list.
    by_key: HashMap<ObjectKey, Vec<String>>,
}

impl Entries {
    /// Puts a pod in; one of the same UID is replaced.
    pub(super) fn insert(&mut self, uid: String, entry: Entry) {
        self.remove(&uid);
        let same_name = self.by_key.entry(entry.key.clone()).or_default();
        same_name.push(uid.clone());
        self.by_uid.insert(uid, entry);
    }

    /// Takes a pod out.
    pub(super) fn remove(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.by_uid.remove(uid)?;
        if let Some(same_name) = self.by_key.get_mut(&entry.key) {
            same_name.retain(|other| other != uid);
            if same_name.is_empty() {
                self.by_key.remove(&entry.key);
            }
        }
        Some(entry)
    }

    /// The UIDs of the pods that have, or had, that name: the earlier ones first.
    pub(crate) fn of_key(&self, key: &ObjectKey) -> &[String] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// The pod of that name that is in the API.
    pub(super) fn live(&self, key: &ObjectKey) -> Option<&Entry> {
        let mut same_name = self.of_key(key).iter();
        same_name.find_map(|uid| self.by_uid.get(uid).filter(|entry| !entry.orphaned))
    }

    /// The same, to change.
    pub(super) fn live_mut(&mut self, key: &ObjectKey) -> Option<&mut Entry> {
        let Self { by_uid, by_key } = self;
        let mut same_name = by_key.get(key)?.iter();
        let uid = same_name.find(|uid| by_uid.get(*uid).is_some_and(|entry| !entry.orphaned))?;
        by_uid.get_mut(uid)
    }

    /// The pod with that UID.
    pub(crate) fn get(&self, uid: &str) -> Option<&Entry> {
        self.by_uid.get(uid)
    }

    /// The same, to change.
    pub(crate) fn get_mut(&mut self, uid: &str) -> Option<&mut Entry> {
        self.by_uid.get_mut(uid)
    }

    /// Whether there is a pod with that UID.
    pub(crate) fn contains_key(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }

    /// How many pods there are.
    pub(crate) fn len(&self) -> usize {
        self.by_uid.len()
    }

    /// All pods with their UIDs.
    pub(crate) fn iter(&self) -> Iter<'_, String, Entry> {
        self.by_uid.iter()
    }

    /// The same, to change.
    pub(crate) fn iter_mut(&mut self) -> IterMut<'_, String, Entry> {
        self.by_uid.iter_mut()
    }

    /// All pods.
    pub(crate) fn values(&self) -> Values<'_, String, Entry> {
        self.by_uid.values()
    }

    /// The same, to change.
    pub(crate) fn values_mut(&mut self) -> ValuesMut<'_, String, Entry> {
        self.by_uid.values_mut()
    }
}

impl<'a> IntoIterator for &'a mut Entries {
    type Item = (&'a String, &'a mut Entry);
    type IntoIter = IterMut<'a, String, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn entry(name: &str) -> Entry {
        Entry::new(
            ObjectKey::new("default", name),
            Pod::default().into(),
            Default::default(),
            None,
        )
    }

    #[test]
    fn a_name_leads_to_all_that_have_it_and_to_the_one_in_the_api() {
        let mut entries = Entries::default();
        let (web, other) = (
            ObjectKey::new("default", "web"),
            ObjectKey::new("default", "other"),
        );
        entries.insert("1".to_owned(), entry("web"));
        entries.insert("2".to_owned(), entry("web"));
        entries.insert("3".to_owned(), entry("other"));
        assert_eq!(entries.of_key(&web), ["1", "2"]);
        if let Some(first) = entries.get_mut("1") {
            first.orphaned = true;
        }
        entries.live_mut(&web).expect("the second").gone = true;
        assert!(entries.get("2").is_some_and(|second| second.gone));
        assert!(entries.live(&web).is_some_and(|live| live.gone));

        assert!(entries.remove("1").is_some());
        assert_eq!(entries.of_key(&web), ["2"]);
        assert!(entries.remove("2").is_some());
        assert!(entries.live(&web).is_none() && entries.of_key(&web).is_empty());
        assert_eq!((entries.len(), entries.of_key(&other).len()), (1, 1));
    }

    #[test]
    fn a_pod_that_is_put_in_again_is_there_once() {
        let mut entries = Entries::default();
        entries.insert("1".to_owned(), entry("web"));
        entries.insert("1".to_owned(), entry("web"));
        assert_eq!(entries.of_key(&ObjectKey::new("default", "web")), ["1"]);
    }
}

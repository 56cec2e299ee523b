//! Many objects as they are at one revision, read without holding anybody up: slice by slice, and then what has changed
//! meanwhile.

use std::sync::Arc;

use super::{Change, Entry, ResourceCache, Snapshot};
use crate::pause::others_first;

/// Objects that are taken in one go, and most changes that are made up for.
const SLICE: usize = 512;

impl ResourceCache {
    /// The objects whose keys begin with `scope` and come after `after`, as of now. `progress` is the revision that all
    /// caches had reached before the call.
    pub async fn snapshot(&self, scope: &str, after: Option<&str>, progress: u64) -> Snapshot {
        let read = self.read_slices(scope, after, u64::MAX).await;
        let Snapshot { entries, revision } = read.unwrap_or_default();
        Snapshot {
            entries,
            revision: progress.max(revision),
        }
    }

    /// The same as they were at `revision`, if nothing changed since.
    pub async fn snapshot_at(
        &self,
        scope: &str,
        after: Option<&str>,
        revision: u64,
    ) -> Option<Snapshot> {
        let Snapshot { entries, .. } = self.read_slices(scope, after, revision).await?;
        Some(Snapshot { entries, revision })
    }

    /// Others have their turn, and may write, between two slices. `None` if anything was written after `up_to`.
    async fn read_slices(&self, scope: &str, after: Option<&str>, up_to: u64) -> Option<Snapshot> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut begun = None;
        loop {
            {
                let state = self.state.read();
                if state.revision > up_to {
                    return None;
                }
                let begun = *begun.get_or_insert(state.revision);
                let (last, before) = (entries.last().cloned(), entries.len());
                let from = last.as_ref().map(|entry| &*entry.key).or(after);
                entries.extend(state.scoped(scope, from).take(SLICE).cloned());
                if entries.len() - before < SLICE {
                    let changes = state.history.after(begun).map(Iterator::collect::<Vec<_>>);
                    match changes {
                        Some(changes) if changes.len() <= SLICE => {
                            for change in changes {
                                catch_up(&mut entries, change, scope, after);
                            }
                        }
                        _ => entries = state.scoped(scope, after).cloned().collect(),
                    }
                    let revision = state.revision;
                    return Some(Snapshot { entries, revision });
                }
            }
            others_first().await;
        }
    }
}

/// Brings what was read up to date with a change, whether it was read before or after it.
fn catch_up(entries: &mut Vec<Arc<Entry>>, change: &Change, scope: &str, after: Option<&str>) {
    let key = change.key();
    if !key.starts_with(scope) || after.is_some_and(|after| key <= after) {
        return;
    }
    let place = entries.binary_search_by(|entry| (*entry.key).cmp(key));
    match (place, &change.new) {
        (Ok(place), Some(new)) => entries[place] = Arc::clone(new),
        (Ok(place), None) => drop(entries.remove(place)),
        (Err(place), Some(new)) => entries.insert(place, Arc::clone(new)),
        (Err(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::task::Poll;

    use coracle_api::{Object, Registry};
    use coracle_store::{EventKind, Revision, Version};
    use serde_json::json;

    use super::*;
    use crate::cache::encode;

    struct Cache {
        cache: ResourceCache,
        revision: Cell<u64>,
    }

    impl Cache {
        fn of(count: usize) -> Self {
            let registry = Registry::builtin();
            let config_maps = registry.by_plural("", "v1", "configmaps").expect("served");
            let cache = Self {
                cache: ResourceCache::new(config_maps, BTreeMap::new(), 1),
                revision: Cell::new(1),
            };
            for number in 0..count {
                cache.put(&key(number * 2));
            }
            cache
        }

        fn put(&self, key: &str) {
            let object = json!({"metadata": {"name": key}});
            let object = Object::from_value(object).expect("an object");
            self.apply(
                key,
                &EventKind::Put {
                    value: encode(self.cache.resource, &object),
                    create_revision: Revision(1),
                    previous: None,
                },
            );
        }

        fn delete(&self, key: &str) {
            let last = Version {
                value: Default::default(),
                create_revision: Revision(1),
                mod_revision: Revision(1),
            };
            self.apply(key, &EventKind::Delete { last });
        }

        fn apply(&self, key: &str, kind: &EventKind) {
            self.revision.set(self.revision.get() + 1);
            self.cache.apply(key, self.revision.get(), kind);
        }

        /// A change of an object that is there, that was not, or that goes.
        fn change(&self, number: usize) {
            match number % 3 {
                0 => self.put(&key(number * 5 + 1)),
                1 => self.put(&key(number * 4)),
                _ => self.delete(&key(number * 6)),
            }
        }
    }

    fn key(number: usize) -> String {
        let namespace = if number.is_multiple_of(7) { "a" } else { "b" };
        format!("{namespace}/{number:06}")
    }

    fn keys(snapshot: &Snapshot) -> Vec<(String, u64)> {
        let entries = snapshot.entries.iter();
        let keys = entries.map(|entry| (entry.key.to_string(), entry.revision));
        keys.collect()
    }

    #[tokio::test]
    async fn what_changes_while_it_is_read_is_made_up_for() {
        for changes in [0, 1, 100, SLICE] {
            for (scope, after) in [("", None), ("b/", None), ("b/", Some("b/001000"))] {
                let (cache, mut number, mut slices) = (Cache::of(5 * SLICE), 0, 1);
                let mut reading = std::pin::pin!(cache.cache.snapshot(scope, after, 0));
                let read = loop {
                    if let Poll::Ready(read) = futures::poll!(&mut reading) {
                        break read;
                    }
                    (0..changes).for_each(|next| cache.change(number + next));
                    (number, slices) = (number + changes, slices + 1);
                    tokio::task::yield_now().await;
                };
                let whole = cache.cache.list(scope, 0);
                let mut now = keys(&whole);
                now.retain(|(key, _)| after.is_none_or(|after| &**key > after));
                assert_eq!(keys(&read), now, "{changes} in {scope}");
                assert_eq!(read.revision, whole.revision);
                assert!(slices > 2, "{slices} slices");
            }
        }
    }

    #[tokio::test]
    async fn a_revision_that_is_over_is_not_shown() {
        let cache = Cache::of(3 * SLICE);
        let revision = cache.revision.get();
        let read = cache.cache.snapshot_at("", None, revision).await;
        assert_eq!(read.map(|read| read.entries.len()), Some(3 * SLICE));
        let mut reading = std::pin::pin!(cache.cache.snapshot_at("", None, revision));
        assert!(futures::poll!(&mut reading).is_pending());
        cache.change(0);
        assert!(reading.await.is_none());
    }
}

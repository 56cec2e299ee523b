//! What a component wrote and its caches do not show yet.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use kube::Resource;
use parking_lot::Mutex;

use crate::key::is_terminating;
use crate::lister::{Lister, revision_of};

/// Remembers, per key of a work queue, the writes that the caches have yet to show.
///
/// A world built before they do would repeat them: a second set of pods, a lost status. So a loop
/// asks [`PendingWrites::observed`] first and leaves the key alone until then; the event that
/// brings the write in brings the key back too. A write that never shows (a relist may swallow the
/// deletion that followed it) stops counting after a deadline.
pub struct PendingWrites<T> {
    clock: Clock,
    deadline: Duration,
    writes: Mutex<HashMap<T, Vec<Pending>>>,
}

struct Pending {
    until: Duration,
    seen: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl<T: Clone + Eq + Hash> PendingWrites<T> {
    /// No writes yet; each will count for at most `deadline`.
    pub fn new(clock: Clock, deadline: Duration) -> Self {
        Self {
            clock,
            deadline,
            writes: Mutex::default(),
        }
    }

    /// On behalf of `key`, the server answered a write with `object`.
    pub fn wrote<K: Resource + Send + Sync + 'static>(
        &self,
        key: &T,
        cache: &Lister<K>,
        object: &K,
    ) {
        let (cache, revision) = (cache.clone(), revision_of(object));
        self.push(key, move || cache.revision() >= revision);
    }

    /// On behalf of `key`, the object with `uid` was told to go.
    pub fn deleted<K: Resource + Send + Sync + 'static>(
        &self,
        key: &T,
        cache: &Lister<K>,
        uid: &str,
    ) {
        let (cache, uid) = (cache.clone(), uid.to_owned());
        self.push(key, move || {
            cache
                .by_uid(&uid)
                .is_none_or(|object| is_terminating(object.as_ref()))
        });
    }

    /// `None` if the caches show every write made for `key`; else how long to wait at most.
    pub fn unobserved(&self, key: &T) -> Option<Duration> {
        let now = self.clock.monotonic();
        let mut writes = self.writes.lock();
        let pending = writes.get_mut(key)?;
        pending.retain(|write| now < write.until && !(write.seen)());
        match pending.iter().map(|write| write.until).max() {
            Some(until) => Some(until.saturating_sub(now)),
            None => {
                writes.remove(key);
                None
            }
        }
    }

    /// Whether the caches show every write made for `key`.
    pub fn observed(&self, key: &T) -> bool {
        self.unobserved(key).is_none()
    }

    /// How many keys have writes that count.
    pub fn len(&self) -> usize {
        self.writes.lock().len()
    }

    /// Whether nothing is awaited.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn push(&self, key: &T, seen: impl Fn() -> bool + Send + Sync + 'static) {
        if seen() {
            return;
        }
        let until = self.clock.monotonic() + self.deadline;
        let pending = Pending {
            until,
            seen: Arc::new(seen),
        };
        self.writes
            .lock()
            .entry(key.clone())
            .or_default()
            .push(pending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn object(revision: u64) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some("one".into()),
                uid: Some("uid".into()),
                resource_version: Some(revision.to_string()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_counts_until_the_cache_shows_it() {
        let cache = Lister::of([object(1)]);
        let pending = PendingWrites::new(Clock::fake(1), Duration::from_secs(5));
        assert!(pending.observed(&"key"));
        pending.wrote(&"key", &cache, &object(7));
        assert!(!pending.observed(&"key"));
        assert!(pending.observed(&"other"));
        cache.insert(object(7));
        assert!(pending.observed(&"key"));
        assert!(pending.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_counts_until_the_object_goes() {
        let cache = Lister::of([object(1)]);
        let pending = PendingWrites::new(Clock::fake(1), Duration::from_secs(5));
        pending.deleted(&"key", &cache, "uid");
        assert!(!pending.observed(&"key"));
        cache.remove(&object(2));
        assert!(pending.observed(&"key"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_never_shows_stops_counting() {
        let cache = Lister::of([object(1)]);
        let clock = Clock::fake(1);
        let pending = PendingWrites::new(clock.clone(), Duration::from_secs(5));
        pending.wrote(&"key", &cache, &object(7));
        clock.sleep(Duration::from_secs(5)).await;
        assert!(pending.observed(&"key"));
    }
}

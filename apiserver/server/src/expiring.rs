//! A small cache whose entries are good for a while.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

/// What entries are found by: a digest, so that nobody can read what was asked.
pub(crate) type Digest = [u8; 32];

/// At most so many values, each until its time; the oldest make room.
pub(crate) struct Expiring<V> {
    most: usize,
    inner: Mutex<Inner<V>>,
}

struct Inner<V> {
    known: HashMap<Digest, (V, Duration)>,
    /// Oldest first. An entry that was put again is in here once.
    order: VecDeque<Digest>,
}

impl<V: Clone> Expiring<V> {
    /// Keeps at most `most` values.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            inner: Mutex::new(Inner {
                known: HashMap::new(),
                order: VecDeque::new(),
            }),
        }
    }

    /// The value, if it is still good at `now`, a monotonic time.
    pub(crate) fn get(&self, key: &Digest, now: Duration) -> Option<V> {
        let inner = self.inner.lock();
        let (value, until) = inner.known.get(key)?;
        (*until > now).then(|| value.clone())
    }

    /// Keeps a value until `until`.
    pub(crate) fn put(&self, key: Digest, value: V, until: Duration) {
        let mut inner = self.inner.lock();
        if inner.known.insert(key, (value, until)).is_none() {
            inner.order.push_back(key);
        }
        if inner.order.len() > self.most
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_and_make_room() {
        let cache = Expiring::new(2);
        let at = Duration::from_secs;
        cache.put([1; 32], "a", at(10));
        assert_eq!(cache.get(&[1; 32], at(9)), Some("a"));
        assert_eq!(cache.get(&[1; 32], at(10)), None);
        cache.put([1; 32], "b", at(30));
        cache.put([2; 32], "c", at(30));
        assert_eq!(cache.get(&[1; 32], at(20)), Some("b"));
        cache.put([3; 32], "d", at(30));
        assert_eq!(cache.get(&[1; 32], at(20)), None, "the oldest made room");
        assert_eq!(cache.inner.lock().known.len(), 2);
    }
}

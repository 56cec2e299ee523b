//! A small cache whose entries are good for a while.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// What entries are found by: a digest, so that nobody can read what was asked.
pub(crate) type Digest = [u8; 32];

/// Makes digests of secrets, which nobody can look up elsewhere: there is salt in them.
#[derive(Default)]
pub(crate) struct Salted(Mutex<Option<[u8; 32]>>);

impl Salted {
    /// The digest of a token shown to those audiences. Parts do not run together.
    pub(crate) fn digest(&self, token: &str, audiences: &[String], clock: &Clock) -> Digest {
        let salt = *self.0.lock().get_or_insert_with(|| {
            let mut salt = [0; 32];
            clock.random_bytes(&mut salt);
            salt
        });
        let mut digest = Sha256::new();
        digest.update(salt);
        let audiences = audiences.iter().map(String::as_str);
        for part in [token].into_iter().chain(audiences) {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

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

    /// Keeps a value until `until`, and forgets the oldest that have ended by `now`.
    pub(crate) fn put(&self, key: Digest, value: V, now: Duration, until: Duration) {
        let mut inner = self.inner.lock();
        while let Some(oldest) = inner.order.front().copied()
            && inner
                .known
                .get(&oldest)
                .is_none_or(|(_, until)| *until <= now)
        {
            inner.known.remove(&oldest);
            inner.order.pop_front();
        }
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
        cache.put([1; 32], "a", at(0), at(10));
        assert_eq!(cache.get(&[1; 32], at(9)), Some("a"));
        assert_eq!(cache.get(&[1; 32], at(10)), None);
        cache.put([1; 32], "b", at(9), at(30));
        cache.put([2; 32], "c", at(9), at(30));
        assert_eq!(cache.get(&[1; 32], at(20)), Some("b"));
        cache.put([3; 32], "d", at(9), at(40));
        assert_eq!(cache.get(&[1; 32], at(20)), None, "the oldest made room");
        assert_eq!(cache.inner.lock().known.len(), 2);
        cache.put([3; 32], "e", at(30), at(50));
        let inner = cache.inner.lock();
        let kept = (inner.known.len(), inner.order.len());
        assert_eq!(kept, (1, 1), "what has ended is not kept");
    }

    #[tokio::test]
    async fn digests_tell_tokens_and_audiences_apart() {
        let (salted, clock) = (Salted::default(), Clock::fake(1));
        let digest = |token: &str, audiences: &[&str]| {
            let audiences: Vec<String> = audiences.iter().map(|one| (*one).to_owned()).collect();
            salted.digest(token, &audiences, &clock)
        };
        assert_eq!(digest("t", &["a"]), digest("t", &["a"]));
        for (token, audiences) in [
            ("t", &["b"][..]),
            ("ta", &[""]),
            ("ta", &[]),
            ("t", &["a", ""]),
        ] {
            assert_ne!(digest("t", &["a"]), digest(token, audiences), "{token}");
        }
        let other = Salted::default().digest("t", &["a".to_owned()], &clock);
        assert_ne!(digest("t", &["a"]), other, "the salt is another");
    }
}

//! How often an object with many Pods is looked at.
//!
//! A round that counts a thousand Pods, or writes their thousand addresses, costs a thousand times what a round for one
//! Pod costs. When all of them change one after the other, a round for each change is a million; so the next round
//! waits a while that grows with the number of Pods. What changes meanwhile is seen by that round, all at once. An
//! object with few Pods waits for nothing.

use std::collections::HashMap;
use std::time::Duration;

use coracle_client::{ObjectKey, Outcome};
use coracle_clock::Clock;
use parking_lot::Mutex;

/// Below this nobody waits: rounds for a handful of Pods are cheap.
const WORTH_IT: Duration = Duration::from_millis(5);

/// Spaces the rounds of each object apart.
pub(crate) struct Pace {
    clock: Clock,
    per_pod: Duration,
    longest: Duration,
    /// When the next round may begin, on the monotonic clock; of objects that have to wait.
    next: Mutex<HashMap<ObjectKey, Duration>>,
}

impl Pace {
    /// A round waits `per_pod` for every Pod of the one before, `longest` at most.
    pub(crate) fn new(clock: Clock, per_pod: Duration, longest: Duration) -> Self {
        Self {
            clock,
            per_pod,
            longest,
            next: Mutex::default(),
        }
    }

    /// What to do instead of a round that comes too early. To be asked before the world is looked at.
    pub(crate) fn too_early(&self, key: &ObjectKey) -> Option<Outcome> {
        let now = self.clock.monotonic();
        let mut next = self.next.lock();
        let left = next.get(key)?.saturating_sub(now);
        if left.is_zero() {
            next.remove(key);
            return None;
        }
        Some(Outcome::After(left))
    }

    /// Notes that a round has begun that has to do with so many Pods.
    pub(crate) fn begins(&self, key: &ObjectKey, pods: usize) {
        let pods = u32::try_from(pods).unwrap_or(u32::MAX);
        let wait = self.per_pod.saturating_mul(pods).min(self.longest);
        if wait >= WORTH_IT {
            let at = self.clock.monotonic() + wait;
            self.next.lock().insert(key.clone(), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_pods_space_rounds_apart_and_few_do_not() {
        let clock = Clock::fake(1);
        let milliseconds = Duration::from_millis;
        let pace = Pace::new(clock.clone(), milliseconds(1), milliseconds(500));
        let (few, many) = (
            ObjectKey::new("default", "few"),
            ObjectKey::new("default", "many"),
        );
        for (key, pods, wait) in [
            (&few, 4, None),
            (&many, 20, Some(20)),
            (&many, 5000, Some(500)),
        ] {
            assert_eq!(
                pace.too_early(key),
                None,
                "the first round waits for nobody"
            );
            pace.begins(key, pods);
            let wait = wait.map(milliseconds);
            assert_eq!(pace.too_early(key), wait.map(Outcome::After), "{pods}");
            clock.sleep(wait.unwrap_or_default()).await;
        }
        assert_eq!(pace.too_early(&many), None);
        assert!(
            pace.next.lock().is_empty(),
            "nothing is kept of who may go on"
        );
    }
}

//! How fast a pod may write its logs.
//!
//! All runs of a pod draw from one bucket, which is refilled steadily. Nothing is lost: while the
//! bucket is empty the writer waits, its queue fills, and the guest waits in its write.
//!
//! Whoever has emptied it floods, until a quarter of it is there again. Containers of such a pod count as heavy
//! ([`standing`](crate::standing)): to write that much takes processor time, and nobody waits for it. All that flood share
//! what one alone may write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;

/// Bytes per second that a pod may write for as long as it likes.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// Bytes that it may write at once after it was quiet.
const BURST: u64 = 8 << 20;

/// Bytes that those who flood may write at once, together.
const FLOOD_BURST: u64 = 1 << 20;

/// The bucket of all pods of a node that flood.
pub(crate) struct FloodRate(Mutex<Bucket>);

impl FloodRate {
    pub(crate) fn new(clock: &Clock) -> Arc<Self> {
        let bucket = Bucket::full(clock, BYTES_PER_SECOND, FLOOD_BURST);
        Arc::new(Self(Mutex::new(bucket)))
    }
}

/// The bucket of one pod.
pub(crate) struct LogRate {
    clock: Clock,
    bucket: Mutex<Bucket>,
    flood: Arc<FloodRate>,
    /// Whether the bucket said so last.
    floods: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// Bytes per second that it gains, until it has so many.
    gain: u64,
    most: u64,
    /// Bytes that may be written now; below 0 what was written too early.
    left: i64,
    /// Up to when it was refilled (monotonic).
    at: Duration,
    /// It has been empty, and has not become full enough again.
    floods: bool,
}

impl LogRate {
    /// Of a new pod on a node whose floods go by `flood`.
    pub(crate) fn new(clock: Clock, flood: Arc<FloodRate>) -> Self {
        Self::of(clock, flood, BYTES_PER_SECOND, BURST)
    }

    /// A bucket that gains `gain` bytes per second and has `most` at first.
    pub(super) fn of(clock: Clock, flood: Arc<FloodRate>, gain: u64, most: u64) -> Self {
        Self {
            bucket: Mutex::new(Bucket::full(&clock, gain, most)),
            clock,
            flood,
            floods: AtomicBool::new(false),
        }
    }

    /// Takes `bytes` that are about to be written, and says how long their writer has to wait afterwards.
    pub(crate) fn spend(&self, bytes: usize) -> Duration {
        let now = self.clock.monotonic();
        let mut bucket = self.bucket.lock();
        let wait = bucket.spend(now, bytes as u64);
        self.floods.store(bucket.floods, Ordering::Relaxed);
        if !bucket.floods {
            return wait;
        }
        let of_all = self.flood.0.lock().spend(now, bytes as u64);
        bucket.wait_longer(of_all.saturating_sub(wait));
        wait.max(of_all)
    }

    /// Whether the pod has been writing more than it may.
    pub(crate) fn floods(&self) -> bool {
        if !self.floods.load(Ordering::Relaxed) {
            return false;
        }
        let mut bucket = self.bucket.lock();
        bucket.refill(self.clock.monotonic());
        self.floods.store(bucket.floods, Ordering::Relaxed);
        bucket.floods
    }
}

impl Bucket {
    fn full(clock: &Clock, gain: u64, most: u64) -> Self {
        Self {
            gain,
            most,
            left: most.cast_signed(),
            at: clock.monotonic(),
            floods: false,
        }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).min(Duration::from_secs(3600));
        self.at = self.at.max(now);
        let gained = passed.as_nanos() * u128::from(self.gain) / 1_000_000_000;
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        let most = self.most.cast_signed();
        self.left = self.left.saturating_add(gained).min(most);
        self.floods &= self.left < most / 4;
    }

    /// Gains nothing for a while: who waits for others would be taken for one that is quiet.
    fn wait_longer(&mut self, time: Duration) {
        self.at += time;
    }

    fn spend(&mut self, now: Duration, bytes: u64) -> Duration {
        self.refill(now);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(bytes);
        self.floods |= self.left < 0;
        let owed = u128::from(self.left.min(0).unsigned_abs());
        let nanos = owed * 1_000_000_000 / u128::from(self.gain.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_what_follows_is_paced() {
        let mut bucket = Bucket {
            gain: BYTES_PER_SECOND,
            most: BURST,
            left: BURST.cast_signed(),
            at: Duration::ZERO,
            floods: false,
        };
        let second = Duration::from_secs(1);
        assert_eq!(bucket.spend(Duration::ZERO, BURST), Duration::ZERO);
        assert_eq!(bucket.spend(Duration::ZERO, BYTES_PER_SECOND), second);
        assert_eq!(bucket.spend(second, BYTES_PER_SECOND / 2), second / 2);
        // Whoever was quiet for long has no more than a burst.
        assert_eq!(bucket.spend(100 * second, BURST), Duration::ZERO);
        assert_eq!(bucket.spend(100 * second, BYTES_PER_SECOND), second);
    }

    #[test]
    fn who_has_emptied_the_bucket_floods_until_a_quarter_is_there_again() {
        let (second, zero) = (Duration::from_secs(1), Duration::ZERO);
        let mut bucket = Bucket {
            gain: 100,
            most: 800,
            left: 800,
            at: zero,
            floods: false,
        };
        bucket.spend(zero, 800);
        assert!(!bucket.floods, "it was allowed to");
        assert_eq!(bucket.spend(zero, 100), second);
        assert!(bucket.floods);
        bucket.refill(second);
        assert!(bucket.floods, "it has nothing yet");
        bucket.refill(2 * second + second / 2);
        assert!(bucket.floods);
        bucket.refill(3 * second);
        assert!(!bucket.floods);
    }

    #[test]
    fn those_who_flood_share_what_one_may_write() {
        let clock = Clock::fake(1);
        let flood = FloodRate::new(&clock);
        let pods: [LogRate; 3] =
            std::array::from_fn(|_| LogRate::new(clock.clone(), flood.clone()));
        let quiet = LogRate::new(clock.clone(), flood);
        for pod in &pods {
            pod.spend(BURST as usize);
            assert!(!pod.floods());
        }
        let one = BYTES_PER_SECOND as usize;
        for (pod, seconds) in pods.iter().zip(1..) {
            // The burst of all is 1/16 of a second.
            let wait = pod.spend(one);
            let at_least = Duration::from_millis(1000 * seconds - 63);
            assert!(wait >= at_least, "{wait:?}");
            assert!(pod.floods());
        }
        assert_eq!(quiet.spend(1 << 20), Duration::ZERO);
    }

    #[test]
    fn who_waits_for_others_floods_on() {
        let (second, zero) = (Duration::from_secs(1), Duration::ZERO);
        let mut bucket = Bucket {
            gain: 100,
            most: 800,
            left: 0,
            at: zero,
            floods: false,
        };
        assert_eq!(bucket.spend(zero, 100), second);
        bucket.wait_longer(9 * second);
        bucket.refill(10 * second);
        assert!(bucket.floods);
        assert_eq!(bucket.spend(10 * second, 100), second);
        bucket.refill(13 * second);
        assert!(!bucket.floods, "nobody had to wait");
    }
}

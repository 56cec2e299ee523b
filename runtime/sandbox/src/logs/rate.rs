//! How fast a pod may write its logs.
//!
//! All runs of a pod draw from one bucket, which is refilled steadily. Nothing is lost: while the
//! bucket is empty the writer waits, its queue fills, and the guest waits in its write.

use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;

/// Bytes per second that a pod may write for as long as it likes.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// Bytes that it may write at once after it was quiet.
const BURST: u64 = 32 << 20;

/// The bucket of one pod.
pub(crate) struct LogRate {
    clock: Clock,
    bucket: Mutex<Bucket>,
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
}

impl LogRate {
    pub(crate) fn new(clock: Clock) -> Self {
        Self::of(clock, BYTES_PER_SECOND, BURST)
    }

    /// A bucket that gains `gain` bytes per second and has `most` at first.
    pub(super) fn of(clock: Clock, gain: u64, most: u64) -> Self {
        let bucket = Bucket {
            gain,
            most,
            left: most.cast_signed(),
            at: clock.monotonic(),
        };
        Self {
            clock,
            bucket: Mutex::new(bucket),
        }
    }

    /// Takes `bytes` that are about to be written, and says how long their writer has to wait afterwards.
    pub(super) fn spend(&self, bytes: usize) -> Duration {
        let now = self.clock.monotonic();
        self.bucket.lock().spend(now, bytes as u64)
    }
}

impl Bucket {
    fn spend(&mut self, now: Duration, bytes: u64) -> Duration {
        let passed = now.saturating_sub(self.at).min(Duration::from_secs(3600));
        self.at = self.at.max(now);
        let gained = passed.as_nanos() * u128::from(self.gain) / 1_000_000_000;
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        let full = self
            .left
            .saturating_add(gained)
            .min(self.most.cast_signed());
        self.left = full.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
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
        };
        let second = Duration::from_secs(1);
        assert_eq!(bucket.spend(Duration::ZERO, BURST), Duration::ZERO);
        assert_eq!(bucket.spend(Duration::ZERO, BYTES_PER_SECOND), second);
        assert_eq!(bucket.spend(second, BYTES_PER_SECOND / 2), second / 2);
        // Whoever was quiet for long has no more than a burst.
        assert_eq!(bucket.spend(100 * second, BURST), Duration::ZERO);
        assert_eq!(bucket.spend(100 * second, BYTES_PER_SECOND), second);
    }
}

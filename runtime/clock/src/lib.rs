//! The only clock and the only randomness of every crate.
//!
//! Wall time, monotonic time and random numbers are handed around as one [`Clock`] value, so that a
//! test can replace all three at once: [`Clock::fake`] derives its wall time from tokio's (paused)
//! clock and its random numbers from a seed, which makes an hour pass in milliseconds and every
//! generated name repeat. Nothing here knows about time zones, schedules or time-outs; tokio's own
//! `sleep` and `timeout` are used for those, and obey the same paused clock.

// The one place where the functions that clippy.toml disallows elsewhere are called.
#![allow(clippy::disallowed_methods)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

pub use jiff::Timestamp;

/// Wall time, monotonic time and randomness from one source; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

struct Source {
    /// Wall time of `start`; `None` reads the system's wall clock.
    fixed_start: Option<Timestamp>,
    start: tokio::time::Instant,
    random: Mutex<StdRng>,
}

impl Clock {
    /// The system's clock and randomness seeded by the operating system.
    pub fn system() -> Self {
        Self(Arc::new(Source {
            fixed_start: None,
            start: tokio::time::Instant::now(),
            random: Mutex::new(StdRng::from_os_rng()),
        }))
    }

    /// A clock that starts at `2030-01-01T00:00:00Z`, advances with tokio's clock and draws its
    /// random numbers from `seed`.
    pub fn fake(seed: u64) -> Self {
        let start = Timestamp::from_second(1_893_456_000).expect("a year within jiff's range");
        Self(Arc::new(Source {
            fixed_start: Some(start),
            start: tokio::time::Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }))
    }

    /// Wall time in UTC.
    pub fn now(&self) -> Timestamp {
        match self.0.fixed_start {
            Some(start) => start + self.monotonic(),
            None => Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    /// Time since this clock was made; never goes backwards.
    pub fn monotonic(&self) -> Duration {
        self.0.start.elapsed()
    }

    /// Completes after `duration` of this clock's time.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// A uniformly distributed random number.
    pub fn random_u64(&self) -> u64 {
        self.rng().next_u64()
    }

    /// A uniformly distributed random number below `bound`, which must not be 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for every bound this project uses.
        ((u128::from(self.random_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Fills `buffer` with random bytes. Keys and tokens come from here too: [`StdRng`] is a
    /// cryptographically secure generator.
    pub fn random_bytes(&self, buffer: &mut [u8]) {
        self.rng().fill_bytes(buffer);
    }

    /// A random (version 4) UUID in its canonical text form.
    pub fn uuid(&self) -> String {
        let mut bytes = [0u8; 16];
        self.random_bytes(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble"));
            text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble"));
        }
        text
    }

    /// `length` characters of the alphabet that Kubernetes uses for generated names (no vowels, no
    /// characters that are easily confused; `k8s.io/apimachinery/pkg/util/rand`).
    pub fn name_suffix(&self, length: usize) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..length)
            .map(|_| char::from(ALPHABET[self.random_below(ALPHABET.len() as u64) as usize]))
            .collect()
    }

    fn rng(&self) -> std::sync::MutexGuard<'_, StdRng> {
        self.0
            .random
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fake_wall_time_follows_tokio() {
        let clock = Clock::fake(1);
        let before = clock.now();
        clock.sleep(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().as_second() - before.as_second(), 3600);
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_names() {
        assert_eq!(Clock::fake(7).uuid(), Clock::fake(7).uuid());
        assert_ne!(Clock::fake(7).uuid(), Clock::fake(8).uuid());
        assert_eq!(Clock::fake(7).name_suffix(5).len(), 5);
    }

    #[tokio::test]
    async fn uuids_are_version_four() {
        let uuid = Clock::system().uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }
}

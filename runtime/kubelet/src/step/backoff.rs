//! The delay between restarts: 10 s, doubling to 5 min, forgotten after a run of 10 min.

use std::time::Duration;

/// First delay (`MaxContainerBackOff` and friends in upstream's kubelet).
const INITIAL: Duration = Duration::from_secs(10);
/// Longest delay.
const LONGEST: Duration = Duration::from_secs(300);
/// A run this long starts over with [`INITIAL`].
const RESET_AFTER: Duration = Duration::from_secs(600);

/// How long the next restart of one container waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The delay before the restart after a run that lasted `ran_for`: none the first time.
    pub fn after_run(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= RESET_AFTER {
            self.last = None;
        }
        let delay = self.last.unwrap_or_default();
        self.after_failure();
        delay
    }

    /// The delay after another failure in a row, the first included.
    pub fn after_failure(&mut self) -> Duration {
        let next = match self.last {
            None => INITIAL,
            Some(last) => (last * 2).min(LONGEST),
        };
        self.last = Some(next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_minutes_and_are_forgotten_after_a_long_run() {
        let mut backoff = Backoff::default();
        let seconds: Vec<u64> = (0..8)
            .map(|_| backoff.after_run(Duration::from_secs(1)).as_secs())
            .collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after_run(RESET_AFTER).as_secs(), 0);
        assert_eq!(backoff.after_run(Duration::ZERO).as_secs(), 10);
    }
}

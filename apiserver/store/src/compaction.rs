//! The two housekeeping loops of a store: forgetting old history, deleting what has expired.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;

use crate::Store;
use crate::error::Error;
use crate::types::{EXPIRE_BATCH, Revision};

/// How much history a store keeps.
#[derive(Clone, Copy, Debug)]
pub struct CompactionPolicy {
    /// How often to look.
    pub check_every: Duration,
    /// How long a revision can be read at and watched from, as long as `keep_at_most` allows it.
    pub keep_for: Duration,
    /// The most revisions to keep, whatever their age.
    pub keep_at_most: u64,
}

impl Default for CompactionPolicy {
    /// Upstream compacts every five minutes up to where the store was five minutes earlier; looking
    /// once a minute keeps the same five minutes with less on the disk.
    fn default() -> Self {
        Self {
            check_every: Duration::from_secs(60),
            keep_for: Duration::from_secs(5 * 60),
            keep_at_most: 250_000,
        }
    }
}

/// Where a store was at some time.
type Sample = (Duration, Revision);

impl CompactionPolicy {
    /// Decides up to where to compact. `samples` are earlier observations, oldest first; those that
    /// have served are dropped.
    fn target(
        &self,
        samples: &mut VecDeque<Sample>,
        now: Duration,
        current: Revision,
    ) -> Option<Revision> {
        let mut old_enough = None;
        while let Some((time, revision)) = samples.front().copied() {
            if now.saturating_sub(time) < self.keep_for {
                break;
            }
            old_enough = Some(revision);
            samples.pop_front();
        }
        let too_many = current
            .0
            .checked_sub(self.keep_at_most)
            .filter(|revision| *revision > 0)
            .map(Revision);
        old_enough.max(too_many)
    }
}

/// Compacts `store` by `policy` until the store is closed. Run it as a task of its own.
pub async fn run_compactor(store: Arc<dyn Store>, clock: Clock, policy: CompactionPolicy) {
    let mut samples = VecDeque::new();
    loop {
        let (now, current) = (clock.monotonic(), store.current_revision());
        samples.push_back((now, current));
        if let Some(up_to) = policy.target(&mut samples, now, current)
            && up_to > store.compacted_revision()
        {
            match store.compact(up_to).await {
                Ok(()) => tracing::debug!(%up_to, %current, "compacted the store"),
                Err(Error::Closed) => return,
                Err(error) => {
                    tracing::warn!(%up_to, error = &error as &dyn std::error::Error, "compaction failed")
                }
            }
        }
        clock.sleep(policy.check_every).await;
    }
}

/// Deletes expired keys of `store` every `every`, until the store is closed. Run it as a task of its
/// own.
pub async fn run_expirer(store: Arc<dyn Store>, clock: Clock, every: Duration) {
    loop {
        match store.expire(clock.now()).await {
            // There may be more: go on at once, after others had their turn.
            Ok(EXPIRE_BATCH) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(_) => {}
            Err(Error::Closed) => return,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "expiry failed"),
        }
        clock.sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CompactionPolicy = CompactionPolicy {
        check_every: Duration::from_secs(60),
        keep_for: Duration::from_secs(300),
        keep_at_most: 1000,
    };

    fn seconds(samples: &[(u64, u64)]) -> VecDeque<Sample> {
        samples
            .iter()
            .map(|(time, revision)| (Duration::from_secs(*time), Revision(*revision)))
            .collect()
    }

    #[test]
    fn young_history_is_kept() {
        let mut samples = seconds(&[(0, 10), (60, 20)]);
        assert_eq!(
            POLICY.target(&mut samples, Duration::from_secs(299), Revision(900)),
            None
        );
        assert_eq!(samples.len(), 2);
    }

    #[test]
    fn history_is_compacted_up_to_the_newest_old_enough_sample() {
        let mut samples = seconds(&[(0, 10), (60, 20), (120, 30)]);
        assert_eq!(
            POLICY.target(&mut samples, Duration::from_secs(360), Revision(40)),
            Some(Revision(20))
        );
        assert_eq!(samples, seconds(&[(120, 30)]));
    }

    #[test]
    fn history_never_exceeds_its_bound() {
        let mut samples = seconds(&[(0, 10)]);
        assert_eq!(
            POLICY.target(&mut samples, Duration::from_secs(1), Revision(5000)),
            Some(Revision(4000))
        );
    }
}

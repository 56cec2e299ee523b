//! CPU of a container: what it used, what share of a busy node it gets, and its limit.
//!
//! A guest runs inside the polls of its future ([`metered`](crate::metered)). Each poll is measured with the thread's
//! CPU clock, which makes the sum exact; its length is bounded by epochs, whose number follows from the weight
//! ([`weight`](crate::weight)); a container over its share yields to others ([`standing`](crate::standing)); and one
//! over its quota stays pending until the period ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::{Mutex, MutexGuard};

use crate::engine::GuestEngine;
use crate::logs::LogRate;
use crate::standing::{Standing, Use};
use crate::weight::Weight;

/// The period of a quota, as in Linux' CFS.
const PERIOD: Duration = Duration::from_millis(100);

/// The CPU of one container, shared by all its instances.
pub(crate) struct CpuShare {
    engine: Arc<GuestEngine>,
    clock: Clock,
    weight: Arc<Weight>,
    used_nanos: AtomicU64,
    /// What its pod's containers have used together.
    total: Arc<CpuTotal>,
    throttled_periods: AtomicU64,
    throttled_nanos: AtomicU64,
    is_limited: AtomicBool,
    quota: Mutex<Quota>,
    /// How fast its pod writes its logs.
    log_rate: Arc<LogRate>,
    /// What `standing` said last.
    is_heavy: AtomicBool,
    standing: Mutex<Standing>,
}

/// CPU time of several runs together, ended ones included.
#[derive(Debug, Default)]
pub(crate) struct CpuTotal(AtomicU64);

impl CpuTotal {
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

struct Quota {
    limit_millis: Option<u64>,
    /// CPU time per period.
    allowed: Duration,
    period_start: Duration,
    used: Duration,
}

impl CpuShare {
    /// A share of `weight_millis` under contention and of at most `limit_millis` at any time.
    pub(crate) fn new(
        engine: Arc<GuestEngine>,
        clock: Clock,
        weight_millis: u64,
        limit_millis: Option<u64>,
        total: Arc<CpuTotal>,
        log_rate: Arc<LogRate>,
    ) -> Arc<Self> {
        let quota = Quota {
            limit_millis,
            allowed: allowed(limit_millis),
            period_start: clock.monotonic(),
            used: Duration::ZERO,
        };
        Arc::new(Self {
            weight: Weight::new(engine.contest.clone(), weight_millis),
            engine,
            clock,
            used_nanos: AtomicU64::new(0),
            total,
            throttled_periods: AtomicU64::new(0),
            throttled_nanos: AtomicU64::new(0),
            is_limited: AtomicBool::new(limit_millis.is_some()),
            quota: Mutex::new(quota),
            log_rate,
            is_heavy: AtomicBool::new(false),
            standing: Mutex::default(),
        })
    }

    /// Gives it another share and another limit, from the next slice on.
    pub(crate) fn resize(&self, weight_millis: u64, limit_millis: Option<u64>) {
        self.weight.set(weight_millis);
        let mut quota = self.quota.lock();
        if !self.is_limited.load(Ordering::Relaxed) {
            // What was used without a limit is not held against it.
            quota.period_start = self.clock.monotonic();
            quota.used = Duration::ZERO;
        }
        quota.limit_millis = limit_millis;
        quota.allowed = allowed(limit_millis);
        self.is_limited
            .store(limit_millis.is_some(), Ordering::Relaxed);
    }

    fn quota(&self) -> Option<MutexGuard<'_, Quota>> {
        let is_limited = self.is_limited.load(Ordering::Relaxed);
        is_limited.then(|| self.quota.lock())
    }

    /// What decides how long its instances run before they yield.
    pub(crate) fn weight(&self) -> &Arc<Weight> {
        &self.weight
    }

    /// Its quota, in thousandths of a core.
    pub(crate) fn limit_millis(&self) -> Option<u64> {
        self.quota.lock().limit_millis
    }

    /// CPU time used so far.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_nanos.load(Ordering::Relaxed))
    }

    /// Periods in which the quota ran out.
    pub(crate) fn throttled_periods(&self) -> u64 {
        self.throttled_periods.load(Ordering::Relaxed)
    }

    /// How long its instances were held back, together.
    pub(crate) fn throttled(&self) -> Duration {
        Duration::from_nanos(self.throttled_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn engine(&self) -> &GuestEngine {
        &self.engine
    }

    /// Whether its guests run on the threads of those that use more than their share, or write more than they may.
    pub(crate) fn is_heavy(&self) -> bool {
        if self.log_rate.floods() {
            return true;
        }
        if !self.is_heavy.load(Ordering::Relaxed) {
            return false;
        }
        let (now, waits) = (self.clock.monotonic(), self.weight.is_claimed());
        let stands =
            self.engine.contest.takes_all_threads() && self.standing.lock().look(now, waits);
        self.is_heavy.store(stands, Ordering::Relaxed);
        stands
    }

    /// The clock that quotas go by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long the container has to pause, if it is over its quota.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let pause = self.quota()?.pause(self.clock.monotonic())?;
        self.throttled_nanos
            .fetch_add(nanos(pause), Ordering::Relaxed);
        Some(pause)
    }

    /// Counts a poll, which ended because its slice was over if it `wants_more`.
    pub(crate) fn count(&self, used: Duration, wants_more: bool) {
        self.used_nanos.fetch_add(nanos(used), Ordering::Relaxed);
        self.total.0.fetch_add(nanos(used), Ordering::Relaxed);
        if let Some(mut quota) = self.quota()
            && quota.count(self.clock.monotonic(), used)
        {
            self.throttled_periods.fetch_add(1, Ordering::Relaxed);
        }
        let contest = &self.engine.contest;
        if contest.takes_all_threads() {
            let one = Use {
                time: used,
                wants_more,
                weight: self.weight.millis(),
            };
            let now = self.clock.monotonic();
            let mut standing = self.standing.lock();
            let is_heavy = standing.count(now, one, &contest.demand, contest.threads());
            self.is_heavy.store(is_heavy, Ordering::Relaxed);
        }
    }
}

impl Quota {
    fn pause(&mut self, now: Duration) -> Option<Duration> {
        self.turn_over(now);
        (self.used >= self.allowed).then(|| {
            (self.period_start + PERIOD)
                .saturating_sub(now)
                .max(Duration::from_millis(1))
        })
    }

    /// Adds to the period's use; true when that used the quota up.
    fn count(&mut self, now: Duration, used: Duration) -> bool {
        self.turn_over(now);
        let before = self.used;
        self.used += used;
        before < self.allowed && self.used >= self.allowed
    }

    /// What was used beyond the quota is owed to the next period.
    fn turn_over(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.period_start);
        if passed >= PERIOD {
            let periods = u32::try_from(passed.as_nanos() / PERIOD.as_nanos()).unwrap_or(u32::MAX);
            self.used = self
                .used
                .saturating_sub(self.allowed.saturating_mul(periods));
            self.period_start += PERIOD.saturating_mul(periods);
        }
    }
}

/// CPU time per period.
fn allowed(limit_millis: Option<u64>) -> Duration {
    let millis = limit_millis.unwrap_or(u64::MAX).max(1);
    PERIOD.saturating_mul(u32::try_from(millis).unwrap_or(u32::MAX)) / 1000
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_used_up_quota_pauses_until_the_period_ends() {
        let mut quota = Quota {
            limit_millis: Some(200),
            allowed: 20 * MS,
            period_start: Duration::ZERO,
            used: Duration::ZERO,
        };
        assert!(!quota.count(10 * MS, 10 * MS));
        assert_eq!(quota.pause(10 * MS), None);
        assert!(quota.count(30 * MS, 15 * MS));
        assert_eq!(quota.pause(30 * MS), Some(70 * MS));
        // The 5 ms over the quota are missing from the next period.
        assert_eq!(quota.pause(100 * MS), None);
        assert!(quota.count(120 * MS, 15 * MS));
    }

    #[test]
    fn an_idle_container_does_not_save_up() {
        let mut quota = Quota {
            limit_millis: Some(200),
            allowed: 20 * MS,
            period_start: Duration::ZERO,
            used: Duration::ZERO,
        };
        assert!(quota.count(1000 * MS, 20 * MS));
    }
}

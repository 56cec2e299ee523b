//! CPU of a container: what it used, what share of a busy node it gets, and its limit.
//!
//! A guest runs inside the polls of its future ([`metered`](crate::metered)). Each poll is measured
//! ([`stopwatch`](crate::stopwatch)), all but short ones with the thread's CPU clock; its length is bounded by epochs,
//! whose number follows from the weight ([`weight`](crate::weight)); a container over its share yields to others
//! ([`standing`](crate::standing)); and one over its quota stays pending until the period ends.

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
    limit: Limit,
    /// How fast its pod writes its logs.
    log_rate: Arc<LogRate>,
    /// What `standing` said last.
    is_heavy: AtomicBool,
    standing: Mutex<Standing>,
}

/// CPU time of several runs together, ended ones included, and what they may use together.
#[derive(Default)]
pub(crate) struct CpuTotal {
    used_nanos: AtomicU64,
    throttled_periods: AtomicU64,
    limit: Limit,
}

impl CpuTotal {
    /// At most `limit_millis` at any time, from `now` on.
    pub(crate) fn new(limit_millis: Option<u64>, now: Duration) -> Self {
        let total = Self::default();
        total.set_limit(limit_millis, now);
        total
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_nanos.load(Ordering::Relaxed))
    }

    /// Their quota, in thousandths of a core.
    pub(crate) fn limit_millis(&self) -> Option<u64> {
        self.limit.quota.lock().limit_millis
    }

    /// Periods in which it ran out.
    pub(crate) fn throttled_periods(&self) -> u64 {
        self.throttled_periods.load(Ordering::Relaxed)
    }

    /// Gives them another limit.
    pub(crate) fn set_limit(&self, limit_millis: Option<u64>, now: Duration) {
        self.limit.set(limit_millis, now);
    }
}

/// A quota that need not be there. What has none pays nothing for it.
struct Limit {
    is_set: AtomicBool,
    quota: Mutex<Quota>,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            is_set: AtomicBool::new(false),
            quota: Mutex::new(Quota {
                limit_millis: None,
                allowed: allowed(None),
                period_start: Duration::ZERO,
                used: Duration::ZERO,
            }),
        }
    }
}

impl Limit {
    fn set(&self, limit_millis: Option<u64>, now: Duration) {
        let mut quota = self.quota.lock();
        if !self.is_set.load(Ordering::Relaxed) {
            // What was used without a limit is not held against it.
            quota.period_start = now;
            quota.used = Duration::ZERO;
        }
        quota.limit_millis = limit_millis;
        quota.allowed = allowed(limit_millis);
        self.is_set.store(limit_millis.is_some(), Ordering::Relaxed);
    }

    fn quota(&self) -> Option<MutexGuard<'_, Quota>> {
        let is_set = self.is_set.load(Ordering::Relaxed);
        is_set.then(|| self.quota.lock())
    }

    /// See [`Quota::pause`].
    fn pause(&self, clock: &Clock) -> Option<Duration> {
        self.quota()?.pause(clock.monotonic())
    }

    /// See [`Quota::count`].
    fn count(&self, clock: &Clock, used: Duration) -> bool {
        let quota = self.quota();
        quota.is_some_and(|mut quota| quota.count(clock.monotonic(), used))
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
        let limit = Limit::default();
        limit.set(limit_millis, clock.monotonic());
        Arc::new(Self {
            weight: Weight::new(engine.contest.clone(), weight_millis),
            engine,
            clock,
            used_nanos: AtomicU64::new(0),
            total,
            throttled_periods: AtomicU64::new(0),
            throttled_nanos: AtomicU64::new(0),
            limit,
            log_rate,
            is_heavy: AtomicBool::new(false),
            standing: Mutex::default(),
        })
    }

    /// Gives it another share and another limit, from the next slice on.
    pub(crate) fn resize(&self, weight_millis: u64, limit_millis: Option<u64>) {
        self.weight.set(weight_millis);
        self.limit.set(limit_millis, self.clock.monotonic());
    }

    /// What decides how long its instances run before they yield.
    pub(crate) fn weight(&self) -> &Arc<Weight> {
        &self.weight
    }

    /// Its quota, in thousandths of a core.
    pub(crate) fn limit_millis(&self) -> Option<u64> {
        self.limit.quota.lock().limit_millis
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
        let now = self.clock.monotonic();
        let stands = if self.engine.contest.wants_all_threads(now) {
            self.standing.lock().look(now, self.weight.is_claimed())
        } else {
            self.standing.lock().release(now);
            false
        };
        self.is_heavy.store(stands, Ordering::Relaxed);
        stands
    }

    /// The clock that quotas go by.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long the container has to pause, if it is over its quota or its pod over its own.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let own = self.limit.pause(&self.clock);
        let pause = own.max(self.total.limit.pause(&self.clock))?;
        self.throttled_nanos
            .fetch_add(nanos(pause), Ordering::Relaxed);
        Some(pause)
    }

    /// Counts a poll, which ended because its slice was over if it `wants_more`.
    pub(crate) fn count(&self, used: Duration, wants_more: bool) {
        self.used_nanos.fetch_add(nanos(used), Ordering::Relaxed);
        let total = &self.total;
        total.used_nanos.fetch_add(nanos(used), Ordering::Relaxed);
        let is_over = self.limit.count(&self.clock, used);
        let is_total_over = total.limit.count(&self.clock, used);
        if is_total_over {
            total.throttled_periods.fetch_add(1, Ordering::Relaxed);
        }
        if is_total_over || is_over {
            self.throttled_periods.fetch_add(1, Ordering::Relaxed);
        }
        let contest = &self.engine.contest;
        if !contest.may_want_all_threads() {
            return;
        }
        let now = self.clock.monotonic();
        if contest.wants_all_threads(now) {
            let one = Use {
                time: used,
                wants_more,
                weight: self.weight.millis(),
            };
            let mut standing = self.standing.lock();
            let is_heavy = standing.count(now, one, &contest.demand, contest.threads());
            self.is_heavy.store(is_heavy, Ordering::Relaxed);
        }
    }
}

impl Quota {
    /// How long to wait until the period ends in which it was used up.
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
    use crate::logs::FloodRate;
    use crate::standing;
    use crate::weight::{hold, settle, take_slice_away};

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

    #[tokio::test(start_paused = true)]
    async fn a_limit_begins_when_it_is_set_and_ends_when_it_is_taken_away() {
        let clock = Clock::fake(1);
        let total = CpuTotal::default();
        assert!(!total.limit.count(&clock, 500 * MS));
        assert_eq!(total.limit.pause(&clock), None);
        total.set_limit(Some(200), clock.monotonic());
        assert!(!total.limit.count(&clock, 15 * MS));
        // Whichever of the pod's runs it is that used it up.
        assert!(total.limit.count(&clock, 15 * MS));
        assert!(total.limit.pause(&clock).is_some());
        total.set_limit(Some(1000), clock.monotonic());
        assert_eq!(total.limit.pause(&clock), None, "30 of 100 ms are used");
        total.set_limit(Some(200), clock.monotonic());
        assert!(total.limit.pause(&clock).is_some());
        total.set_limit(None, clock.monotonic());
        assert_eq!(total.limit.pause(&clock), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_heavy_stays_so_while_the_others_wait_for_a_moment() {
        let engine = Arc::new(GuestEngine::new(16).unwrap());
        engine.contest.set_threads(2);
        let clock = Clock::fake(1);
        let log_rate = Arc::new(LogRate::new(clock.clone(), FloodRate::new(&clock)));
        let others = Weight::new(engine.contest.clone(), 100);
        let share = CpuShare::new(engine, clock, 100, None, Arc::default(), log_rate);
        let mut claims = [None, None];
        for claim in &mut claims {
            take_slice_away();
            settle(claim, &others);
        }
        share.count(500 * MS, true);
        assert!(share.is_heavy());
        // Each of them waits for a file.
        claims = [None, None];
        assert!(share.is_heavy());
        tokio::time::advance(standing::PERIOD / 2).await;
        assert!(share.is_heavy());
        tokio::time::advance(standing::PERIOD).await;
        assert!(!share.is_heavy(), "nobody wants more");
        for claim in &mut claims {
            take_slice_away();
            settle(claim, &others);
        }
        share.count(MS, true);
        assert!(!share.is_heavy(), "what was does not count any more");
        // While one of its guests is in a long call, the others' rest is none of its.
        share.count(500 * MS, false);
        tokio::time::advance(3 * standing::PERIOD).await;
        let mut call = None;
        hold(&mut call, share.weight());
        assert!(share.is_heavy());
        drop(call);
        assert!(!share.is_heavy());
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

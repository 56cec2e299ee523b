//! Which containers go first when guests want more processor time than there is.
//!
//! ```text
//! light ─▶ used more than its share of a period, while guests want all threads ─▶ heavy
//!   ▲                                                                              │
//!   └─── used no more than its share of a period, and wanted no more, or for a period nobody else wants it
//! ```
//!
//! Who is heavy again soon after that needs two such periods in a row the next time, then four, then eight: one that uses much
//! at once and waits in between would be light for each first part of it.
//!
//! Guests of heavy containers run on threads that the system lets run when nobody else wants to
//! ([`threads`](crate::threads)): whoever stays within its share is answered as if they were not there. Heavy ones take
//! turns among themselves ([`weight`](crate::weight)). Nobody starves them but the system: what light containers may
//! use together, before they are heavy themselves, is the sum of their shares.

use std::time::Duration;

use parking_lot::Mutex;

/// How long use is added up.
pub(crate) const PERIOD: Duration = Duration::from_millis(100);
/// Periods in which one that was heavy has to stay light for that to be forgotten.
const FORGOTTEN_AFTER: u64 = 10;
/// Periods in a row that make the worst light again.
const MOST_NEEDED: u64 = 8;

/// The weights of all containers that used processor time lately.
#[derive(Debug, Default)]
pub(crate) struct Demand(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    period: u64,
    now: u64,
    /// Of the period before, which is whole.
    before: u64,
}

impl Demand {
    /// Adds a container that uses processor time for the first time in `period`.
    fn add(&self, period: u64, weight: u64) {
        let mut sums = self.0.lock();
        sums.turn_over(period);
        sums.now = sums.now.saturating_add(weight);
    }

    fn total(&self, period: u64) -> u64 {
        let mut sums = self.0.lock();
        sums.turn_over(period);
        sums.now.max(sums.before)
    }
}

impl Sums {
    fn turn_over(&mut self, period: u64) {
        if period > self.period {
            let follows = period == self.period + 1;
            self.before = if follows { self.now } else { 0 };
            (self.period, self.now) = (period, 0);
        }
    }
}

/// What a container of `weight` may use of a period and still go first.
fn share(threads: usize, weight: u64, total: u64) -> Duration {
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    let all = PERIOD.saturating_mul(threads).as_nanos();
    let nanos = all * u128::from(weight) / u128::from(total.max(weight).max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// How one container stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    period: u64,
    used: Duration,
    share: Duration,
    /// A guest of it had its slice taken away.
    wanted_more: bool,
    is_heavy: bool,
    /// Periods in a row, until the one before, in which it was content.
    content_periods: u64,
    /// So many make it light again.
    periods_needed: u64,
    /// The period in which it became light again.
    light_since: Option<u64>,
}

/// What one poll of a guest used.
#[derive(Clone, Copy)]
pub(crate) struct Use {
    pub(crate) time: Duration,
    /// It ended because its slice was over.
    pub(crate) wants_more: bool,
    pub(crate) weight: u64,
}

impl Standing {
    /// Counts a poll that ended `now`, on a node whose guests' threads are all wanted. Says how the container stands.
    pub(crate) fn count(
        &mut self,
        now: Duration,
        one: Use,
        demand: &Demand,
        threads: usize,
    ) -> bool {
        // A thread that is late counts for what is now.
        let period = number(now).max(self.period);
        if period != self.period || self.share.is_zero() {
            self.turn_over(period, 0);
            demand.add(period, one.weight);
        }
        self.share = share(threads, one.weight, demand.total(period));
        self.used += one.time;
        self.wanted_more |= one.wants_more;
        if self.used > self.share && !self.is_heavy {
            self.becomes_heavy();
        }
        self.is_heavy
    }

    /// Says how it stands before its next poll, and while a guest of it `is_busy` or not: has a long turn, or
    /// waits for one.
    pub(crate) fn look(&mut self, now: Duration, is_busy: bool) -> bool {
        let period = number(now);
        if period > self.period + 1 && !is_busy {
            // Whole periods passed in which it wanted nothing.
            self.turn_over(period, period - self.period - 1);
            // It has not been added to the demand.
            self.share = Duration::ZERO;
        }
        self.is_heavy
    }

    /// Nobody else wants what it uses: it is light until it uses too much once more.
    pub(crate) fn release(&mut self, now: Duration) {
        *self = Self {
            period: number(now).max(self.period),
            periods_needed: self.periods_needed,
            light_since: Some(number(now)),
            ..Self::default()
        };
    }

    /// Ends a period, and `rested` ones after it in which nothing was used.
    fn turn_over(&mut self, period: u64, rested: u64) {
        if period > self.period {
            self.period = period;
            // One that is held back uses little, but wants more.
            let was_content = !self.wanted_more && self.used <= self.share;
            self.content_periods = rested
                + match was_content {
                    true => self.content_periods + 1,
                    false => 0,
                };
            if self.is_heavy && self.content_periods >= self.periods_needed {
                self.is_heavy = false;
                let longer = self.content_periods - self.periods_needed;
                self.light_since = Some(period.saturating_sub(longer));
            }
        }
        self.used = Duration::ZERO;
        self.wanted_more = false;
    }

    fn becomes_heavy(&mut self) {
        let is_soon = |since| self.period.saturating_sub(since) < FORGOTTEN_AFTER;
        self.periods_needed = match self.light_since.is_some_and(is_soon) {
            true => (self.periods_needed * 2).clamp(1, MOST_NEEDED),
            false => 1,
        };
        self.content_periods = 0;
        self.is_heavy = true;
    }
}

/// The number of the period that `now` is in.
pub(crate) fn number(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() / PERIOD.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn used(milliseconds: u32) -> Use {
        Use {
            time: milliseconds * MS,
            wants_more: false,
            weight: 100,
        }
    }

    fn slice(milliseconds: u32) -> Use {
        Use {
            wants_more: true,
            ..used(milliseconds)
        }
    }

    #[test]
    fn a_share_is_what_the_weights_say() {
        for ((threads, weight, total), milliseconds) in [
            ((2, 100, 500), 40),
            ((2, 200, 500), 80),
            ((1, 1, 100), 1),
            ((4, 7, 0), 400),
        ] {
            assert_eq!(
                share(threads, weight, total),
                milliseconds * MS,
                "{threads} {weight} {total}"
            );
        }
        assert!(share(usize::MAX, u64::MAX, 1) > PERIOD);
    }

    #[test]
    fn who_uses_more_than_its_share_is_heavy_until_it_wants_no_more() {
        let demand = Demand::default();
        let (mut greedy, mut modest) = (Standing::default(), Standing::default());
        let start = 1000 * MS;
        assert!(!greedy.count(start, slice(1), &demand, 1), "alone so far");
        assert!(!modest.count(start, used(20), &demand, 1));
        // 50 ms each.
        assert!(!greedy.count(start + 50 * MS, slice(49), &demand, 1));
        assert!(greedy.count(start + 51 * MS, slice(1), &demand, 1));
        assert!(greedy.look(start + 52 * MS, true));
        // Held back, it does not get its share, and is heavy all the same.
        for period in 1..4 {
            let now = start + period * PERIOD;
            assert!(!modest.count(now, used(40), &demand, 1), "{period}");
            assert!(greedy.count(now + MS, slice(1), &demand, 1), "{period}");
        }
        // It waits for something now, as others do.
        assert!(greedy.count(start + 4 * PERIOD, used(1), &demand, 1));
        assert!(!greedy.count(start + 5 * PERIOD, used(1), &demand, 1));
    }

    #[test]
    fn who_rests_for_a_period_is_light_again() {
        let demand = Demand::default();
        let mut standing = Standing::default();
        assert!(standing.count(MS, slice(300), &demand, 2));
        assert!(standing.look(101 * MS, false));
        // Others have so many turns before it.
        assert!(standing.look(201 * MS, true));
        assert!(!standing.look(202 * MS, false));
        assert!(!standing.count(203 * MS, slice(1), &demand, 2));
        assert_eq!(demand.total(2), 100, "it was added again");
    }

    #[test]
    fn who_is_heavy_again_and_again_needs_more_rest() {
        let demand = Demand::default();
        let mut standing = Standing::default();
        let mut period = 1;
        let mut rests_for = |needed: u32, period: &mut u32| {
            assert!(standing.count(*period * PERIOD, used(300), &demand, 2));
            let less = (*period + needed) * PERIOD;
            assert!(standing.clone().look(less, false), "{needed}");
            *period += needed + 1;
            assert!(!standing.look(*period * PERIOD, false), "{needed}");
        };
        for needed in [1, 2, 4, 8, 8] {
            rests_for(needed, &mut period);
        }
        period += u32::try_from(FORGOTTEN_AFTER).unwrap();
        rests_for(1, &mut period);
    }

    #[test]
    fn a_long_rest_makes_forget_also_if_nobody_looks_meanwhile() {
        let demand = Demand::default();
        let mut standing = Standing::default();
        let minute = |n: u32| n * Duration::from_secs(60);
        for n in 1..4 {
            assert!(!standing.look(minute(n), false));
            assert!(standing.count(minute(n), used(300), &demand, 2));
            assert_eq!(standing.periods_needed, 1, "{n}");
        }
    }

    #[test]
    fn who_is_released_is_light_until_it_uses_too_much_once_more() {
        let demand = Demand::default();
        let mut standing = Standing::default();
        assert!(standing.count(MS, slice(300), &demand, 2));
        standing.release(2 * MS);
        assert!(!standing.look(3 * MS, true));
        assert!(!standing.count(PERIOD, slice(1), &demand, 2));
        assert!(standing.count(PERIOD, slice(300), &demand, 2));
        assert_eq!(standing.periods_needed, 2, "soon");
    }

    #[test]
    fn a_thread_that_is_late_takes_nothing_from_what_was_used_since() {
        let demand = Demand::default();
        let mut standing = Standing::default();
        assert!(!standing.count(5 * PERIOD, used(150), &demand, 2));
        assert!(!standing.count(4 * PERIOD, used(1), &demand, 2));
        assert!(standing.count(5 * PERIOD, used(100), &demand, 2), "251 ms");
        assert_eq!(demand.total(5), 100, "it was added once");
    }

    #[test]
    fn only_those_of_late_are_counted() {
        let demand = Demand::default();
        demand.add(5, 100);
        demand.add(5, 20);
        assert_eq!((demand.total(5), demand.total(6)), (120, 120));
        demand.add(6, 20);
        assert_eq!(
            (demand.total(6), demand.total(7), demand.total(9)),
            (120, 20, 0)
        );
        // A thread that is late finds the sums of now.
        demand.add(9, 7);
        assert_eq!(demand.total(8), 7);
    }
}

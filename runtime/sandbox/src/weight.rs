//! Who gets how much of the guests' threads when more guests want them than there are.
//!
//! ```text
//! a guest runs ─▶ its slice is over ─▶ it has a claim in the Contest ─┬▶ next slice, after the others'
//!                                      (until it waits for something) └▶ next but so many, if its turn is
//!                                                                        worth less than a tick
//! ```
//!
//! A turn is worth so many thousandths of a tick as the container's weight is of the heaviest's; what
//! makes no whole tick is kept for the next. So two containers share as their weights, whatever the
//! weights are: 1:2 with 100m and 200m as with 1 and 2 cores. Only guests that used up a slice take
//! part: one that waits for requests pays nothing and has its first tick at once.
//!
//! Slices end with ticks, and ticks pass while the system has given the core to others, too. So what counts is the processor
//! time that a guest had ([`Allowance`]): who had too little of its slice goes on, and what it had too much or too little
//! is settled with its next one.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;
use wasmtime::{Store, UpdateDeadline};

use crate::engine;
use crate::standing::{self, Demand, PERIOD};
use crate::stopwatch::so_far;

/// Longest slice in ticks: a neighbour never waits longer for one guest.
const MAX_TICKS: u64 = 5;
/// What a tick is divided into.
const TICK: u64 = 1000;
/// The least that a turn is worth: the lightest guest of all waits no longer than a hundred turns.
const LEAST: u64 = TICK / 100;

/// A period, in nanoseconds.
const LATELY: u64 = PERIOD.as_nanos() as u64;

thread_local! {
    /// Whether the guest that this thread runs has used up its slice.
    static INTERRUPTED: Cell<bool> = const { Cell::new(false) };
}

/// All guests of a node that want to run on.
#[derive(Debug, Default)]
pub(crate) struct Contest {
    /// Threads that guests run on.
    threads: AtomicUsize,
    claims: AtomicUsize,
    heaviest: AtomicU64,
    lightest: AtomicU64,
    /// Guests that waited for threads which do what blocks, on average of the last whole period.
    waiting: AtomicUsize,
    waits: Mutex<Waits>,
    /// When guests were last seen to want all threads, in nanoseconds; 0 when that is longer ago than a period.
    all_wanted_at: AtomicU64,
    /// How many claims there are of each weight.
    weights: Mutex<BTreeMap<u64, usize>>,
    /// The weights of all that use processor time.
    pub(crate) demand: Demand,
}

/// How long guests waited for what blocks, together, by periods.
#[derive(Debug, Default)]
struct Waits {
    period: u64,
    now: Duration,
    /// In the period before, which is whole.
    before: Duration,
}

impl Waits {
    /// How many guests waited in the last whole period, on average.
    fn at(&mut self, now: Duration) -> usize {
        let period = standing::number(now);
        if period > self.period {
            let follows = period == self.period + 1;
            self.before = if follows { self.now } else { Duration::ZERO };
            (self.period, self.now) = (period, Duration::ZERO);
        }
        let rounded = self.before + PERIOD / 2;
        usize::try_from(rounded.as_nanos() / PERIOD.as_nanos()).unwrap_or(usize::MAX)
    }
}

/// The weight of one container, shared by its instances.
#[derive(Debug)]
pub(crate) struct Weight {
    contest: Arc<Contest>,
    /// Thousandths of a core that were asked for, at least 1.
    millis: AtomicU64,
    /// Its own claims; they share its turn.
    claims: AtomicUsize,
}

/// One guest that wants to run on; until it is dropped.
pub(crate) struct Claim {
    weight: Arc<Weight>,
    millis: u64,
}

impl Contest {
    pub(crate) fn set_threads(&self, threads: usize) {
        self.threads.store(threads, Ordering::Relaxed);
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed).max(1)
    }

    fn is_contested(&self) -> bool {
        self.claims.load(Ordering::Relaxed) > self.threads()
    }

    /// Whether guests that want to run on, or have others work for them, leave no thread to others.
    fn takes_all_threads(&self) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.claims.load(Ordering::Relaxed) + waiting >= self.threads()
    }

    /// Counts that a guest `waited` until `now` for a thread that does what blocks: that takes a core as the guest itself
    /// would.
    pub(crate) fn waited(&self, now: Duration, waited: Duration) {
        let mut waits = self.waits.lock();
        self.waiting.store(waits.at(now), Ordering::Relaxed);
        waits.now = waits.now.saturating_add(waited.min(PERIOD));
    }

    /// Whether [`wants_all_threads`](Self::wants_all_threads) may say so. It needs no time.
    pub(crate) fn may_want_all_threads(&self) -> bool {
        self.all_wanted_at.load(Ordering::Relaxed) != 0 || self.takes_all_threads()
    }

    /// Whether guests want all threads `now`, or did within the last period: one that waits for a file wants none meanwhile,
    /// but will.
    pub(crate) fn wants_all_threads(&self, now: Duration) -> bool {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            let waiting = self.waits.lock().at(now);
            self.waiting.store(waiting, Ordering::Relaxed);
        }
        // What is 0 was never.
        let now = u64::try_from(of(now)).unwrap_or(0).max(1);
        if self.takes_all_threads() {
            self.all_wanted_at.store(now, Ordering::Relaxed);
            return true;
        }
        let last = self.all_wanted_at.load(Ordering::Relaxed);
        let is_over = last == 0 || now.saturating_sub(last) >= LATELY;
        if is_over {
            // Should another thread have seen it again just now, it will do so soon once more.
            self.all_wanted_at.store(0, Ordering::Relaxed);
        }
        !is_over
    }

    fn change(&self, millis: u64, joins: bool) {
        let mut weights = self.weights.lock();
        let count = weights.entry(millis).or_default();
        if joins {
            *count += 1;
            self.claims.fetch_add(1, Ordering::Relaxed);
        } else {
            *count -= 1;
            if *count == 0 {
                weights.remove(&millis);
            }
            self.claims.fetch_sub(1, Ordering::Relaxed);
        }
        let edge = |weight: Option<(&u64, _)>| weight.map_or(0, |(millis, _)| *millis);
        let (lightest, heaviest) = (
            edge(weights.first_key_value()),
            edge(weights.last_key_value()),
        );
        self.lightest.store(lightest, Ordering::Relaxed);
        self.heaviest.store(heaviest, Ordering::Relaxed);
    }
}

impl Weight {
    pub(crate) fn new(contest: Arc<Contest>, millis: u64) -> Arc<Self> {
        Arc::new(Self {
            contest,
            millis: AtomicU64::new(millis.max(1)),
            claims: AtomicUsize::new(0),
        })
    }

    /// Another weight, from the next slice of each of its guests on.
    pub(crate) fn set(&self, millis: u64) {
        self.millis.store(millis.max(1), Ordering::Relaxed);
    }

    pub(crate) fn millis(&self) -> u64 {
        self.millis.load(Ordering::Relaxed)
    }

    /// Whether a guest of it wants to run on.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claims.load(Ordering::Relaxed) > 0
    }

    fn claim(self: &Arc<Self>) -> Claim {
        let millis = self.millis();
        self.claims.fetch_add(1, Ordering::Relaxed);
        self.contest.change(millis, true);
        Claim {
            weight: self.clone(),
            millis,
        }
    }

    /// What the next turn of one of its guests is worth.
    fn turn(&self) -> u64 {
        let contest = &self.contest;
        if !contest.is_contested() {
            return TICK;
        }
        turn(
            self.millis.load(Ordering::Relaxed),
            self.claims.load(Ordering::Relaxed) as u64,
            contest.lightest.load(Ordering::Relaxed),
            contest.heaviest.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.weight.claims.fetch_sub(1, Ordering::Relaxed);
        self.weight.contest.change(self.millis, false);
    }
}

/// Thousandths of a tick for one of `sharing` guests of a container, in a contest between `lightest`
/// and `heaviest`.
fn turn(weight: u64, sharing: u64, lightest: u64, heaviest: u64) -> u64 {
    let heaviest = heaviest.max(weight).max(1);
    let lightest = lightest.min(weight).max(1);
    // As long as needed for the lightest to have a tick of its own, and no longer.
    let longest = (heaviest.saturating_mul(TICK) / lightest).min(MAX_TICKS * TICK);
    (u128::from(longest) * u128::from(weight) / u128::from(heaviest) / u128::from(sharing.max(1)))
        .try_into()
        .unwrap_or(u64::MAX)
        .max(LEAST)
}

/// Turns that pass until `credit` and what each is worth make a whole tick.
fn skipped(credit: u64, worth: u64) -> u64 {
    TICK.saturating_sub(credit).div_ceil(worth.max(1))
}

/// The processor time that a guest may still have, in nanoseconds; below 0 what it had too much.
struct Allowance(i64);

impl Allowance {
    /// That of a guest that begins.
    fn new() -> Self {
        let mut allowance = Self(0);
        allowance.grant(1);
        allowance
    }

    /// Adds a slice. Less than half a tick is left of the one before, and no more is owed than the longest.
    fn grant(&mut self, ticks: u64) {
        self.0 = self.0.max(-nanos(MAX_TICKS)) + nanos(ticks);
    }

    /// Whether a poll that has used so much goes on for another tick, which comes nearer to what it may have than none.
    fn goes_on(&self, used: Duration) -> bool {
        self.0.saturating_sub(of(used)) > nanos(1) / 2
    }

    fn spend(&mut self, used: Duration) {
        self.0 = self.0.saturating_sub(of(used));
    }
}

/// So many ticks, in nanoseconds.
fn nanos(ticks: u64) -> i64 {
    of(engine::TICK).saturating_mul(i64::try_from(ticks).unwrap_or(i64::MAX))
}

fn of(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// Makes the guest of `store` take turns with others.
pub(crate) fn take_turns<T: 'static>(store: &mut Store<T>, weight: &Arc<Weight>, clock: Clock) {
    let weight = weight.clone();
    let mut credit = 0;
    let mut allowance = Allowance::new();
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        let used = so_far(&clock);
        if allowance.goes_on(used) {
            return Ok(UpdateDeadline::Continue(1));
        }
        allowance.spend(used);
        INTERRUPTED.set(true);
        let worth = weight.turn();
        credit += worth;
        if credit >= TICK {
            let ticks = credit / TICK;
            credit %= TICK;
            allowance.grant(ticks);
            return Ok(UpdateDeadline::Yield(ticks));
        }
        let turns = skipped(credit, worth);
        credit = (credit + turns * worth).saturating_sub(TICK);
        allowance.grant(1);
        let contest = weight.contest.clone();
        let pass = async move {
            // This one, and those that are skipped.
            for _ in 0..=turns {
                end_slice().await;
                if !contest.is_contested() {
                    break;
                }
            }
        };
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(pass)))
    });
}

/// Ends the slice of a guest in a call of the host that takes long, as a tick does in its own code.
pub(crate) async fn end_slice() {
    INTERRUPTED.set(true);
    to_the_back().await;
}

/// Lets every other task run that is ready. Woken while it is polled, a task goes to the back of the queue;
/// tokio's own `yield_now` would have it polled next, ahead of all others, where tasks look at the
/// driver as often as here.
async fn to_the_back() {
    let mut has_waited = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Takes note of how a poll of a guest of `weight` ended: with its slice used up, which it returns, or else.
pub(crate) fn settle(claim: &mut Option<Claim>, weight: &Arc<Weight>) -> bool {
    let wants_more = INTERRUPTED.take();
    match wants_more {
        true => hold(claim, weight),
        false => *claim = None,
    }
    wants_more
}

/// Makes `claim` one of a guest of `weight`, if it is none.
pub(crate) fn hold(claim: &mut Option<Claim>, weight: &Arc<Weight>) {
    let millis = weight.millis();
    if claim.as_ref().is_none_or(|claim| claim.millis != millis) {
        *claim = Some(weight.claim());
    }
}

/// Ends the poll of this thread as the end of a slice does.
#[cfg(test)]
pub(crate) fn take_slice_away() {
    INTERRUPTED.set(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_worth_what_the_weights_say() {
        for (weights, worth) in [
            // Alike, whatever they are: a tick each, so that nobody waits long.
            ((1, 1), (1000, 1000)),
            ((4000, 4000), (1000, 1000)),
            ((100, 200), (1000, 2000)),
            ((1000, 2000), (1000, 2000)),
            ((200, 300), (1000, 1500)),
            // Past five ticks the lighter one has less than one.
            ((100, 1000), (500, 5000)),
            ((1, 1000), (LEAST, 5000)),
        ] {
            let (light, heavy) = weights;
            let of = |weight| turn(weight, 1, light, heavy);
            assert_eq!((of(light), of(heavy)), worth, "{weights:?}");
        }
        assert_eq!(turn(200, 4, 100, 200), 500);
        assert_eq!(turn(u64::MAX, 1, 0, u64::MAX), 5000);
    }

    #[test]
    fn threads_are_wanted_for_a_period_after_all_of_them_were() {
        let contest = Arc::new(Contest::default());
        contest.set_threads(2);
        let ms = Duration::from_millis;
        let weights = [100, 200].map(|millis| Weight::new(contest.clone(), millis));
        let first = weights[0].claim();
        assert!(!contest.may_want_all_threads() && !contest.wants_all_threads(ms(1000)));
        let second = weights[1].claim();
        assert!(contest.may_want_all_threads() && contest.wants_all_threads(ms(1000)));
        drop(second);
        assert!(contest.may_want_all_threads());
        assert!(contest.wants_all_threads(ms(1000)) && contest.wants_all_threads(ms(1099)));
        assert!(!contest.wants_all_threads(ms(1100)));
        assert!(
            !contest.may_want_all_threads(),
            "and then nobody asks for the time"
        );
        let second = weights[1].claim();
        assert!(contest.wants_all_threads(ms(0)), "also when a clock begins");
        drop((first, second));
        assert!(contest.wants_all_threads(ms(99)));
    }

    #[test]
    fn who_waits_for_files_wants_a_thread_too() {
        let contest = Arc::new(Contest::default());
        contest.set_threads(2);
        let ms = Duration::from_millis;
        let first = Weight::new(contest.clone(), 100).claim();
        contest.waited(ms(1010), ms(10));
        assert!(!contest.may_want_all_threads(), "the period is not over");
        contest.waited(ms(1099), ms(3600));
        assert!(!contest.wants_all_threads(ms(1099)));
        contest.waited(ms(1101), ms(1));
        assert!(contest.may_want_all_threads() && contest.wants_all_threads(ms(1102)));
        // In the period after it hardly did, and what was wanted just now still counts.
        assert!(contest.wants_all_threads(ms(1201)));
        assert!(!contest.wants_all_threads(ms(1301)) && !contest.may_want_all_threads());
        drop(first);
    }

    #[test]
    fn waits_are_averaged_over_whole_periods() {
        let mut waits = Waits::default();
        let period = |n: u32| n * PERIOD;
        for (waited, guests) in [(0, 0), (49, 0), (50, 1), (149, 1), (310, 3)] {
            let now = waits.period as u32 + 2;
            waits.at(period(now));
            waits.now = Duration::from_millis(waited);
            assert_eq!(waits.at(period(now + 1)), guests, "{waited}");
            assert_eq!(waits.at(period(now + 1) + PERIOD / 2), guests, "{waited}");
        }
        assert_eq!(waits.at(period(100)), 0, "long ago");
        waits.now = PERIOD;
        assert_eq!(waits.at(period(99)), 0, "a thread that is late");
        assert_eq!(waits.now, PERIOD);
    }

    #[test]
    fn what_makes_no_tick_skips_turns() {
        assert_eq!(
            [(500, 500), (10, 10), (900, 400)].map(|(a, b)| skipped(a, b)),
            [1, 99, 1]
        );
    }

    #[test]
    fn what_guests_have_together_is_what_their_slices_say() {
        // However much passes between two ticks: all of them on a machine of its own, a tenth on a busy one.
        for between in [980, 100, 7, 1300].map(Duration::from_micros) {
            let had = [1, 2, 5].map(|ticks| {
                let mut allowance = Allowance::new();
                let mut total = Duration::ZERO;
                for _ in 0..1000 {
                    let mut used = between;
                    while allowance.goes_on(used) {
                        used += between;
                    }
                    allowance.spend(used);
                    allowance.grant(ticks);
                    total += used;
                }
                total.as_secs_f64() / f64::from(u32::try_from(ticks).unwrap())
            });
            let least = between.as_secs_f64() * 1000.0;
            let expected = [1, 2, 5].map(|ticks| (least / f64::from(ticks)).max(1.0));
            for (had, expected) in had.into_iter().zip(expected) {
                assert!((had - expected).abs() < 0.01, "{between:?}: {had} s");
            }
        }
    }

    #[test]
    fn nobody_owes_for_ever() {
        let mut allowance = Allowance::new();
        allowance.spend(Duration::from_secs(60));
        allowance.grant(1);
        assert_eq!(allowance.0, nanos(1) - nanos(MAX_TICKS));
    }

    #[test]
    fn only_those_who_want_to_run_are_counted() {
        let contest = Arc::new(Contest::default());
        contest.set_threads(1);
        let light = Weight::new(contest.clone(), 100);
        let heavy = Weight::new(contest.clone(), 300);
        let mine = light.claim();
        assert_eq!(light.turn(), TICK, "nobody else wants to run");
        let theirs = heavy.claim();
        assert_eq!((light.turn(), heavy.turn()), (1000, 3000));
        let second = heavy.claim();
        assert_eq!((light.turn(), heavy.turn()), (1000, 1500));
        // A claim ends as it began, though the weight is another by now.
        heavy.set(50);
        drop((theirs, second, mine));
        assert!(contest.weights.lock().is_empty() && !contest.is_contested());
    }
}

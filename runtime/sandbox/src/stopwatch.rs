//! What a poll used of its thread's processor time.
//!
//! Asking the system for it is a call, and two calls for each poll are a tenth of a short message between two pods. The
//! monotonic clock is none. So a poll shorter than [`SHORT`] counts as long as it took: it was hardly ever interrupted, and if so
//! not for long. Of a longer one the system is asked at its end, and what the thread has used since it was asked last, less what
//! was counted since, is the answer. It is asked before a poll only when the last time is longer ago than [`FRESH`].
//!
//! What may block, files above all, is done on threads of its own, by libraries that do not say for whom. Such a thread wakes
//! the guest when it is done, so that what it used since it last woke one is what it did for this one ([`aside`]).

use std::cell::Cell;
use std::time::Duration;

use coracle_clock::Clock;

use crate::threads::{monotonic, thread_cpu_time};

/// A poll that is shorter is not looked into.
const SHORT: Duration = Duration::from_micros(50);
/// How long an answer of the system's is a beginning for the next one. What the thread did in between beside guests may be
/// counted as a long poll's.
const FRESH: Duration = Duration::from_micros(500);

thread_local! {
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
    /// What this thread had used when its poll began.
    static BEGUN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// What this thread, which does what blocks, had used when it last woke a guest.
    static SETTLED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Has what this thread does counted as that of the guests that it wakes.
pub(crate) fn works_aside() {
    SETTLED.set(Some(Duration::ZERO));
}

/// What this thread did for the guest that it wakes now; nothing if it is no thread for what blocks.
pub(crate) fn aside(clock: &Clock) -> Duration {
    let Some(settled) = SETTLED.try_with(Cell::get).ok().flatten() else {
        return Duration::ZERO; // Or it ends.
    };
    let used = thread_cpu_time(clock);
    SETTLED.set(Some(used));
    used.saturating_sub(settled)
}

/// What the poll of this thread that is under way has used so far.
pub(crate) fn so_far(clock: &Clock) -> Duration {
    thread_cpu_time(clock).saturating_sub(BEGUN.get())
}

/// What the system said last of this thread.
#[derive(Clone, Copy)]
struct Last {
    /// Processor time.
    used: Duration,
    at: Duration,
    /// What short polls have counted since.
    counted: Duration,
}

/// Measures one poll, on one thread.
pub(crate) struct Stopwatch {
    start: Duration,
}

impl Stopwatch {
    /// Begins now.
    pub(crate) fn start(clock: &Clock) -> Self {
        let start = monotonic(clock);
        let last = LAST.get();
        if last.is_none_or(|last| start.saturating_sub(last.at) > FRESH) {
            ask(start, clock);
        }
        BEGUN.set(
            LAST.get()
                .map_or(Duration::ZERO, |last| last.used + last.counted),
        );
        Self { start }
    }

    /// When it began, by the monotonic clock.
    pub(crate) fn started(&self) -> Duration {
        self.start
    }

    /// What was used since the start, and the time.
    pub(crate) fn stop(self, clock: &Clock) -> (Duration, Duration) {
        let now = monotonic(clock);
        let took = now.saturating_sub(self.start);
        let Some(last) = LAST.get() else {
            return (took, now);
        };
        if took < SHORT {
            let counted = last.counted + took;
            LAST.set(Some(Last { counted, ..last }));
            return (took, now);
        }
        (last.share(ask(now, clock), took), now)
    }
}

impl Last {
    /// What of the thread's time until `now` is a poll's that ends then and took so long.
    fn share(self, now: Duration, took: Duration) -> Duration {
        now.saturating_sub(self.used + self.counted).min(took)
    }
}

/// Asks the system for the thread's time.
fn ask(at: Duration, clock: &Clock) -> Duration {
    let used = thread_cpu_time(clock);
    let counted = Duration::ZERO;
    LAST.set(Some(Last { used, at, counted }));
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin(clock: &Clock, time: Duration) {
        let start = thread_cpu_time(clock);
        while thread_cpu_time(clock) < start + time {}
    }

    #[test]
    fn a_long_poll_is_what_the_system_says_and_a_wait_is_none() {
        let clock = Clock::system();
        let before = thread_cpu_time(&clock);
        let stopwatch = Stopwatch::start(&clock);
        spin(&clock, Duration::from_millis(2));
        std::thread::sleep(Duration::from_millis(30));
        let (used, _) = stopwatch.stop(&clock);
        let most = thread_cpu_time(&clock).saturating_sub(before);
        assert!(used >= Duration::from_millis(2), "{used:?}");
        assert!(used <= most, "{used:?} of {most:?}");
    }

    #[test]
    fn a_thread_that_works_aside_tells_what_it_did_since_it_was_asked() {
        let clock = Clock::system();
        let thread = std::thread::spawn(move || {
            spin(&clock, Duration::from_millis(2));
            assert_eq!(aside(&clock), Duration::ZERO, "it works for nobody");
            works_aside();
            let used = aside(&clock);
            assert!(used >= Duration::from_millis(2), "{used:?}");
            spin(&clock, Duration::from_millis(2));
            let (more, all) = (aside(&clock), thread_cpu_time(&clock));
            assert!(more >= Duration::from_millis(2), "{more:?}");
            assert!(used + more <= all, "{used:?} and {more:?} of {all:?}");
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_long_poll_is_what_is_left_of_the_threads_time() {
        let ms = Duration::from_millis;
        let last = Last {
            used: ms(10),
            at: ms(500),
            counted: ms(2),
        };
        // The thread used 7 ms since, of which 2 were others'.
        assert_eq!(last.share(ms(17), ms(9)), ms(5), "it waited for 4 ms");
        assert_eq!(last.share(ms(17), ms(3)), ms(3), "the rest was nobody's");
        // Short polls that were interrupted counted more than the thread had.
        assert_eq!(last.share(ms(11), ms(3)), ms(0));
    }
}

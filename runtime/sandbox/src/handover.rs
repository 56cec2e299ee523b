//! Who comes next on a thread: a guest that was woken by the one that runs there, when that one has stopped.
//!
//! Two guests that talk to each other wake one another all the time, each just before it waits itself. The runtime runs such a
//! task next, on the same thread, but not more than three times in a row: then it puts it at the end of its queue and wakes
//! another thread, which takes it away to where none of its memory is at hand. Between two pods that was two wakes of a
//! thread for three round trips, and nearly half of the processor time. So a guest that is woken by a running guest is not
//! told to the runtime before that one has stopped; then it is a task like any other that comes first.
//!
//! ```text
//! A runs ──wakes B──▶ B is put down ──A waits──▶ B is the thread's next task ──▶ B runs ──wakes A──▶ …
//!                                                       │ they have run for a TURN in a row
//!                                                       └▶ B goes to the end of the queue once
//! ```
//!
//! Wakes by anybody else, and by the guest itself, whose slice may be over, reach the runtime at once; so do those of all
//! but the last whom a guest wakes. A thread that did what blocks for the guest says with its wake what it used for that.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use coracle_clock::Clock;
use futures::task::AtomicWaker;

use crate::engine::TICK;
use crate::stopwatch;
use crate::threads::monotonic;

/// For how long guests come first on a thread, one after the other, before those who wait in its queue have their turn: the
/// shortest slice of a guest. Their turn wakes another thread, which is dear where the guests only pass something on.
const TURN: Duration = TICK;

thread_local! {
    /// The guest that runs on this thread, by its address.
    static RUNNING: Cell<Option<usize>> = const { Cell::new(None) };
    /// Whom it has woken last.
    static WOKEN: RefCell<Option<Arc<Turn>>> = const { RefCell::new(None) };
    /// What guests have used in a row that came first because another woke them, the one before them included.
    static IN_A_ROW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A guest's place in the order; the guest is to be polled with [`waker`](Self::waker).
pub(crate) struct Handover {
    turn: Arc<Turn>,
    waker: Waker,
}

struct Turn {
    /// Wakes the task that the guest is in.
    runtime: AtomicWaker,
    /// Another guest's stop made it the next.
    came_first: AtomicBool,
    clock: Clock,
    /// When its last poll ended, by the monotonic clock, in nanoseconds.
    waits_since: AtomicU64,
    /// What other threads have used for it since its last poll began, in nanoseconds.
    aside: AtomicU64,
}

/// Marks this thread's guest as running; dropped, it lets the one come next whom it woke.
pub(crate) struct Running {
    before: Option<usize>,
}

impl Handover {
    pub(crate) fn new(clock: Clock) -> Self {
        let turn = Arc::new(Turn {
            runtime: AtomicWaker::new(),
            came_first: AtomicBool::new(false),
            waits_since: AtomicU64::new(nanos(monotonic(&clock))),
            aside: AtomicU64::new(0),
            clock,
        });
        Self {
            waker: Waker::from(turn.clone()),
            turn,
        }
    }

    /// Who is to be woken for the guest from now on.
    pub(crate) fn register(&self, task: &Waker) {
        self.turn.runtime.register(task);
    }

    /// Whether it is time for those in the queue: the guest is then to go to its end.
    pub(crate) fn lets_others_go_first(&self) -> bool {
        if !self.turn.came_first.swap(false, Ordering::Relaxed) {
            IN_A_ROW.set(Duration::ZERO);
            return false;
        }
        let enough = IN_A_ROW.get() >= TURN;
        if enough {
            IN_A_ROW.set(Duration::ZERO);
        }
        enough
    }

    /// Counts what a poll of the guest has used that ended `now`.
    pub(crate) fn count(&self, used: Duration, now: Duration) {
        IN_A_ROW.set(IN_A_ROW.get().saturating_add(used));
        self.turn.waits_since.store(nanos(now), Ordering::Relaxed);
    }

    /// What other threads have used for the guest since this was asked last.
    pub(crate) fn take_aside(&self) -> Duration {
        match self.turn.aside.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            _ => Duration::from_nanos(self.turn.aside.swap(0, Ordering::Relaxed)),
        }
    }

    /// When the guest's last poll ended, by the monotonic clock; before the first, when this was made.
    pub(crate) fn waits_since(&self) -> Duration {
        self.turn.waits_since()
    }

    /// What the guest is to be polled with.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// To be held while the guest is polled.
    pub(crate) fn run(&self) -> Running {
        Running {
            before: RUNNING.replace(Some(self.turn.address())),
        }
    }
}

impl Turn {
    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    fn waits_since(&self) -> Duration {
        Duration::from_nanos(self.waits_since.load(Ordering::Relaxed))
    }

    /// Counts what this thread did for the guest. That cannot have taken longer than the guest has waited: the rest was work for
    /// somebody who is no guest.
    fn count_aside(&self) {
        let used = stopwatch::aside(&self.clock);
        if used.is_zero() {
            return;
        }
        let waited = monotonic(&self.clock).saturating_sub(self.waits_since());
        let used = used.min(waited);
        self.aside.fetch_add(nanos(used), Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that ends has no guest any more.
        let running = RUNNING.try_with(Cell::get).ok().flatten();
        if running.is_none() {
            self.count_aside();
        }
        if running.is_none_or(|guest| guest == self.address()) {
            self.runtime.wake();
            return;
        }
        let earlier = WOKEN.replace(Some(self.clone()));
        // One comes next. Of several, the others are for whatever thread has nothing to do.
        if let Some(earlier) = earlier.filter(|earlier| !Arc::ptr_eq(earlier, self)) {
            earlier.runtime.wake();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(self.before);
        if self.before.is_some() {
            return; // The outer one hands over.
        }
        if let Some(next) = WOKEN.take()
            && let Some(task) = next.runtime.take()
        {
            next.came_first.store(true, Ordering::Relaxed);
            wake_after_this_task(&task);
        }
    }
}

/// Wakes when the runtime is through with what it runs on this thread; outside a runtime at once.
fn wake_after_this_task(task: &Waker) {
    // A pause has its waker woken then, whoever's it is.
    let pause = pin!(tokio::task::yield_now());
    let _always_pending = pause.poll(&mut Context::from_waker(task));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::threads::thread_cpu_time;

    /// Counts how often the runtime is told.
    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Told {
        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn guest() -> (Handover, Arc<Told>) {
        let (guest, told) = (Handover::new(Clock::system()), Arc::<Told>::default());
        guest.register(&Waker::from(told.clone()));
        (guest, told)
    }

    #[test]
    fn whom_a_running_guest_wakes_comes_when_it_stops() {
        let ((first, _), (second, told)) = (guest(), guest());
        let running = first.run();
        second.waker().wake_by_ref();
        second.waker().wake_by_ref();
        assert_eq!(told.count(), 0);
        drop(running);
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn of_several_only_the_last_waits() {
        let ((first, _), (second, told), (third, told_third)) = (guest(), guest(), guest());
        let running = first.run();
        second.waker().wake_by_ref();
        third.waker().wake_by_ref();
        assert_eq!((told.count(), told_third.count()), (1, 0));
        drop(running);
        assert_eq!((told.count(), told_third.count()), (1, 1));
    }

    #[test]
    fn all_others_are_heard_at_once() {
        let (guest, told) = guest();
        guest.waker().wake_by_ref();
        assert_eq!(told.count(), 1);
        guest.register(&Waker::from(told.clone()));
        let running = guest.run();
        guest.waker().wake_by_ref();
        assert_eq!(told.count(), 2, "its own slice is over");
        guest.register(&Waker::from(told.clone()));
        let waker = guest.waker().clone();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        assert_eq!(told.count(), 3, "another thread");
        drop(running);
        assert_eq!(told.count(), 3);
    }

    #[test]
    fn a_thread_for_what_blocks_says_what_it_did_but_no_more_than_the_guest_waited() {
        let (guest, _) = guest();
        let clock = Clock::system();
        let works = |time: Duration, waits_since: Duration| {
            guest.count(Duration::ZERO, waits_since);
            let (waker, clock) = (guest.waker().clone(), clock.clone());
            let thread = std::thread::spawn(move || {
                stopwatch::works_aside();
                while thread_cpu_time(&clock) < time {}
                waker.wake();
            });
            thread.join().unwrap();
        };
        let ms = Duration::from_millis(1);
        works(2 * ms, Duration::ZERO);
        works(2 * ms, Duration::ZERO);
        let used = guest.take_aside();
        assert!(used >= 4 * ms, "{used:?}");
        assert_eq!(guest.take_aside(), Duration::ZERO);
        works(2 * ms, monotonic(&clock) + 3600 * ms);
        assert_eq!(guest.take_aside(), Duration::ZERO, "it has not waited");
        guest.waker().wake_by_ref();
        assert_eq!(guest.take_aside(), Duration::ZERO, "this thread is none");
    }

    #[test]
    fn a_guest_within_another_hands_over_with_it() {
        let ((outer, _), (inner, _), (third, told)) = (guest(), guest(), guest());
        let running = outer.run();
        let within = inner.run();
        third.waker().wake_by_ref();
        drop(within);
        assert_eq!(told.count(), 0);
        drop(running);
        assert_eq!(told.count(), 1);
    }

    #[test]
    fn others_have_their_turn_after_so_long() {
        let ((first, _), (second, told)) = (guest(), guest());
        let handed_over = |used| {
            second.register(&Waker::from(told.clone()));
            let running = first.run();
            second.waker().wake_by_ref();
            drop(running);
            first.count(used, Duration::ZERO);
            second.lets_others_go_first()
        };
        assert!(!second.lets_others_go_first());
        let yields = |used| (1..=20).filter(|_| handed_over(used)).collect::<Vec<_>>();
        assert_eq!(yields(TURN / 10), [10, 20]);
        assert_eq!(yields(TURN / 2), [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
        assert!(handed_over(TURN), "one alone used all of it");
        // Whoever is not handed over begins anew.
        assert!(!handed_over(TURN / 2));
        assert!(!second.lets_others_go_first());
        assert!(!handed_over(TURN / 2));
    }
}

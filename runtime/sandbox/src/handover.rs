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
//! but the last whom a guest wakes.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;

use crate::engine::TICK;

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
}

/// Marks this thread's guest as running; dropped, it lets the one come next whom it woke.
pub(crate) struct Running {
    before: Option<usize>,
}

impl Handover {
    pub(crate) fn new() -> Self {
        let turn = Arc::new(Turn {
            runtime: AtomicWaker::new(),
            came_first: AtomicBool::new(false),
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

    /// Counts what a poll of the guest has used.
    pub(crate) fn count(&self, used: Duration) {
        IN_A_ROW.set(IN_A_ROW.get().saturating_add(used));
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
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread that ends has no guest any more.
        let running = RUNNING.try_with(Cell::get).ok().flatten();
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
        let (guest, told) = (Handover::new(), Arc::<Told>::default());
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
            first.count(used);
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

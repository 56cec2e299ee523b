//! How many requests an http container answers at once, and how many wait.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::memory::MemoryBudget;

/// Gives out turns so that the instances fit into the container's memory: a burst of requests waits,
/// rather than having the container killed for what each single request may use. Whoever came first
/// has the first turn.
pub(super) struct Turns {
    memory: Arc<MemoryBudget>,
    /// Instances at most, whatever the memory.
    most: u64,
    /// Requests that may wait.
    queue: usize,
    state: Mutex<State>,
}

struct State {
    running: u64,
    waiting: VecDeque<oneshot::Sender<()>>,
    /// What an instance is expected to use: at first twice what it begins with, then more than any
    /// was seen to use. The room to spare is for the instances that grow beyond the others.
    bytes_each: u64,
    largest: u64,
}

/// A place among the running requests; given back when dropped.
pub(super) struct Turn(Arc<Turns>);

/// A place in the queue; becomes a turn.
pub(super) struct Waiting {
    turns: Arc<Turns>,
    turn: oneshot::Receiver<()>,
}

/// What a request gets when it comes.
pub(super) enum Place {
    Turn(Turn),
    Queued(Waiting),
    /// As many wait already as may.
    Full,
}

impl Turns {
    /// At most `most` turns at once, within `memory`, for instances that begin with `initial` bytes;
    /// and `queue` requests that wait.
    pub(super) fn new(
        memory: Arc<MemoryBudget>,
        most: u64,
        queue: usize,
        initial: u64,
    ) -> Arc<Self> {
        let state = State {
            running: 0,
            waiting: VecDeque::new(),
            bytes_each: initial.saturating_mul(2).max(1),
            largest: 0,
        };
        Arc::new(Self {
            memory,
            most: most.max(1),
            queue,
            state: Mutex::new(state),
        })
    }

    /// Takes a turn, or a place in the queue.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && state.running < self.at_once(&state) {
            state.running += 1;
            return Place::Turn(Turn(self.clone()));
        }
        if state.waiting.len() >= self.queue {
            // Those that gave up hold their places until somebody looks.
            state.waiting.retain(|waiting| !waiting.is_closed());
            if state.waiting.len() >= self.queue {
                return Place::Full;
            }
        }
        let (sender, turn) = oneshot::channel();
        state.waiting.push_back(sender);
        Place::Queued(Waiting {
            turns: self.clone(),
            turn,
        })
    }

    /// Learns what an instance used.
    pub(super) fn learn(&self, bytes: u64) {
        let mut state = self.state.lock();
        if bytes > state.largest {
            state.largest = bytes;
            state.bytes_each = bytes.saturating_add(bytes / 4).max(1);
        }
    }

    fn at_once(&self, state: &State) -> u64 {
        (self.memory.limit() / state.bytes_each).clamp(1, self.most)
    }

    fn give_back(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        while state.running < self.at_once(&state) {
            let Some(next) = state.waiting.pop_front() else {
                return;
            };
            // One that gave up takes no turn.
            if next.send(()).is_ok() {
                state.running += 1;
            }
        }
    }
}

impl Future for Waiting {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let given = std::task::ready!(Pin::new(&mut self.turn).poll(context));
        debug_assert!(given.is_ok(), "the queue lives as long as who waits in it");
        Poll::Ready(Turn(self.turns.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.turn.close();
        // The turn was given to one that had just given up. After a poll that took it there is none.
        if self.turn.try_recv().is_ok() {
            self.turns.give_back();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn turns(memory: u64, most: u64, queue: usize, initial: u64) -> Arc<Turns> {
        Turns::new(MemoryBudget::node(memory), most, queue, initial)
    }

    fn turn(turns: &Arc<Turns>) -> Option<Turn> {
        match turns.take() {
            Place::Turn(turn) => Some(turn),
            Place::Queued(_) | Place::Full => None,
        }
    }

    fn queued(turns: &Arc<Turns>) -> Waiting {
        match turns.take() {
            Place::Queued(waiting) => waiting,
            Place::Turn(_) => panic!("a turn"),
            Place::Full => panic!("full"),
        }
    }

    fn ready(waiting: &mut Waiting) -> Option<Turn> {
        match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn instances_fit_into_the_memory_limit() {
        let turns = turns(100, 128, 9, 20);
        let first = turn(&turns).expect("40 of 100");
        let _second = turn(&turns).expect("80 of 100");
        let mut third = queued(&turns);
        assert!(ready(&mut third).is_none());
        drop(first);
        assert!(ready(&mut third).is_some());
    }

    #[test]
    fn one_request_always_runs_and_instances_that_grow_make_fewer() {
        let turns = turns(100, 128, 9, 5);
        turns.learn(1000);
        let only = turn(&turns).expect("one always runs");
        assert!(turn(&turns).is_none());
        drop(only);
        assert!(turn(&turns).is_some());
    }

    #[test]
    fn who_waits_is_served_in_order_and_before_who_comes() {
        let turns = turns(u64::MAX, 1, 9, 1);
        let running = turn(&turns).expect("free");
        let (mut first, mut second) = (queued(&turns), queued(&turns));
        drop(running);
        assert!(ready(&mut second).is_none());
        assert!(turn(&turns).is_none(), "nobody overtakes");
        let running = ready(&mut first).expect("first come, first served");
        drop(running);
        assert!(ready(&mut second).is_some());
    }

    #[test]
    fn the_queue_is_bounded_and_those_who_gave_up_leave_it() {
        let turns = turns(u64::MAX, 1, 2, 1);
        let running = turn(&turns).expect("free");
        let (first, mut second) = (queued(&turns), queued(&turns));
        assert!(matches!(turns.take(), Place::Full));
        drop(first);
        let mut third = queued(&turns);
        drop(running);
        assert!(ready(&mut second).is_some());
        assert!(
            ready(&mut third).is_some(),
            "the turn of the second was dropped"
        );
    }

    #[test]
    fn a_turn_that_was_given_to_one_who_left_goes_on() {
        let turns = turns(u64::MAX, 1, 2, 1);
        let running = turn(&turns).expect("free");
        let (first, mut second) = (queued(&turns), queued(&turns));
        drop(running);
        drop(first);
        assert!(ready(&mut second).is_some());
        assert!(turn(&turns).is_some(), "every turn came back");
    }
}

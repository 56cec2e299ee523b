//! The queues of one priority level: which flow's turn it is.
//!
//! ```text
//! flow ──hash──▶ hand of queues ──the shortest──▶ queue ──the one whose virtual time is least──▶ seats
//! ```
//!
//! A flow that fills all queues of its hand would get as many turns as they are, as it does upstream. So the virtual time of
//! the flow itself, which [`super::seats`] keeps, comes before that of the queue.
//!
//! Start-time fair queuing: a queue's virtual time moves on by the seat-seconds that its requests took, and a queue that
//! wakes up begins at the level's. While requests run they are charged [`GUESS`]; the difference is settled when they
//! end. Upstream: `k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset`, which does the same with a virtual clock
//! that advances with time.

use std::collections::VecDeque;

use super::seats::Grant;

/// What a request is taken to last until it is known, in seconds.
pub(super) const GUESS: f64 = 0.003;

/// Most queues of a hand; validation keeps hands far smaller.
const MAX_HAND: usize = 64;

/// How many queues there are, and how they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    /// Queues of the level.
    pub(super) queues: u32,
    /// How many of them a flow may use.
    pub(super) hand: u32,
    /// Most requests that wait in one queue.
    pub(super) length: u32,
}

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct Waiter<T> {
    pub(super) id: u64,
    /// What it is to get.
    pub(super) grant: Grant,
    /// Whether it has its seats already, and waits for a turn only.
    pub(super) seated: bool,
    /// When it came, in seconds.
    pub(super) since: f64,
    pub(super) payload: T,
}

impl<T> Waiter<T> {
    /// Seats that it still needs.
    pub(super) fn wants(&self) -> u32 {
        if self.seated { 0 } else { self.grant.width }
    }
}

/// What may be done about somebody who waits at the head of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It runs.
    Go,
    /// Others may go first.
    Skip,
    /// If it is the next, everybody waits for it.
    Stop,
}

/// The queues of a level. They are made when they are first used.
#[derive(Debug)]
pub(super) struct Queues<T> {
    queues: Vec<Queue<T>>,
    /// The queues in which somebody waits.
    occupied: Vec<u32>,
    /// The virtual time at which the last request began.
    now: f64,
    /// The latest virtual time of any queue.
    latest: f64,
    waiting: usize,
    /// Seats of all who wait or run.
    seats: u64,
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// The virtual time at which the next request begins.
    pub(super) next: f64,
    pub(super) waiting: VecDeque<Waiter<T>>,
    /// Seats of the requests that wait or run.
    pub(super) seats: u32,
    /// Requests that run.
    pub(super) running: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            next: 0.0,
            waiting: VecDeque::new(),
            seats: 0,
            running: 0,
        }
    }
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self {
            queues: Vec::new(),
            occupied: Vec::new(),
            now: 0.0,
            latest: 0.0,
            waiting: 0,
            seats: 0,
        }
    }
}

impl<T> Queues<T> {
    /// The queue for a request of the flow: of its hand, the one with the fewest seats.
    pub(super) fn choose(&self, queuing: Queuing, flow: u64) -> u32 {
        let seats = |queue: u32| self.queues.get(queue as usize).map_or(0, |q| q.seats);
        let mut cards = [0; MAX_HAND];
        let hand = deal(queuing, flow, &mut cards).iter().copied();
        hand.min_by_key(|queue| seats(*queue)).unwrap_or(0)
    }

    /// Number of those who wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The queues that are in use, with their numbers.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, &Queue<T>)> {
        let used = |(_, queue): &(usize, &Queue<T>)| queue.seats > 0 || queue.running > 0;
        self.queues.iter().enumerate().filter(used)
    }

    /// Lets somebody wait; gives them back when the queue is full.
    pub(super) fn push(&mut self, queue: u32, length: u32, waiter: Waiter<T>) -> Result<(), T> {
        if self.queue(queue).waiting.len() >= length as usize {
            return Err(waiter.payload);
        }
        self.wait(queue, waiter, false);
        Ok(())
    }

    /// Lets somebody wait before all others of the queue, however many there are: one who has seats.
    pub(super) fn push_front(&mut self, queue: u32, waiter: Waiter<T>) {
        self.wait(queue, waiter, true);
    }

    fn wait(&mut self, queue: u32, waiter: Waiter<T>, first: bool) {
        let wants = waiter.wants();
        let found = self.queue(queue);
        found.seats += wants;
        let was_empty = found.waiting.is_empty();
        match first {
            true => found.waiting.push_front(waiter),
            false => found.waiting.push_back(waiter),
        }
        if was_empty {
            self.occupied.push(queue);
        }
        self.seats += u64::from(wants);
        self.waiting += 1;
    }

    /// The queue whose head is next, if it may run. `judge` also says the virtual time of the head's flow.
    pub(super) fn next(&self, judge: impl Fn(&Waiter<T>) -> (Verdict, f64)) -> Option<u32> {
        let mut best: Option<(f64, f64, u32, Verdict)> = None;
        for at in &self.occupied {
            let queue = self.queues.get(*at as usize);
            let Some((queue, head)) = queue.and_then(|queue| Some((queue, queue.waiting.front()?)))
            else {
                continue;
            };
            let (verdict, flow) = judge(head);
            let later = |(other, next, number, _): (f64, f64, u32, Verdict)| {
                (other, next, number) <= (flow, queue.next, *at)
            };
            if verdict != Verdict::Skip && !best.is_some_and(later) {
                best = Some((flow, queue.next, *at, verdict));
            }
        }
        best.filter(|(.., verdict)| *verdict == Verdict::Go)
            .map(|(_, _, queue, _)| queue)
    }

    /// Takes out the head of a queue; it runs from now on.
    pub(super) fn pop(&mut self, queue: u32) -> Option<Waiter<T>> {
        let found = self.queues.get_mut(queue as usize)?;
        let waiter = found.waiting.pop_front()?;
        self.waiting -= 1;
        if found.waiting.is_empty() {
            self.occupied.retain(|other| *other != queue);
        }
        if !waiter.seated {
            self.charge(queue, waiter.grant.width);
        }
        Some(waiter)
    }

    /// A request of this queue runs that did not wait.
    pub(super) fn begin(&mut self, queue: u32, width: u32) {
        self.queue(queue).seats += width;
        self.seats += u64::from(width);
        self.charge(queue, width);
    }

    /// A request of this queue ended; it took so many seat-seconds.
    pub(super) fn end(&mut self, queue: u32, width: u32, work: f64) {
        if let Some(found) = self.queues.get_mut(queue as usize) {
            found.next += work - f64::from(width) * GUESS;
            found.seats = found.seats.saturating_sub(width);
            found.running = found.running.saturating_sub(1);
            self.latest = self.latest.max(found.next);
        }
        self.free(width);
    }

    /// Takes out somebody who does not wait any longer.
    pub(super) fn give_up(&mut self, queue: u32, id: u64) -> Option<Waiter<T>> {
        let found = self.queues.get_mut(queue as usize)?;
        let at = found.waiting.iter().position(|waiter| waiter.id == id)?;
        let waiter = found.waiting.remove(at)?;
        found.seats = found.seats.saturating_sub(waiter.wants());
        self.waiting -= 1;
        if found.waiting.is_empty() {
            self.occupied.retain(|other| *other != queue);
        }
        self.free(waiter.wants());
        Some(waiter)
    }

    fn queue(&mut self, queue: u32) -> &mut Queue<T> {
        let at = queue as usize;
        if at >= self.queues.len() {
            self.queues.resize_with(at + 1, Queue::default);
        }
        let found = &mut self.queues[at];
        if found.seats == 0 {
            // What it did not use while it was idle is not saved up.
            found.next = found.next.max(self.now);
        }
        found
    }

    fn charge(&mut self, queue: u32, width: u32) {
        if let Some(found) = self.queues.get_mut(queue as usize) {
            self.now = self.now.max(found.next);
            found.next += f64::from(width) * GUESS;
            found.running += 1;
            self.latest = self.latest.max(found.next);
        }
    }

    /// Once nobody uses any queue, all debts are forgiven.
    fn free(&mut self, width: u32) {
        self.seats = self.seats.saturating_sub(u64::from(width));
        if self.seats == 0 {
            self.now = self.latest;
        }
    }
}

/// The queues that a flow may use, each once: digits of its hash in a mixed base pick among those not dealt yet.
fn deal(queuing: Queuing, flow: u64, cards: &mut [u32; MAX_HAND]) -> &[u32] {
    let deck = queuing.queues.max(1);
    let size = (queuing.hand.clamp(1, deck) as usize).min(MAX_HAND);
    let mut rest = flow;
    let mut sorted = [0; MAX_HAND];
    for (at, dealt) in cards.iter_mut().enumerate().take(size) {
        let left = u64::from(deck) - at as u64;
        let mut card = (rest % left) as u32;
        rest /= left;
        let mut place = 0;
        while place < at && sorted[place] <= card {
            card += 1;
            place += 1;
        }
        sorted.copy_within(place..at, place + 1);
        sorted[place] = card;
        *dealt = card;
    }
    &cards[..size]
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUING: Queuing = Queuing {
        queues: 128,
        hand: 6,
        length: 50,
    };

    fn wide(id: u64, width: u32) -> Waiter<u64> {
        Waiter {
            id,
            grant: Grant {
                width,
                ..Grant::default()
            },
            seated: false,
            since: 0.0,
            payload: id,
        }
    }

    fn waiter(id: u64) -> Waiter<u64> {
        wide(id, 1)
    }

    fn pop(queues: &mut Queues<u64>) -> Option<(u32, Waiter<u64>)> {
        let queue = queues.next(|_| (Verdict::Go, 0.0))?;
        queues.pop(queue).map(|waiter| (queue, waiter))
    }

    #[test]
    fn hands_are_of_different_queues() {
        for (queues, hand) in [(1, 1), (2, 2), (19, 19), (128, 6)] {
            for flow in (0..200).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let queuing = Queuing {
                    queues,
                    hand,
                    length: 1,
                };
                let mut cards = [0; MAX_HAND];
                let mut dealt = deal(queuing, flow, &mut cards).to_vec();
                assert!(dealt.iter().all(|card| *card < queues), "{dealt:?}");
                dealt.sort_unstable();
                dealt.dedup();
                assert_eq!(dealt.len(), hand as usize);
            }
        }
    }

    #[test]
    fn a_flood_takes_turns_with_others() {
        let mut queues = Queues::default();
        for id in 0..20 {
            queues.push(0, 50, waiter(id)).expect("room");
        }
        for id in 100..103 {
            queues.push(1, 50, waiter(id)).expect("room");
        }
        let mut order = Vec::new();
        while let Some((queue, waiter)) = pop(&mut queues) {
            order.push(waiter.id);
            queues.end(queue, 1, 0.003);
        }
        assert_eq!(order[..7], [0, 100, 1, 101, 2, 102, 3]);
        assert_eq!(order.len(), 23);
        assert_eq!(queues.used().count(), 0);
    }

    #[test]
    fn slow_and_wide_requests_cost_turns() {
        for (width, took) in [(1, 0.03), (10, 0.003)] {
            let mut queues = Queues::default();
            for id in 0..10 {
                queues.push(0, 50, wide(id, width)).expect("room");
                queues.push(1, 50, waiter(100 + id)).expect("room");
            }
            let mut light = 0;
            for _ in 0..11 {
                let (queue, waiter) = pop(&mut queues).expect("somebody waits");
                let took = if queue == 0 { took } else { 0.003 };
                light += queue;
                let width = waiter.grant.width;
                queues.end(queue, width, f64::from(width) * took);
            }
            assert_eq!(light, 10, "width {width}, {took} s");
        }
    }

    #[test]
    fn a_queue_that_was_idle_has_saved_nothing_up_and_owes_nothing_to_nobody() {
        let mut queues = Queues::default();
        queues.begin(0, 1);
        queues.end(0, 1, 100.0);
        // Nobody else was there: the debt is forgiven.
        queues.push(0, 50, waiter(1)).expect("room");
        queues.push(1, 50, waiter(2)).expect("room");
        assert_eq!(queues.queues[0].next, queues.queues[1].next);
    }

    #[test]
    fn queues_are_bounded_and_those_who_give_up_leave_room() {
        let mut queues = Queues::default();
        queues.push(0, 2, waiter(1)).expect("room");
        queues.push(0, 2, waiter(2)).expect("room");
        assert_eq!(queues.push(0, 2, waiter(3)), Err(3));
        assert!(queues.give_up(0, 1).is_some());
        assert!(queues.give_up(0, 1).is_none());
        queues.push(0, 2, waiter(3)).expect("room");
        assert_eq!(queues.waiting(), 2);
        let ids: Vec<_> = std::iter::from_fn(|| pop(&mut queues).map(|(_, w)| w.id)).collect();
        assert_eq!(ids, [2, 3]);
    }

    #[test]
    fn who_may_not_run_is_passed_over_or_waited_for() {
        let mut queues = Queues::default();
        queues.push(0, 2, waiter(1)).expect("room");
        queues.push(1, 2, waiter(2)).expect("room");
        let skip = |waiter: &Waiter<u64>| match waiter.id {
            1 => (Verdict::Skip, 0.0),
            _ => (Verdict::Go, 0.0),
        };
        assert_eq!(queues.next(skip), Some(1));
        let stop = |waiter: &Waiter<u64>| match waiter.id {
            1 => (Verdict::Stop, 0.0),
            _ => (Verdict::Go, 0.0),
        };
        assert_eq!(queues.next(stop), None);
        // Flows come before queues.
        let flows = |waiter: &Waiter<u64>| match waiter.id {
            1 => (Verdict::Stop, 2.0),
            _ => (Verdict::Go, 1.0),
        };
        assert_eq!(queues.next(flows), Some(1));
    }

    #[test]
    fn the_shortest_queue_of_the_hand_is_chosen() {
        let mut queues: Queues<u64> = Queues::default();
        let mut chosen = Vec::new();
        for _ in 0..6 {
            let queue = queues.choose(QUEUING, 12345);
            queues.begin(queue, 1);
            chosen.push(queue);
        }
        chosen.sort_unstable();
        chosen.dedup();
        assert_eq!(chosen.len(), 6);
    }
}

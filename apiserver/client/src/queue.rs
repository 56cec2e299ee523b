//! Keys that wait for work.
//!
//! ```text
//!   add ──▶ ready ──next──▶ in work ──finish──▶ (forgotten)
//!             ▲  ▲             │  └─ failed ──▶ delayed by back-off ─┐
//!             │  └─ added again while in work ◀┘                     │
//!             └──────────────────── when due ◀───────────────────────┘
//! ```
//!
//! A key is in at most one of these places, so it is never worked on twice at once, and a thousand
//! changes of one object cost one round of work.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How a key's work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Forget past failures; the next change brings the key back.
    Done,
    /// Look again after this time.
    After(Duration),
    /// It failed: look again after an exponentially growing delay.
    Retry,
}

impl Outcome {
    /// Whichever looks again sooner.
    #[must_use]
    pub fn or_sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Retry, _) | (_, Self::Retry) => Self::Retry,
            (Self::After(one), Self::After(two)) => Self::After(one.min(two)),
            (Self::After(one), Self::Done) | (Self::Done, Self::After(one)) => Self::After(one),
            (Self::Done, Self::Done) => Self::Done,
        }
    }
}

impl<T> From<Result<T, Error>> for Outcome {
    /// Success is done; a conflict and every other failure look again. A missing object is done
    /// too: whoever deleted it caused an event.
    fn from(result: Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(error) if error.is_not_found() => Self::Done,
            Err(_) => Self::Retry,
        }
    }
}

/// The bounds and delays of a [`WorkQueue`].
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// The delay after the first failure; doubles with each further one.
    pub base_delay: Duration,
    /// The longest delay.
    pub max_delay: Duration,
    /// How many keys may wait. Past it a key is dropped, and once the queue has run empty every
    /// key is added anew from the caches.
    pub capacity: usize,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            base_delay: Duration::from_millis(5),
            max_delay: Duration::from_secs(60),
            capacity: 100_000,
        }
    }
}

/// A de-duplicating queue of keys with delays and per-key back-off; cheap to clone.
pub struct WorkQueue<T>(Arc<Inner<T>>);

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A [`WorkQueue`] that ends with its last owner; for handlers that feed one.
pub struct WeakQueue<T>(Weak<Inner<T>>);

impl<T> WeakQueue<T> {
    /// The queue, if anyone still works on it.
    pub fn upgrade(&self) -> Option<WorkQueue<T>> {
        self.0.upgrade().map(WorkQueue)
    }
}

struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    clock: Clock,
    stop: CancellationToken,
    config: QueueConfig,
}

struct State<T> {
    ready: VecDeque<T>,
    /// The keys of `ready`, and those in work that were added again.
    waiting: HashSet<T>,
    working: HashSet<T>,
    delayed: BTreeSet<(Duration, T)>,
    due: HashMap<T, Duration>,
    failures: HashMap<T, u32>,
    overflowed: bool,
    refill: Vec<Arc<dyn Fn() -> Vec<T> + Send + Sync>>,
}

impl<T: Clone + Eq + Hash + Ord + Debug> WorkQueue<T> {
    /// An empty queue that ends when `stop` is cancelled.
    pub fn new(clock: Clock, stop: CancellationToken, config: QueueConfig) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                working: HashSet::new(),
                delayed: BTreeSet::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                overflowed: false,
                refill: Vec::new(),
            }),
            wake: Notify::new(),
            clock,
            stop,
            config,
        }))
    }

    /// Adds a key, unless it waits already.
    pub fn add(&self, key: T) {
        self.0.state.lock().add(key, self.0.config.capacity);
        self.0.wake.notify_one();
    }

    /// Adds a key once `delay` has passed; of several delays for one key the shortest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.0.state.lock().delay(
            key,
            self.0.clock.monotonic() + delay,
            self.0.config.capacity,
        );
        self.0.wake.notify_one();
    }

    /// The next key, or `None` once the queue is stopped. The key is the caller's alone until
    /// [`WorkQueue::finish`]. Dropping the future loses nothing.
    pub async fn next(&self) -> Option<T> {
        loop {
            if self.0.stop.is_cancelled() {
                return None;
            }
            let until_due = match self
                .0
                .state
                .lock()
                .pop(self.0.clock.monotonic(), self.0.config.capacity)
            {
                Ok(key) => {
                    // Others may sleep although there is more to do: one wake-up may stand for many keys.
                    self.0.wake.notify_one();
                    return Some(key);
                }
                Err(until_due) => until_due,
            };
            let sleep = async {
                match until_due {
                    Some(delay) => self.0.clock.sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.stop.cancelled() => return None,
                () = self.0.wake.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Ends the work on a key.
    pub fn finish(&self, key: T, outcome: Outcome) {
        let now = self.0.clock.monotonic();
        let config = &self.0.config;
        {
            let mut state = self.0.state.lock();
            state.working.remove(&key);
            if state.waiting.contains(&key) {
                state.ready.push_back(key.clone());
            }
            match outcome {
                Outcome::Done => {
                    state.failures.remove(&key);
                }
                Outcome::After(delay) => {
                    state.failures.remove(&key);
                    state.delay(key, now + delay, config.capacity);
                }
                Outcome::Retry => {
                    let failures = state.failures.entry(key.clone()).or_default();
                    *failures = failures.saturating_add(1);
                    let doublings = (*failures - 1).min(30);
                    let delay = config
                        .base_delay
                        .saturating_mul(1 << doublings)
                        .min(config.max_delay);
                    state.delay(key, now + delay, config.capacity);
                }
            }
        }
        self.0.wake.notify_one();
    }

    /// How many keys wait, delayed ones included.
    pub fn len(&self) -> usize {
        let state = self.0.state.lock();
        state.waiting.len() + state.delayed.len()
    }

    /// Whether no key waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A handle that does not keep the queue alive.
    pub fn downgrade(&self) -> WeakQueue<T> {
        WeakQueue(Arc::downgrade(&self.0))
    }

    /// Registers where all keys can be had from after an overflow.
    pub(crate) fn refill_from(&self, keys: impl Fn() -> Vec<T> + Send + Sync + 'static) {
        self.0.state.lock().refill.push(Arc::new(keys));
    }
}

impl<T: Clone + Eq + Hash + Ord + Debug> State<T> {
    fn add(&mut self, key: T, capacity: usize) {
        if self.waiting.contains(&key) {
            return;
        }
        if self.waiting.len() + self.delayed.len() >= capacity {
            if !self.overflowed {
                tracing::warn!(
                    capacity,
                    "work queue is full; it will be filled anew from the caches"
                );
            }
            self.overflowed = true;
            return;
        }
        self.waiting.insert(key.clone());
        if !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: T, due: Duration, capacity: usize) {
        match self.due.get(&key) {
            Some(earlier) if *earlier <= due => return,
            Some(later) => {
                let later = *later;
                self.delayed.remove(&(later, key.clone()));
            }
            None if self.waiting.len() + self.delayed.len() >= capacity => {
                self.overflowed = true;
                return;
            }
            None => {}
        }
        self.due.insert(key.clone(), due);
        self.delayed.insert((due, key));
    }

    /// The next key, or the time until one is due.
    fn pop(&mut self, now: Duration, capacity: usize) -> Result<T, Option<Duration>> {
        while let Some((due, key)) = self.delayed.first().filter(|(due, _)| *due <= now).cloned() {
            self.delayed.remove(&(due, key.clone()));
            self.due.remove(&key);
            self.add(key, capacity);
        }
        if self.ready.is_empty() && self.overflowed {
            self.overflowed = false;
            let sources = self.refill.clone();
            for key in sources.iter().flat_map(|keys| keys()) {
                self.add(key, capacity);
            }
        }
        match self.ready.pop_front() {
            Some(key) => {
                self.waiting.remove(&key);
                self.working.insert(key.clone());
                Ok(key)
            }
            None => Err(self.delayed.first().map(|(due, _)| due.saturating_sub(now))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(capacity: usize) -> (WorkQueue<u32>, CancellationToken) {
        let stop = CancellationToken::new();
        let config = QueueConfig {
            capacity,
            ..QueueConfig::default()
        };
        (WorkQueue::new(Clock::fake(1), stop.clone(), config), stop)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_is_worked_on_once() {
        let (queue, _stop) = queue(10);
        queue.add(1);
        queue.add(1);
        queue.add(2);
        assert_eq!(queue.next().await, Some(1));
        assert_eq!(queue.next().await, Some(2));
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_in_work_waits_for_its_worker() {
        let (queue, _stop) = queue(10);
        queue.add(1);
        assert_eq!(queue.next().await, Some(1));
        queue.add(1);
        queue.add(2);
        assert_eq!(queue.next().await, Some(2), "1 is in work");
        queue.finish(1, Outcome::Done);
        assert_eq!(queue.next().await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_forgets() {
        let clock = Clock::fake(1);
        let queue = WorkQueue::new(
            clock.clone(),
            CancellationToken::new(),
            QueueConfig::default(),
        );
        queue.add(1);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let before = clock.monotonic();
            assert_eq!(queue.next().await, Some(1));
            waits.push((clock.monotonic() - before).as_millis());
            queue.finish(1, Outcome::Retry);
        }
        assert_eq!(waits, [0, 5, 10, 20]);
        assert_eq!(queue.next().await, Some(1));
        queue.finish(1, Outcome::Done);
        queue.add(1);
        assert_eq!(queue.next().await, Some(1));
        let before = clock.monotonic();
        queue.finish(1, Outcome::Retry);
        assert_eq!(queue.next().await, Some(1));
        assert_eq!((clock.monotonic() - before).as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_delay_counts() {
        let (queue, _stop) = queue(10);
        queue.add_after(1, Duration::from_secs(60));
        queue.add_after(1, Duration::from_secs(5));
        queue.add_after(1, Duration::from_secs(30));
        let clock = queue.0.clock.clone();
        assert_eq!(queue.next().await, Some(1));
        assert_eq!(clock.monotonic().as_secs(), 5);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_overflow_is_made_good_from_the_caches() {
        let (queue, _stop) = queue(2);
        queue.refill_from(|| vec![1, 2, 3]);
        for key in 1..=3 {
            queue.add(key);
        }
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let key = queue.next().await.expect("not stopped");
            seen.insert(key);
            queue.finish(key, Outcome::Done);
            if seen.len() == 3 {
                return;
            }
            // Two of three fit each time; what was worked on makes room for the rest.
            queue.add(3);
        }
        panic!("key 3 was lost: {seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_queue_ends() {
        let (queue, stop) = queue(10);
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        stop.cancel();
        assert_eq!(waiting.await.expect("no panic"), None);
    }
}

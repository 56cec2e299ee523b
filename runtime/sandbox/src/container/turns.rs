//! How many requests an http container answers at once.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Instances of one container at most.
const MAX_INSTANCES: u64 = 128;
/// Requests that wait for a turn; more are refused.
const MAX_WAITING: usize = 1024;

/// Gives out turns so that the instances fit into the container's memory: a burst of requests waits,
/// rather than having the container killed for what each single request may use.
pub(super) struct Turns {
    limit: u64,
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    running: u64,
    waiting: usize,
    /// What an instance is expected to use: at first twice what it begins with, then more than any
    /// was seen to use. The room to spare is for the instances that grow beyond the others.
    bytes_each: u64,
    most: u64,
}

/// A place among the running requests; given back when dropped.
pub(super) struct Turn(Arc<Turns>);

/// A place among the waiting ones.
struct Waiting<'a>(&'a Turns);

impl Turns {
    /// Turns within `limit` bytes for instances that begin with `initial` bytes.
    pub(super) fn new(limit: u64, initial: u64) -> Arc<Self> {
        let state = State {
            running: 0,
            waiting: 0,
            bytes_each: initial.saturating_mul(2).max(1),
            most: 0,
        };
        Arc::new(Self {
            limit,
            state: Mutex::new(state),
            freed: Notify::new(),
        })
    }

    /// Waits for a turn; `None` when too many wait already.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Turn> {
        let mut waiting = None;
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state.lock();
                if state.running < self.at_once(&state) {
                    state.running += 1;
                    return Some(Turn(self.clone()));
                }
                if waiting.is_none() {
                    if state.waiting >= MAX_WAITING {
                        return None;
                    }
                    state.waiting += 1;
                }
            }
            waiting.get_or_insert_with(|| Waiting(self));
            freed.await;
        }
    }

    /// Learns what an instance used.
    pub(super) fn learn(&self, bytes: u64) {
        let mut state = self.state.lock();
        if bytes > state.most {
            state.most = bytes;
            state.bytes_each = bytes + bytes / 4;
        }
    }

    fn at_once(&self, state: &State) -> u64 {
        (self.limit / state.bytes_each).clamp(1, MAX_INSTANCES)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.freed.notify_one();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
        // The wake-up may have come to one that gave up.
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn instances_fit_into_the_memory_limit() {
        let turns = Turns::new(100, 20);
        let first = now(turns.take()).flatten().unwrap();
        let _second = now(turns.take()).flatten().unwrap();
        assert!(now(turns.take()).is_none());
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take().await.is_some() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn one_request_always_runs_and_instances_that_grow_make_fewer() {
        let turns = Turns::new(100, 5);
        turns.learn(1000);
        let only = now(turns.take()).flatten().unwrap();
        assert!(now(turns.take()).is_none());
        drop(only);
        assert!(now(turns.take()).flatten().is_some());
    }
}

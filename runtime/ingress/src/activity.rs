//! What a connection's client does, or fails to do: rest without a request, or leave unread what it asked for.
//!
//! ```text
//! accepted ─▶ requests ⇄ none ─60 s─▶ no more are taken ─10 s─▶ closed
//!                └─ a part of an answer waits for its reader ─60 s─▶ closed
//! ```
//!
//! hyper's own time for a head covers HTTP/1.1 alone, and nothing of it covers who does not read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;

/// How long a connection may be without a request, its first bytes and its handshake included.
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// How long a client may leave a part of an answer unread.
pub(crate) const UNREAD: Duration = Duration::from_secs(60);

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There was no request for long.
    Idle,
    /// The client does not read.
    Unread,
}

/// The requests of one connection.
pub(crate) struct Activity {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    next: u64,
    /// When the last request ended.
    ended: Duration,
    /// By request: since when its client has left something unread, in nanoseconds of the monotonic clock; 0 if it has not.
    requests: HashMap<u64, Arc<AtomicU64>>,
}

/// One request under way.
pub(crate) struct Active {
    activity: Arc<Activity>,
    number: u64,
    unread: Arc<AtomicU64>,
}

impl Activity {
    pub(crate) fn new(clock: &Clock) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            state: Mutex::new(State {
                next: 0,
                ended: clock.monotonic(),
                requests: HashMap::new(),
            }),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let unread = Arc::new(AtomicU64::new(0));
        state.requests.insert(number, unread.clone());
        Active {
            activity: self.clone(),
            number,
            unread,
        }
    }

    /// Completes once the connection has to end.
    pub(crate) async fn end(&self) -> End {
        loop {
            match self.due() {
                Ok(end) => return end,
                Err(wait) => self.clock.sleep(wait).await,
            }
        }
    }

    /// Why it has to end, or how long it is not so for certain.
    fn due(&self) -> Result<End, Duration> {
        let now = self.clock.monotonic();
        let state = self.state.lock();
        if state.requests.is_empty() {
            let idle = now.saturating_sub(state.ended);
            return match IDLE.checked_sub(idle).filter(|left| !left.is_zero()) {
                None => Ok(End::Idle),
                Some(left) => Err(left),
            };
        }
        let since = state
            .requests
            .values()
            .map(|unread| unread.load(Ordering::Relaxed));
        let oldest = since.filter(|since| *since > 0).min();
        let unread = oldest.map_or(Duration::ZERO, |since| {
            now.saturating_sub(Duration::from_nanos(since))
        });
        match UNREAD.checked_sub(unread).filter(|left| !left.is_zero()) {
            None => Ok(End::Unread),
            Some(left) => Err(left),
        }
    }
}

impl Active {
    /// A part of the answer was handed out: the client is waited for.
    pub(crate) fn has_sent(&self) {
        let now = self.activity.clock.monotonic().as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.unread.store(now.max(1), Ordering::Relaxed);
    }

    /// The client has taken everything: the backend is waited for.
    pub(crate) fn waits(&self) {
        self.unread.store(0, Ordering::Relaxed);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let mut state = self.activity.state.lock();
        state.requests.remove(&self.number);
        state.ended = self.activity.clock.monotonic();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_rests_or_is_not_read() {
        let clock = Clock::fake(1);
        let activity = Activity::new(&clock);
        let began = clock.monotonic();
        assert_eq!(activity.end().await, End::Idle);
        assert_eq!(clock.monotonic() - began, IDLE);

        let request = activity.begin();
        let busy = tokio::time::timeout(IDLE * 10, activity.end());
        assert!(busy.await.is_err(), "the backend is waited for");
        request.has_sent();
        let began = clock.monotonic();
        assert_eq!(activity.end().await, End::Unread);
        assert!(clock.monotonic() - began <= UNREAD * 2);
        request.waits();
        assert!(activity.due().is_err());
        drop(request);
        let began = clock.monotonic();
        assert_eq!(activity.end().await, End::Idle);
        assert_eq!(clock.monotonic() - began, IDLE);
    }
}

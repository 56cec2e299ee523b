//! What goes on over one connection, and when it has to end.
//!
//! ```text
//! no request for `head` ──────────────▶ leave: no new request ─ nothing in flight for 5 s ─▶ cut
//! an answer of HTTP/2 that its client
//! does not take for `idle`: its guest
//! is dropped ─────────────────────────▶ leave ─ nothing else in flight ────────────────────▶ cut
//! ```
//!
//! A connection of HTTP/1.1 whose client takes nothing fails by itself; a stream of HTTP/2 just stands
//! still, and nothing polls its body until the client goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;

use super::body::AtWork;

/// How long a connection that is to end may have no request in flight: a client has that long to hear of
/// it, or to send the rest of a head.
const FAREWELL: Duration = Duration::from_secs(5);
/// When nothing has a time, it is looked again after this.
const SELDOM: Duration = Duration::from_secs(3600);

/// The requests of one connection. Times are the clock's monotonic ones.
pub(super) struct Traffic {
    clock: Clock,
    /// How long a connection may be open without a request.
    head: Option<Duration>,
    /// How long an answer may stand still.
    idle: Option<Duration>,
    state: Mutex<State>,
}

struct State {
    /// Requests whose answer was not taken to its end.
    open: usize,
    /// Since when there is none, if there is none.
    quiet: Duration,
    /// Answers that may stand still, by a number.
    streams: HashMap<u64, Arc<Stream>>,
    next: u64,
}

/// A request in flight; dropped with its answer.
pub(super) struct Open {
    traffic: Arc<Traffic>,
    stream: Option<u64>,
}

/// The guest behind an answer, and whose turn it is.
#[derive(Default)]
pub(super) struct Stream(pub(super) Mutex<Standing>);

/// How an answer stands.
#[derive(Default)]
pub(super) struct Standing {
    /// The guest, until it has returned or was dropped.
    pub(super) guest: Option<AtWork>,
    /// Since when the last frame waits for the client to take it, if it may.
    pub(super) with_client: Option<Duration>,
    /// The client took too long.
    pub(super) is_cut: bool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing before then.
    Wait(Duration),
    /// No further request; those in flight are answered.
    Leave,
    /// It is dropped with everything on it.
    Cut,
}

impl Traffic {
    pub(super) fn new(clock: Clock, head: Option<Duration>, idle: Option<Duration>) -> Arc<Self> {
        let quiet = clock.monotonic();
        Arc::new(Self {
            clock,
            head,
            idle,
            state: Mutex::new(State {
                open: 0,
                quiet,
                streams: HashMap::new(),
                next: 0,
            }),
        })
    }

    /// A request has come.
    pub(super) fn open(self: &Arc<Self>) -> Open {
        self.state.lock().open += 1;
        Open {
            traffic: self.clone(),
            stream: None,
        }
    }

    /// Waits until the connection has to leave, or to be cut if it is `leaving` since then.
    pub(super) async fn verdict(&self, leaving: Option<Duration>) -> Look {
        loop {
            let now = self.clock.monotonic();
            match self.look(now, leaving) {
                Look::Wait(until) => self.clock.sleep(until.saturating_sub(now)).await,
                done => return done,
            }
        }
    }

    /// Drops the guests whose clients have taken too long, and says what becomes of the connection.
    pub(super) fn look(&self, now: Duration, leaving: Option<Duration>) -> Look {
        let mut dropped = Vec::new();
        let mut next = now + SELDOM;
        let state = self.state.lock();
        let mut cut = 0;
        if let Some(idle) = self.idle {
            for stream in state.streams.values() {
                // One that is locked is at work.
                let Some(mut standing) = stream.0.try_lock() else {
                    continue;
                };
                if let Some(since) = standing.with_client
                    && since + idle <= now
                {
                    standing.is_cut = true;
                    standing.with_client = None;
                    dropped.extend(standing.guest.take());
                } else if let Some(since) = standing.with_client {
                    next = next.min(since + idle);
                }
                cut += usize::from(standing.is_cut);
            }
            next = next.min(now + idle);
        }
        let (open, quiet) = (state.open, state.quiet);
        drop(state);
        for guest in dropped {
            guest.left_standing(self.idle.unwrap_or_default());
        }
        let patience = match leaving {
            Some(since) if open > 0 && open == cut => return if_over(since, next, now, Look::Cut),
            Some(since) => Some((FAREWELL, quiet.max(since), Look::Cut)),
            None if cut > 0 => return Look::Leave,
            None => self.head.map(|head| (head, quiet, Look::Leave)),
        };
        let Some((patience, since, then)) = patience else {
            return Look::Wait(next);
        };
        if open > 0 {
            return Look::Wait(next.min(now + patience));
        }
        if since + patience <= now {
            return then;
        }
        Look::Wait(next.min(since + patience))
    }
}

/// Only answers that were given up are left. Their clients may learn of it first.
fn if_over(since: Duration, next: Duration, now: Duration, then: Look) -> Look {
    let end = since + FAREWELL;
    if end <= now {
        return then;
    }
    Look::Wait(next.min(end))
}

impl Open {
    /// The time by which the connection goes.
    pub(super) fn now(&self) -> Duration {
        self.traffic.clock.monotonic()
    }

    /// Looks after an answer that stands still without anybody polling it.
    pub(super) fn watch(&mut self, stream: &Arc<Stream>) {
        let mut state = self.traffic.state.lock();
        let number = state.next;
        state.next += 1;
        state.streams.insert(number, stream.clone());
        self.stream = Some(number);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = self.now();
        let mut state = self.traffic.state.lock();
        state.open -= 1;
        if state.open == 0 {
            state.quiet = now;
        }
        if let Some(number) = self.stream {
            state.streams.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(60);
    const IDLE: Duration = Duration::from_secs(600);

    fn traffic() -> (Arc<Traffic>, Clock, Duration) {
        let clock = Clock::fake(1);
        let start = clock.monotonic();
        let traffic = Traffic::new(clock.clone(), Some(HEAD), Some(IDLE));
        (traffic, clock, start)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_leaves_and_is_cut_when_it_stays() {
        let (traffic, clock, start) = traffic();
        assert_eq!(traffic.look(start, None), Look::Wait(start + HEAD));
        assert_eq!(traffic.verdict(None).await, Look::Leave);
        assert_eq!(start + HEAD, clock.monotonic());
        let left = clock.monotonic();
        assert_eq!(traffic.verdict(Some(left)).await, Look::Cut);
        assert_eq!(left + FAREWELL, clock.monotonic());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_used_stays_as_long_as_it_is() {
        let (traffic, clock, start) = traffic();
        let open = traffic.open();
        let later = start + HEAD * 100;
        assert!(matches!(traffic.look(later, None), Look::Wait(until) if until > later));
        assert!(matches!(
            traffic.look(later, Some(start)),
            Look::Wait(until) if until > later
        ));
        tokio::time::advance(HEAD).await;
        drop(open);
        // It counts from the end of the last answer.
        assert!(matches!(
            traffic.look(clock.monotonic(), None),
            Look::Wait(_)
        ));
        assert_eq!(traffic.verdict(None).await, Look::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up_and_its_connection_with_it() {
        let (traffic, clock, start) = traffic();
        let (mut open, other) = (traffic.open(), traffic.open());
        let stream = Arc::new(Stream::default());
        open.watch(&stream);
        stream.0.lock().with_client = Some(start);
        assert_eq!(traffic.verdict(None).await, Look::Leave);
        assert_eq!(start + IDLE, clock.monotonic());
        assert!(stream.0.lock().is_cut);
        // Other requests of the connection are answered to their end.
        let (left, later) = (clock.monotonic(), start + IDLE * 9);
        assert!(matches!(traffic.look(later, Some(left)), Look::Wait(_)));
        drop(other);
        assert_eq!(traffic.look(later, Some(left)), Look::Cut);
        // The client takes note of it in time.
        drop(open);
        assert!(matches!(traffic.look(left, Some(left)), Look::Wait(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_cut_that_moves_or_without_time_outs() {
        let (traffic, clock, start) = traffic();
        let mut open = traffic.open();
        let stream = Arc::new(Stream::default());
        open.watch(&stream);
        let later = start + IDLE * 9;
        assert!(matches!(traffic.look(later, None), Look::Wait(_)));
        let patient = Traffic::new(clock, None, None);
        let mut open = patient.open();
        open.watch(&stream);
        stream.0.lock().with_client = Some(start);
        assert!(matches!(patient.look(later, None), Look::Wait(_)));
        drop(open);
        assert!(matches!(patient.look(later, None), Look::Wait(_)));
    }
}

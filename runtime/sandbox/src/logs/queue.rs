//! The bounded queue between guests and the log writer.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{MAX_LINE, Stream};
use crate::attach::Audience;

/// Bytes that wait for the writer; beyond them guests wait.
const CAPACITY: usize = 256 << 10;

/// Formatted log lines on their way to the file; one per run of a container.
pub(crate) struct LogQueue {
    state: Mutex<State>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes the writer that lets lines come together.
    pressed: Notify,
    /// Wakes guests.
    drained: Notify,
    closing: CancellationToken,
    /// Sees what goes into the log.
    audience: Audience,
    clock: Clock,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    closed: bool,
}

impl LogQueue {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        let (filled, drained) = (Notify::new(), Notify::new());
        let pressed = Notify::new();
        Arc::new(Self {
            state: Mutex::default(),
            filled,
            pressed,
            drained,
            closing: CancellationToken::new(),
            audience: Audience::default(),
            clock,
        })
    }

    /// Who is attached to the run.
    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }

    /// True while a guest may write.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.lines.len() < CAPACITY
    }

    /// Bytes that wait for the writer.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().lines.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().lines.is_empty()
    }

    /// Waits for room; returns at once when the queue is closed.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.has_room() {
                return;
            }
            drained.await;
        }
    }

    /// Adds one line, split where it is too long. Lines are taken even when the queue is full: it is
    /// for the streams to ask for room before they accept bytes.
    pub(super) fn push(&self, stream: Stream, line: &[u8], complete: bool) {
        let time = self.clock.now();
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let mut rest = line;
        loop {
            let (part, tag) = if rest.len() > MAX_LINE {
                (&rest[..MAX_LINE], 'P')
            } else {
                (rest, if complete { 'F' } else { 'P' })
            };
            rest = &rest[part.len()..];
            let mut head = String::with_capacity(48);
            write!(head, "{time:.9} {} {tag} ", stream.name()).expect("strings take everything");
            state.lines.extend_from_slice(head.as_bytes());
            state.lines.extend_from_slice(part);
            state.lines.push(b'\n');
            if rest.is_empty() {
                break;
            }
        }
        let is_pressing = state.lines.len() >= CAPACITY / 2;
        drop(state);
        self.filled.notify_one();
        if is_pressing {
            self.pressed.notify_one();
        }
    }

    /// Lets lines come together for a while, unless there are many or no more will come.
    pub(super) async fn linger(&self, time: Duration) {
        if !self.state.lock().closed {
            let _ = tokio::time::timeout(time, self.pressed.notified()).await;
        }
    }

    /// A line of the runtime's own on the guest's stderr.
    pub(crate) fn note(&self, text: &str) {
        for line in text.lines() {
            self.push(Stream::Stderr, line.as_bytes(), true);
        }
    }

    /// Nothing more comes; the writer ends when it has written the rest.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.closing.cancel();
        self.filled.notify_one();
        self.pressed.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until nothing more comes.
    pub(super) async fn closed(&self) {
        self.closing.cancelled().await;
    }

    /// Takes all waiting lines, waiting for some; `None` when closed and empty.
    pub(super) async fn take(&self) -> Option<Vec<u8>> {
        loop {
            let (lines, closed) = {
                let mut state = self.state.lock();
                (std::mem::take(&mut state.lines), state.closed)
            };
            if !lines.is_empty() {
                self.drained.notify_waiters();
                return Some(lines);
            }
            if closed {
                return None;
            }
            // A permit is stored when a line came in between.
            self.filled.notified().await;
        }
    }
}

//! Lists of tasks that wait for one end of a socket.

use std::sync::Arc;
use std::task::{Wake, Waker};

use parking_lot::Mutex;

/// The tasks that wait for one event. The first has its own place, so that the usual case of one
/// waiting task allocates nothing.
#[derive(Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakers {
    /// Adds a task, unless it waits already.
    pub(crate) fn park(&mut self, waker: &Waker) {
        match &self.first {
            None => self.first = Some(waker.clone()),
            Some(first) if first.will_wake(waker) => {}
            Some(_) if self.rest.iter().any(|other| other.will_wake(waker)) => {}
            Some(_) => self.rest.push(waker.clone()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Empties the list, so that its tasks can be woken after a lock was released.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn wake(self) {
        if let Some(first) = self.first {
            first.wake();
        }
        self.rest.into_iter().for_each(Waker::wake);
    }
}

/// Lets many tasks wait where tokio keeps only the last waker: this one is registered there, and
/// passes the call on to all.
#[derive(Default)]
pub(crate) struct SharedWaker(Mutex<Wakers>);

impl SharedWaker {
    pub(crate) fn park(&self, waker: &Waker) {
        self.0.lock().park(waker);
    }
}

impl Wake for SharedWaker {
    fn wake(self: Arc<Self>) {
        let wakers = self.0.lock().take();
        wakers.wake();
    }
}

//! Who moves the bytes of a connection to a backend.
//!
//! A question without a body is sent and answered by whoever waits for the answer: in the task of the client's
//! connection. A task of its own would hand over the parts of an answer one by one, each with a wake-up, and each part
//! would go to the client in a write of its own.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The work that moves a connection's bytes; it ends with this.
pub(super) enum Driver {
    /// It moves on when somebody polls for what comes.
    ///
    /// In a mutex that is never locked: it makes the work sharable, as hyper wants bodies to be.
    AtHand(Mutex<Work>),
    /// A task of its own.
    Apart(#[expect(dead_code, reason = "held for its end")] Task),
    /// The connection has ended.
    Over,
}

impl Driver {
    pub(super) fn at_hand(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::AtHand(Mutex::new(Box::pin(work)))
    }

    pub(super) fn apart(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::Apart(Task(tokio::spawn(work).abort_handle()))
    }

    /// Gives it a task of its own, if it has none.
    pub(super) fn put_apart(&mut self) {
        if let Self::AtHand(work) = std::mem::replace(self, Self::Over) {
            *self = Self::apart(work.into_inner());
        }
    }

    /// What `poll` says, once the bytes that are there have been moved, should that be needed.
    pub(super) fn drive<T>(
        &mut self,
        context: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let polled = poll(context);
        if polled.is_ready() || !self.moves(context) {
            return polled;
        }
        poll(context)
    }

    /// Lets it see what has come over the connection.
    pub(super) fn look(&mut self) {
        self.moves(&mut Context::from_waker(Waker::noop()));
    }

    /// Moves bytes; false if that is somebody else's work.
    fn moves(&mut self, context: &mut Context<'_>) -> bool {
        let Self::AtHand(work) = self else {
            return false;
        };
        if work.get_mut().as_mut().poll(context).is_ready() {
            *self = Self::Over;
        }
        true
    }
}

/// A task that ends with this.
pub(super) struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Work that counts its polls and ends at the third.
    fn counting() -> (Arc<AtomicUsize>, impl Future<Output = ()> + Send + 'static) {
        let polls = Arc::<AtomicUsize>::default();
        let counted = polls.clone();
        let work = std::future::poll_fn(move |context| {
            context.waker().wake_by_ref();
            match counted.fetch_add(1, Ordering::SeqCst) {
                2 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        (polls, work)
    }

    #[test]
    fn bytes_at_hand_move_only_for_somebody_who_waits() {
        let (polls, work) = counting();
        let mut driver = Driver::at_hand(work);
        let mut context = Context::from_waker(Waker::noop());
        let there = driver.drive(&mut context, |_| Poll::Ready(1));
        assert_eq!((there, polls.load(Ordering::SeqCst)), (Poll::Ready(1), 0));
        // What the move has brought is seen at once.
        let seen = polls.clone();
        let brought = driver.drive(&mut context, |_| match seen.load(Ordering::SeqCst) {
            0 => Poll::Pending,
            polls => Poll::Ready(polls),
        });
        assert_eq!(brought, Poll::Ready(1));
        driver.look();
        driver.look();
        assert!(matches!(driver, Driver::Over));
        driver.look();
        assert_eq!(polls.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn work_apart_goes_on_by_itself_and_ends_with_its_driver() {
        let (polls, work) = counting();
        let mut driver = Driver::at_hand(work);
        driver.put_apart();
        while polls.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        let held = Arc::new(());
        let theirs = held.clone();
        let mut endless = Driver::at_hand(async move {
            let _held = theirs;
            std::future::pending().await
        });
        endless.put_apart();
        drop(endless);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}

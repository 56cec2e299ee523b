//! Asking a run to end, and by when.

use std::time::Duration;

use coracle_clock::Clock;
use tokio::sync::watch;

/// The side that asks.
pub(crate) struct StopHandle {
    deadline: watch::Sender<Option<Duration>>,
    clock: Clock,
}

/// The side that is asked.
#[derive(Clone)]
pub(crate) struct StopSignal {
    deadline: watch::Receiver<Option<Duration>>,
    clock: Clock,
}

impl StopHandle {
    pub(crate) fn new(clock: Clock) -> (Self, StopSignal) {
        let (sender, receiver) = watch::channel(None);
        let signal = StopSignal {
            deadline: receiver,
            clock: clock.clone(),
        };
        (
            Self {
                deadline: sender,
                clock,
            },
            signal,
        )
    }

    /// Asks for an end within `grace`. A later call can shorten the grace, never lengthen it.
    pub(crate) fn stop(&self, grace: Duration) {
        let new = self.clock.monotonic().saturating_add(grace);
        self.deadline.send_if_modified(|deadline| {
            let earlier = deadline.is_none_or(|old| new < old);
            if earlier {
                *deadline = Some(new);
            }
            earlier
        });
    }
}

impl StopSignal {
    /// Waits until an end is asked for.
    pub(crate) async fn asked(&mut self) {
        if self.deadline.wait_for(Option::is_some).await.is_err() {
            // The runtime that could ask is gone; so will this be.
            std::future::pending().await
        }
    }

    /// Waits until the grace is over; never returns before an end is asked for.
    pub(crate) async fn grace_over(&mut self) {
        self.asked().await;
        loop {
            let deadline = (*self.deadline.borrow_and_update()).unwrap_or_default();
            let left = deadline.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                changed = self.deadline.changed() => if changed.is_err() { return },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_grace_can_be_shortened_only() {
        let clock = Clock::fake(1);
        let (handle, mut signal) = StopHandle::new(clock.clone());
        handle.stop(Duration::from_secs(30));
        let waiting = tokio::spawn(async move { signal.grace_over().await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        handle.stop(Duration::from_secs(60));
        handle.stop(Duration::from_secs(2));
        waiting.await.unwrap();
        assert_eq!(clock.monotonic().as_secs(), 3);
    }
}

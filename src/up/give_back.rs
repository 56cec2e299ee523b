//! Gives back the memory that only a time of much work took: the start, and whenever images are compiled.
//!
//! ```text
//! start is over ─▶ give back ─▶ quiet for 5 s ─▶ give back ─▶ an image is compiled or loaded ─┐
//!                                    ▲                                                       │
//!                                    └───────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use anyhow::Result;
use coracle_clock::Clock;
use coracle_cri::{ImageStep, RuntimeEvent};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::{allocator, program_pages};

/// What follows such work has passed by then: statuses, Events, rounds of controllers.
const QUIET: Duration = Duration::from_secs(5);

/// What the node's runtime does, if there is one.
type Events = Option<Receiver<RuntimeEvent>>;

/// Gives back what was freed between blocks in use, and unmaps code, off the async threads.
pub(super) fn now() {
    tokio::task::spawn_blocking(|| {
        allocator::give_back_now();
        program_pages::give_back_now();
    });
}

/// Calls `give_back` at once and whenever work has been over for a while, for as long as it is polled: it has the type of
/// what a session comes to, and comes to nothing.
pub(super) async fn keep(clock: &Clock, mut events: Events, give_back: impl Fn()) -> Result<()> {
    give_back();
    loop {
        loop {
            tokio::select! {
                () = clock.sleep(QUIET) => break,
                () = work(&mut events) => {}
            }
        }
        give_back();
        work(&mut events).await;
    }
}

/// Waits until an image is compiled or loaded.
async fn work(events: &mut Events) {
    loop {
        let Some(receiver) = events else {
            return std::future::pending().await;
        };
        match receiver.recv().await {
            Ok(RuntimeEvent::ImageProgress {
                step: ImageStep::Compiling { .. } | ImageStep::Ready,
                ..
            }) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *events = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::broadcast;

    use super::*;

    fn event(step: ImageStep) -> RuntimeEvent {
        RuntimeEvent::ImageProgress {
            image: "app".to_owned(),
            step,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_after_the_start_and_after_compiling() {
        let clock = Clock::fake(1);
        let (sender, events) = broadcast::channel(8);
        let given = Arc::new(AtomicUsize::new(0));
        let (counted, own) = (given.clone(), clock.clone());
        let task = tokio::spawn(async move {
            keep(&own, Some(events), || {
                counted.fetch_add(1, Ordering::Relaxed);
            })
            .await
        });
        let times = async |rest: Duration| {
            clock.sleep(rest).await;
            given.swap(0, Ordering::Relaxed)
        };
        let second = Duration::from_secs(1);
        assert_eq!(times(second).await, 1, "the start is over");
        assert_eq!(times(10 * QUIET).await, 1, "what follows it is over");
        let _ = sender.send(event(ImageStep::Pulling));
        assert_eq!(times(10 * QUIET).await, 0, "nothing was compiled");
        for _ in 0..3 {
            let _ = sender.send(event(ImageStep::Compiling { bytes: 1 }));
            assert_eq!(times(QUIET - second).await, 0, "more may come");
        }
        assert_eq!(times(2 * QUIET).await, 1);
        let _ = sender.send(event(ImageStep::Ready));
        drop(sender);
        assert_eq!(times(2 * QUIET).await, 1);
        assert_eq!(times(10 * QUIET).await, 0, "nothing can come any more");
        task.abort();
    }
}

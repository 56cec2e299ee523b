//! A task that wakes itself while it runs goes on at once, without the runtime hearing of it.
//!
//! hyper hands a request's body over by a channel within the task of a connection: whoever takes something out wakes the
//! one who put it in, which is the task that runs. The runtime puts such a task at the end of its
//! queue and wakes another thread to help. That one finds nothing to do, or takes the connection away to where none of its
//! memory is at hand, with every request that has a body.
//!
//! ```text
//! rests ──polled──▶ runs ──woken──▶ woken ──ended its poll──▶ runs again, up to ROUNDS times
//!   ▲                │ ended its poll                            │ ROUNDS are over
//!   └────────────────┴───────────────────────────────────────────┘ and the runtime is told
//! ```

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// How often a task is polled before others have their turn.
const ROUNDS: u8 = 4;

const RESTS: u8 = 0;
const RUNS: u8 = 1;
const WOKEN: u8 = 2;

/// Who is woken: the task itself if it runs, or else the runtime.
struct Inner {
    phase: AtomicU8,
    runtime: AtomicWaker,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let told = self
            .phase
            .compare_exchange(RUNS, WOKEN, Ordering::SeqCst, Ordering::SeqCst);
        if told == Err(RESTS) {
            self.runtime.wake();
        }
    }
}

/// Runs `task`; it is polled again at once when it was woken during a poll, by itself or others.
pub async fn awake<F: Future>(task: F) -> F::Output {
    let mut task = pin!(task);
    let inner = Arc::new(Inner {
        phase: AtomicU8::new(RESTS),
        runtime: AtomicWaker::new(),
    });
    let waker = Waker::from(Arc::clone(&inner));
    poll_fn(|context| {
        inner.runtime.register(context.waker());
        for _ in 0..ROUNDS {
            // Whatever woke it before is seen by the poll that comes.
            inner.phase.store(RUNS, Ordering::SeqCst);
            let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
            let woken = inner.phase.swap(RESTS, Ordering::SeqCst) == WOKEN;
            if polled.is_ready() || !woken {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often the runtime is told.
    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls once; returns what came of it, how often the runtime was told, and how often the task was polled.
    fn poll_once(
        mut task: impl FnMut(&mut Context<'_>, usize) -> Poll<()>,
    ) -> (Poll<()>, usize, usize) {
        let told = Arc::<Told>::default();
        let waker = Waker::from(Arc::clone(&told));
        let mut polls = 0;
        let polled = {
            let mut running = pin!(awake(poll_fn(|context| {
                polls += 1;
                task(context, polls)
            })));
            running.as_mut().poll(&mut Context::from_waker(&waker))
        };
        (polled, told.0.load(Ordering::SeqCst), polls)
    }

    #[test]
    fn a_task_that_wakes_itself_goes_on_and_the_runtime_is_not_told() {
        let once = poll_once(|context, polls| match polls {
            1 => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(()),
        });
        assert_eq!(once, (Poll::Ready(()), 0, 2));
        let rests = poll_once(|context, polls| {
            if polls == 1 {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        });
        assert_eq!(rests, (Poll::Pending, 0, 2));
    }

    #[test]
    fn a_task_that_never_rests_lets_others_have_their_turn() {
        let busy = poll_once(|context, _| {
            context.waker().wake_by_ref();
            Poll::Pending
        });
        assert_eq!(busy, (Poll::Pending, 1, usize::from(ROUNDS)));
    }

    #[test]
    fn a_task_at_rest_is_woken_by_others() {
        let (told, mut kept) = (Arc::<Told>::default(), None);
        let waker = Waker::from(Arc::clone(&told));
        {
            let mut running = pin!(awake(poll_fn(|context| {
                kept = Some(context.waker().clone());
                Poll::<()>::Pending
            })));
            let polled = running.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        assert_eq!(told.0.load(Ordering::SeqCst), 0);
        kept.expect("it was polled").wake();
        assert_eq!(told.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_is_lost_between_threads() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::spawn(async move {
            for number in 0..10_000 {
                sender.send(number).await.expect("somebody receives");
            }
        });
        let received = tokio::spawn(awake(async move {
            let mut count = 0;
            while receiver.recv().await.is_some() {
                count += 1;
            }
            count
        }));
        assert_eq!(received.await.expect("no panic"), 10_000);
        sending.await.expect("no panic");
    }
}

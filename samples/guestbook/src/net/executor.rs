//! Runs futures on one thread and sleeps in `wasi:io/poll` while none can go on.
//!
//! ```text
//! poll the woken tasks ──▶ all pending? ──▶ host: poll(everything that is waited for) ──▶ wake those ──┐
//!         ▲                                                                                            │
//!         └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{Pollable, poll};

thread_local! {
    static REACTOR: RefCell<Reactor> = const { RefCell::new(Reactor { next: 0, waits: BTreeMap::new() }) };
    static SPAWNED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

/// What the tasks wait for.
struct Reactor {
    next: u64,
    waits: BTreeMap<u64, (Pollable, Waker)>,
}

/// A future that runs beside the main one.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
}

/// Set when a task can go on.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Runs `main` to its end, and the spawned tasks until then.
pub fn block_on<F: Future>(main: F) -> F::Output {
    let mut main = pin!(main);
    let woken = Woken::new();
    let waker = Waker::from(woken.clone());
    let mut tasks: Vec<Task> = Vec::new();
    loop {
        let mut progress = false;
        if woken.take() {
            progress = true;
            if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
        }
        tasks.append(&mut SPAWNED.take());
        tasks.retain_mut(|task| {
            if !task.woken.take() {
                return true;
            }
            progress = true;
            let waker = Waker::from(task.woken.clone());
            task.future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        });
        if !progress {
            wait();
        }
    }
}

/// Starts a task that runs beside the main future. The caller bounds how many there are.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    SPAWNED.with_borrow_mut(|tasks| {
        tasks.push(Task {
            future: Box::pin(future),
            woken: Woken::new(),
        })
    });
}

/// Waits until the host calls the pollable ready.
pub fn ready(pollable: Pollable) -> Ready {
    Ready {
        state: State::New(pollable),
    }
}

/// Waits until the host calls one of the pollables ready.
pub async fn any_ready(pollables: impl IntoIterator<Item = Pollable>) {
    let mut all: Vec<Ready> = pollables.into_iter().map(ready).collect();
    poll_fn(|cx| {
        // What is not polled is not waited for, so none is left out.
        let polled = all.iter_mut().map(|one| Pin::new(one).poll(cx).is_ready());
        match polled.fold(false, |any, is_ready| any | is_ready) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await
}

/// Waits for a while.
pub async fn sleep(duration: Duration) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    ready(monotonic_clock::subscribe_duration(nanos)).await;
}

/// The future's output, or `None` when it takes longer than `limit`; it is dropped then.
pub async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut limit = pin!(sleep(limit));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => limit.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Blocks the guest until at least one thing that is waited for is ready.
fn wait() {
    REACTOR.with_borrow_mut(|reactor| {
        let ids: Vec<u64> = reactor.waits.keys().copied().collect();
        let pollables: Vec<&Pollable> = reactor
            .waits
            .values()
            .map(|(pollable, _)| pollable)
            .collect();
        assert!(
            !pollables.is_empty(),
            "every task waits, and none of them for the host"
        );
        for index in poll(&pollables) {
            if let Some((_, waker)) = reactor.waits.remove(&ids[index as usize]) {
                waker.wake();
            }
        }
    });
}

/// See [`ready`]. Dropping it gives the pollable back, which must happen before its stream or socket is dropped.
pub struct Ready {
    state: State,
}

enum State {
    New(Pollable),
    Waiting(u64),
    Done,
}

impl Future for Ready {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        REACTOR.with_borrow_mut(
            |reactor| match std::mem::replace(&mut self.state, State::Done) {
                State::New(pollable) => {
                    let id = reactor.next;
                    reactor.next += 1;
                    reactor.waits.insert(id, (pollable, cx.waker().clone()));
                    self.state = State::Waiting(id);
                    Poll::Pending
                }
                State::Waiting(id) => match reactor.waits.get_mut(&id) {
                    Some((_, waker)) => {
                        waker.clone_from(cx.waker());
                        self.state = State::Waiting(id);
                        Poll::Pending
                    }
                    None => Poll::Ready(()), // The reactor has seen it ready and let it go.
                },
                State::Done => Poll::Ready(()),
            },
        )
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let State::Waiting(id) = self.state {
            REACTOR.with_borrow_mut(|reactor| reactor.waits.remove(&id));
        }
    }
}

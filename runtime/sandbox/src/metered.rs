//! A guest's future with its processor time measured and limited, on the threads where it belongs.
//!
//! ```text
//! polled in its task ─▶ its container is heavy ─▶ goes on in a task of the heavy guests' threads
//!         ▲                                                           │
//!         └──────────── ended, or the container is light again ◀──────┘
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::cpu::CpuShare;
use crate::handover::Handover;
use crate::stopwatch::Stopwatch;
use crate::weight::{Claim, hold, settle};

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The work of a guest.
///
/// Dropped, it ends: at once where it is polled, at the end of its slice on the threads of heavy guests, whose tasks
/// `away` tracks.
pub(crate) struct Metered<T> {
    place: Place<T>,
    heavy: Handle,
    away: TaskTracker,
}

enum Place<T> {
    Here(Slices<T>),
    Away(Task<T>),
    /// Between two places, or over.
    Nowhere,
}

/// A task on the threads of heavy guests, and how it comes back.
struct Task<T>(JoinHandle<Back<T>>);

enum Back<T> {
    Done(T),
    /// Its container is light again.
    GoesOn(Slices<T>),
}

/// The work, slice by slice.
struct Slices<T> {
    work: Work<T>,
    cpu: Arc<CpuShare>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Its part in the contest for the guests' threads, while it wants to run.
    claim: Option<Claim>,
    /// Its place among guests that wake one another.
    handover: Handover,
}

impl<T: Send + 'static> Metered<T> {
    pub(crate) fn new(work: Work<T>, cpu: Arc<CpuShare>, heavy: Handle, away: TaskTracker) -> Self {
        let handover = Handover::new(cpu.clock().clone());
        let slices = Slices {
            work,
            cpu,
            pause: None,
            claim: None,
            handover,
        };
        Self {
            place: Place::Here(slices),
            heavy,
            away,
        }
    }
}

impl<T: Send + 'static> Future for Metered<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        loop {
            match &mut this.place {
                Place::Here(slices) if !slices.cpu.is_heavy() => {
                    let done = ready!(slices.poll(context));
                    this.place = Place::Nowhere;
                    return Poll::Ready(done);
                }
                Place::Here(_) => {
                    let Place::Here(slices) = std::mem::replace(&mut this.place, Place::Nowhere)
                    else {
                        unreachable!("it was there")
                    };
                    let task = this.away.spawn_on(go_on(slices), &this.heavy);
                    this.place = Place::Away(Task(task));
                }
                Place::Away(task) => match ready!(Pin::new(&mut task.0).poll(context)) {
                    Ok(Back::GoesOn(slices)) => this.place = Place::Here(slices),
                    Ok(Back::Done(done)) => {
                        this.place = Place::Nowhere;
                        return Poll::Ready(done);
                    }
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // The threads end, and those of the caller with them.
                    Err(_) => this.place = Place::Nowhere,
                },
                Place::Nowhere => return Poll::Pending,
            }
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs on for as long as the container is heavy.
async fn go_on<T>(slices: Slices<T>) -> Back<T> {
    let mut slices = Some(slices);
    std::future::poll_fn(move |context| {
        let here = slices.as_mut().expect("polled until it is ready");
        if here.cpu.is_heavy() {
            // It may be in one call of the host for long, which nothing interrupts.
            hold(&mut here.claim, here.cpu.weight());
            return here.poll(context).map(Back::Done);
        }
        let slices = slices.take().expect("it is there");
        Poll::Ready(Back::GoesOn(slices))
    })
    .await
}

impl<T> Slices<T> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        if self.handover.lets_others_go_first() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.handover.register(context.waker());
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    self.claim = None;
                    return Poll::Pending;
                }
                self.pause = None;
            }
            match self.cpu.pause() {
                Some(pause) => self.pause = Some(Box::pin(tokio::time::sleep(pause))),
                None => break,
            }
        }
        let running = (self.cpu.engine().ticker.enter(), self.handover.run());
        let aside = self.handover.take_aside();
        let stopwatch = Stopwatch::start(self.cpu.clock());
        if !aside.is_zero() {
            let now = stopwatch.started();
            let waited = now.saturating_sub(self.handover.waits_since());
            self.cpu.engine().contest.waited(now, waited);
        }
        let mut context = Context::from_waker(self.handover.waker());
        let outcome = self.work.as_mut().poll(&mut context);
        let (used, now) = stopwatch.stop(self.cpu.clock());
        drop(running);
        self.handover.count(used, now);
        // One that waits for something else than a thread takes no part.
        let wants_more = settle(&mut self.claim, self.cpu.weight());
        self.cpu.count(used + aside, wants_more);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use coracle_clock::Clock;
    use parking_lot::Mutex;
    use tokio::sync::{Notify, oneshot};

    use super::*;
    use crate::engine::GuestEngine;
    use crate::logs::{FloodRate, LogRate};
    use crate::standing::PERIOD;
    use crate::threads::{GuestRuntime, GuestThreads, thread_cpu_time};
    use crate::weight::take_slice_away;

    fn log_rate() -> Arc<LogRate> {
        let clock = Clock::system();
        Arc::new(LogRate::new(clock.clone(), FloodRate::new(&clock)))
    }

    /// A node with one thread of each kind.
    struct Node {
        runtime: GuestRuntime,
        engine: Arc<GuestEngine>,
        away: TaskTracker,
    }

    impl Node {
        fn new() -> Self {
            Self::with_threads(1)
        }

        fn with_threads(threads: usize) -> Self {
            let engine = Arc::new(GuestEngine::new(16).unwrap());
            engine.contest.set_threads(threads);
            Self {
                runtime: GuestRuntime::start(threads).unwrap(),
                engine,
                away: TaskTracker::new(),
            }
        }

        fn threads(&self) -> GuestThreads {
            self.runtime.threads()
        }

        fn share(&self, weight: u64) -> Arc<CpuShare> {
            self.share_of(weight, log_rate())
        }

        fn share_of(&self, weight: u64, log_rate: Arc<LogRate>) -> Arc<CpuShare> {
            let (engine, clock) = (self.engine.clone(), Clock::system());
            CpuShare::new(engine, clock, weight, None, Arc::default(), log_rate)
        }

        fn meter<T: Send + 'static>(
            &self,
            cpu: &Arc<CpuShare>,
            work: impl Future<Output = T> + Send + 'static,
        ) -> Metered<T> {
            let heavy = self.threads().heavy;
            Metered::new(Box::pin(work), cpu.clone(), heavy, self.away.clone())
        }
    }

    /// Uses up one slice after the other until `done` says so of the thread that it is on.
    async fn spin(done: impl Fn(&str) -> bool) {
        std::future::poll_fn(|context| {
            let clock = Clock::system();
            let start = thread_cpu_time(&clock);
            while thread_cpu_time(&clock) < start + Duration::from_millis(1) {}
            take_slice_away();
            context.waker().wake_by_ref();
            match done(thread_name().as_str()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    fn thread_name() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    const HEAVY: &str = "guest-heavy";

    #[tokio::test]
    async fn a_guest_beyond_its_share_goes_on_among_its_like_until_it_wants_no_more() {
        let node = Node::new();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let neighbour = async move {
            let stopped = Mutex::new(&mut stopped);
            spin(|_| {
                !matches!(
                    stopped.lock().try_recv(),
                    Err(oneshot::error::TryRecvError::Empty)
                )
            })
            .await;
        };
        let neighbour = node.meter(&node.share(1000), neighbour);
        let neighbour = node.threads().light.spawn(neighbour);
        let greedy = async {
            spin(|thread| thread == HEAVY).await;
            // Whole periods, of which it uses nothing: how long a machine takes to look again is no matter, as its share
            // of each is but 0.1 ms.
            tokio::time::sleep(PERIOD * 3).await;
            thread_name()
        };
        let greedy = node.meter(&node.share(1), greedy);
        let thread = node.threads().light.spawn(greedy).await.unwrap();
        assert_eq!(thread, "guest");
        drop(stop);
        neighbour.await.unwrap();
    }

    #[tokio::test]
    async fn a_heavy_guest_wants_a_thread_whenever_it_is_polled() {
        let node = Node::new();
        let neighbour = node.meter(&node.share(1000), spin(|_| false));
        let neighbour = node.threads().light.spawn(neighbour);
        let share = node.share(1);
        let weight = share.weight().clone();
        let greedy = async move {
            spin(|thread| thread == HEAVY).await;
            // The poll that ends first was interrupted, the next one not; the third may have a long call.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            (thread_name(), weight.is_claimed())
        };
        let greedy = node.meter(&share, greedy);
        let (thread, is_claimed) = node.threads().light.spawn(greedy).await.unwrap();
        // A machine that stops for whole periods makes it light.
        assert_eq!(is_claimed, thread == HEAVY);
        assert!(!share.weight().is_claimed(), "it has ended");
        neighbour.abort();
    }

    /// Two guests that do nothing but wake each other, until told to stop.
    fn talk(node: &Node, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<u32>> {
        let pair = [Arc::new(Notify::new()), Arc::new(Notify::new())];
        pair[0].notify_one();
        let guests = [(0, 1), (1, 0)].map(|(own, other)| {
            let (own, other, stop) = (pair[own].clone(), pair[other].clone(), stop.clone());
            let work = async move {
                let mut heard = 0;
                while !stop.load(Ordering::SeqCst) {
                    own.notified().await;
                    heard += 1;
                    other.notify_one();
                }
                heard
            };
            let work = node.meter(&node.share(1000), work);
            node.threads().light.spawn(work)
        });
        guests.into()
    }

    #[tokio::test]
    async fn guests_that_talk_to_each_other_let_others_have_their_turn() {
        let node = Node::new();
        let stop = Arc::<AtomicBool>::default();
        let pair = talk(&node, &stop);
        // At the end of the thread's own queue, again and again.
        let mut turns = 0;
        let other = std::future::poll_fn(move |context| {
            turns += 1;
            context.waker().wake_by_ref();
            match turns {
                100 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        let other = node.threads().light.spawn(other);
        let plain = node.meter(&node.share(1000), tokio::task::yield_now());
        let plain = node.threads().light.spawn(plain);
        other.await.unwrap();
        plain.await.unwrap();
        stop.store(true, Ordering::SeqCst);
        for guest in pair {
            guest.await.unwrap();
        }
    }

    #[tokio::test]
    async fn no_wake_between_guests_is_lost() {
        let node = Node::with_threads(2);
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = async move {
            for number in 0..10_000 {
                sender.send(number).await.expect("somebody receives");
            }
        };
        let receiving = async move {
            let mut count = 0;
            while receiver.recv().await.is_some() {
                count += 1;
            }
            count
        };
        let light = node.threads().light;
        let sending = light.spawn(node.meter(&node.share(1000), sending));
        let received = light.spawn(node.meter(&node.share(1000), receiving));
        assert_eq!(received.await.unwrap(), 10_000);
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn a_guest_that_floods_its_log_goes_on_among_the_heavy_ones() {
        let node = Node::new();
        let log_rate = log_rate();
        let share = node.share_of(1000, log_rate.clone());
        let work = async move {
            let before = thread_name();
            log_rate.spend(1 << 30);
            spin(|thread| thread == HEAVY).await;
            before
        };
        let work = node.meter(&share, work);
        assert_eq!(node.threads().light.spawn(work).await.unwrap(), "guest");
    }

    /// Has another thread use processor time, again and again, until `done` says so of the thread that it waits on.
    async fn work_aside(done: impl Fn(&str) -> bool) {
        loop {
            let clock = Clock::system();
            let work = move || {
                let start = thread_cpu_time(&clock);
                while thread_cpu_time(&clock) < start + Duration::from_millis(1) {}
            };
            tokio::task::spawn_blocking(work).await.unwrap();
            if done(thread_name().as_str()) {
                return;
            }
        }
    }

    #[tokio::test]
    async fn what_blocking_threads_do_for_a_guest_is_its_own() {
        let node = Node::new();
        let (share, other) = (node.share(1000), node.share(1000));
        let calls = std::sync::atomic::AtomicU32::new(0);
        let work = node.meter(&share, async move {
            work_aside(|_| calls.fetch_add(1, Ordering::SeqCst) == 19).await;
            // What the last call used is counted with the poll that follows it.
            tokio::task::yield_now().await;
        });
        let light = node.threads().light;
        light.spawn(work).await.unwrap();
        let used = share.used();
        assert!(used >= Duration::from_millis(20), "{used:?}");
        light
            .spawn(node.meter(&other, tokio::task::yield_now()))
            .await
            .unwrap();
        assert!(
            other.used() < Duration::from_millis(20),
            "{:?}",
            other.used()
        );
    }

    #[tokio::test]
    async fn guests_that_keep_blocking_threads_busy_go_on_among_the_heavy_ones() {
        let node = Node::new();
        let modest = node.meter(&node.share(1000), work_aside(|_| false));
        let modest = node.threads().light.spawn(modest);
        let greedy = node.meter(&node.share(1), work_aside(|thread| thread == HEAVY));
        node.threads().light.spawn(greedy).await.unwrap();
        modest.abort();
    }

    #[tokio::test]
    async fn work_that_is_dropped_is_gone_wherever_it_was() {
        let node = Node::new();
        let neighbour = node.meter(&node.share(1000), spin(|_| false));
        let neighbour = node.threads().light.spawn(neighbour);
        let (seen, heavy) = oneshot::channel();
        let seen = Mutex::new(Some(seen));
        let held = Arc::new(());
        let theirs = held.clone();
        let greedy = async move {
            let _held = theirs;
            spin(|thread| {
                if thread == HEAVY
                    && let Some(seen) = seen.lock().take()
                {
                    let _ = seen.send(());
                }
                false
            })
            .await;
        };
        let greedy = node.meter(&node.share(1), greedy);
        let greedy = node.threads().light.spawn(greedy);
        heavy.await.unwrap();
        greedy.abort();
        assert!(greedy.await.unwrap_err().is_cancelled());
        node.away.close();
        neighbour.abort();
        let _ = neighbour.await;
        node.away.wait().await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_panic_among_the_heavy_ones_is_one_of_the_work() {
        let node = Node::new();
        let neighbour = node.meter(&node.share(1000), spin(|_| false));
        let neighbour = node.threads().light.spawn(neighbour);
        let greedy = async {
            spin(|thread| thread == HEAVY).await;
            panic!("on purpose");
        };
        let greedy = node.meter(&node.share(1), greedy);
        let ended: Result<(), _> = node.threads().light.spawn(greedy).await;
        assert!(ended.unwrap_err().is_panic());
        neighbour.abort();
    }
}

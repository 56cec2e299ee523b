//! Threads for guests and for compiling, kept apart from the threads of the node itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use tokio::runtime::Handle;

use crate::stopwatch::works_aside;

/// How much nicer than the node its guests are: the control plane answers first.
const GUEST_NICENESS: i32 = 5;
/// Threads that do what blocks for guests, files above all. They are many, and a guest's part is known when it is done.
const BLOCKING_NICENESS: i32 = 15;
/// Guests that use more than their share, and compiling, yield to everybody.
const HEAVY_NICENESS: i32 = 19;
/// How long the nicer threads keep their core when another one wakes, the least that Linux takes. Without it that is the
/// end of one of the system's slices, up to 3 ms, however nice the thread is.
///
/// Of those that may run, Linux takes the one whose slice ends first in virtual time, which goes the faster the nicer a
/// thread is (EEVDF, Documentation/scheduler/sched-eevdf.rst). 0.1 ms are 6.8 ms for a thread of niceness 19, and 2.8 ms
/// at 15; an ordinary thread that wakes has 0.7 to 3 ms of its own, by the number of processors, and so mostly comes first.
/// That is among the threads of one group (cgroup, or session with autogroup): groups share as if they were threads.
const NICE_SLICE: Duration = Duration::from_micros(100);

/// The tokio runtimes of the guests; they shut down in the background when dropped, so that they may be
/// dropped from anywhere.
pub(crate) struct GuestRuntime {
    light: Background,
    heavy: Background,
}

/// Where guests run.
#[derive(Clone, Debug)]
pub(crate) struct GuestThreads {
    /// Those that stay within their share, and everything around guests.
    pub(crate) light: Handle,
    /// Those that use more, while others want to run.
    pub(crate) heavy: Handle,
}

impl GuestRuntime {
    /// So many threads for each.
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        Ok(Self {
            light: Background::start("guest", threads, |thread| match thread {
                Thread::Worker => lower_priority(GUEST_NICENESS),
                Thread::Blocking => yield_to_others(BLOCKING_NICENESS),
            })?,
            heavy: Background::start("guest-heavy", threads, |_| {
                yield_to_others(HEAVY_NICENESS);
            })?,
        })
    }

    pub(crate) fn threads(&self) -> GuestThreads {
        GuestThreads {
            light: self.light.handle().clone(),
            heavy: self.heavy.handle().clone(),
        }
    }
}

struct Background(Option<tokio::runtime::Runtime>);

/// What a thread of a runtime does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// It runs tasks.
    Worker,
    /// It runs what blocks.
    Blocking,
}

impl Background {
    fn start(
        name: &str,
        threads: usize,
        prepare: impl Fn(Thread) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let started = Arc::new(AtomicUsize::new(0));
        let count = started.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .on_thread_start(move || {
                let thread = match count.fetch_add(1, Ordering::Relaxed) {
                    before if before < threads => Thread::Worker,
                    _ => Thread::Blocking,
                };
                if thread == Thread::Blocking {
                    works_aside();
                }
                prepare(thread);
            })
            // A guest may use its whole slice at every poll. Looking for timers, sockets and wake-ups
            // from other threads after each poll bounds what a busy guest costs its neighbours.
            .event_interval(1)
            .global_queue_interval(1)
            .enable_all()
            .build()?;
        // The first to start are the workers: nobody has anything that blocks before they are there.
        while started.load(Ordering::Relaxed) < threads {
            std::thread::yield_now();
        }
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("taken only by drop").handle()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A pool of threads for the compiler.
pub(crate) fn compiler_pool(
    threads: usize,
) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|index| format!("compile-{index}"))
        .start_handler(|_| yield_to_others(HEAVY_NICENESS))
        // Without a handler a panic of the compiler would end the process.
        .panic_handler(|_| tracing::error!("the compiler panicked"))
        .build()
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu_time(clock: &Clock) -> Duration {
    #[cfg(unix)]
    {
        // Reading it cannot fail for the calling thread; the wall clock is not needed.
        let _ = clock;
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
    // Elsewhere the time of a poll stands in for it, which counts waits for a core as use.
    #[cfg(not(unix))]
    clock.monotonic()
}

/// Time since some beginning, whatever `clock` plays: what a thread does is always real.
pub(crate) fn monotonic(clock: &Clock) -> Duration {
    #[cfg(unix)]
    {
        // Reading it cannot fail.
        let _ = clock;
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::new(
            time.tv_sec.unsigned_abs(),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
    #[cfg(not(unix))]
    clock.monotonic()
}

/// Makes the calling thread nicer, and lets it be interrupted soon.
fn yield_to_others(niceness: i32) {
    lower_priority(niceness);
    shorten_slices(niceness, NICE_SLICE);
}

/// Makes the calling thread nicer. Only Linux has niceness of single threads; elsewhere, and where
/// it is forbidden, guests run at normal priority.
fn lower_priority(niceness: i32) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, niceness) {
        tracing::debug!(%error, "thread keeps its priority");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

/// Lets the system look for a better use of the calling thread's core after each `slice`. Linux does since 6.12
/// (`sched_runtime` of an ordinary thread, sched_setattr(2)); before, and elsewhere, slices stay as they are.
fn shorten_slices(niceness: i32, slice: Duration) {
    #[cfg(target_os = "linux")]
    {
        let attributes = libc::sched_attr {
            size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
            sched_policy: libc::SCHED_OTHER.unsigned_abs(),
            sched_flags: 0,
            sched_nice: niceness,
            sched_priority: 0,
            sched_runtime: u64::try_from(slice.as_nanos()).unwrap_or(0),
            sched_deadline: 0,
            sched_period: 0,
        };
        let (own, flags) = (0, 0);
        #[expect(unsafe_code, reason = "no safe binding of sched_setattr exists")]
        // SAFETY: the structure is alive during the call, says its own size, and is only read.
        let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, own, &attributes, flags) };
        if outcome != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "thread keeps its slices");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (niceness, slice);
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn the_more_a_thread_may_take_the_nicer_it_is() {
        if niceness() > GUEST_NICENESS {
            return; // Nobody but root may be less nice than before.
        }
        let runtime = GuestRuntime::start(2).unwrap();
        let GuestThreads { light, heavy } = runtime.threads();
        for (handle, expected) in [
            (light, [GUEST_NICENESS, BLOCKING_NICENESS]),
            (heavy, [HEAVY_NICENESS, HEAVY_NICENESS]),
        ] {
            let found = handle.block_on(async {
                let worker = tokio::spawn(async { niceness() });
                let blocking = tokio::task::spawn_blocking(niceness);
                [worker.await.unwrap(), blocking.await.unwrap()]
            });
            assert_eq!(found, expected);
        }
        let compiler = compiler_pool(1).unwrap();
        assert_eq!(compiler.install(niceness), HEAVY_NICENESS);
    }
}

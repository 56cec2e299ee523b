//! Threads for guests and for compiling, kept apart from the threads of the node itself.

use std::time::Duration;

use coracle_clock::Clock;
use tokio::runtime::Handle;

/// How much nicer than the node its guests are: the control plane answers first.
const GUEST_NICENESS: i32 = 5;
/// Guests that use more than their share yield to everybody.
const HEAVY_NICENESS: i32 = 15;
/// How long such a thread keeps its core when another one wakes, the least that Linux takes. Without it that is the end
/// of one of the system's slices, up to 3 ms, however nice the thread is.
const HEAVY_SLICE: Duration = Duration::from_micros(100);
/// Compiling yields to everything else.
const COMPILER_NICENESS: i32 = 15;

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
            light: Background::start("guest", threads, || lower_priority(GUEST_NICENESS))?,
            heavy: Background::start("guest-heavy", threads, || {
                lower_priority(HEAVY_NICENESS);
                shorten_slices(HEAVY_NICENESS, HEAVY_SLICE);
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

impl Background {
    fn start(
        name: &str,
        threads: usize,
        prepare: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name(name)
            .on_thread_start(prepare)
            // A guest may use its whole slice at every poll. Looking for timers, sockets and wake-ups
            // from other threads after each poll bounds what a busy guest costs its neighbours.
            .event_interval(1)
            .global_queue_interval(1)
            .enable_all()
            .build()?;
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
        .start_handler(|_| lower_priority(COMPILER_NICENESS))
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

//! Threads for guests and for compiling, kept apart from the threads of the node itself.

use std::time::Duration;

use coracle_clock::Clock;

/// How much nicer than the node its guests are: the control plane answers first.
const GUEST_NICENESS: i32 = 5;
/// Compiling yields to everything else.
const COMPILER_NICENESS: i32 = 15;

/// The tokio runtime of the guests; shuts down in the background when dropped, so that it may be
/// dropped from anywhere.
pub(crate) struct GuestRuntime(Option<tokio::runtime::Runtime>);

impl GuestRuntime {
    pub(crate) fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("guest")
            .on_thread_start(|| lower_priority(GUEST_NICENESS))
            // A guest may use its whole slice at every poll. Looking for timers, sockets and wake-ups
            // from other threads after each poll bounds what a busy guest costs its neighbours.
            .event_interval(1)
            .global_queue_interval(1)
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("taken only by drop").handle()
    }
}

impl Drop for GuestRuntime {
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

//! Keeps a component's loop running.

use std::future::Future;
use std::time::Duration;

use coracle_clock::Clock;
use tokio_util::sync::CancellationToken;

/// Runs `start`'s future in a task of its own until `stop` is cancelled; a panic or an early end
/// starts it again after a growing delay.
///
/// Cancelling `stop` is expected to end the future too; it is given five seconds and then dropped.
pub async fn supervise<F, T>(name: &str, clock: Clock, stop: CancellationToken, mut start: F)
where
    F: FnMut() -> T,
    T: Future<Output = ()> + Send + 'static,
{
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    const GRACE: Duration = Duration::from_secs(5);
    let mut delay = FIRST;
    while !stop.is_cancelled() {
        let began = clock.monotonic();
        let mut task = tokio::spawn(start());
        let ended = tokio::select! {
            ended = &mut task => ended,
            () = stop.cancelled() => {
                if tokio::time::timeout(GRACE, &mut task).await.is_err() {
                    tracing::warn!(name, "did not stop in time");
                    task.abort();
                }
                return;
            }
        };
        if stop.is_cancelled() {
            return;
        }
        match ended {
            Ok(()) => tracing::warn!(name, ?delay, "ended early; starting it again"),
            Err(error) => tracing::error!(name, %error, ?delay, "panicked; starting it again"),
        }
        // Having run well for a while, it deserves a quick start again.
        if clock.monotonic() - began > LONGEST {
            delay = FIRST;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = clock.sleep(delay) => {}
        }
        delay = (delay * 2).min(LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_followed_by_a_fresh_start() {
        let (clock, stop) = (Clock::fake(1), CancellationToken::new());
        let runs = Arc::new(AtomicU32::new(0));
        supervise("test", clock.clone(), stop.clone(), || {
            let (runs, stop) = (runs.clone(), stop.clone());
            async move {
                if runs.fetch_add(1, Ordering::SeqCst) < 3 {
                    panic!("as the test wants it");
                }
                stop.cancel();
            }
        })
        .await;
        assert_eq!(runs.load(Ordering::SeqCst), 4);
        assert_eq!(clock.monotonic().as_millis(), 700);
    }
}

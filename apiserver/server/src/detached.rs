//! Work that goes on when nobody waits for it any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs a future where it is awaited, and in a task of its own from the moment at which it is dropped.
///
/// Against a task from the beginning, this saves waking a thread for each request, which costs more than many requests.
pub(crate) struct Detached<F: Future<Output: Send> + Send + 'static> {
    /// `None` once it has ended, and while it runs: what has panicked is not tried again.
    work: Option<Pin<Box<F>>>,
}

impl<F: Future<Output: Send> + Send + 'static> Detached<F> {
    /// Nothing happens before it is polled or dropped.
    pub(crate) fn new(work: F) -> Self {
        Self {
            work: Some(Box::pin(work)),
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Detached<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut work = self.work.take().expect("not polled after its end");
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Detached<F> {
    fn drop(&mut self) {
        // Without a runtime everything is over.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn dropped_work_goes_on() {
        let (go, wait) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (done, ended) = oneshot::channel();
        let work = {
            let (go, wait) = (go.clone(), wait.clone());
            async move {
                go.notify_one();
                wait.notified().await;
                let _ = done.send(());
            }
        };
        let mut detached = Detached::new(work);
        assert!((&mut detached).now_or_never().is_none());
        go.notified().await;
        drop(detached);
        wait.notify_one();
        ended.await.expect("it ran to its end");
    }

    #[tokio::test]
    async fn awaited_work_answers() {
        assert_eq!(Detached::new(async { 7 }).await, 7);
    }
}

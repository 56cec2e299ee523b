//! The loop that every controller runs.

use std::future::Future;

use coracle_client::{Error, ObjectKey, Outcome, WorkQueue};
use futures::future::join_all;

/// Works on the queue's keys, `workers` of them at a time, until the queue is stopped.
pub(crate) async fn work<F, T>(queue: WorkQueue<ObjectKey>, workers: usize, sync: F)
where
    F: Fn(ObjectKey) -> T,
    T: Future<Output = Outcome>,
{
    let one = || async {
        while let Some(key) = queue.next().await {
            let outcome = sync(key.clone()).await;
            queue.finish(key, outcome);
        }
    };
    join_all((0..workers).map(|_| one())).await;
}

/// Logs a failed round once, and says what the queue should do about it.
pub(crate) fn outcome(
    controller: &str,
    key: &ObjectKey,
    result: Result<Outcome, Error>,
) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(error) if error.is_conflict() || error.is_not_found() => {
            tracing::debug!(controller, %key, message = error.message(), "looking again");
            Outcome::Retry
        }
        // Nothing more can be made there; its deletion brings the key back for the last time.
        Err(error) if error.is_namespace_terminating() => Outcome::Done,
        Err(error) => {
            tracing::warn!(controller, %key, %error, message = error.message(), "will retry");
            Outcome::Retry
        }
    }
}

//! When a call is made again.

use std::time::Duration;

use coracle_clock::Clock;
use http::StatusCode;

use super::{CallError, Reply};

/// Waits that grow: upstream's `DefaultAuthWebhookRetryBackoff`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    left: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: Duration::from_millis(500),
            left: 4,
        }
    }
}

impl Backoff {
    /// How long to wait before the next try; `None` when there is none. What the other side asks for counts up to ten
    /// seconds.
    pub(crate) fn next(&mut self, asked: Option<u64>, clock: &Clock) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let wait = self.next;
        self.next = wait.mul_f64(1.5);
        // Up to a fifth more, so that not all come at once.
        let more = clock.random_below(1 + wait.as_millis() as u64 / 5);
        let asked = Duration::from_secs(asked.unwrap_or(0).min(10));
        Some((wait + Duration::from_millis(more)).max(asked))
    }
}

/// Whether what went wrong may go well the next time. Upstream: `webhook.DefaultShouldRetry`.
pub(crate) fn may_try_again(outcome: &Result<Reply, CallError>) -> bool {
    match outcome {
        Ok(reply) => {
            reply.status == StatusCode::TOO_MANY_REQUESTS
                || reply.status == StatusCode::INTERNAL_SERVER_ERROR
                || reply.status == StatusCode::GATEWAY_TIMEOUT
                || (!reply.status.is_success() && reply.retry_after.is_some())
        }
        Err(CallError::Broken { .. }) => true,
        Err(_) => false,
    }
}

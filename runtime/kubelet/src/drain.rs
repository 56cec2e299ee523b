//! The end of the node: guests first, then their last statuses.

use std::time::Duration;

use futures::future::{BoxFuture, join_all};

use crate::kubelet::Kubelet;
use crate::step::Action;

/// What a stop may take beyond the time that guests were given.
const SLACK: Duration = Duration::from_secs(2);

impl Kubelet {
    /// Ends every container, each within its pod's grace period but at the latest after `longest`,
    /// and reports how they ended. Pods stay: the next start brings them back.
    ///
    /// It needs nothing of [`run`](Self::run), which may go on or have ended; the API server must
    /// still answer.
    pub async fn drain(&self, longest: Duration) {
        self.0.state.lock().draining = true;
        if tokio::time::timeout(longest + SLACK, self.stop_all(longest))
            .await
            .is_err()
        {
            tracing::warn!("some containers did not end in time");
        }
        let keys: Vec<_> = self
            .0
            .state
            .lock()
            .entries
            .values()
            .map(|entry| entry.key.clone())
            .collect();
        // At once, so that the store commits them together.
        let reports = keys.iter().map(|key| async move {
            // A status that cannot be written now is computed anew by the next start.
            if let Err(error) = self.report(key).await {
                tracing::debug!(%key, error = error.message(), "last status was not written");
            }
        });
        join_all(reports).await;
    }

    async fn stop_all(&self, longest: Duration) {
        loop {
            // Before the look, so that no change is missed after it.
            let changed = self.0.changed.notified();
            join_all(self.begin_stops(longest)).await;
            let is_over = !self
                .0
                .state
                .lock()
                .entries
                .values()
                .any(|entry| entry.observed.is_anything_running());
            if is_over {
                return;
            }
            // Something was being started, or is being stopped by somebody else.
            changed.await;
        }
    }

    /// Marks every running container as ending; the futures end them.
    fn begin_stops(&self, longest: Duration) -> Vec<BoxFuture<'static, ()>> {
        let now = self.0.ctx.clock().now();
        let mut state = self.0.state.lock();
        let mut stops: Vec<BoxFuture<'static, ()>> = Vec::new();
        for (uid, entry) in &mut state.entries {
            let spec = entry.pod.spec.as_ref();
            let seconds = spec
                .and_then(|spec| spec.termination_grace_period_seconds)
                .unwrap_or(30);
            let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(longest);
            let containers: Vec<String> = entry.observed.containers.keys().cloned().collect();
            for container in containers {
                let action = Action::StopContainer {
                    container: container.clone(),
                    grace,
                };
                if entry.begin(&action, now) {
                    entry.observed.container_mut(&container).drained = true;
                    stops.push(Box::pin(self.clone().carry_out(uid.clone(), action)));
                }
            }
        }
        stops
    }
}

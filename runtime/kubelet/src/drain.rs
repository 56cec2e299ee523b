//! The end of the node: guests first, then their last statuses.

use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;

use crate::kubelet::Kubelet;
use crate::step::{self, Action};

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
        let mut stops = FuturesUnordered::new();
        loop {
            // Before the look, so that no change is missed after it.
            let changed = self.0.changed.notified();
            let (begun, wake) = self.begin_stops(longest);
            stops.extend(begun);
            let is_over = !self
                .0
                .state
                .lock()
                .entries
                .values()
                .any(|entry| entry.observed.is_anything_running());
            if is_over {
                break;
            }
            let clock = self.0.ctx.clock();
            let wake = async {
                match wake {
                    Some(wake) => clock.sleep(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Something was being started, or is being stopped by somebody else.
                () = changed => {}
                Some(()) = stops.next() => {}
                () = wake => {}
            }
        }
        while stops.next().await.is_some() {}
    }

    /// Begins what comes next in the end of every pod, in the order and with the hooks of an end for
    /// good; the futures carry it out. Also, when time alone brings something new.
    fn begin_stops(&self, longest: Duration) -> (Vec<BoxFuture<'static, ()>>, Option<Duration>) {
        let now = self.0.ctx.clock().now();
        let mut state = self.0.state.lock();
        let mut stops: Vec<BoxFuture<'static, ()>> = Vec::new();
        let mut wake_at = None;
        for (uid, entry) in &mut state.entries {
            let spec = entry.pod.spec.as_ref();
            let grace = spec.map(step::own_grace).unwrap_or_default().min(longest);
            let step = step::drain(&entry.pod, &entry.observed, grace, now);
            entry.observed.ending_since.get_or_insert(now);
            wake_at = [wake_at, step.wake_at].into_iter().flatten().min();
            for action in step.actions {
                if !entry.begin(&action, now) {
                    continue;
                }
                if let Action::StopContainer { container, .. } = &action {
                    entry.observed.container_mut(container).drained = true;
                }
                stops.push(Box::pin(self.clone().carry_out(uid.clone(), action)));
            }
        }
        let wait = wake_at.map(|at| Duration::try_from(at - now).unwrap_or_default());
        // A moment later rather than earlier: time stamps are compared as they are.
        (stops, wait.map(|wait| wait + Duration::from_millis(1)))
    }
}

//! Pods that have more than they may, and a node that has too little left.
//!
//! ```text
//! every 10 s ─▶ pods with limits on their files: measured; one that is beyond is evicted
//!            └▶ the node's disk and memory: short? ─▶ conditions (and taints, by a controller)
//!                                                  ─▶ images that nobody uses go, then one pod
//! ```
//!
//! What is evicted is decided by [`limits`] and [`pressure`], which are pure; the pod's own
//! [`step`](crate::step) ends it, since `Observed.failure` says that the node gave it up.

mod limits;
mod pressure;
mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Timestamp;
use coracle_cri::{ContainerStats, PodSandboxStats, SandboxId};
use k8s_openapi::api::core::v1::Pod;

pub(crate) use limits::size_in_memory;
pub(crate) use pressure::{EVICTED, Pressure, Resource};
pub(crate) use usage::count;

use crate::kubelet::Kubelet;
use crate::state::Entry;
use crate::step::{Failure, Run, SandboxState};
use pressure::{Candidate, Shortage};
use usage::Usage;

/// Between two looks (`evictionMonitoringPeriod`).
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A pod as one look finds it.
struct Seen {
    uid: String,
    pod: Arc<Pod>,
    /// Since when the latest run of each container has been there.
    started: HashMap<String, Timestamp>,
}

impl Kubelet {
    /// Looks at the node and its pods until the kubelet stops.
    pub(crate) async fn keep_within_limits(self) {
        let clock = self.0.ctx.clock().clone();
        loop {
            tokio::select! {
                () = clock.sleep(LOOK_EVERY) => {}
                () = self.0.ctx.stop().cancelled() => return,
            }
            let has_evicted = self.look_at_limits().await;
            self.look_at_node_itself(has_evicted).await;
        }
    }

    /// Evicts pods that have more on disk than they may; whether any was.
    async fn look_at_limits(&self) -> bool {
        let limited: Vec<Seen> = self.seen(limits::is_limited);
        let mut has_evicted = false;
        for (seen, usage) in self.measured(limited).await {
            if let Some(message) = limits::excess(&seen.pod, &usage) {
                has_evicted |= self.evict(&seen.uid, message, false);
            }
            if let Some(bytes) = limits::in_memory(&seen.pod, &usage) {
                let id = SandboxId(seen.uid);
                self.0.runtime.charge_memory(&id, bytes).await;
            }
        }
        has_evicted
    }

    /// Looks at what the node has left, and evicts a pod if that is too little. After others were evicted
    /// for their own sake there may be enough in a moment.
    async fn look_at_node_itself(&self, has_evicted: bool) {
        let (mut shortages, mut stats) = self.shortages().await;
        if shortages.iter().any(|s| s.resource == Resource::Disk) {
            self.collect_images().await;
            (shortages, stats) = self.shortages().await;
        }
        let now = self.0.ctx.clock().now();
        let has_changed = self.0.state.lock().pressure.note(&shortages, now);
        if has_changed {
            tracing::info!(?shortages, "the node's pressure has changed");
            self.0.pressure_changed.notify_one();
        }
        let Some(shortage) = shortages.first().filter(|_| !has_evicted) else {
            return;
        };
        // One at a time: what it had is free only once it is gone.
        let is_ending = |entry: &Entry| {
            let failure = entry.observed.failure.as_ref();
            failure.is_some_and(|f| f.reason == EVICTED) && entry.observed.is_anything_running()
        };
        if self.0.state.lock().entries.values().any(is_ending) {
            return;
        }
        let running = self.seen(|_| true);
        let users = match shortage.resource {
            Resource::Memory => in_memory(running, &stats),
            Resource::Disk => on_disk(self.measured(running).await),
        };
        if let Some((uid, message)) = chosen(shortage, &users) {
            self.evict(&uid, message, true);
        } else {
            tracing::warn!(?shortage, "the node is short, and no pod can be evicted");
        }
    }

    /// What the node is short of, and what its pods use of its memory.
    async fn shortages(&self) -> (Vec<Shortage>, Vec<PodSandboxStats>) {
        let runtime = &self.0.runtime;
        let stats = runtime.list_pod_sandbox_stats().await;
        let used = stats
            .iter()
            .fold(0u64, |sum, pod| sum.saturating_add(pod.working_set));
        let memory = Some((self.0.config.capacity.memory, used));
        let shortages = pressure::shortages(memory, runtime.image_fs().await);
        (shortages, stats)
    }

    /// The pods that run and that `concerns`.
    fn seen(&self, concerns: impl Fn(&Pod) -> bool) -> Vec<Seen> {
        let state = self.0.state.lock();
        let running = state.entries.iter().filter(|(_, entry)| {
            let observed = &entry.observed;
            observed.sandbox == SandboxState::Ready
                && observed.failure.is_none()
                && observed.ending_since.is_none()
                && !entry.orphaned
        });
        let concerned = running.filter(|(_, entry)| concerns(&entry.pod));
        concerned
            .map(|(uid, entry)| Seen {
                uid: uid.clone(),
                pod: Arc::clone(&entry.pod),
                started: started(entry),
            })
            .collect()
    }

    /// What each has on disk; walked off the async threads.
    async fn measured(&self, all: Vec<Seen>) -> Vec<(Seen, Usage)> {
        if all.is_empty() {
            return Vec::new();
        }
        let kubelet = self.clone();
        let walk = move || {
            let config = &kubelet.0.config;
            let measure = |seen: Seen| {
                let since = |name: &str| seen.started.get(name).copied();
                let usage = usage::measure(&seen.pod, config, since);
                (seen, usage)
            };
            all.into_iter().map(measure).collect()
        };
        // A panic in there is a look that found nothing.
        tokio::task::spawn_blocking(walk).await.unwrap_or_default()
    }

    /// Gives the pod up, if it may be; `for_node` says that it was not for what the pod did.
    fn evict(&self, uid: &str, message: String, for_node: bool) -> bool {
        let mut state = self.0.state.lock();
        let Some(entry) = state.entries.get_mut(uid) else {
            return false;
        };
        if pressure::is_critical(&entry.pod) {
            tracing::warn!(pod = %entry.key, message, "a critical pod is not evicted");
            return false;
        }
        if entry.observed.failure.is_some() {
            return false;
        }
        tracing::info!(pod = %entry.key, message, "evicting a pod");
        entry.observed.failure = Some(Failure {
            reason: EVICTED.to_owned(),
            message,
        });
        entry.observed.disrupted = for_node;
        let key = entry.key.clone();
        drop(state);
        self.0.changed.notify_waiters();
        self.0.queue.add(key);
        true
    }
}

/// When the latest run of each container began, as far as it has.
fn started(entry: &Entry) -> HashMap<String, Timestamp> {
    let containers = entry.observed.containers.iter();
    let began = containers.filter_map(|(name, record)| {
        let at = match &record.run {
            Run::Running { started_at, .. } | Run::Stopping { started_at } => *started_at,
            Run::Exited(exit) => exit.started_at,
            Run::Never | Run::Starting => return None,
        };
        Some((name.clone(), at))
    });
    began.collect()
}

/// What a pod uses of what is short.
struct User {
    seen: Seen,
    used: u64,
    /// By container.
    containers: Vec<(String, u64)>,
}

fn on_disk(all: Vec<(Seen, Usage)>) -> Vec<User> {
    let user = |(seen, usage): (Seen, Usage)| User {
        used: usage
            .volumes
            .values()
            .chain(usage.containers.values())
            .sum(),
        containers: Vec::from_iter(usage.containers),
        seen,
    };
    all.into_iter().map(user).collect()
}

fn in_memory(all: Vec<Seen>, stats: &[PodSandboxStats]) -> Vec<User> {
    let of_pod: HashMap<&str, &PodSandboxStats> = stats
        .iter()
        .map(|stats| (stats.id.0.as_str(), stats))
        .collect();
    let user = |seen: Seen| {
        let stats = of_pod.get(seen.uid.as_str())?;
        let containers = stats.containers.iter();
        let used = |stats: &ContainerStats| (stats.id.name.clone(), stats.memory.working_set);
        Some(User {
            used: stats.working_set,
            containers: containers.map(used).collect(),
            seen,
        })
    };
    all.into_iter().filter_map(user).collect()
}

/// The pod that goes for the shortage, and why.
fn chosen(shortage: &Shortage, users: &[User]) -> Option<(String, String)> {
    let candidates: Vec<Candidate<'_>> = users
        .iter()
        .map(|user| Candidate {
            uid: &user.seen.uid,
            pod: &user.seen.pod,
            used: user.used,
            containers: user.containers.clone(),
        })
        .collect();
    let (uid, message) = pressure::victim(shortage, &candidates)?;
    Some((uid.to_owned(), message))
}

//! Probes: whether a container has started, works, and accepts work.
//!
//! ```text
//!             startup passes             readiness ─▶ ProbeResults.ready
//!  run begins ──────────────▶ both at once
//!     │ fails too often                  liveness fails too often
//!     └────────────▶ ProbeResults.gave_up ◀──┘   (the lifecycle ends the run, then restarts it)
//! ```
//!
//! [`Judge`] turns single outcomes into verdicts and is pure; [`check`] tries once, through the pod
//! runtime; one task per run of a probed container does both in turn.
//!
//! `exec` and `grpc` probes are not known yet: an Event says so, and they count as passed.

mod check;
mod judge;

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{EventKind, InvolvedObject};
use coracle_cri::{ContainerStatus, SandboxId};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};

use crate::actions::{field_path, find};
use crate::kubelet::Kubelet;
use crate::step::{ContainerRecord, Run};
use check::{Failure, Target};
use judge::{Judge, Kind};

/// The first delay of attempts before anything listens.
const EARLY: Duration = Duration::from_millis(20);

impl Kubelet {
    /// Probes the run that has just begun, if its container has probes, until the run ends.
    pub(crate) fn begin_probing(&self, pod: &Arc<Pod>, status: &ContainerStatus) {
        let Some(container) = find(pod, &status.id.name) else {
            return;
        };
        let probes = [
            &container.startup_probe,
            &container.readiness_probe,
            &container.liveness_probe,
        ];
        if probes.iter().all(|probe| probe.is_none()) {
            return;
        }
        let prober = Prober {
            kubelet: self.clone(),
            pod: pod.clone(),
            container: container.clone(),
            sandbox: status.id.sandbox.clone(),
            restart_count: status.restart_count,
        };
        tokio::spawn(prober.run());
    }
}

/// Probes one run of one container.
struct Prober {
    kubelet: Kubelet,
    pod: Arc<Pod>,
    container: Container,
    sandbox: SandboxId,
    restart_count: u32,
}

impl Prober {
    async fn run(self) {
        if let Some(probe) = &self.container.startup_probe
            && !self.probe(Kind::Startup, probe).await
        {
            return;
        }
        let readiness = async {
            if let Some(probe) = &self.container.readiness_probe {
                self.probe(Kind::Readiness, probe).await;
            }
        };
        let liveness = async {
            if let Some(probe) = &self.container.liveness_probe {
                self.probe(Kind::Liveness, probe).await;
            }
        };
        tokio::join!(readiness, liveness);
    }

    /// Probes until nothing more can be learned: the run has ended, or (false) was given up, or
    /// (true) has started.
    async fn probe(&self, kind: Kind, probe: &Probe) -> bool {
        let Some(target) = Target::of(probe, &self.container) else {
            let message = format!(
                "{} probes of this type are not supported on this node and count as passed; use httpGet or tcpSocket",
                kind.name()
            );
            self.event("ProbeNotSupported", message);
            self.verdict(kind, true, probe);
            return true;
        };
        let period = seconds(probe.period_seconds, 10);
        let timeout = seconds(probe.timeout_seconds, 1);
        let mut judge = Judge::new(kind, probe);
        let mut early = EARLY;
        tokio::time::sleep(Duration::from_secs(
            probe
                .initial_delay_seconds
                .unwrap_or(0)
                .max(0)
                .unsigned_abs()
                .into(),
        ))
        .await;
        while self.is_running() {
            let outcome =
                match tokio::time::timeout(timeout, target.try_once(&self.kubelet, &self.sandbox))
                    .await
                {
                    Ok(outcome) => outcome,
                    Err(_) => Err(Failure::Other(format!("timed out after {timeout:?}"))),
                };
            if !self.is_running() {
                return false;
            }
            // A guest needs a moment before it listens. Upstream would wait a whole period for the
            // second attempt; these come sooner, and do not count.
            if matches!(outcome, Err(Failure::Refused(_))) && judge.is_new() && early < period {
                tokio::time::sleep(early).await;
                early *= 2;
                continue;
            }
            if let Err(failure) = &outcome {
                let message = format!("{} probe failed: {failure}", kind.title());
                self.event("Unhealthy", message);
            }
            if let Some(passed) = judge.observe(outcome.is_ok()) {
                self.verdict(kind, passed, probe);
                if kind == Kind::Startup || kind == Kind::Liveness && !passed {
                    return passed;
                }
            }
            tokio::time::sleep(period).await;
        }
        false
    }

    fn is_running(&self) -> bool {
        if self.kubelet.0.ctx.stop().is_cancelled() {
            return false;
        }
        let name = &self.container.name;
        let same = |record: &ContainerRecord| {
            record.restart_count == self.restart_count && matches!(record.run, Run::Running { .. })
        };
        self.kubelet
            .with(&self.sandbox.0, |observed| same(observed.container(name)))
            .unwrap_or(false)
    }

    /// Writes a verdict into the pod's state and looks at the pod again.
    fn verdict(&self, kind: Kind, passed: bool, probe: &Probe) {
        self.kubelet.with(&self.sandbox.0, |observed| {
            let record = observed.container_mut(&self.container.name);
            if record.restart_count != self.restart_count {
                return;
            }
            match (kind, passed) {
                (Kind::Readiness, passed) => record.probes.ready = passed,
                (Kind::Startup, true) => record.probes.started = true,
                (Kind::Liveness, true) => {}
                (Kind::Startup | Kind::Liveness, false) => {
                    record.probes.gave_up = Some(kind.name());
                    let own = probe.termination_grace_period_seconds;
                    record.probes.grace = own
                        .and_then(|own| u64::try_from(own).ok())
                        .map(Duration::from_secs);
                }
            }
        });
        let key = coracle_client::ObjectKey::of(self.pod.as_ref());
        self.kubelet.0.queue.add(key);
    }

    fn event(&self, reason: &str, message: String) {
        let object =
            InvolvedObject::of(self.pod.as_ref()).at(&field_path(&self.pod, &self.container.name));
        self.kubelet
            .0
            .ctx
            .recorder()
            .event_for(object, EventKind::Warning, reason, message);
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .filter(|v| *v > 0)
            .unwrap_or(default),
    )
}

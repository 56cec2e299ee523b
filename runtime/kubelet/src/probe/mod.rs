//! Probes: whether a container has started, works, and accepts work.
//!
//! ```text
//!             startup passes             readiness ─▶ ProbeResults.ready
//!  run begins ──────────────▶ both at once
//!     │ fails too often                  liveness fails too often
//!     └────────────▶ ProbeResults.gave_up ◀──┘   (the lifecycle ends the run, then restarts it)
//! ```
//!
//! [`Judge`] turns single outcomes into verdicts and is pure; [`Target`] tries once, through the pod
//! runtime; one task per run of a probed container does both in turn.

mod judge;

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{EventKind, InvolvedObject};
use coracle_cri::SandboxId;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::time::MissedTickBehavior;

use crate::actions::{field_path, find};
use crate::handlers::{Failure, Place, Target};
use crate::kubelet::Kubelet;
use crate::stats::Outcome;
use crate::step::{ContainerRecord, Run};
use judge::{Judge, Kind};

/// The first delay of attempts before anything listens.
const EARLY: Duration = Duration::from_millis(20);

impl Kubelet {
    /// Probes the run that has just begun, if its container has probes, until the run ends.
    pub(crate) fn begin_probing(&self, pod: &Arc<Pod>, uid: &str, name: &str, run: u32) {
        let Some(container) = find(pod, name) else {
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
            container: container.into_owned(),
            sandbox: SandboxId(uid.to_owned()),
            restart_count: run,
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
        let target = Target::of_probe(probe, &self.container);
        let period = seconds(probe.period_seconds, 10);
        let timeout = seconds(probe.timeout_seconds, 1);
        let mut judge = Judge::new(kind, probe);
        let mut early = EARLY;
        tokio::time::sleep(self.left_of(seconds(probe.initial_delay_seconds, 0))).await;
        // An attempt that takes long does not push the next ones back.
        let mut turns = tokio::time::interval(period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        turns.tick().await;
        while self.is_running(kind) {
            let outcome = match &target {
                Ok(target) => target.attempt(&self.place(), timeout).await,
                Err(error) => Err(Failure::Errored(error.clone())),
            };
            if !self.is_running(kind) {
                return false;
            }
            // A guest needs a moment before it listens. Upstream would wait a whole period for the
            // second attempt; these come sooner, and do not count.
            if matches!(outcome, Err(Failure::Refused(_))) && judge.is_new() && early < period {
                tokio::time::sleep(early).await;
                early *= 2;
                turns.reset();
                continue;
            }
            self.count(kind, &outcome);
            match &outcome {
                Ok(()) => {}
                Err(Failure::Errored(error)) => {
                    // It says nothing about the container, and does not count.
                    let title = kind.title();
                    let message =
                        format!("{title} probe errored and resulted in unknown state: {error}");
                    self.event("Unhealthy", message);
                    turns.tick().await;
                    continue;
                }
                Err(failure) => {
                    let message = format!("{} probe failed: {failure}", kind.title());
                    self.event("Unhealthy", message);
                }
            }
            if let Some(passed) = judge.observe(outcome.is_ok()) {
                self.verdict(kind, passed, probe);
                if kind == Kind::Startup || kind == Kind::Liveness && !passed {
                    return passed;
                }
            }
            turns.tick().await;
        }
        false
    }

    /// What is left of a delay that counts from the start of the run, whatever its hook and its startup probe took.
    fn left_of(&self, delay: Duration) -> Duration {
        let run = self.kubelet.with(&self.sandbox.0, |observed| {
            observed.container(&self.container.name).run.clone()
        });
        let Some(Run::Running { started_at, .. }) = run else {
            return delay;
        };
        let gone = self.kubelet.0.ctx.clock().now() - started_at;
        delay.saturating_sub(Duration::try_from(gone).unwrap_or_default())
    }

    fn count(&self, kind: Kind, outcome: &Result<(), Failure>) {
        let outcome = match outcome {
            Ok(()) => Outcome::Successful,
            Err(Failure::Errored(_)) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        let metadata = &self.pod.metadata;
        let pod = (
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
        let (uid, name) = (&self.sandbox.0, &self.container.name);
        let mut counts = self.kubelet.0.probe_counts.lock();
        counts.count(uid, pod, name, kind.title(), outcome);
    }

    fn place(&self) -> Place<'_> {
        Place {
            kubelet: &self.kubelet,
            sandbox: &self.sandbox,
            container: &self.container.name,
        }
    }

    /// Whether there is still something to learn: a container that is being ended is asked only
    /// whether it is ready.
    fn is_running(&self, kind: Kind) -> bool {
        if self.kubelet.0.ctx.stop().is_cancelled() {
            return false;
        }
        let name = &self.container.name;
        let same = |record: &ContainerRecord| {
            record.restart_count == self.restart_count && matches!(record.run, Run::Running { .. })
        };
        self.kubelet
            .with(&self.sandbox.0, |observed| {
                let is_wanted = kind == Kind::Readiness || observed.ending_since.is_none();
                is_wanted && same(observed.container(name))
            })
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

//! The pod lifecycle as one pure function.
//!
//! ```text
//!           (Pod, Observed, now) ──▶ step ──▶ actions for the runtime, when to look again
//!                                └─▶ status ─▶ the PodStatus to report
//!
//!  sandbox, images ─▶ init containers, one after the other ─▶ containers, all at once
//!                                                              │ exit, or a probe gives up
//!            deletion: stop containers ─▶ stop sandbox ─▶ gone  └─▶ restart after back-off, or done
//! ```
//!
//! Nothing here waits, reads a clock or talks to anyone: the loop of [`crate::Kubelet`] carries out
//! the actions, writes what happened into [`Observed`] and asks again. Asking twice gives the same
//! answer; an action is repeated until `Observed` shows that it was carried out.

mod backoff;
#[cfg(test)]
mod histories;
mod observed;
mod status;
#[cfg(test)]
mod tests;

use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

pub use backoff::Backoff;
pub(crate) use observed::CONFIG_ERROR;
pub use observed::{
    ContainerRecord, Exit, ImageState, Observed, ProbeResults, Refusal, Run, SandboxState,
};
pub use status::{status, terminal_phase};

/// What the runtime is to be asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the sandbox: address, network namespace, files and volumes.
    RunSandbox,
    /// Make the image of a container ready.
    EnsureImage {
        /// The container's name.
        container: String,
    },
    /// Start a run of a container.
    StartContainer {
        /// The container's name.
        container: String,
        /// Number of the run, from 0.
        restart_count: u32,
    },
    /// End a container's run.
    StopContainer {
        /// The container's name.
        container: String,
        /// How long it may take.
        grace: Duration,
    },
    /// Drop the sandbox and release its address.
    StopSandbox,
    /// Nothing of the pod is left: remove its files and the API object.
    Forget,
}

/// What to do now, and when to look again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// In the order in which they should be begun; all may run at once.
    pub actions: Vec<Action>,
    /// The earliest moment at which time alone changes the answer.
    pub wake_at: Option<Timestamp>,
}

impl Step {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
    }
}

/// When a container that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always.
    Always,
    /// When its exit code was not 0.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// The policy of a pod's containers.
    pub fn of(spec: &PodSpec) -> Self {
        match spec.restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// The policy of its init containers: `Always` means that they are retried until they succeed.
    fn of_init(self) -> Self {
        if self == Self::Always {
            Self::OnFailure
        } else {
            self
        }
    }

    fn restarts(self, exit: &Exit) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit.exit_code != 0,
            Self::Never => false,
        }
    }
}

/// Decides what brings the pod closer to its spec.
pub fn step(pod: &Pod, observed: &Observed, now: Timestamp) -> Step {
    let mut step = Step::default();
    let Some(spec) = pod.spec.as_ref() else {
        return step;
    };
    if pod.metadata.deletion_timestamp.is_some() {
        delete(spec, pod, observed, &mut step);
    } else if terminal_phase(pod, observed).is_some() {
        wind_down(observed, Duration::ZERO, &mut step);
    } else {
        match &observed.sandbox {
            SandboxState::Absent => step.actions.push(Action::RunSandbox),
            SandboxState::Failed { retry_at, .. } if *retry_at > now => step.wake(*retry_at),
            SandboxState::Failed { .. } => step.actions.push(Action::RunSandbox),
            SandboxState::Starting | SandboxState::Stopping | SandboxState::Ready => {}
        }
        run_containers(spec, observed, now, &mut step);
    }
    step
}

/// Stops what runs, then the sandbox, then forgets the pod.
fn delete(spec: &PodSpec, pod: &Pod, observed: &Observed, step: &mut Step) {
    let grace = pod
        .metadata
        .deletion_grace_period_seconds
        .or(spec.termination_grace_period_seconds)
        .map_or(Duration::from_secs(30), |seconds| {
            Duration::from_secs(seconds.max(0).unsigned_abs())
        });
    wind_down(observed, grace, step);
    if step.actions.is_empty() && matches!(observed.sandbox, SandboxState::Absent) {
        step.actions.push(Action::Forget);
    }
}

/// Ends every run and, once nothing runs, the sandbox.
fn wind_down(observed: &Observed, grace: Duration, step: &mut Step) {
    for (name, record) in &observed.containers {
        if let Run::Running { .. } = record.run {
            step.actions.push(Action::StopContainer {
                container: name.clone(),
                grace,
            });
        }
    }
    // A pod that is deleted without grace does not wait for a grace that it was given before.
    let is_over = !observed.is_anything_running()
        || grace.is_zero() && step.actions.is_empty() && !observed.is_anything_starting();
    // One that could not be made may still hold an address.
    let is_there = matches!(
        observed.sandbox,
        SandboxState::Ready | SandboxState::Failed { .. }
    );
    if is_over && is_there {
        step.actions.push(Action::StopSandbox);
    }
}

fn run_containers(spec: &PodSpec, observed: &Observed, now: Timestamp, step: &mut Step) {
    let policy = RestartPolicy::of(spec);
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    let mut next = Next {
        can_start: matches!(observed.sandbox, SandboxState::Ready),
        grace: Duration::from_secs(u64::try_from(grace).unwrap_or(0)),
        now,
        step,
    };
    for container in spec.init_containers.iter().flatten() {
        let record = observed.container(&container.name);
        if !matches!(&record.run, Run::Exited(exit) if exit.exit_code == 0) {
            return next.advance(container, record, policy.of_init());
        }
    }
    for container in &spec.containers {
        next.advance(container, observed.container(&container.name), policy);
    }
}

/// Collects the next actions of the containers.
struct Next<'a> {
    /// The sandbox is there. Images can be had before.
    can_start: bool,
    grace: Duration,
    now: Timestamp,
    step: &'a mut Step,
}

impl Next<'_> {
    /// The next action for one container, if any.
    fn advance(&mut self, container: &Container, record: &ContainerRecord, policy: RestartPolicy) {
        let name = || container.name.clone();
        let restart_count = match &record.run {
            Run::Running { .. } if record.probes.gave_up.is_some() => {
                let grace = record.probes.grace.unwrap_or(self.grace);
                return self.step.actions.push(Action::StopContainer {
                    container: name(),
                    grace,
                });
            }
            Run::Starting | Run::Running { .. } | Run::Stopping { .. } => return,
            Run::Never => 0,
            Run::Exited(exit) if policy.restarts(exit) => record.restart_count + 1,
            Run::Exited(_) => return,
        };
        if let Some(start_at) = record.start_at
            && start_at > self.now
        {
            return self.step.wake(start_at);
        }
        match &record.image {
            ImageState::Failed { retry_at, .. } if *retry_at > self.now => {
                self.step.wake(*retry_at)
            }
            ImageState::Absent | ImageState::Failed { .. } => {
                self.step
                    .actions
                    .push(Action::EnsureImage { container: name() });
            }
            ImageState::Ready(_) if self.can_start => {
                self.step.actions.push(Action::StartContainer {
                    container: name(),
                    restart_count,
                });
            }
            ImageState::Pulling { .. } | ImageState::Ready(_) => {}
        }
    }
}

//! The pod lifecycle as one pure function.
//!
//! ```text
//!           (Pod, Observed, now) ──▶ step ──▶ actions for the runtime, when to look again
//!                                └─▶ status ─▶ the PodStatus to report
//!
//!  sandbox, images ─▶ init containers and sidecars, one after the other ─▶ containers, all at once
//!         each: start ─▶ postStart ─▶ (probes)                             │ exit, or a probe gives up
//!                                                                          └─▶ restart after back-off, or done
//!  deletion, deadline, all done: preStop ─▶ stop containers, then sidecars ─▶ stop sandbox (─▶ gone)
//! ```
//!
//! Nothing here waits, reads a clock or talks to anyone: the loop of [`crate::Kubelet`] carries out
//! the actions, writes what happened into [`Observed`] and asks again. Asking twice gives the same
//! answer; an action is repeated until `Observed` shows that it was carried out.
//!
//! [`parts`](self::parts()) says what each container is to its pod, [`verdict`](self::verdict()) when the pod is over,
//! `ending` in which order its containers end, and `status` what is reported.

mod backoff;
mod conditions;
mod ending;
#[cfg(test)]
mod histories;
mod observed;
mod over;
mod parts;
mod record;
pub(crate) mod resize;
mod status;
#[cfg(test)]
mod tests;
mod verdict;
pub(crate) mod whole;

use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::eviction::EVICTED;

pub use backoff::Backoff;
pub use observed::{Observed, ResizeRefusal, SandboxState};
pub use parts::{Part, Role, part, parts};
pub(crate) use record::CONFIG_ERROR;
pub use record::{ContainerRecord, Exit, Hook, ImageState, ProbeResults, Refusal, Resizing, Run};
pub use status::status;
pub(crate) use verdict::DEADLINE_EXCEEDED;
pub use verdict::{Failure, Verdict, verdict};
pub use whole::Whole;

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
    /// Call what the container wants called once it runs.
    PostStart {
        /// The container's name.
        container: String,
    },
    /// Call what the container wants called before it is asked to end.
    PreStop {
        /// The container's name.
        container: String,
        /// How long it may take.
        grace: Duration,
    },
    /// Change what a container's run may use to what the spec says.
    Resize {
        /// The container's name.
        container: String,
    },
    /// Change what the pod as a whole may use to what the spec says.
    ResizePod,
    /// Mark every container to run again; nothing is to be done for it.
    StartOver,
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
    /// The pod is ending: the grace of its containers counts from when this was first said.
    pub ending: bool,
}

impl Step {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
    }
}

/// What an evicted pod is given to end (`immediateEvictionGracePeriodSeconds`).
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// Decides what brings the pod closer to its spec.
pub fn step(pod: &Pod, observed: &Observed, now: Timestamp) -> Step {
    let mut step = Step::default();
    // What it cannot have changes nothing.
    let granted = whole::granted(pod, observed);
    let Some(spec) = granted.spec.as_ref() else {
        return step;
    };
    if pod.metadata.deletion_timestamp.is_some() {
        let grace = pod.metadata.deletion_grace_period_seconds;
        let grace = grace.map_or_else(|| own_grace(spec), seconds);
        ending::end(pod, spec, observed, grace, now, &mut step);
        let is_gone = matches!(observed.sandbox, SandboxState::Absent);
        if is_gone && step.actions.is_empty() {
            step.actions.push(Action::Forget);
        }
    } else if verdict(pod, observed, now).is_some() {
        let grace = match &observed.failure {
            Some(failure) if failure.reason == EVICTED => own_grace(spec).min(EVICTION_GRACE),
            _ => own_grace(spec),
        };
        ending::end(pod, spec, observed, grace, now, &mut step);
    } else {
        if let Some(deadline) = verdict::deadline(pod) {
            step.wake(deadline);
        }
        match &observed.sandbox {
            SandboxState::Absent => step.actions.push(Action::RunSandbox),
            SandboxState::Failed { retry_at, .. } if *retry_at > now => step.wake(*retry_at),
            SandboxState::Failed { .. } => step.actions.push(Action::RunSandbox),
            SandboxState::Starting | SandboxState::Stopping | SandboxState::Ready => {}
        }
        whole::advance(spec, observed, now, &mut step);
        if over::is_under_way(spec, observed) {
            over::start_over(spec, observed, &mut step);
        } else {
            run_containers(spec, observed, now, &mut step);
        }
    }
    step
}

/// What comes next in the end of the pod's containers while the node stops. The pod itself stays, and
/// runs again when the node does.
pub(crate) fn drain(pod: &Pod, observed: &Observed, grace: Duration, now: Timestamp) -> Step {
    let mut step = Step::default();
    if let Some(spec) = pod.spec.as_ref() {
        ending::end(pod, spec, observed, grace, now, &mut step);
        step.actions.retain(|action| *action != Action::StopSandbox);
    }
    step
}

/// The grace that the pod gives its containers.
pub(crate) fn own_grace(spec: &PodSpec) -> Duration {
    seconds(spec.termination_grace_period_seconds.unwrap_or(30))
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

/// Whether the run is up, its postStart hook has passed and so has its startup probe: the container
/// after a sidecar waits for it.
fn has_started(part: &Part<'_>, record: &ContainerRecord) -> bool {
    is_up(part, record) && (part.container.startup_probe.is_none() || record.probes.started)
}

/// Whether the run is up and its postStart hook has passed: before, its container shows as waiting.
fn is_up(part: &Part<'_>, record: &ContainerRecord) -> bool {
    let is_running = matches!(record.run, Run::Running { .. } | Run::Stopping { .. });
    is_running
        && (part.post_start().is_none()
            || record.post_start != Hook::Due && record.post_start != Hook::Running)
}

/// Whether an init container was done before the node was started again: its sandbox is another one, in which the
/// main containers wait for it (upstream's `computePodActions` begins anew with a new sandbox).
fn is_due_again(part: &Part<'_>, record: &ContainerRecord) -> bool {
    part.role == Role::Init && record.stale && record.has_succeeded()
}

/// Upstream's `computeInitContainerActions`, then the main containers, then those to debug with.
fn run_containers(spec: &PodSpec, observed: &Observed, now: Timestamp, step: &mut Step) {
    let mut next = Next {
        can_start: matches!(observed.sandbox, SandboxState::Ready),
        spec,
        now,
        step,
    };
    let parts: Vec<Part<'_>> = parts(spec).collect();
    let record = |part: &Part<'_>| observed.container(part.name());
    let main_runs = parts
        .iter()
        .any(|part| part.role == Role::Main && record(part).run.is_active());
    // What has begun in this sandbox has begun in its turn: those before it are restarted at once.
    let begun = parts.iter().rposition(|part| {
        let record = record(part);
        let counts = !record.stale && !record.again && record.run != Run::Never;
        let has_begun = counts || record.run.is_active();
        matches!(part.role, Role::Init | Role::Sidecar) && has_begun
    });
    let mut is_initialized = true;
    for (index, part) in parts.iter().enumerate() {
        let record = record(part);
        match part.role {
            Role::Init if main_runs || record.is_done() => {}
            Role::Init | Role::Sidecar if !is_initialized => {}
            Role::Init => {
                next.advance(part, record);
                is_initialized = false;
            }
            Role::Sidecar => {
                next.advance(part, record);
                is_initialized = main_runs || begun > Some(index) || has_started(part, record);
            }
            Role::Main if !is_initialized => {}
            Role::Main | Role::Debug => next.advance(part, record),
        }
    }
}

/// Collects the next actions of the containers.
struct Next<'a> {
    /// The sandbox is there. Images can be had before.
    can_start: bool,
    spec: &'a PodSpec,
    now: Timestamp,
    step: &'a mut Step,
}

impl Next<'_> {
    /// The next action for one container, if any.
    fn advance(&mut self, part: &Part<'_>, record: &ContainerRecord) {
        let container = part.name().to_owned();
        let restart_count = match &record.run {
            Run::Running { .. } => return self.keep(part, record),
            Run::Starting | Run::Stopping { .. } => return,
            Run::Never => 0,
            Run::Exited(exit)
                if record.again
                    || record.outdated
                    || is_due_again(part, record)
                    || part.restarts(self.spec, exit.exit_code) =>
            {
                record.restart_count + 1
            }
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
                self.step.actions.push(Action::EnsureImage { container });
            }
            ImageState::Ready(_) if self.can_start => {
                self.step.actions.push(Action::StartContainer {
                    container,
                    restart_count,
                });
            }
            ImageState::Pulling { .. } | ImageState::Ready(_) => {}
        }
    }

    /// A run that is up goes on until a probe or its postStart hook gives it up, or it is to have another image, or
    /// other resources that it has to be started again for.
    fn keep(&mut self, part: &Part<'_>, record: &ContainerRecord) {
        let is_resized = resize::is_wanted(self.spec, part, record);
        if record.outdated || resize::needs_restart(self.spec, part, record) {
            let since = record.stop_since.unwrap_or(self.now);
            let grace = own_grace(self.spec);
            return ending::stop(part, record, since, grace, true, self.now, self.step);
        }
        if record.probes.gave_up.is_some() || record.post_start == Hook::Failed {
            let grace = record.probes.grace.unwrap_or(own_grace(self.spec));
            let since = record.stop_since.unwrap_or(self.now);
            ending::stop(part, record, since, grace, true, self.now, self.step);
        } else if part.post_start().is_some() && record.post_start == Hook::Due {
            let container = part.name().to_owned();
            self.step.actions.push(Action::PostStart { container });
        }
        if !is_resized || record.stop_since.is_some() {
            return;
        }
        match &record.resize {
            Resizing::Begun => {}
            Resizing::Failed { retry_at, .. } if *retry_at > self.now => self.step.wake(*retry_at),
            Resizing::Idle | Resizing::Failed { .. } => {
                let container = part.name().to_owned();
                self.step.actions.push(Action::Resize { container });
            }
        }
    }
}

//! What the kubelet knows of one pod: the part of its state that is not in the API object.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use coracle_clock::Timestamp;
use coracle_cri::{ContainerState, ImageError, ImageRef};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ResourceRequirements};

use super::{Backoff, Failure};

/// Delays between attempts to get an image (upstream: 10 s doubling to 5 min, like restarts).
fn image_retry(attempts: u32) -> Duration {
    let mut backoff = Backoff::default();
    (0..attempts.clamp(1, 8)).fold(Duration::ZERO, |_, _| backoff.after_failure())
}

/// Everything that was seen of one pod on this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The pod's network namespace and files.
    pub sandbox: SandboxState,
    /// The address that was allocated for the pod; kept through restarts of the node.
    pub address: Option<IpAddr>,
    /// By name; containers that were never touched are absent.
    pub containers: BTreeMap<String, ContainerRecord>,
    /// Since when the pod is ending.
    pub ending_since: Option<Timestamp>,
    /// The node gave the pod up: it was not admitted, or evicted.
    pub failure: Option<Failure>,
    /// It was evicted for what the node lacks, not for what it did.
    pub disrupted: bool,
    /// The pod asks for other resources than it was promised, and cannot have them.
    pub resize_refusal: Option<ResizeRefusal>,
}

/// Why a pod keeps the resources that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResizeRefusal {
    /// Others have what it wants.
    Deferred(String),
    /// The node has not as much.
    Infeasible(String),
}

/// Where the sandbox is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SandboxState {
    /// Not asked for, or gone.
    #[default]
    Absent,
    /// Being made.
    Starting,
    /// Containers can start.
    Ready,
    /// Being dropped.
    Stopping,
    /// Could not be made.
    Failed {
        /// Why, for the container states and an Event.
        message: String,
        /// When to try again.
        retry_at: Timestamp,
    },
}

/// One container of the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerRecord {
    /// Number of the latest run, from 0.
    pub restart_count: u32,
    /// The image for the next run.
    pub image: ImageState,
    /// The latest run.
    pub run: Run,
    /// How the run before the latest ended (`lastState`).
    pub last_exit: Option<Exit>,
    /// The image of the latest run.
    pub image_ref: Option<ImageRef>,
    /// The next run starts no earlier.
    pub start_at: Option<Timestamp>,
    /// What the next delay will be.
    pub backoff: Backoff,
    /// What probes found of the latest run.
    pub probes: ProbeResults,
    /// The run is being ended because the node is, not for its own sake.
    pub drained: bool,
    /// The postStart hook of the latest run.
    pub post_start: Hook,
    /// Its preStop hook.
    pub pre_stop: Hook,
    /// Since when the latest run is being ended.
    pub stop_since: Option<Timestamp>,
    /// The latest run was in a sandbox that is gone.
    pub stale: bool,
    /// All containers start over: the latest run counts no more.
    pub again: bool,
    /// What the latest run may use.
    pub allocated: ResourceRequirements,
    /// Whether that is being changed.
    pub resize: Resizing,
}

/// Where a change of a run's resources is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resizing {
    /// Nowhere: not wanted, or not begun.
    #[default]
    Idle,
    /// The runtime was asked for it.
    Begun,
    /// The runtime would not.
    Failed {
        /// Why.
        message: String,
        /// When to ask again.
        retry_at: Timestamp,
    },
}

/// Where a hook is; a container without one stays at `Due`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// Not called yet.
    #[default]
    Due,
    /// Called, and not done.
    Running,
    /// Done.
    Passed,
    /// Did not succeed, or took too long.
    Failed,
}

/// Where an image is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ImageState {
    /// Not asked for since the last run.
    #[default]
    Absent,
    /// On its way, perhaps after it was refused.
    Pulling {
        /// How the attempt before ended.
        after: Option<Refusal>,
    },
    /// Can start.
    Ready(ImageRef),
    /// Was refused.
    Failed {
        /// What was wrong.
        refusal: Refusal,
        /// When to ask again.
        retry_at: Timestamp,
    },
}

/// Why a run cannot begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// `ErrImagePull` and others.
    pub reason: String,
    /// What was wrong and what to do.
    pub message: String,
    /// Attempts in a row.
    pub attempts: u32,
}

impl ImageState {
    /// Notes that the image was asked for.
    pub fn pulling(&mut self) {
        *self = Self::Pulling {
            after: self.refusal().cloned(),
        };
    }

    /// The latest refusal, while nothing better has come of it.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Failed { refusal, .. } => Some(refusal),
            Self::Pulling { after } => after.as_ref(),
            Self::Absent | Self::Ready(_) => None,
        }
    }
}

/// What probes found of the current run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// The startup probe has succeeded; the others wait for it.
    pub started: bool,
    /// The latest verdict of the readiness probe.
    pub ready: bool,
    /// The liveness or startup probe found the run beyond help: which one.
    pub gave_up: Option<&'static str>,
    /// The probe's own grace for the end of such a run.
    pub grace: Option<Duration>,
}

/// One run of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Run {
    /// No run yet.
    #[default]
    Never,
    /// The runtime was asked for it.
    Starting,
    /// It runs.
    Running {
        /// Since when.
        started_at: Timestamp,
        /// Whether it accepts work.
        serving: bool,
    },
    /// It was asked to end.
    Stopping {
        /// Since when it runs.
        started_at: Timestamp,
    },
    /// It ended.
    Exited(Exit),
}

impl Run {
    /// Whether it has begun and not ended.
    pub fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running { .. } | Self::Stopping { .. }
        )
    }

    /// Whether it ended well.
    pub fn has_succeeded(&self) -> bool {
        matches!(self, Self::Exited(exit) if exit.exit_code == 0)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// Exit code as a shell would show it.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    /// Termination message.
    pub message: String,
    /// Start of the run.
    pub started_at: Timestamp,
    /// End of the run.
    pub finished_at: Timestamp,
}

impl Observed {
    /// The record of a container; a fresh one when it was never touched.
    pub fn container(&self, name: &str) -> &ContainerRecord {
        static FRESH: std::sync::LazyLock<ContainerRecord> =
            std::sync::LazyLock::new(Default::default);
        self.containers.get(name).unwrap_or(&FRESH)
    }

    /// The record of a container, to change.
    pub fn container_mut(&mut self, name: &str) -> &mut ContainerRecord {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Takes over what the runtime says of a container. News of an earlier run is ignored. Returns
    /// whether the container has just started.
    pub fn apply(&mut self, status: &coracle_cri::ContainerStatus) -> bool {
        let Some(record) = self.containers.get_mut(&status.id.name) else {
            return false;
        };
        if record.restart_count != status.restart_count {
            return false;
        }
        match (&record.run, &status.state) {
            (Run::Never | Run::Exited(_), _) | (_, ContainerState::Created) => false,
            (Run::Stopping { .. }, ContainerState::Running { .. }) => false,
            (
                run,
                ContainerState::Running {
                    started_at,
                    serving,
                },
            ) => {
                let is_new = *run == Run::Starting;
                record.started(*started_at, *serving);
                is_new
            }
            (
                _,
                ContainerState::Exited {
                    started_at,
                    finished_at,
                    exit_code,
                    reason,
                    message,
                },
            ) => {
                record.exited(Exit {
                    exit_code: *exit_code,
                    reason: reason.clone(),
                    message: message.clone(),
                    started_at: *started_at,
                    finished_at: *finished_at,
                });
                false
            }
        }
    }

    /// Whether any run has begun and not ended.
    pub fn is_anything_running(&self) -> bool {
        self.containers.values().any(|c| c.run.is_active())
    }

    /// Makes what failed for want of a ConfigMap or Secret due now. False when nothing did.
    pub fn retry_sources(&mut self, now: Timestamp) -> bool {
        let mut is_due = false;
        if let SandboxState::Failed { retry_at, .. } = &mut self.sandbox {
            *retry_at = now;
            is_due = true;
        }
        for record in self.containers.values_mut() {
            if let ImageState::Failed { refusal, retry_at } = &mut record.image
                && refusal.reason == CONFIG_ERROR
            {
                *retry_at = now;
                is_due = true;
            }
        }
        is_due
    }

    /// Whether any run was asked for and has not begun.
    pub fn is_anything_starting(&self) -> bool {
        self.containers.values().any(|c| c.run == Run::Starting)
    }

    /// Whether something was begun that usually takes a moment only, so that a report now would
    /// be out of date at once.
    pub fn is_on_its_way(&self) -> bool {
        self.sandbox == SandboxState::Starting
            || self.containers.values().any(|record| {
                matches!(
                    record.run,
                    Run::Starting | Run::Running { serving: false, .. }
                ) || matches!(record.image, ImageState::Pulling { .. })
            })
    }

    /// What is known of a pod that ran before this process started: the address to keep, and of
    /// each container how often it ran and that its last run was cut off (or how it had ended).
    pub fn recover(pod: &Pod, now: Timestamp) -> Self {
        let mut observed = Self::default();
        let Some(status) = pod.status.as_ref() else {
            return observed;
        };
        observed.address = status.pod_ip.as_deref().and_then(|ip| ip.parse().ok());
        let known = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .chain(status.ephemeral_container_statuses.iter().flatten());
        for container in known {
            if let Some(record) = ContainerRecord::recover(container, now) {
                observed.containers.insert(container.name.clone(), record);
            }
        }
        observed
    }
}

/// The reason of a container that waits for something that its spec names.
pub(crate) const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// The reason of a run that ended because the node did.
pub(super) const NODE_RESTARTED: &str = "NodeRestarted";

impl ContainerRecord {
    fn recover(status: &ContainerStatus, now: Timestamp) -> Option<Self> {
        let state = status.state.as_ref()?;
        let mut last_exit = status
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref())
            .map(Exit::from_api);
        let run = if let Some(running) = &state.running {
            let started_at = running.started_at.as_ref().map_or(now, |time| time.0);
            Run::Exited(Exit {
                exit_code: 137,
                reason: NODE_RESTARTED.into(),
                message: "the node was restarted while the container ran".into(),
                started_at,
                finished_at: now,
            })
        } else if let Some(terminated) = &state.terminated {
            Run::Exited(Exit::from_api(terminated))
        } else if let Some(exit) = last_exit.take() {
            Run::Exited(exit)
        } else {
            return None;
        };
        let image_ref = status
            .image_id
            .rsplit_once('@')
            .map_or(status.image_id.as_str(), |(_, digest)| digest);
        Some(Self {
            restart_count: u32::try_from(status.restart_count).unwrap_or(0),
            run,
            last_exit,
            image_ref: image_ref.starts_with("sha256:").then(|| ImageRef {
                image: status.image.clone(),
                digest: image_ref.to_owned(),
                size: 0,
            }),
            stale: true,
            ..Self::default()
        })
    }

    /// Whether it has done what an init container is there for.
    pub fn is_done(&self) -> bool {
        self.run.has_succeeded() && !self.again
    }

    /// Notes that the run is being ended; its grace counts from the first time.
    pub fn stopping(&mut self, now: Timestamp) {
        self.stop_since.get_or_insert(now);
    }

    /// Notes that the runtime announced the start of a run.
    pub fn started(&mut self, started_at: Timestamp, serving: bool) {
        self.run = Run::Running {
            started_at,
            serving,
        };
        self.is_fresh();
    }

    /// Notes that the latest run is one of this sandbox and this round. Not before the runtime says so:
    /// what was asked for may not come to be.
    fn is_fresh(&mut self) {
        self.stale = false;
        self.again = false;
    }

    /// Notes the end of a run, and from when the next one may start.
    pub fn exited(&mut self, mut exit: Exit) {
        if self.drained {
            // It did not come to its end by itself, whatever it said last: the next start of the
            // node runs it again, or reports it as failed.
            exit.reason = NODE_RESTARTED.into();
            if exit.exit_code == 0 {
                exit.exit_code = 143;
            }
        }
        let ran_for = Duration::try_from(exit.finished_at - exit.started_at).unwrap_or_default();
        let delay = self.backoff.after_run(ran_for);
        self.start_at = (!delay.is_zero()).then(|| exit.finished_at + delay);
        self.image = ImageState::Absent;
        self.run = Run::Exited(exit);
        self.is_fresh();
    }

    /// Notes that the runtime was asked for another run.
    pub fn starting(&mut self, restart_count: u32) {
        if let Run::Exited(exit) = &self.run {
            self.last_exit = Some(exit.clone());
        }
        if let ImageState::Ready(image) = &self.image {
            self.image_ref = Some(image.clone());
        }
        self.restart_count = restart_count;
        self.start_at = None;
        self.probes = ProbeResults::default();
        self.drained = false;
        self.post_start = Hook::Due;
        self.pre_stop = Hook::Due;
        self.stop_since = None;
        self.resize = Resizing::Idle;
        self.run = Run::Starting;
    }

    /// Takes back [`starting`](Self::starting): the run could not be prepared.
    pub fn not_started(&mut self, restart_count: u32) {
        self.run = match self.last_exit.take() {
            Some(exit) if restart_count > 0 => Run::Exited(exit),
            _ => Run::Never,
        };
        self.restart_count = restart_count.saturating_sub(1);
    }

    /// Notes that an image was refused.
    pub fn image_failed(&mut self, error: &ImageError, now: Timestamp) {
        self.blocked(error.reason(), error.to_string(), now);
    }

    /// Notes that the next run cannot be prepared: `reason` is shown while it waits.
    pub fn blocked(&mut self, reason: &str, message: String, now: Timestamp) {
        let attempts = self
            .image
            .refusal()
            .map_or(1, |before| before.attempts.saturating_add(1));
        let refusal = Refusal {
            reason: reason.to_owned(),
            message,
            attempts,
        };
        self.image = ImageState::Failed {
            refusal,
            retry_at: now + image_retry(attempts),
        };
    }
}

impl Exit {
    fn from_api(state: &k8s_openapi::api::core::v1::ContainerStateTerminated) -> Self {
        let time = |t: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            t.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
        };
        Self {
            exit_code: state.exit_code,
            reason: state.reason.clone().unwrap_or_default(),
            message: state.message.clone().unwrap_or_default(),
            started_at: time(&state.started_at),
            finished_at: time(&state.finished_at),
        }
    }
}

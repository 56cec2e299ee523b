//! What is known of one container: its latest run, the image for the next one, probes and hooks.

use std::time::Duration;

use coracle_clock::Timestamp;
use coracle_cri::{ImageError, ImageRef};
use k8s_openapi::api::core::v1::{ContainerStatus, ResourceRequirements};

use super::{Backoff, Role};

/// Delays between attempts to get an image (upstream: 10 s doubling to 5 min, like restarts).
fn image_retry(attempts: u32) -> Duration {
    let mut backoff = Backoff::default();
    (0..attempts.clamp(1, 8)).fold(Duration::ZERO, |_, _| backoff.after_failure())
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
    /// The container got another image while the latest run was up: that ends, and another follows whatever the policies say.
    pub outdated: bool,
    /// What the latest run may use.
    pub allocated: ResourceRequirements,
    /// What its pod as a whole might use when that run was given its share of it.
    pub of_pod: ResourceRequirements,
    /// Thousandths of a core that it was scheduled with then, which may follow from what its siblings ask for.
    pub cpu_weight: u64,
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

/// The reason of a container that waits for something that its spec names.
pub(crate) const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// The reason of a run that ended because the node did.
pub(super) const NODE_RESTARTED: &str = "NodeRestarted";

impl ContainerRecord {
    /// What is known of a container that ran before this process started; None of one that never ran.
    pub(super) fn recover(status: &ContainerStatus, now: Timestamp) -> Option<Self> {
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
            allocated: status.resources.clone().unwrap_or_default(),
            ..Self::default()
        })
    }

    /// Whether it has done what an init container is there for. In another sandbox it is done again.
    pub fn is_done(&self) -> bool {
        self.has_succeeded() && !self.stale
    }

    /// Whether its latest run has ended well, in whichever sandbox.
    pub fn has_succeeded(&self) -> bool {
        self.run.has_succeeded() && !self.again
    }

    /// The number of the latest run that there was: one that was asked for may not come to be.
    pub fn latest_run(&self) -> Option<u32> {
        match &self.run {
            Run::Never => None,
            Run::Starting => self
                .last_exit
                .as_ref()
                .and(self.restart_count.checked_sub(1)),
            Run::Running { .. } | Run::Stopping { .. } | Run::Exited(_) => Some(self.restart_count),
        }
    }

    /// Notes that the container, which is that to its pod, got another image: what held up the one before does not hold up
    /// this one, and a run with the one before is over.
    pub fn image_changed(&mut self, role: Role) {
        // One that is on its way is looked at when it is there.
        if !matches!(self.image, ImageState::Pulling { .. }) {
            self.image = ImageState::Absent;
        }
        self.backoff = Backoff::default();
        self.start_at = None;
        // What runs to its end does so, as upstream.
        self.outdated |= matches!(role, Role::Main | Role::Sidecar) && self.run.is_active();
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
        if self.outdated {
            (self.backoff, self.start_at) = (Backoff::default(), None);
        }
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
        self.outdated = false;
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

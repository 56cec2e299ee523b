//! What the kubelet knows of one pod: the part of its state that is not in the API object.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_clock::Timestamp;
use coracle_cri::ContainerState;
use k8s_openapi::api::core::v1::Pod;

use super::Failure;
use super::record::{CONFIG_ERROR, ContainerRecord, Exit, ImageState, Resizing, Run};
use super::whole::Whole;

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
    /// The pod as it was before it asked for that, or for what it is not known yet whether it can have it.
    pub granted: Option<Arc<Pod>>,
    /// What the pod as a whole may use.
    pub whole: Whole,
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

    /// Makes changes of resources that failed due now, and their errors forgotten: something else is asked for.
    pub fn forget_failed_resizes(&mut self) {
        let records = self
            .containers
            .values_mut()
            .map(|record| &mut record.resize);
        for resize in records.chain([&mut self.whole.resize]) {
            if matches!(resize, Resizing::Failed { .. }) {
                *resize = Resizing::Idle;
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

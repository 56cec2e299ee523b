//! The ends: of a run, of a sandbox, and of all that is left of a pod.

use std::time::Duration;

use coracle_client::{DeletePropagation, EventKind, InvolvedObject, Precondition};
use coracle_cri::{ContainerId, ContainerState, RuntimeError, SandboxId};
use k8s_openapi::api::core::v1::Pod;

use super::field_path;
use crate::kubelet::{Kubelet, remove_folder};
use crate::state::Entry;
use crate::step::{self, Exit, Hook, Observed, Role, Run, SandboxState};

impl Kubelet {
    pub(super) async fn stop_container(
        &self,
        uid: &str,
        entry: &Entry,
        name: &str,
        grace: Duration,
    ) {
        // A preStop hook has told of it before.
        if matches!(entry.observed.container(name).pre_stop, Hook::Due) {
            self.announce_end(&entry.pod, name, &entry.observed);
        }
        let id = ContainerId {
            sandbox: SandboxId(uid.to_owned()),
            name: name.to_owned(),
        };
        match self.0.runtime.stop_container(&id, grace).await {
            // It ended by itself, and its sandbox with it, before this had its turn.
            Ok(()) | Err(RuntimeError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(container = %id, %error, "failed to stop a container");
            }
        }
        // The announcement may be behind us in the queue of events; the answer is the runtime's own list.
        if let Some(sandbox) = self.0.runtime.status(&id.sandbox).await {
            let same = sandbox.containers.iter().filter(|status| status.id == id);
            same.filter(|status| matches!(status.state, ContainerState::Exited { .. }))
                .for_each(|status| self.apply(status));
        }
        let now = self.0.ctx.clock().now();
        self.with(uid, |observed| {
            let record = observed.container_mut(name);
            if let Run::Stopping { started_at } = record.run {
                record.exited(Exit {
                    exit_code: 137,
                    reason: "ContainerStatusUnknown".into(),
                    message: "the pod runtime lost the container while it was being stopped".into(),
                    started_at,
                    finished_at: now,
                });
            }
        });
    }

    /// Tells that a container is being ended, and why.
    pub(crate) fn announce_end(&self, pod: &Pod, name: &str, observed: &Observed) {
        let object = InvolvedObject::of(pod).at(&field_path(pod, name));
        let message = why_killed(pod, name, observed);
        self.0
            .ctx
            .recorder()
            .event_for(object, EventKind::Normal, "Killing", message);
    }

    pub(super) async fn stop_sandbox(&self, uid: &str) {
        let stopped = self
            .0
            .runtime
            .stop_pod_sandbox(&SandboxId(uid.to_owned()))
            .await;
        if let Err(error) = stopped {
            tracing::warn!(uid, %error, "failed to stop a sandbox");
        }
        // What the pod kept there goes with it, though its object may stay; its logs stay too.
        let volumes = self.0.config.defaults.pod_directory(uid).join("volumes");
        let _ = tokio::task::spawn_blocking(move || remove_folder(&volumes)).await;
        let mut state = self.0.state.lock();
        state.release(uid);
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.observed.sandbox = SandboxState::Absent;
        }
    }

    /// False when the API did not take the deletion, and it has to be tried again.
    pub(super) async fn forget(&self, uid: &str, entry: &Entry) -> bool {
        self.forget_sources(uid);
        self.0.probe_counts.lock().forget(uid);
        let folder = self.0.config.defaults.pod_directory(uid);
        // A panic in there is a folder that stays until the next start.
        let _ = tokio::task::spawn_blocking(move || remove_folder(&folder)).await;
        if entry.orphaned {
            let now = self.0.ctx.clock().now();
            self.0.state.lock().remove_orphan(uid, now);
            return true;
        }
        let when = Precondition::uid_of(entry.pod.as_ref());
        let propagation = DeletePropagation::Background;
        let deleted = self
            .0
            .ctx
            .objects()
            .delete::<Pod>(&entry.key, &when, propagation, Some(0))
            .await;
        let is_done = match deleted {
            Ok(()) => true,
            // Another pod has the name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => true,
            Err(error) => {
                tracing::debug!(pod = %entry.key, error = error.message(), "pod was not deleted yet");
                false
            }
        };
        let mut state = self.0.state.lock();
        state.release(uid);
        if let Some(entry) = state.entries.get_mut(uid) {
            entry.forgetting = false;
            // The cache may show the pod for a moment longer; it must not be taken for a new one.
            entry.gone = is_done;
        }
        is_done
    }
}

/// Upstream's words for the end of a container.
fn why_killed(pod: &Pod, name: &str, observed: &Observed) -> String {
    let record = observed.container(name);
    let pod = &step::whole::granted(pod, observed);
    let (Some(part), Some(spec)) = (step::part(pod, name), pod.spec.as_ref()) else {
        return format!("Stopping container {name}");
    };
    if observed.ending_since.is_some() {
        return format!("Stopping container {name}");
    }
    if record.outdated {
        return match part.role {
            Role::Sidecar => format!("Init container {name} definition changed"),
            _ => format!("Container {name} definition changed, will be restarted"),
        };
    }
    match record.probes.gave_up {
        Some(probe) if part.role == Role::Sidecar => {
            format!("Init container {name} failed {probe} probe")
        }
        // Its exit code will be that of a kill.
        Some(probe) if part.restarts(spec, 137) => {
            format!("Container {name} failed {probe} probe, will be restarted")
        }
        Some(probe) => format!("Container {name} failed {probe} probe"),
        None if record.post_start == Hook::Failed => "FailedPostStartHook".to_owned(),
        None if step::resize::needs_restart(spec, &part, record) => {
            format!("Container {name} resize requires restart")
        }
        None => format!("Stopping container {name}"),
    }
}

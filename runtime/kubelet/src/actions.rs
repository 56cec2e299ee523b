//! Carries out one action, and writes what came of it into the pod's state.

mod ends;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{EventKind, InvolvedObject};
use coracle_cri::{ContainerConfig, ContainerId, ImageError, PodSandboxConfig, SandboxId};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::kubelet::Kubelet;
use crate::sources::PodSources;
use crate::state::Entry;
use crate::step::{self, Action, Exit, Hook, Observed, Resizing, Role, Run, SandboxState, Whole};
use crate::volumes::VolumeError;
use crate::{environment, translate, volumes};

/// How long a sandbox that could not be made waits before the next attempt.
const SANDBOX_RETRY: Duration = Duration::from_secs(2);
/// How long a deletion that the API refused waits before the next attempt.
const DELETE_RETRY: Duration = Duration::from_secs(1);

impl Kubelet {
    /// Carries out `action` for the pod with that UID, then looks at the pod again. A panic counts as
    /// a failure of the action.
    pub(crate) async fn carry_out(self, uid: String, action: Action) {
        let turn = self.0.turns.turn(&action).await;
        let Some(entry) = self.entry_in_turn(&uid) else {
            return;
        };
        let attempt = self.attempt(&uid, &entry, &action);
        let look_again = match AssertUnwindSafe(attempt).catch_unwind().await {
            Ok(look_again) => look_again,
            Err(_) => {
                tracing::error!(pod = %entry.key, ?action, "an action panicked");
                self.panicked(&uid, &action);
                SANDBOX_RETRY
            }
        };
        drop(turn);
        self.0.changed.notify_waiters();
        self.0.queue.add_after(entry.key, look_again);
    }

    /// Answers after what time to look at the pod again.
    async fn attempt(&self, uid: &str, entry: &Entry, action: &Action) -> Duration {
        match action {
            Action::RunSandbox => {
                let granted = granted(entry);
                self.run_sandbox(uid, &granted).await;
            }
            Action::EnsureImage { container } => self.ensure_image(uid, entry, container).await,
            Action::StartContainer {
                container,
                restart_count,
            } => {
                self.start_container(uid, entry, container, *restart_count)
                    .await;
            }
            Action::PostStart { container } => self.post_start(uid, entry, container).await,
            // It was done when it was begun.
            Action::StartOver => {}
            Action::Resize { container } => self.resize(uid, entry, container).await,
            Action::ResizePod => self.resize_pod(uid, entry).await,
            Action::PreStop { container, grace } => {
                self.pre_stop(uid, entry, container, *grace).await;
            }
            Action::StopContainer { container, grace } => {
                self.stop_container(uid, entry, container, *grace).await;
            }
            Action::StopSandbox => self.stop_sandbox(uid).await,
            Action::Forget => {
                if !self.forget(uid, entry).await {
                    return DELETE_RETRY;
                }
            }
        }
        Duration::ZERO
    }

    /// Takes back that an action is under way, so that it is tried again or given up.
    fn panicked(&self, uid: &str, action: &Action) {
        let now = self.0.ctx.clock().now();
        let message = "the node failed in a way that it should not; see its log".to_owned();
        let mut state = self.0.state.lock();
        let Some(entry) = state.entries.get_mut(uid) else {
            return;
        };
        let observed = &mut entry.observed;
        match action {
            Action::RunSandbox => {
                observed.sandbox = SandboxState::Failed {
                    message,
                    retry_at: now + SANDBOX_RETRY,
                };
            }
            Action::EnsureImage { container } => {
                observed
                    .container_mut(container)
                    .image_failed(&ImageError::Pull(message), now);
            }
            Action::StartContainer { container, .. } => {
                let reason = "StartError".to_owned();
                let exit = Exit {
                    exit_code: 128,
                    reason,
                    message,
                    started_at: now,
                    finished_at: now,
                };
                observed.container_mut(container).exited(exit);
            }
            Action::Resize { container } => {
                observed.container_mut(container).resize = Resizing::Failed {
                    message,
                    retry_at: now + SANDBOX_RETRY,
                };
            }
            Action::ResizePod => {
                observed.whole.resize = Resizing::Failed {
                    message,
                    retry_at: now + SANDBOX_RETRY,
                };
            }
            Action::PostStart { container } => {
                observed.container_mut(container).post_start = Hook::Failed;
            }
            Action::PreStop { container, .. } => {
                observed.container_mut(container).pre_stop = Hook::Failed;
            }
            Action::StopContainer { container, .. } => {
                let record = observed.container_mut(container);
                if let Run::Stopping { started_at } = record.run {
                    record.started(started_at, false);
                }
            }
            Action::StopSandbox => observed.sandbox = SandboxState::Ready,
            Action::StartOver => {}
            Action::Forget => entry.forgetting = false,
        }
    }

    async fn run_sandbox(&self, uid: &str, pod: &Arc<Pod>) {
        let address = self.0.state.lock().allocate(uid);
        let outcome = match address {
            Err(error) => Err(("FailedCreatePodSandBox", error.to_string())),
            Ok(address) => match self.prepare_volumes(pod, &address.to_string()).await {
                Err(error) => Err(("FailedMount", error.to_string())),
                Ok(()) => {
                    let made = match translate::sandbox(pod, address, &self.0.config.defaults) {
                        Ok(config) => {
                            let config = PodSandboxConfig {
                                second_address: self.0.config.second(address),
                                host_network: self.0.config.is_on_host(pod),
                                ..config
                            };
                            let made = self.0.runtime.run_pod_sandbox(config).await;
                            made.map_err(|error| error.to_string())
                        }
                        Err(error) => Err(error.to_string()),
                    };
                    made.map_err(|error| {
                        let message = format!("Failed to create pod sandbox: {error}");
                        ("FailedCreatePodSandBox", message)
                    })
                }
            },
        };
        let now = self.0.ctx.clock().now();
        if let Err((reason, message)) = &outcome {
            self.0
                .ctx
                .recorder()
                .event(pod.as_ref(), EventKind::Warning, reason, message.clone());
        }
        self.with(uid, |observed| {
            observed.sandbox = match outcome {
                Ok(()) => SandboxState::Ready,
                Err((_, message)) => SandboxState::Failed {
                    message,
                    retry_at: now + SANDBOX_RETRY,
                },
            };
        });
    }

    /// Makes the pod's volumes, or brings those that stand up to date.
    pub(crate) async fn prepare_volumes(
        &self,
        pod: &Arc<Pod>,
        address: &str,
    ) -> Result<(), VolumeError> {
        self.follow_sources(pod)
            .await
            .map_err(VolumeError::Failed)?;
        let (tokens, all) = self.tokens_of(pod).await;
        let (kubelet, pod, address) = (self.clone(), pod.clone(), address.to_owned());
        let write = move || {
            let sources = PodSources::of(&kubelet, &pod).with(tokens);
            volumes::prepare(&pod, &address, &kubelet.0.config, &sources)
        };
        // Files are written off the async threads.
        let written = tokio::task::spawn_blocking(write).await;
        let written = written.unwrap_or_else(|error| Err(VolumeError::Failed(error.to_string())));
        all.map_err(VolumeError::token).and(written)
    }

    async fn start_container(&self, uid: &str, entry: &Entry, name: &str, restart_count: u32) {
        let object = || InvolvedObject::of(entry.pod.as_ref()).at(&field_path(&entry.pod, name));
        let recorder = self.0.ctx.recorder();
        let followed = self.follow_sources(&entry.pod).await;
        let config = followed.and_then(|()| self.container_config(entry, name, restart_count));
        let config = match config {
            Ok(config) => config,
            Err(message) => {
                recorder.event_for(
                    object(),
                    EventKind::Warning,
                    "Failed",
                    format!("Error: {message}"),
                );
                let now = self.0.ctx.clock().now();
                return self
                    .with(uid, |observed| {
                        let record = observed.container_mut(name);
                        record.not_started(restart_count);
                        record.blocked(step::CONFIG_ERROR, message, now);
                    })
                    .unwrap_or_default();
            }
        };
        let created = format!("Container created: {name}");
        recorder.event_for(object(), EventKind::Normal, "Created", created);
        if let Err(error) = self.0.runtime.start_container(config).await {
            let message = error.to_string();
            recorder.event_for(
                object(),
                EventKind::Warning,
                "Failed",
                format!("Error: {message}"),
            );
            let now = self.0.ctx.clock().now();
            let reason = "StartError".to_owned();
            let exit = Exit {
                exit_code: 128,
                reason,
                message,
                started_at: now,
                finished_at: now,
            };
            self.with(uid, |observed| observed.container_mut(name).exited(exit));
        }
    }

    /// What the runtime is given, or why it cannot be made.
    fn container_config(
        &self,
        entry: &Entry,
        name: &str,
        restart_count: u32,
    ) -> Result<ContainerConfig, String> {
        let pod = &granted(entry);
        let container = find(pod, name).ok_or("the pod has no such container")?;
        let image = entry
            .observed
            .container(name)
            .image_ref
            .clone()
            .ok_or("its image is not known")?;
        let address = entry.observed.address.ok_or("the pod has no address")?;
        let addresses = self.0.config.both_as_text(address);
        let sources = PodSources::of(self, pod);
        let env = environment::environment(pod, &container, &addresses, &sources);
        let env = env.map_err(|error| error.to_string())?;
        let mounts = volumes::mounts(pod, &container, &env, &self.0.config, &sources);
        let mounts = mounts.map_err(|error| error.to_string())?;
        translate::container(pod, &container, image, restart_count, mounts, env)
            .map_err(|error| error.to_string())
    }

    async fn resize(&self, uid: &str, entry: &Entry, name: &str) {
        let pod = granted(entry);
        let (Some(part), Some(spec)) = (step::part(&pod, name), pod.spec.as_ref()) else {
            return;
        };
        let id = ContainerId {
            sandbox: SandboxId(uid.to_owned()),
            name: name.to_owned(),
        };
        let to = translate::resize(spec, &part.container);
        let resized = self.0.runtime.resize_container(&id, to).await;
        let now = self.0.ctx.clock().now();
        self.with(uid, |observed| {
            let record = observed.container_mut(name);
            match resized {
                Ok(()) => {
                    step::resize::note_given(record, &pod, name);
                    record.resize = Resizing::Idle;
                }
                Err(error) => {
                    record.resize = Resizing::Failed {
                        message: error.to_string(),
                        retry_at: now + SANDBOX_RETRY,
                    };
                }
            }
        });
    }

    /// Gives the pod as a whole what its spec says. Its containers get the shares that follow from it one by one: a run that
    /// is only beginning would miss it here.
    async fn resize_pod(&self, uid: &str, entry: &Entry) {
        let pod = granted(entry);
        let Some(spec) = pod.spec.as_ref() else {
            return;
        };
        let sandbox = SandboxId(uid.to_owned());
        let to = translate::resize_sandbox(spec);
        let resized = self.0.runtime.resize_pod_sandbox(&sandbox, to).await;
        let now = self.0.ctx.clock().now();
        self.with(uid, |observed| match resized {
            Ok(()) => {
                observed.whole = Whole {
                    allocated: step::whole::wanted(&pod),
                    resize: Resizing::Idle,
                };
            }
            Err(error) => {
                observed.whole.resize = Resizing::Failed {
                    message: error.to_string(),
                    retry_at: now + SANDBOX_RETRY,
                };
            }
        });
    }

    /// The pod as it is now that something is done for it.
    fn entry_in_turn(&self, uid: &str) -> Option<Entry> {
        let monotonic = self.0.ctx.clock().monotonic();
        let mut state = self.0.state.lock();
        let entry = state.entries.get_mut(uid)?;
        entry.has_turn(monotonic);
        Some(entry.clone())
    }

    pub(crate) fn with<T>(&self, uid: &str, change: impl FnOnce(&mut Observed) -> T) -> Option<T> {
        self.0
            .state
            .lock()
            .entries
            .get_mut(uid)
            .map(|entry| change(&mut entry.observed))
    }
}

/// The pod with the resources that it was granted.
fn granted(entry: &Entry) -> Arc<Pod> {
    match step::whole::granted(&entry.pod, &entry.observed) {
        Cow::Borrowed(_) => entry.pod.clone(),
        Cow::Owned(pod) => Arc::new(pod),
    }
}

/// The container of that name, of whatever role.
pub(crate) fn find<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    step::part(pod, name).map(|part| part.container)
}

/// The part of the pod that an Event about a container is about.
pub(crate) fn field_path(pod: &Pod, name: &str) -> String {
    let list = match step::part(pod, name).map(|part| part.role) {
        Some(Role::Init | Role::Sidecar) => "initContainers",
        Some(Role::Debug) => "ephemeralContainers",
        Some(Role::Main) | None => "containers",
    };
    format!("spec.{list}{{{name}}}")
}

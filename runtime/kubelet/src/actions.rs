//! Carries out one action, and writes what came of it into the pod's state.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{DeletePropagation, EventKind, InvolvedObject, ObjectKey, Precondition};
use coracle_cri::{ContainerId, ContainerState, SandboxId};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service};

use crate::environment::Sources;
use crate::ipam::Ipam;
use crate::kubelet::{Entry, Kubelet};
use crate::step::{Action, Exit, ImageState, Observed, Run, SandboxState};
use crate::{translate, volumes};

/// How long a sandbox that could not be made waits before the next attempt.
const SANDBOX_RETRY: Duration = Duration::from_secs(2);

impl Kubelet {
    /// Carries out `action` for the pod with that UID, then looks at the pod again.
    pub(crate) async fn carry_out(self, uid: String, action: Action) {
        let Some(entry) = self.entry(&uid) else {
            return;
        };
        match action {
            Action::RunSandbox => self.run_sandbox(&uid, &entry.pod).await,
            Action::EnsureImage { container } => self.ensure_image(&uid, &entry, &container).await,
            Action::StartContainer {
                container,
                restart_count,
            } => {
                self.start_container(&uid, &entry, &container, restart_count)
                    .await;
            }
            Action::StopContainer { container, grace } => {
                self.stop_container(&uid, &entry.pod, &container, grace)
                    .await;
            }
            Action::StopSandbox => self.stop_sandbox(&uid).await,
            Action::Forget => self.forget(&uid, &entry).await,
        }
        self.0.queue.add(entry.key);
    }

    async fn run_sandbox(&self, uid: &str, pod: &Arc<Pod>) {
        let address = self.0.state.lock().allocate(uid);
        let outcome = match address {
            Err(error) => Err(("FailedCreatePodSandBox", error.to_string())),
            Ok(address) => match self.prepare_volumes(pod, &address.to_string()).await {
                Err(error) => Err(("FailedMount", error.to_string())),
                Ok(()) => {
                    let config = translate::sandbox(pod, address, &self.0.config.defaults);
                    let made = self.0.runtime.run_pod_sandbox(config).await;
                    made.map_err(|error| ("FailedCreatePodSandBox", error.to_string()))
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

    async fn prepare_volumes(
        &self,
        pod: &Arc<Pod>,
        address: &str,
    ) -> Result<(), volumes::VolumeError> {
        let (kubelet, pod, address) = (self.clone(), pod.clone(), address.to_owned());
        let write = move || {
            volumes::prepare(
                &pod,
                &address,
                &kubelet.0.config,
                &PodSources::of(&kubelet, &pod),
            )
        };
        // Files are written off the async threads.
        tokio::task::spawn_blocking(write)
            .await
            .unwrap_or_else(|error| Err(volumes::VolumeError::Failed(error.to_string())))
    }

    async fn ensure_image(&self, uid: &str, entry: &Entry, name: &str) {
        let Some(container) = find(&entry.pod, name) else {
            return;
        };
        let request = translate::image(container, entry.observed.container(name));
        let image = request.image.clone();
        let object = || InvolvedObject::of(entry.pod.as_ref()).at(&field_path(&entry.pod, name));
        let began = self.0.ctx.clock().monotonic();
        let outcome = self.0.runtime.ensure_image(request).await;
        let took = self.0.ctx.clock().monotonic() - began;
        let now = self.0.ctx.clock().now();
        let recorder = self.0.ctx.recorder();
        match &outcome {
            Ok(found) => {
                let message = format!(
                    "Successfully pulled image {image:?} in {}ms. Image size: {} bytes.",
                    took.as_millis(),
                    found.size
                );
                recorder.event_for(object(), EventKind::Normal, "Pulled", message);
            }
            Err(error) => {
                let message = format!("Failed to pull image {image:?}: {error}");
                recorder.event_for(object(), EventKind::Warning, "Failed", message);
                let message = format!("Error: {}", error.reason());
                recorder.event_for(object(), EventKind::Warning, "Failed", message);
            }
        }
        self.with(uid, |observed| {
            let record = observed.container_mut(name);
            match outcome {
                Ok(found) => record.image = ImageState::Ready(found),
                Err(error) => record.image_failed(&error, now),
            }
        });
    }

    async fn start_container(&self, uid: &str, entry: &Entry, name: &str, restart_count: u32) {
        let Some(container) = find(&entry.pod, name) else {
            return;
        };
        let record = entry.observed.container(name);
        let (Some(image), Some(address)) = (record.image_ref.clone(), entry.observed.address)
        else {
            return;
        };
        let object = || InvolvedObject::of(entry.pod.as_ref()).at(&field_path(&entry.pod, name));
        let recorder = self.0.ctx.recorder();
        let sources = PodSources::of(self, &entry.pod);
        let mounts = volumes::mounts(&entry.pod, container, &self.0.config);
        let config = mounts
            .map_err(|error| error.to_string())
            .and_then(|mounts| {
                translate::container(
                    &entry.pod,
                    container,
                    image,
                    restart_count,
                    mounts,
                    address,
                    &sources,
                )
                .map_err(|error| error.to_string())
            });
        let now = self.0.ctx.clock().now();
        match config {
            Err(message) => {
                recorder.event_for(
                    object(),
                    EventKind::Warning,
                    "Failed",
                    format!("Error: {message}"),
                );
                self.with(uid, |observed| {
                    let record = observed.container_mut(name);
                    record.not_started(restart_count);
                    record.blocked("CreateContainerConfigError", message, now);
                });
            }
            Ok(config) => {
                recorder.event_for(
                    object(),
                    EventKind::Normal,
                    "Created",
                    format!("Created container: {name}"),
                );
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
        }
    }

    async fn stop_container(&self, uid: &str, pod: &Arc<Pod>, name: &str, grace: Duration) {
        let object = InvolvedObject::of(pod.as_ref()).at(&field_path(pod, name));
        let message = format!("Stopping container {name}");
        self.0
            .ctx
            .recorder()
            .event_for(object, EventKind::Normal, "Killing", message);
        let id = ContainerId {
            sandbox: SandboxId(uid.to_owned()),
            name: name.to_owned(),
        };
        if let Err(error) = self.0.runtime.stop_container(&id, grace).await {
            tracing::warn!(container = %id, %error, "failed to stop a container");
        }
        // The announcement may be behind us in the queue of events; the answer is the list.
        for sandbox in self
            .0
            .runtime
            .list()
            .await
            .iter()
            .filter(|sandbox| sandbox.id == id.sandbox)
        {
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

    async fn stop_sandbox(&self, uid: &str) {
        let stopped = self
            .0
            .runtime
            .stop_pod_sandbox(&SandboxId(uid.to_owned()))
            .await;
        if let Err(error) = stopped {
            tracing::warn!(uid, %error, "failed to stop a sandbox");
        }
        let mut state = self.0.state.lock();
        let address = state.entries.get_mut(uid).and_then(|entry| {
            entry.observed.sandbox = SandboxState::Absent;
            entry.observed.address
        });
        if let Some(address) = address {
            state.ipam.release(address);
        }
    }

    async fn forget(&self, uid: &str, entry: &Entry) {
        let folder = self.0.config.defaults.pod_directory(uid);
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(uid, %error, "failed to remove a pod's files");
        }
        if !entry.orphaned {
            let when = Precondition::uid_of(entry.pod.as_ref());
            let propagation = DeletePropagation::Background;
            let deleted = self
                .0
                .ctx
                .objects()
                .delete::<Pod>(&entry.key, &when, propagation, Some(0))
                .await;
            if let Err(error) = deleted
                && !error.is_not_found()
                && !error.is_conflict()
            {
                tracing::debug!(pod = %entry.key, %error, "pod was not deleted yet");
                if let Some(entry) = self.0.state.lock().entries.get_mut(uid) {
                    entry.forgetting = false;
                }
                return;
            }
        }
        self.0.state.lock().entries.remove(uid);
    }

    fn entry(&self, uid: &str) -> Option<Entry> {
        self.0.state.lock().entries.get(uid).cloned()
    }

    fn with(&self, uid: &str, change: impl FnOnce(&mut Observed)) {
        if let Some(entry) = self.0.state.lock().entries.get_mut(uid) {
            change(&mut entry.observed);
        }
    }
}

/// The container of that name, init containers included.
pub(crate) fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|c| c.name == name)
}

fn field_path(pod: &Pod, name: &str) -> String {
    let is_main = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .any(|c| c.name == name);
    if is_main {
        format!("spec.containers{{{name}}}")
    } else {
        format!("spec.initContainers{{{name}}}")
    }
}

/// The objects that a pod of one namespace may name, from the shared caches.
pub(crate) struct PodSources {
    kubelet: Kubelet,
    namespace: String,
}

impl PodSources {
    fn of(kubelet: &Kubelet, pod: &Pod) -> Self {
        Self {
            kubelet: kubelet.clone(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        }
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace.clone(), name)
    }
}

impl Sources for PodSources {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.kubelet.0.config_maps.get(&self.key(name))
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.kubelet.0.secrets.get(&self.key(name))
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.kubelet.0.services.in_namespace(&self.namespace)
    }

    fn kubernetes(&self) -> Option<Arc<Service>> {
        self.kubelet
            .0
            .services
            .get(&ObjectKey::new("default", "kubernetes"))
    }

    fn allocatable(&self) -> (u64, u64) {
        let capacity = self.kubelet.0.config.capacity;
        (capacity.cpu_millis, capacity.memory)
    }

    fn host_ip(&self) -> String {
        Ipam::node_address(self.kubelet.0.config.pod_range).to_string()
    }
}

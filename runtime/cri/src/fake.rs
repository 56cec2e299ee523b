//! A pod runtime that runs nothing.
//!
//! What a container does is scripted per image name; everything else (states, events, restarts,
//! stops) is as real runtimes do it, in the time of the paused clock. Images without a script run
//! until they are stopped.
//!
//! ```
//! # use coracle_cri::fake::{FakeRuntime, Script};
//! # use coracle_clock::Clock;
//! # use std::time::Duration;
//! # let clock = Clock::fake(1);
//! let runtime = FakeRuntime::new(clock);
//! runtime.script("crashes", Script::exits(1).after(Duration::from_secs(3)));
//! runtime.script("missing", Script::image_error("no such image"));
//! runtime.script("slow", Script::serves_after(Duration::from_secs(20)));
//! ```

mod disk;
mod process;
mod script;
mod state;
mod stats;
#[cfg(test)]
mod tests;

pub use process::{Process, Running};
pub use script::Script;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coracle_clock::Clock;
use tokio::io::DuplexStream;
use tokio::sync::broadcast;

use state::{Container, Inner, Sandbox, fingerprint, play, write_log};

use crate::{
    AttachRequest, BoxedStream, ContainerConfig, ContainerId, ExecError, ExecRequest, ImageError,
    ImageFs, ImageListing, ImageRef, ImageRequest, ImageStep, PodRuntime, PodSandboxConfig,
    PodSandboxNetwork, PodSandboxStats, PullPolicy, Resize, RuntimeError, RuntimeEvent, SandboxId,
    SandboxResize, SandboxStatus, Session,
};

/// What the kubelet asked for, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `run_pod_sandbox`.
    RunPodSandbox(SandboxId),
    /// `stop_pod_sandbox`.
    StopPodSandbox(SandboxId),
    /// `ensure_image`.
    EnsureImage(ImageRequest),
    /// `start_container`.
    StartContainer(Box<ContainerConfig>),
    /// `stop_container` and its grace.
    StopContainer(ContainerId, Duration),
    /// `resize_container`.
    ResizeContainer(ContainerId, Resize),
    /// `resize_pod_sandbox`.
    ResizePodSandbox(SandboxId, SandboxResize),
    /// `exec`.
    Exec(ContainerId, ExecRequest),
    /// `attach`.
    Attach(ContainerId, AttachRequest),
}

/// The runtime; cheap to clone.
#[derive(Clone)]
pub struct FakeRuntime(Arc<Inner>);

impl FakeRuntime {
    /// A runtime without pods or scripts.
    pub fn new(clock: Clock) -> Self {
        let (state, events) = (Mutex::default(), broadcast::channel(4096).0);
        Self(Arc::new(Inner {
            clock,
            state,
            events,
        }))
    }

    /// Lets containers of `image` do as `script` says, from their next start or pull on.
    pub fn script(&self, image: &str, script: Script) {
        self.0.state().scripts.insert(image.to_owned(), script);
    }

    /// Lets a sandbox have this network as long as it is there.
    pub fn set_network(&self, network: PodSandboxNetwork) {
        let mut state = self.0.state();
        state.networks.insert(network.id.clone(), network);
    }

    /// Ends a running container now, as if its guest had exited. False when it is not running.
    pub fn exit(&self, id: &ContainerId, code: i32) -> bool {
        let reason = if code == 0 { "Completed" } else { "Error" };
        self.0.end(id, None, code, reason, "")
    }

    /// Lets `exec` run this in every container from now on; an error is one of starting. Before, no
    /// command is found. The process ends with its session and with its container.
    pub fn on_exec(
        &self,
        handler: impl Fn(Process) -> Result<Running, ExecError> + Send + Sync + 'static,
    ) {
        self.0.state().exec = Some(Arc::new(handler));
    }

    /// Lets `attach` find this in every container from now on. Before, a container reads nothing and
    /// says nothing.
    pub fn on_attach(
        &self,
        handler: impl Fn(Process) -> Result<Running, ExecError> + Send + Sync + 'static,
    ) {
        self.0.state().attach = Some(Arc::new(handler));
    }

    /// Lets declared ports of running containers be served so from now on, instead of echoing.
    pub fn on_connect(&self, server: impl Fn(u16, DuplexStream) + Send + Sync + 'static) {
        self.0.state().serve = Some(Arc::new(server));
    }

    /// What resizes fail with from now on; None for nothing.
    pub fn fail_resizes(&self, error: Option<&str>) {
        self.0.state().resize_error = error.map(str::to_owned);
    }

    /// Everything asked for so far.
    pub fn calls(&self) -> Vec<Call> {
        self.0.state().calls.clone()
    }

    /// How the sandbox was configured.
    pub fn sandbox(&self, id: &SandboxId) -> Option<PodSandboxConfig> {
        self.0
            .state()
            .sandboxes
            .get(id)
            .map(|sandbox| sandbox.config.clone())
    }

    /// How the latest run of a container was configured.
    pub fn container(&self, id: &ContainerId) -> Option<ContainerConfig> {
        self.0
            .state()
            .container(id)
            .map(|container| container.config.clone())
    }
}

#[async_trait]
impl PodRuntime for FakeRuntime {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<(), RuntimeError> {
        let mut state = self.0.state();
        state.calls.push(Call::RunPodSandbox(config.id.clone()));
        if state.sandboxes.contains_key(&config.id) {
            return Err(RuntimeError::InvalidState(format!(
                "sandbox {} exists",
                config.id
            )));
        }
        let id = config.id.clone();
        state.sandboxes.insert(
            id,
            Sandbox {
                config,
                containers: Vec::new(),
            },
        );
        Ok(())
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let running: Vec<_> = {
            let mut state = self.0.state();
            state.calls.push(Call::StopPodSandbox(id.clone()));
            let sandbox = state.sandboxes.get(id);
            let containers = sandbox.iter().flat_map(|sandbox| &sandbox.containers);
            containers
                .map(|container| container.config.id.clone())
                .collect()
        };
        for container in running {
            self.0.end(&container, None, 137, "Error", "");
        }
        self.0.state().sandboxes.remove(id);
        Ok(())
    }

    async fn ensure_image(&self, request: ImageRequest) -> Result<ImageRef, ImageError> {
        let script = {
            let mut state = self.0.state();
            state.calls.push(Call::EnsureImage(request.clone()));
            state
                .scripts
                .get(&request.image)
                .cloned()
                .unwrap_or_default()
        };
        let image = request.image;
        self.0.progress(&image, ImageStep::Pulling);
        self.0.clock.sleep(script.pull).await;
        if let Some(error) = script.image_error {
            return Err(error);
        }
        self.0.progress(&image, ImageStep::Ready);
        let digest = format!("sha256:{:064x}", fingerprint(&image));
        let found = ImageRef {
            size: image.len() as u64,
            digest,
            image: image.clone(),
        };
        self.0.state().images.insert(image, found.clone());
        Ok(found)
    }

    async fn has_image(&self, request: &ImageRequest) -> bool {
        request.policy != PullPolicy::Always && self.0.state().images.contains_key(&request.image)
    }

    async fn list_images(&self) -> Vec<ImageListing> {
        let state = self.0.state();
        let listing = state.images.values().map(|image| ImageListing {
            digest: image.digest.clone(),
            names: vec![image.image.clone()],
            size: image.size,
            pinned: false,
        });
        listing.collect()
    }

    async fn image_fs(&self) -> Option<ImageFs> {
        self.0.state().image_fs
    }

    async fn charge_memory(&self, id: &SandboxId, bytes: u64) {
        self.0.state().charged.insert(id.clone(), bytes);
    }

    async fn image_files(&self, request: ImageRequest) -> Result<(ImageRef, PathBuf), ImageError> {
        let folder = self.0.folder_of(&request.image)?;
        Ok((self.ensure_image(request).await?, folder))
    }

    async fn remove_image(&self, digest: &str) -> Result<(), ImageError> {
        let mut state = self.0.state();
        state.images.retain(|_, image| image.digest != digest);
        Ok(())
    }

    async fn start_container(&self, config: ContainerConfig) -> Result<(), RuntimeError> {
        let id = config.id.clone();
        let run = config.restart_count;
        let (script, log) = {
            let mut state = self.0.state();
            state
                .calls
                .push(Call::StartContainer(Box::new(config.clone())));
            let script = state
                .scripts
                .get(&config.image.image)
                .cloned()
                .unwrap_or_default();
            let sandbox = state.sandboxes.get_mut(&id.sandbox);
            let sandbox =
                sandbox.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {}", id.sandbox)))?;
            let earlier = sandbox.containers.iter().position(|c| c.config.id == id);
            if earlier.is_some_and(|index| sandbox.containers[index].is_running()) {
                return Err(RuntimeError::InvalidState(format!(
                    "container {id} is running"
                )));
            }
            if let Some(message) = &script.start_error {
                return Err(RuntimeError::Start(message.clone()));
            }
            let log = sandbox
                .config
                .log_directory
                .join(&id.name)
                .join(format!("{run}.log"));
            let container = Container::started(config, script.clone(), &self.0.clock);
            self.0.announce(&container.status);
            match earlier {
                Some(index) => sandbox.containers[index] = container,
                None => sandbox.containers.push(container),
            }
            (script, log)
        };
        if !script.output.is_empty() {
            let written = write_log(&log, &script.output, &self.0.clock);
            written.map_err(|e| RuntimeError::Start(format!("log {}: {e}", log.display())))?;
        }
        tokio::spawn(play(self.0.clone(), id, run, script));
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        let (ignores, mut ended) = {
            let mut state = self.0.state();
            state.calls.push(Call::StopContainer(id.clone(), grace));
            if !state.sandboxes.contains_key(&id.sandbox) {
                return Err(RuntimeError::NotFound(format!("sandbox {}", id.sandbox)));
            }
            match state.container(id) {
                Some(container) if container.is_running() => {
                    (container.script.ignores_stop, container.ended.subscribe())
                }
                _ => return Ok(()),
            }
        };
        if ignores || grace.is_zero() {
            // A guest that ends by itself within the grace keeps its own exit code.
            let _ = tokio::time::timeout(grace, ended.wait_for(|ended| *ended)).await;
            self.0.end(id, None, 137, "Error", "");
        } else {
            self.0.end(id, None, 143, "Error", "");
        }
        Ok(())
    }

    async fn resize_container(&self, id: &ContainerId, to: Resize) -> Result<(), RuntimeError> {
        let mut state = self.0.state();
        state.calls.push(Call::ResizeContainer(id.clone(), to));
        if let Some(error) = state.resize_error.clone() {
            return Err(RuntimeError::InvalidState(error));
        }
        let container = state.container_mut(id);
        let container =
            container.ok_or_else(|| RuntimeError::NotFound(format!("container {id}")))?;
        container.config.memory_limit = to.memory_limit;
        container.config.cpu_limit_millis = to.cpu_limit_millis;
        container.config.cpu_weight_millis = to.cpu_weight_millis;
        Ok(())
    }

    async fn resize_pod_sandbox(
        &self,
        id: &SandboxId,
        to: SandboxResize,
    ) -> Result<(), RuntimeError> {
        let mut state = self.0.state();
        state.calls.push(Call::ResizePodSandbox(id.clone(), to));
        if let Some(error) = state.resize_error.clone() {
            return Err(RuntimeError::InvalidState(error));
        }
        let sandbox = state.sandboxes.get_mut(id);
        let sandbox = sandbox.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {id}")))?;
        sandbox.config.memory_limit = to.memory_limit;
        sandbox.config.cpu_limit_millis = to.cpu_limit_millis;
        Ok(())
    }

    async fn list(&self) -> Vec<SandboxStatus> {
        let state = self.0.state();
        let status = |(id, sandbox): (&SandboxId, &Sandbox)| SandboxStatus {
            id: id.clone(),
            address: sandbox.config.address,
            containers: sandbox
                .containers
                .iter()
                .map(|c| c.status.clone())
                .collect(),
        };
        state.sandboxes.iter().map(status).collect()
    }

    async fn pod_sandbox_stats(&self, id: &SandboxId) -> Option<PodSandboxStats> {
        self.0.stats(id)
    }

    async fn list_pod_sandbox_networks(&self) -> Vec<PodSandboxNetwork> {
        let state = self.0.state();
        let there = |id: &SandboxId| state.sandboxes.contains_key(id);
        let networks = state.networks.values();
        networks.filter(|found| there(&found.id)).cloned().collect()
    }

    fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.0.events.subscribe()
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session, ExecError> {
        let (handler, ended) = {
            let mut state = self.0.state();
            state.calls.push(Call::Exec(id.clone(), request.clone()));
            let handler = state.exec.clone();
            (handler, state.running(id)?)
        };
        let ExecRequest {
            command, streams, ..
        } = request;
        let handler = handler.ok_or_else(|| {
            let name = command.first().map_or("", String::as_str);
            ExecError::CommandNotFound(format!("{name}: not found"))
        })?;
        process::start(&handler, id.clone(), command, streams, ended)
    }

    async fn attach(&self, id: &ContainerId, request: AttachRequest) -> Result<Session, ExecError> {
        let (handler, ended) = {
            let mut state = self.0.state();
            state.calls.push(Call::Attach(id.clone(), request));
            let handler = state.attach.clone();
            (handler, state.running(id)?)
        };
        let silent: process::Handler = Arc::new(|process| {
            Ok(Box::pin(async move {
                let _open = process;
                std::future::pending().await
            }))
        });
        let handler = handler.unwrap_or(silent);
        process::start(&handler, id.clone(), Vec::new(), request.streams, ended)
    }

    /// Declared TCP ports of running containers are open, and echo what they are sent.
    async fn connect(&self, id: &SandboxId, port: u16) -> Result<BoxedStream, RuntimeError> {
        let (open, server) = {
            let state = self.0.state();
            let sandbox = state.sandboxes.get(id);
            let sandbox = sandbox.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {id}")))?;
            let mut serving = sandbox
                .containers
                .iter()
                .filter(|container| container.is_serving());
            let open = serving.any(|c| c.config.ports.iter().any(|p| p.tcp && p.port == port));
            (open, state.serve.clone())
        };
        if !open {
            let refused = format!("port {port} of sandbox {id} refused the connection");
            return Err(RuntimeError::InvalidState(refused));
        }
        let (near, far) = tokio::io::duplex(64 << 10);
        if let Some(serve) = server {
            serve(port, far);
            return Ok(Box::pin(near));
        }
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(far);
            // The caller going away is how a connection ends.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        Ok(Box::pin(near))
    }
}

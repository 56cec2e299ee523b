//! [`PodRuntime`] over wasmtime.

mod config;
mod launch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_clock::Clock;
use coracle_cri::{
    AttachRequest, BoxedStream, ContainerConfig, ContainerDisk, ContainerId, ContainerState,
    ContainerStatus, ExecError, ExecRequest, ImageError, ImageFs, ImageListing, ImageRef,
    ImageRequest, ImageStep, PodRuntime, PodSandboxConfig, PodSandboxNetwork, PodSandboxStats,
    PulledImage, Resize, RuntimeError, RuntimeEvent, SandboxId, SandboxResize, SandboxStatus,
    Session,
};
use coracle_image::{CompiledCache, Images, Use};
use coracle_network::{DnsConfig, Fabric, NamespaceConfig, NetError, TcpStream};
use parking_lot::RwLock;
use tokio::sync::{Semaphore, broadcast};

use crate::attach::attach;
use crate::compile::Compiler;
use crate::container::StopHandle;
use crate::cpu::CpuShare;
use crate::engine::{GuestEngine, instance_ceiling};
use crate::exec::{Surroundings, exec};
use crate::hosts::keyvalue;
use crate::image::downloads;
use crate::logs::FloodRate;
use crate::memory::{MemoryBudget, Scope};
use crate::network_status::pod_network;
use crate::places::Places;
use crate::pod::{Pod, Run};
use crate::stats::{disk_usage, pod_stats};
use crate::threads::GuestRuntime;
use crate::tls::TlsTrust;

pub use config::{SandboxConfig, SandboxError, Usage};

/// Events that a slow subscriber may be behind.
const EVENTS: usize = 4096;

/// Runs pods as WASI modules and components; cheap to clone. Must be made, and used, within a tokio
/// runtime; guests run on threads of their own.
#[derive(Clone)]
pub struct WasmRuntime(Arc<Inner>);

struct Inner {
    clock: Clock,
    fabric: Arc<Fabric>,
    images: Images,
    pods_dir: PathBuf,
    engine: Arc<GuestEngine>,
    compiler: Compiler,
    guests: GuestRuntime,
    memory: Arc<MemoryBudget>,
    trust: Arc<TlsTrust>,
    volumes: keyvalue::Volumes,
    admission: Arc<Semaphore>,
    places: Places,
    /// How fast pods may write that flood their logs.
    flood: Arc<FloodRate>,
    pods: RwLock<BTreeMap<SandboxId, Arc<Pod>>>,
    events: broadcast::Sender<RuntimeEvent>,
}

impl WasmRuntime {
    /// Makes the engine and its threads.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        let places = Places::new(config.max_instances, instance_ceiling());
        let max_instances = places.most;
        let engine = GuestEngine::new(max_instances).map_err(SandboxError::Engine)?;
        let engine = Arc::new(engine);
        engine.contest.set_threads(config.guest_threads.max(1));
        let cache =
            CompiledCache::open(&config.cache_dir, config.cache_bytes, config.clock.clone())?;
        let compiler = Compiler::new(
            engine.clone(),
            config.images.clone(),
            cache,
            config.compile_threads,
        )
        .map_err(SandboxError::CompilerThreads)?;
        let guests = GuestRuntime::start(config.guest_threads).map_err(SandboxError::Threads)?;
        Ok(Self(Arc::new(Inner {
            flood: FloodRate::new(&config.clock),
            clock: config.clock,
            fabric: config.fabric,
            images: config.images,
            pods_dir: config.pods_dir,
            engine,
            compiler,
            guests,
            memory: MemoryBudget::node(config.memory_bytes),
            trust: config.trust,
            volumes: keyvalue::Volumes::default(),
            admission: Arc::new(Semaphore::new(max_instances as usize)),
            places,
            pods: RwLock::default(),
            events: broadcast::channel(EVENTS).0,
        })))
    }

    /// What the latest run of a container uses, if there is one.
    pub fn usage(&self, id: &ContainerId) -> Option<Usage> {
        let run = self.0.pods.read().get(&id.sandbox)?.run(&id.name)?;
        Some(Usage {
            cpu: run.cpu.used(),
            throttled_periods: run.cpu.throttled_periods(),
            memory_bytes: run.memory.used(),
        })
    }
}

#[async_trait]
impl PodRuntime for WasmRuntime {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<(), RuntimeError> {
        let inner = &self.0;
        check_path_part("sandbox", &config.id.0)?;
        if inner.pods.read().contains_key(&config.id) {
            return Err(RuntimeError::InvalidState(format!(
                "sandbox {} exists",
                config.id
            )));
        }
        let namespace = inner.fabric.create_namespace(NamespaceConfig {
            full_name: config.full_name.clone(),
            host_aliases: config.host_aliases.clone(),
            dns: DnsConfig {
                servers: config.dns.servers.clone(),
                searches: config.dns.searches.clone(),
                options: config.dns.options.clone(),
            },
            second_address: config.second_address,
            host_network: config.host_network,
            ..NamespaceConfig::new(&config.pod, config.address, &config.hostname)
        });
        let namespace = namespace.map_err(|error| {
            RuntimeError::InvalidState(format!("network of pod {}: {error}", config.pod))
        })?;
        let memory = inner.memory.child(Scope::Pod, config.memory_limit);
        let roots = inner.pods_dir.join(&config.id.0).join("root");
        let id = config.id.clone();
        let (clock, flood) = (inner.clock.clone(), inner.flood.clone());
        let pod = Pod::new(config, namespace, memory, roots, clock, flood);
        let pod = Arc::new(pod);
        inner.pods.write().insert(id, pod);
        Ok(())
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let Some(pod) = self.0.pods.read().get(id).cloned() else {
            return Ok(());
        };
        let runs = pod.runs();
        for run in &runs {
            run.stop.stop(Duration::ZERO);
        }
        for run in &runs {
            run.ended.cancelled().await;
        }
        pod.namespace.close();
        pod.memory.set_files(0);
        if let Err(error) = tokio::fs::remove_dir_all(&pod.roots).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %pod.roots.display(), %error, "container folders are left behind");
        }
        self.0.pods.write().remove(id);
        Ok(())
    }

    async fn ensure_image(&self, request: ImageRequest) -> Result<ImageRef, ImageError> {
        Ok(self.pull_image(request).await?.image)
    }

    async fn has_image(&self, request: &ImageRequest) -> bool {
        self.0.images.has(request).await
    }

    async fn pull_image(&self, request: ImageRequest) -> Result<PulledImage, ImageError> {
        self.0.progress(&request.image, ImageStep::Pulling);
        let (runtime, image) = (self.0.clone(), request.image.clone());
        let progress = downloads(move |step| runtime.progress(&image, step));
        let pulled = self
            .0
            .images
            .pull(&request, Use::Run, Some(&progress))
            .await?;
        let command = &request.command;
        let setup = self.0.images.setup(&pulled.image, command).await?;
        let progress = |step| self.0.progress(&request.image, step);
        self.0
            .compiler
            .program(&setup.program, &request.image, progress)
            .await?;
        Ok(pulled)
    }

    async fn image_files(&self, request: ImageRequest) -> Result<(ImageRef, PathBuf), ImageError> {
        let image = self.0.images.pull(&request, Use::Files, None).await?.image;
        let files = self.0.images.files(&image).await?;
        Ok((image, files))
    }

    async fn charge_memory(&self, id: &SandboxId, bytes: u64) {
        if let Some(pod) = self.0.pods.read().get(id) {
            pod.memory.set_files(bytes);
        }
    }

    async fn list_images(&self) -> Vec<ImageListing> {
        self.0.images.list().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the images cannot be listed");
            Vec::new()
        })
    }

    async fn image_fs(&self) -> Option<ImageFs> {
        self.0.images.file_system().await
    }

    async fn remove_image(&self, digest: &str) -> Result<(), ImageError> {
        self.0.images.remove(digest).await
    }

    async fn sweep_images(&self, used: &[String], age: Duration) -> Result<u64, ImageError> {
        self.0.images.sweep(used, age).await
    }

    async fn start_container(&self, config: ContainerConfig) -> Result<(), RuntimeError> {
        let inner = &self.0;
        let id = config.id.clone();
        check_path_part("container", &id.name)?;
        let pod = inner.pod(&id.sandbox)?;
        let started_at = inner.clock.now();
        let (stop, signal) = StopHandle::new(inner.clock.clone());
        let run = Run::new(
            ContainerStatus {
                id: id.clone(),
                restart_count: config.restart_count,
                image: config.image.clone(),
                state: ContainerState::Created,
            },
            stop,
            CpuShare::new(
                inner.engine.clone(),
                inner.clock.clone(),
                config.cpu_weight_millis,
                config.cpu_limit_millis,
                pod.cpu.clone(),
                pod.log_rate.clone(),
            ),
            pod.memory.child(Scope::Container, config.memory_limit),
        );
        if !pod.begin(run.clone()) {
            return Err(RuntimeError::InvalidState(format!(
                "container {id} is running"
            )));
        }
        let launched = inner.launch(&pod, &run, config).await;
        let launched = launched.inspect_err(|_| {
            pod.forget(&run);
            run.ended.cancel();
        })?;
        // Sent before the run can end, so that subscribers see the states in order.
        let status = run.set_state(ContainerState::Running {
            started_at,
            serving: true,
        });
        inner.announce(status);
        let runtime = self.0.clone();
        tokio::spawn(async move {
            let exit = launched.run(signal).await;
            run.set_guest(None);
            let state = exit.into_state(started_at, runtime.clock.now());
            tracing::debug!(container = %run.id(), ?state, "container has ended");
            runtime.announce(run.set_state(state));
            run.ended.cancel();
        });
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<(), RuntimeError> {
        if let Some(run) = self.0.pod(&id.sandbox)?.run(&id.name) {
            run.stop.stop(grace);
            run.ended.cancelled().await;
        }
        Ok(())
    }

    async fn resize_container(&self, id: &ContainerId, to: Resize) -> Result<(), RuntimeError> {
        let pod = self.0.pod(&id.sandbox)?;
        let run = pod.run(&id.name);
        let of_run = run.as_ref().and_then(|run| {
            let whose = format!("container {:?}", id.name);
            run.memory.refuse(to.memory_limit, &whose)
        });
        let of_pod = pod.memory.refuse(to.pod_memory_limit, "pod");
        lowered(of_pod.into_iter().chain(of_run).collect())?;
        let of_pod = SandboxResize {
            memory_limit: to.pod_memory_limit,
            cpu_limit_millis: to.pod_cpu_limit_millis,
        };
        pod.resize(of_pod);
        if let Some(run) = run {
            run.memory.set_limit(to.memory_limit);
            run.cpu.resize(to.cpu_weight_millis, to.cpu_limit_millis);
        }
        Ok(())
    }

    async fn resize_pod_sandbox(
        &self,
        id: &SandboxId,
        to: SandboxResize,
    ) -> Result<(), RuntimeError> {
        let pod = self.0.pod(id)?;
        lowered(
            pod.memory
                .refuse(to.memory_limit, "pod")
                .into_iter()
                .collect(),
        )?;
        pod.resize(to);
        Ok(())
    }

    async fn list(&self) -> Vec<SandboxStatus> {
        self.0
            .pods
            .read()
            .values()
            .map(|pod| pod.status())
            .collect()
    }

    async fn status(&self, id: &SandboxId) -> Option<SandboxStatus> {
        let pod = self.0.pods.read().get(id).cloned();
        pod.map(|pod| pod.status())
    }

    async fn pod_sandbox_stats(&self, id: &SandboxId) -> Option<PodSandboxStats> {
        let pod = self.0.pod(id).ok()?;
        Some(pod_stats(&pod, self.0.clock.now()))
    }

    async fn list_pod_sandbox_stats(&self) -> Vec<PodSandboxStats> {
        let now = self.0.clock.now();
        let pods = self.0.pods.read();
        pods.values().map(|pod| pod_stats(pod, now)).collect()
    }

    async fn list_pod_sandbox_networks(&self) -> Vec<PodSandboxNetwork> {
        let pods = self.0.pods.read();
        pods.values().map(|pod| pod_network(pod)).collect()
    }

    async fn disk_usage(&self, id: &SandboxId) -> Vec<ContainerDisk> {
        let Ok(pod) = self.0.pod(id) else {
            return Vec::new();
        };
        let counted = tokio::task::spawn_blocking(move || disk_usage(&pod)).await;
        counted.unwrap_or_default()
    }

    fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.0.events.subscribe()
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Session, ExecError> {
        let (pod, run) = self.0.running(id)?;
        let guest = run.guest().ok_or(ExecError::NotRunning(id.clone()))?;
        let surroundings = Surroundings {
            compiler: &self.0.compiler,
            engine: &self.0.engine,
            admission: &self.0.admission,
        };
        exec(surroundings, pod, run, guest, request).await
    }

    async fn attach(&self, id: &ContainerId, request: AttachRequest) -> Result<Session, ExecError> {
        let (pod, run) = self.0.running(id)?;
        let guest = run.guest().ok_or(ExecError::NotRunning(id.clone()))?;
        attach(&pod, run, &guest, request.streams)
    }

    async fn connect(&self, id: &SandboxId, port: u16) -> Result<BoxedStream, RuntimeError> {
        let pod = self.0.pod(id)?;
        connected(&pod, port, pod.namespace.dial_loopback(port).await)
    }

    async fn reach(&self, id: &SandboxId, port: u16) -> Result<BoxedStream, RuntimeError> {
        let pod = self.0.pod(id)?;
        connected(&pod, port, pod.namespace.dial(port).await)
    }
}

fn connected(
    pod: &Pod,
    port: u16,
    stream: Result<TcpStream, NetError>,
) -> Result<BoxedStream, RuntimeError> {
    let stream = stream.map_err(|error| {
        let name = &pod.config.pod;
        let text = format!("failed to connect to port {port} of pod {name}: {error}");
        RuntimeError::InvalidState(text)
    })?;
    Ok(Box::pin(stream))
}

impl Inner {
    fn pod(&self, id: &SandboxId) -> Result<Arc<Pod>, RuntimeError> {
        let pod = self.pods.read().get(id).cloned();
        pod.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {id}")))
    }

    /// A container that runs now, for whoever wants to join it.
    fn running(&self, id: &ContainerId) -> Result<(Arc<Pod>, Arc<Run>), ExecError> {
        let pod = self.pods.read().get(&id.sandbox).cloned();
        let run = pod.as_ref().and_then(|pod| pod.run(&id.name));
        let Some((pod, run)) = pod.zip(run) else {
            return Err(ExecError::NotFound(id.clone()));
        };
        if matches!(run.status().state, ContainerState::Running { .. }) {
            Ok((pod, run))
        } else {
            Err(ExecError::NotRunning(id.clone()))
        }
    }

    /// Tells subscribers; without any, nobody needs to know.
    fn announce(&self, status: ContainerStatus) {
        let _ = self.events.send(RuntimeEvent::Container(status));
    }

    fn progress(&self, image: &str, step: ImageStep) {
        let _ = self.events.send(RuntimeEvent::ImageProgress {
            image: image.to_owned(),
            step,
        });
    }
}

/// Identifiers become names of folders.
fn check_path_part(what: &str, part: &str) -> Result<(), RuntimeError> {
    let harmless = !part.is_empty()
        && !matches!(part, "." | "..")
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if harmless {
        return Ok(());
    }
    Err(RuntimeError::InvalidState(format!(
        "{what} {part:?} has a name that cannot be a folder"
    )))
}

/// Nothing that is below what is in use can become a limit.
fn lowered(problems: Vec<String>) -> Result<(), RuntimeError> {
    let told = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    let told = format!("cannot decrease memory limits: {told}");
    Err(RuntimeError::InvalidState(told))
}

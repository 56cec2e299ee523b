//! A node with one pod, in a temporary folder.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_cri::{
    ContainerConfig, ContainerId, ContainerPort, ContainerState, ContainerStatus, DnsConfig,
    ImageError, ImageRef, ImageRequest, PodRuntime, PodSandboxConfig, PullPolicy, RuntimeError,
    SandboxId,
};
use coracle_image::{ImageStore, Images, ImagesConfig, NoRegistry};
use coracle_network::{Fabric, FabricConfig};
use coracle_sandbox::{SandboxConfig, TlsTrust, WasmRuntime};

/// The address of IPv6 that a name has, beside one of IPv4.
const NEWER: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 6));
/// How long a test waits for a state before it says what it saw instead.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) runtime: WasmRuntime,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) trust: Arc<TlsTrust>,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Node {
    /// A node with one thread for guests.
    pub(crate) fn start() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn in_folder(folder: tempfile::TempDir) -> Self {
        let clock = Clock::system();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let images = Images::new(ImagesConfig {
            store: ImageStore::open(folder.path().join("images"), clock.clone()).unwrap(),
            source: Arc::new(NoRegistry),
            allowed_folders: vec![
                folder.path().to_owned(),
                root.join("samples"),
                root.join("tests/guests"),
            ],
            max_bytes: 64 << 20,
        });
        let fabric = Fabric::new(FabricConfig::new([10, 240, 0, 1].into()), clock.clone());
        let pods = folder.path().join("pods");
        let cache = folder.path().join("images/compiled");
        let config = SandboxConfig {
            guest_threads: 1,
            max_instances: 64,
            ..SandboxConfig::new(clock, fabric.clone(), images, pods, cache)
        };
        let trust = config.trust.clone();
        Self {
            folder,
            runtime: WasmRuntime::new(config).unwrap(),
            fabric,
            trust,
        }
    }

    /// Runs a pod sandbox named `name` at 10.240.0.`last`.
    pub(crate) async fn pod(&self, name: &str, last: u8) -> SandboxId {
        self.pod_also_at(name, last, None).await
    }

    /// The same, with an address of the other family too.
    pub(crate) async fn pod_also_at(
        &self,
        name: &str,
        last: u8,
        second_address: Option<IpAddr>,
    ) -> SandboxId {
        let id = SandboxId(name.to_owned());
        let config = PodSandboxConfig {
            id: id.clone(),
            pod: format!("default/{name}"),
            hostname: name.to_owned(),
            full_name: None,
            address: IpAddr::from([10, 240, 0, last]),
            second_address,
            host_network: false,
            host_aliases: vec![
                ([10, 240, 0, 3].into(), vec!["api".to_owned()]),
                ([10, 240, 0, 5].into(), vec!["store".to_owned()]),
                (NEWER, vec!["newer".to_owned()]),
                ([10, 240, 0, 6].into(), vec!["newer".to_owned()]),
            ],
            dns: DnsConfig::default(),
            log_directory: self.logs(name),
            memory_limit: None,
            cpu_limit_millis: None,
        };
        self.runtime.run_pod_sandbox(config).await.unwrap();
        id
    }

    fn logs(&self, pod: &str) -> PathBuf {
        self.folder.path().join("pods").join(pod).join("logs")
    }

    /// Writes a guest in WebAssembly's text form and makes an image of it.
    pub(crate) async fn image(&self, text: &str) -> Result<ImageRef, ImageError> {
        let bytes = wat::parse_str(text).unwrap();
        let path = self.folder.path().join("guest.wasm");
        std::fs::write(&path, bytes).unwrap();
        self.ensure(&path).await
    }

    pub(crate) async fn sample(&self, path: &str) -> ImageRef {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
        self.ensure(&samples.join(path).canonicalize().unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn ensure(&self, path: &Path) -> Result<ImageRef, ImageError> {
        let image = format!("file://{}", path.display());
        let request = ImageRequest {
            image,
            policy: PullPolicy::Always,
            known_digest: None,
            pull_secrets: Vec::new(),
            command: Vec::new(),
        };
        self.runtime.ensure_image(request).await
    }

    /// Starts a container that needs nothing but its image.
    pub(crate) async fn run(&self, pod: &SandboxId, image: &ImageRef) -> ContainerId {
        let config = container(pod, "app", image);
        let id = config.id.clone();
        self.runtime.start_container(config).await.unwrap();
        id
    }

    pub(crate) async fn start_with(&self, config: ContainerConfig) -> Result<(), RuntimeError> {
        self.runtime.start_container(config).await
    }

    pub(crate) async fn status(&self, id: &ContainerId) -> Option<ContainerStatus> {
        let pods = self.runtime.list().await;
        let pod = pods.into_iter().find(|pod| pod.id == id.sandbox)?;
        pod.containers
            .into_iter()
            .find(|container| container.id == *id)
    }

    /// Waits for the end of a container's latest run.
    pub(crate) async fn exit(&self, id: &ContainerId) -> Exited {
        let ended = self.until(|| async {
            match self.status(id).await?.state {
                ContainerState::Exited {
                    exit_code,
                    reason,
                    message,
                    ..
                } => Some(Exited {
                    code: exit_code,
                    reason,
                    message,
                }),
                _ => None,
            }
        });
        match ended.await {
            Some(exited) => exited,
            None => panic!("{id} did not end: {:?}", self.status(id).await),
        }
    }

    /// Asks again and again until `state` has an answer; `None` when it takes too long.
    pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        state: impl Fn() -> F,
    ) -> Option<T> {
        let asking = async {
            loop {
                if let Some(answer) = state().await {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.ok()
    }

    /// The lines of a log without their times: `stdout F text`.
    pub(crate) fn log(&self, id: &ContainerId, run: u32) -> Vec<String> {
        let path = self
            .logs(&id.sandbox.0)
            .join(&id.name)
            .join(format!("{run}.log"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }
}

/// A container of `pod` that needs nothing but its image.
pub(crate) fn container(pod: &SandboxId, name: &str, image: &ImageRef) -> ContainerConfig {
    ContainerConfig {
        id: ContainerId {
            sandbox: pod.clone(),
            name: name.to_owned(),
        },
        image: image.clone(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        mounts: Vec::new(),
        ports: Vec::new(),
        memory_limit: None,
        cpu_limit_millis: None,
        cpu_weight_millis: 1,
        restart_count: 0,
        stdin: false,
        stdin_once: false,
        tty: false,
        read_only_root: false,
        termination_message: Default::default(),
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: name.to_owned(),
        port,
        tcp: true,
    }
}

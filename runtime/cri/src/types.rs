//! The values that cross the container runtime interface.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use coracle_clock::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

/// Identifies one sandbox on this node; the kubelet uses the pod's UID.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SandboxId(pub String);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies a container of a sandbox by its name; every restart is another run of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId {
    /// The sandbox that the container belongs to.
    pub sandbox: SandboxId,
    /// The container's name, unique within its sandbox.
    pub name: String,
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sandbox, self.name)
    }
}

/// What a sandbox is made of before its first container.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSandboxConfig {
    /// Chosen by the caller; must be new on this node.
    pub id: SandboxId,
    /// `namespace/name` of the pod, for messages and spans only.
    pub pod: String,
    /// The name that guests see as their host name.
    pub hostname: String,
    /// Its name with its domain, if it has one; that stands before its first label in `/etc/hosts`.
    pub full_name: Option<String>,
    /// The address of the pod, which the caller allocated.
    pub address: IpAddr,
    /// Its address of the other family, where pods have both.
    pub second_address: Option<IpAddr>,
    /// Its sockets reach what those of the host's own programs reach.
    pub host_network: bool,
    /// Further lines of `/etc/hosts`: address and its names.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
    /// The contents of `/etc/resolv.conf`.
    pub dns: DnsConfig,
    /// Folder for the log files `<container>/<restart count>.log`.
    pub log_directory: PathBuf,
    /// Bytes that all containers of the pod may use together.
    pub memory_limit: Option<u64>,
    /// Thousandths of a core that they may use together.
    pub cpu_limit_millis: Option<u64>,
}

/// How names are looked up in a sandbox; the shape of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Addresses of name servers.
    pub servers: Vec<IpAddr>,
    /// Suffixes tried in order.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// When an image is asked for anew rather than taken from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Resolve the reference again at each start.
    Always,
    /// Only when the node has no image of that reference.
    IfNotPresent,
    /// Only what the node has.
    Never,
}

/// A request to have an image ready to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// The reference as the manifest has it, such as `file:///srv/app.wasm` or `ghcr.io/a/b:1`.
    pub image: String,
    /// When to ask its source.
    pub policy: PullPolicy,
    /// A digest that this node already runs under the reference, taken when the source of a
    /// `file:` image has gone.
    pub known_digest: Option<String>,
    /// Credentials for registries, of the pod.
    pub pull_secrets: Vec<PullSecret>,
    /// The container's `command`, which may name another program of the image than its own.
    pub command: Vec<String>,
}

/// A document of credentials for registries. Its content is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PullSecret {
    /// What messages call it, such as `default/registry-login`.
    pub name: String,
    /// Which form the content has.
    pub form: PullSecretForm,
    /// The document.
    pub content: Vec<u8>,
}

/// The forms of Docker's credential files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PullSecretForm {
    /// `config.json`: entries under `auths` (`kubernetes.io/dockerconfigjson`).
    ConfigJson,
    /// `.dockercfg`: the entries alone (`kubernetes.io/dockercfg`).
    DockerCfg,
}

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PullSecret({})", self.name)
    }
}

/// An image that is present and compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// The reference as it was asked for.
    pub image: String,
    /// `sha256:…` of its manifest or index, or of the bytes of a lone `.wasm` file.
    pub digest: String,
    /// Bytes of everything that belongs to it.
    pub size: u64,
}

/// What became of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// The image.
    pub image: ImageRef,
    /// How long it waited for its turn before anything was fetched.
    pub waited: Duration,
}

/// An image that the node keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageListing {
    /// `sha256:…`, as in [`ImageRef::digest`].
    pub digest: String,
    /// Its names in their full form.
    pub names: Vec<String>,
    /// Bytes of everything that belongs to it.
    pub size: u64,
    /// It cannot be had again from anywhere else and is not to be removed.
    pub pinned: bool,
}

/// How full the file system is that holds the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFs {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that are free for use.
    pub available: u64,
}

/// Why an image could not be made ready. The `Display` text is shown to users as it is.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The reference cannot be read.
    #[error("{0}")]
    InvalidName(String),
    /// The source said no, is not there or cannot be reached.
    #[error("{0}")]
    Pull(String),
    /// `PullPolicy::Never` and the node does not have it.
    #[error("{0}")]
    NeverPull(String),
    /// The bytes are not something that this runtime runs: what was found, and what is needed.
    #[error("{0}")]
    NotRunnable(String),
}

impl ImageError {
    /// The reason that a waiting container shows, as the kubelet of Kubernetes names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "InvalidImageName",
            Self::Pull(_) => "ErrImagePull",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::NotRunnable(_) => "ErrImageNotRunnable",
        }
    }
}

/// A directory or a file of the host that a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The directory or file on the host. A file that may be written has to be on the file system of the
    /// runtime's own folders.
    pub host_path: PathBuf,
    /// Absolute path that the guest sees.
    pub container_path: String,
    /// Writes are refused.
    pub read_only: bool,
    /// The folder that `host_path` was found in, without links, if guests may change what is in there: it is
    /// opened only as long as no link leads it out.
    pub within: Option<PathBuf>,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name, or empty.
    pub name: String,
    /// The port in the pod's namespace.
    pub port: u16,
    /// True for TCP, false for UDP.
    pub tcp: bool,
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerConfig {
    /// Which container of which sandbox.
    pub id: ContainerId,
    /// The image, which [`ensure_image`](crate::PodRuntime::ensure_image) returned.
    pub image: ImageRef,
    /// Replaces the image's entry point when not empty (the program's name and first arguments).
    pub command: Vec<String>,
    /// Arguments after the command.
    pub args: Vec<String>,
    /// Environment, in order, names unique.
    pub env: Vec<(String, String)>,
    /// Working directory, or empty for `/`.
    pub working_dir: String,
    /// Directories and files that the guest sees.
    pub mounts: Vec<Mount>,
    /// Whether the guest may only read its own root, as far as no mount covers it.
    pub read_only_root: bool,
    /// Declared ports in the order of the manifest.
    pub ports: Vec<ContainerPort>,
    /// Bytes of linear memories and tables together.
    pub memory_limit: Option<u64>,
    /// CPU quota in thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// Weight under contention: the CPU request in thousandths of a core, at least 1.
    pub cpu_weight_millis: u64,
    /// Number of this run, from 0; names the log file.
    pub restart_count: u32,
    /// Whether stdin stays open (it never carries data before `attach`).
    pub stdin: bool,
    /// Whether stdin ends with the first that was attached to it.
    pub stdin_once: bool,
    /// Whether the guest's streams are a terminal.
    pub tty: bool,
    /// Where the guest says why it ends.
    pub termination_message: TerminationMessage,
    /// Free annotations for runtime switches, such as `coracle.dev/nonblocking-listeners`.
    pub annotations: BTreeMap<String, String>,
}

/// What a guest leaves to be said of its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminationMessage {
    /// The file that the guest may write, in its own root; empty for none.
    pub path: String,
    /// When a run fails and the file is empty, the end of its log is taken instead.
    pub fall_back_to_logs: bool,
}

/// What a container may use from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// As in [`ContainerConfig::memory_limit`].
    pub memory_limit: Option<u64>,
    /// As in [`ContainerConfig::cpu_limit_millis`].
    pub cpu_limit_millis: Option<u64>,
    /// As in [`ContainerConfig::cpu_weight_millis`].
    pub cpu_weight_millis: u64,
    /// As in [`PodSandboxConfig::memory_limit`].
    pub pod_memory_limit: Option<u64>,
    /// As in [`PodSandboxConfig::cpu_limit_millis`].
    pub pod_cpu_limit_millis: Option<u64>,
}

/// What a sandbox may use as a whole from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxResize {
    /// As in [`PodSandboxConfig::memory_limit`].
    pub memory_limit: Option<u64>,
    /// As in [`PodSandboxConfig::cpu_limit_millis`].
    pub cpu_limit_millis: Option<u64>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Asked for, not yet running.
    Created,
    /// The instance runs; `started_at` is when it began.
    Running {
        /// Start of this run.
        started_at: Timestamp,
        /// For served worlds (`wasi:http`) true once the port is bound; true at once otherwise.
        serving: bool,
    },
    /// The run has ended.
    Exited {
        /// Start of this run.
        started_at: Timestamp,
        /// End of this run.
        finished_at: Timestamp,
        /// Exit code as a shell would show it.
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
        reason: String,
        /// Termination message: what a trap was and where.
        message: String,
    },
}

/// A container and its latest run.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Which container.
    pub id: ContainerId,
    /// Number of the run.
    pub restart_count: u32,
    /// The image it runs.
    pub image: ImageRef,
    /// Where it is.
    pub state: ContainerState,
}

/// A sandbox and its containers.
#[derive(Clone, Debug, PartialEq)]
pub struct SandboxStatus {
    /// Which sandbox.
    pub id: SandboxId,
    /// Its address.
    pub address: IpAddr,
    /// Its containers, in the order of their first start.
    pub containers: Vec<ContainerStatus>,
}

/// A change that a subscriber may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum RuntimeEvent {
    /// The container's state changed.
    Container(ContainerStatus),
    /// An image is on its way.
    ImageProgress {
        /// The reference as it was asked for.
        image: String,
        /// What is being done.
        step: ImageStep,
    },
}

/// A stage of making an image ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageStep {
    /// Bytes are being fetched.
    Pulling,
    /// So many bytes have come.
    Downloading {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Machine code is being made.
    Compiling {
        /// Size of the module.
        bytes: u64,
    },
    /// Machine code was found in the cache or is done.
    Ready,
}

/// Why the runtime refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// No such sandbox or container.
    #[error("{0} was not found in the pod runtime")]
    NotFound(String),
    /// The call does not fit the state.
    #[error("{0}")]
    InvalidState(String),
    /// A limit of the node was reached: what, and how to raise it.
    #[error("{0}")]
    Exhausted(String),
    /// The guest could not be started.
    #[error("{0}")]
    Start(String),
}

/// A byte stream in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A byte stream whose kind does not matter.
pub type BoxedStream = Pin<Box<dyn ByteStream>>;

//! What a runtime is made of, why it cannot be made, and what its containers use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_image::{Images, StoreError};
use coracle_network::Fabric;

use crate::tls::TlsTrust;

/// What a [`WasmRuntime`](super::WasmRuntime) is made of.
pub struct SandboxConfig {
    /// Time and randomness.
    pub clock: Clock,
    /// The switch that pods are connected to.
    pub fabric: Arc<Fabric>,
    /// Where images come from.
    pub images: Images,
    /// Folder for the containers' root folders, one per sandbox.
    pub pods_dir: PathBuf,
    /// Folder for compiled code.
    pub cache_dir: PathBuf,
    /// Bytes of compiled code to keep.
    pub cache_bytes: u64,
    /// Threads that guests run on.
    pub guest_threads: usize,
    /// Threads that compile.
    pub compile_threads: usize,
    /// Instances at once. The system's limit of memory mappings may lower it.
    pub max_instances: u32,
    /// Bytes that all guests together may use.
    pub memory_bytes: u64,
    /// Whose certificates guests' `https` requests believe.
    pub trust: Arc<TlsTrust>,
}

impl SandboxConfig {
    /// A configuration for this machine: a thread per core, 2000 instances, 1 GiB of compiled code,
    /// no bound on memory but those of the pods, and the host's certificate authorities.
    pub fn new(
        clock: Clock,
        fabric: Arc<Fabric>,
        images: Images,
        pods_dir: PathBuf,
        cache_dir: PathBuf,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Self {
            clock,
            fabric,
            images,
            pods_dir,
            cache_dir,
            cache_bytes: 1 << 30,
            guest_threads: cores,
            compile_threads: cores,
            max_instances: 2000,
            memory_bytes: u64::MAX,
            trust: Arc::new(TlsTrust::host()),
        }
    }
}

/// The runtime could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The engine refused its settings.
    #[error("failed to make the wasm engine: {0:#}")]
    Engine(wasmtime::Error),
    /// Threads could not be started.
    #[error("failed to start threads for guests")]
    Threads(#[source] std::io::Error),
    /// Threads for the compiler could not be started.
    #[error("failed to start threads for the compiler")]
    CompilerThreads(#[source] rayon::ThreadPoolBuildError),
    /// The cache of compiled code cannot be used.
    #[error(transparent)]
    Cache(#[from] StoreError),
}

/// What a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of this run.
    pub cpu: Duration,
    /// Periods in which the CPU limit held it back.
    pub throttled_periods: u64,
    /// Bytes of its memories and tables now.
    pub memory_bytes: u64,
}

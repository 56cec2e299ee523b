//! A pod sandbox: what its containers share, and the containers themselves.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_clock::{Clock, Timestamp};
use coracle_cri::{
    ContainerId, ContainerState, ContainerStatus, PodSandboxConfig, SandboxResize, SandboxStatus,
};
use coracle_network::NetworkNamespace;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::container::{Guest, StopHandle};
use crate::cpu::{CpuShare, CpuTotal};
use crate::exec::{OWN_SESSIONS_PER_POD, SESSIONS_PER_POD};
use crate::hosts::keyvalue;
use crate::logs::{FloodRate, LogRate};
use crate::memory::MemoryBudget;
use crate::preopens::PodFiles;

/// The surroundings of a pod's containers.
pub(crate) struct Pod {
    pub(crate) config: PodSandboxConfig,
    pub(crate) namespace: Arc<NetworkNamespace>,
    pub(crate) memory: Arc<MemoryBudget>,
    /// Buckets of `wasi:keyvalue` that are on no volume.
    pub(crate) keyvalue: Arc<keyvalue::Memory>,
    /// Holds a root folder per container.
    pub(crate) roots: PathBuf,
    /// Bounds the sessions of exec and attach.
    pub(crate) sessions: Arc<Semaphore>,
    /// Bounds the node's own, so that a pod with many clients is probed all the same.
    pub(crate) own_sessions: Arc<Semaphore>,
    pub(crate) clock: Clock,
    pub(crate) created_at: Timestamp,
    /// What all its logs may write.
    pub(crate) log_rate: Arc<LogRate>,
    /// What all its runs have used, and may use.
    pub(crate) cpu: Arc<CpuTotal>,
    /// The latest run of each container, in the order of their first start.
    runs: Mutex<Vec<Arc<Run>>>,
}

/// One run of a container.
pub(crate) struct Run {
    status: Mutex<ContainerStatus>,
    pub(crate) stop: StopHandle,
    /// Cancelled when the run has ended and its status says so.
    pub(crate) ended: CancellationToken,
    pub(crate) cpu: Arc<CpuShare>,
    pub(crate) memory: Arc<MemoryBudget>,
    /// Its surroundings while it runs, for what is executed beside it.
    guest: Mutex<Option<Arc<Guest>>>,
}

impl Pod {
    pub(crate) fn new(
        config: PodSandboxConfig,
        namespace: Arc<NetworkNamespace>,
        memory: Arc<MemoryBudget>,
        roots: PathBuf,
        clock: Clock,
        flood: Arc<FloodRate>,
    ) -> Self {
        let cpu_limit_millis = config.cpu_limit_millis;
        Self {
            config,
            namespace,
            keyvalue: keyvalue::Memory::new(memory.clone()),
            memory,
            roots,
            sessions: Arc::new(Semaphore::new(SESSIONS_PER_POD)),
            own_sessions: Arc::new(Semaphore::new(OWN_SESSIONS_PER_POD)),
            created_at: clock.now(),
            log_rate: Arc::new(LogRate::new(clock.clone(), flood)),
            cpu: Arc::new(CpuTotal::new(cpu_limit_millis, clock.monotonic())),
            clock,
            runs: Mutex::default(),
        }
    }

    /// Lets its containers together have that from now on.
    pub(crate) fn resize(&self, to: SandboxResize) {
        self.memory.set_limit(to.memory_limit);
        let now = self.clock.monotonic();
        self.cpu.set_limit(to.cpu_limit_millis, now);
    }

    /// The files that every container finds in `/etc`.
    pub(crate) fn files(&self) -> PodFiles {
        PodFiles {
            hosts: self.namespace.hosts_file(),
            resolv_conf: self.namespace.resolv_conf(),
            hostname: self.config.hostname.clone(),
        }
    }

    pub(crate) fn run(&self, container: &str) -> Option<Arc<Run>> {
        self.runs
            .lock()
            .iter()
            .find(|run| run.is_of(container))
            .cloned()
    }

    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        self.runs.lock().clone()
    }

    /// Puts `run` in the place of its container's earlier run. False, and nothing changes, when that
    /// one has not ended.
    pub(crate) fn begin(&self, run: Arc<Run>) -> bool {
        let name = run.status().id.name;
        let mut runs = self.runs.lock();
        match runs.iter_mut().find(|earlier| earlier.is_of(&name)) {
            Some(earlier) if !earlier.ended.is_cancelled() => return false,
            Some(earlier) => *earlier = run,
            None => runs.push(run),
        }
        true
    }

    /// Takes a run back that could not begin.
    pub(crate) fn forget(&self, run: &Arc<Run>) {
        self.runs.lock().retain(|kept| !Arc::ptr_eq(kept, run));
    }

    pub(crate) fn status(&self) -> SandboxStatus {
        SandboxStatus {
            id: self.config.id.clone(),
            address: self.config.address,
            containers: self.runs().iter().map(|run| run.status()).collect(),
        }
    }
}

impl Run {
    pub(crate) fn new(
        status: ContainerStatus,
        stop: StopHandle,
        cpu: Arc<CpuShare>,
        memory: Arc<MemoryBudget>,
    ) -> Arc<Self> {
        let (status, ended) = (Mutex::new(status), CancellationToken::new());
        Arc::new(Self {
            status,
            stop,
            ended,
            cpu,
            memory,
            guest: Mutex::default(),
        })
    }

    pub(crate) fn guest(&self) -> Option<Arc<Guest>> {
        self.guest.lock().clone()
    }

    /// Set when the run begins, and forgotten when it has ended.
    pub(crate) fn set_guest(&self, guest: Option<Arc<Guest>>) {
        *self.guest.lock() = guest;
    }

    pub(crate) fn status(&self) -> ContainerStatus {
        self.status.lock().clone()
    }

    pub(crate) fn id(&self) -> ContainerId {
        self.status.lock().id.clone()
    }

    /// Changes the state and returns the whole status, for the event.
    pub(crate) fn set_state(&self, state: ContainerState) -> ContainerStatus {
        let mut status = self.status.lock();
        status.state = state;
        status.clone()
    }

    fn is_of(&self, container: &str) -> bool {
        self.status.lock().id.name == container
    }
}

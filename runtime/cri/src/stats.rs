//! What pods use: the shapes of CRI's `ContainerStats` and `PodSandboxStats`.

use std::time::Duration;

use coracle_clock::Timestamp;

use crate::{ContainerId, SandboxId};

/// What one run of a container uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStats {
    /// Which container.
    pub id: ContainerId,
    /// Number of the run, from 0.
    pub restart_count: u32,
    /// Start of the run; counters begin with it.
    pub started_at: Timestamp,
    /// Its processor time.
    pub cpu: CpuUsage,
    /// Its memory.
    pub memory: MemoryUsage,
}

/// What a container keeps on the node's disk, its latest run's root and the logs of all runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerDisk {
    /// Its name within its sandbox.
    pub name: String,
    /// Its own root: what the image brought and what it wrote; no mounts.
    pub writable_layer: DiskUsage,
    /// Its log files, those put aside included.
    pub logs: DiskUsage,
}

/// Processor time since the start of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// Time spent in the guest, on all cores together.
    pub used: Duration,
    /// Periods of 100 ms in which the limit held it back.
    pub throttled_periods: u64,
    /// How long the limit has held it back, summed over what was held back at once.
    pub throttled: Duration,
    /// Quota in thousandths of a core.
    pub limit_millis: Option<u64>,
}

/// Memory of a run, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Linear memories, tables, and what the runtime holds for the guest.
    pub working_set: u64,
    /// The most that memories and tables have been.
    pub peak: u64,
    /// What it may use at most.
    pub limit: Option<u64>,
    /// Whether it was ended for wanting more.
    pub exceeded: bool,
}

/// What lies on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that the files take.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
}

/// Traffic of a sandbox since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkUsage {
    /// Bytes that its guests have read.
    pub received_bytes: u64,
    /// Bytes that its guests have written.
    pub sent_bytes: u64,
    /// Datagrams to it that were lost because a queue was full.
    pub dropped_datagrams: u64,
    /// Sockets it has, connections waiting to be accepted included.
    pub sockets: u64,
}

/// What a sandbox and its containers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxStats {
    /// Which sandbox.
    pub id: SandboxId,
    /// When this was looked at.
    pub at: Timestamp,
    /// When the sandbox was made.
    pub created_at: Timestamp,
    /// Processor time of everything that has run in it, ended runs and commands beside containers included.
    pub cpu: Duration,
    /// What its containers may use together, in thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// Periods of 100 ms in which they had used that up.
    pub throttled_periods: u64,
    /// Bytes of memory: its containers', what is executed beside them, and unread bytes of its sockets.
    pub working_set: u64,
    /// Bytes that it may use at most.
    pub memory_limit: Option<u64>,
    /// Its traffic.
    pub network: NetworkUsage,
    /// The runs that are up, in the order of their containers' first start.
    pub containers: Vec<ContainerStats>,
}

//! What pods use, counted where they use it.

use std::path::{Path, PathBuf};

use coracle_clock::Timestamp;
use coracle_cri::{
    ContainerDisk, ContainerState, ContainerStats, CpuUsage, DiskUsage, MemoryUsage, NetworkUsage,
    PodSandboxStats,
};

use crate::pod::{Pod, Run};

/// Files and folders that are counted of one container at most; what lies beyond them is not seen.
const MAX_ENTRIES: u64 = 200_000;

/// What the pod and its running containers use at this moment.
pub(crate) fn pod_stats(pod: &Pod, at: Timestamp) -> PodSandboxStats {
    let traffic = pod.namespace.traffic();
    let containers: Vec<_> = pod.runs().iter().filter_map(|run| run_stats(run)).collect();
    let buffers: u64 = containers.iter().map(|container| container.buffers).sum();
    PodSandboxStats {
        id: pod.config.id.clone(),
        at,
        created_at: pod.created_at,
        cpu: pod.cpu.used(),
        cpu_limit_millis: pod.cpu.limit_millis(),
        throttled_periods: pod.cpu.throttled_periods(),
        working_set: pod.memory.used() + buffers + pod.namespace.buffered_bytes() as u64,
        memory_limit: pod.memory.own_limit(),
        network: NetworkUsage {
            received_bytes: traffic.received_bytes,
            sent_bytes: traffic.sent_bytes,
            dropped_datagrams: traffic.dropped_datagrams,
            sockets: pod.namespace.sockets() as u64,
        },
        containers: containers
            .into_iter()
            .map(|container| container.stats)
            .collect(),
    }
}

struct Counted {
    stats: ContainerStats,
    /// The part of its working set that no memory budget knows.
    buffers: u64,
}

/// What a run uses, while it is up.
fn run_stats(run: &Run) -> Option<Counted> {
    let status = run.status();
    let ContainerState::Running { started_at, .. } = status.state else {
        return None;
    };
    let buffers = run.guest().map_or(0, |guest| guest.logs.waiting() as u64);
    let stats = ContainerStats {
        id: status.id,
        restart_count: status.restart_count,
        started_at,
        cpu: CpuUsage {
            used: run.cpu.used(),
            throttled_periods: run.cpu.throttled_periods(),
            throttled: run.cpu.throttled(),
            limit_millis: run.cpu.limit_millis(),
        },
        memory: MemoryUsage {
            working_set: run.memory.used() + buffers,
            peak: run.memory.peak(),
            limit: run.memory.own_limit(),
            exceeded: run.memory.refusal().is_some(),
        },
    };
    Some(Counted { stats, buffers })
}

/// What the pod's containers keep on disk. Blocks on the disk.
pub(crate) fn disk_usage(pod: &Pod) -> Vec<ContainerDisk> {
    let of = |run: &std::sync::Arc<Run>| {
        let name = run.id().name;
        ContainerDisk {
            writable_layer: measure(&pod.roots.join(&name)),
            logs: measure(&pod.config.log_directory.join(&name)),
            name,
        }
    };
    pod.runs().iter().map(of).collect()
}

/// Counts what is below `folder`, following no links. What cannot be read counts as nothing.
fn measure(folder: &Path) -> DiskUsage {
    let mut usage = DiskUsage::default();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        usage.inodes += 1;
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if usage.inodes >= MAX_ENTRIES {
                return usage;
            }
            if found.is_dir() {
                folders.push(entry.path());
                continue;
            }
            usage.inodes += 1;
            usage.bytes += on_disk(&found);
        }
    }
    usage
}

/// Bytes that a file takes: of a sparse one, only what was written.
fn on_disk(found: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::blocks(found) * 512
    }
    #[cfg(not(unix))]
    found.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        assert_eq!(measure(&root).bytes, 0);
        std::fs::write(root.join("a/b/file"), vec![1; 10_000]).unwrap();
        std::fs::write(folder.path().join("outside"), vec![1; 1 << 20]).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), root.join("up")).unwrap();
        let usage = measure(&root);
        assert!(
            (10_000..100_000).contains(&usage.bytes),
            "{} bytes",
            usage.bytes
        );
        // Three folders, the file and the link.
        assert_eq!(usage.inodes, if cfg!(unix) { 5 } else { 4 });
        assert_eq!(measure(&folder.path().join("none")), DiskUsage::default());
    }
}

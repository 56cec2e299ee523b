//! What a pod's volumes hold. Blocks on the disk.
//!
//! As upstream's `volume_stat_calculator.go`: files of the pod are counted, a volume behind a claim is what
//! its file system says, and a hostPath is the host's own affair. What the node provisioned itself is a
//! folder, and counted too: its file system is shared by everything on the node.

use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::environment::Sources;
use crate::eviction::{count, size_in_memory};
use crate::kubelet::KubeletConfig;
use crate::volumes::{self, Behind};

/// One volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeSample {
    pub(crate) name: String,
    /// The claim behind it, of the pod's namespace.
    pub(crate) claim: Option<String>,
    /// It ends with its pod, and counts as its ephemeral storage.
    pub(crate) is_ephemeral: bool,
    /// Bytes on disk, and files.
    pub(crate) used: u64,
    pub(crate) inodes_used: u64,
    /// What it lies on, if the system tells.
    pub(crate) on: Option<FileSystem>,
}

/// A file system, as those see it who have no privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

/// The volumes of `pod` that have figures, in the order of its spec.
pub(crate) fn measure(
    pod: &Pod,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Vec<VolumeSample> {
    let all = volumes::volumes(pod);
    all.filter_map(|volume| one(pod, volume, config, sources))
        .collect()
}

fn one(
    pod: &Pod,
    volume: &Volume,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Option<VolumeSample> {
    let (path, claim) = match volumes::behind(pod, volume, config, sources)? {
        Behind::Files(path) => (path, None),
        Behind::Claim { name, path } => (path, Some(name)),
    };
    let is_ephemeral = claim.is_none();
    let mut on = file_system(&path);
    let (used, inodes_used) = match on {
        Some(on) if !is_ephemeral && !path.starts_with(config.volumes_directory()) => (
            on.capacity.saturating_sub(on.available),
            on.inodes.saturating_sub(on.inodes_free),
        ),
        _ => count(&path, None),
    };
    if let (Some(on), Some(most)) = (&mut on, size_in_memory(pod, volume)) {
        on.capacity = most.min(on.capacity);
        on.available = on.capacity.saturating_sub(used).min(on.available);
    }
    Some(VolumeSample {
        name: volume.name.clone(),
        claim,
        is_ephemeral,
        used,
        inodes_used,
        on,
    })
}

#[cfg(unix)]
fn file_system(path: &Path) -> Option<FileSystem> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(FileSystem {
        capacity: found.f_blocks.saturating_mul(found.f_frsize),
        available: found.f_bavail.saturating_mul(found.f_frsize),
        inodes: found.f_files,
        inodes_free: found.f_ffree,
    })
}

#[cfg(not(unix))]
fn file_system(_: &Path) -> Option<FileSystem> {
    None
}

//! A pod's volumes as folders of the node.
//!
//! ```text
//! <pod>/volumes/<name>/                 an emptyDir: what guests write
//! <pod>/volumes/<name>/..data ─▶ ..3    a configMap, secret, downwardAPI or projected volume:
//! <pod>/volumes/<name>/..3/key          one generation of files, swapped as a whole
//! <pod>/volumes/<name>/key ─▶ ..data/key
//! <data>/volumes/<volume>/              a PersistentVolume that was provisioned
//! ```
//!
//! [`prepare`] makes them and, called again, brings changed files up to date; [`mounts`] says which
//! folders a container sees. Everything here blocks on the disk.
//!
//! What differs from upstream: links are relative to their own folder only (the sandbox refuses to
//! follow any other), and an emptyDir of medium `Memory` lies on disk.

mod claim;
mod error;
mod generation;
mod host_path;
mod keep;
mod mount;
mod payload;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

pub(crate) use error::{Problem, VolumeError};
pub(crate) use keep::{ChangedSources, Source};
pub(crate) use mount::{mounts, read_file};

use crate::environment::Sources;
use crate::kubelet::KubeletConfig;
use host_path::Closed;
use mount::relative;

/// Makes every volume of `pod`, which has `address`; of one that stands already, files whose sources
/// have changed are swapped for new ones in one step. The error is that of the first that could not be made; it keeps
/// no other from being up to date, since a pod that runs goes on with what it has.
pub(crate) fn prepare(
    pod: &Pod,
    address: &str,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Result<(), VolumeError> {
    let mut first = Ok(());
    for volume in volumes(pod) {
        let made = prepare_one(pod, volume, address, config, sources);
        let made = made.map_err(|problem| VolumeError::SetUp {
            volume: volume.name.clone(),
            problem: Box::new(problem),
        });
        first = first.and(made);
    }
    first
}

fn prepare_one(
    pod: &Pod,
    volume: &Volume,
    address: &str,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Result<(), Problem> {
    if let Some(source) = &volume.host_path {
        let kind = source.type_.as_deref().unwrap_or_default();
        return host_path::resolve(&source.path, kind, &closed(config, None)).map(drop);
    }
    if claim::name(pod, volume).is_some() {
        let volumes = config.volumes_directory();
        let closed = closed(config, Some(&volumes));
        return claim::resolve(pod, volume, sources, &closed).map(drop);
    }
    // Pulled for the containers that mount it, as their own images are.
    if volume.image.is_some() {
        return Ok(());
    }
    let directory = directory(pod, volume, config);
    if volume.empty_dir.is_some() {
        return make_folder(&directory);
    }
    let files = payload::of(pod, volume, address, sources)?;
    make_folder(&directory)?;
    generation::write(&directory, &files)
}

fn closed<'a>(config: &'a KubeletConfig, volumes: Option<&'a Path>) -> Closed<'a> {
    Closed {
        data_directory: &config.data_directory,
        volumes,
    }
}

pub(crate) fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
}

/// What lies behind a volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Files of the pod's own.
    Files(PathBuf),
    /// The claim `name`, which is bound to a volume that is a folder here.
    Claim { name: String, path: PathBuf },
}

/// What lies behind a volume of a pod that runs; nothing for what is not the pod's: folders of the host,
/// images, claims that are not bound.
pub(crate) fn behind(
    pod: &Pod,
    volume: &Volume,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Option<Behind> {
    if volume.host_path.is_some() || volume.image.is_some() {
        return None;
    }
    let Some((name, _)) = claim::name(pod, volume) else {
        return Some(Behind::Files(directory(pod, volume, config)));
    };
    let volumes = config.volumes_directory();
    let closed = closed(config, Some(&volumes));
    let path = claim::resolve(pod, volume, sources, &closed).ok()?.path;
    Some(Behind::Claim { name, path })
}

pub(crate) fn directory(pod: &Pod, volume: &Volume, config: &KubeletConfig) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    config
        .defaults
        .pod_directory(uid)
        .join("volumes")
        .join(&volume.name)
}

/// Makes a folder that only the node's user may enter.
fn make_folder(path: &Path) -> Result<(), Problem> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(Problem::io("create folder", path))
}

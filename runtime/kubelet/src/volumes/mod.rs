//! A pod's volumes as folders of the node.
//!
//! ```text
//! <pod>/volumes/<name>/                 an emptyDir: what guests write
//! <pod>/volumes/<name>/..data ─▶ ..3    a configMap, secret, downwardAPI or projected volume:
//! <pod>/volumes/<name>/..3/key          one generation of files, swapped as a whole
//! <pod>/volumes/<name>/key ─▶ ..data/key
//! ```
//!
//! [`prepare`] makes them and, called again, brings changed files up to date; [`mounts`] says which
//! folders a container sees. Everything here blocks on the disk.
//!
//! What differs from upstream: links are relative to their own folder only (the sandbox refuses to
//! follow any other), single files cannot be mounted (a guest's preopens are folders), and an
//! emptyDir of medium `Memory` lies on disk.

mod generation;
mod host_path;
mod payload;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use coracle_cri::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use crate::environment::Sources;
use crate::kubelet::KubeletConfig;

/// Why a pod's volumes could not be made or mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// One volume could not be set up; upstream's words.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {problem}")]
    SetUp {
        /// The volume's name in the pod.
        volume: String,
        /// What was wrong.
        problem: Box<Problem>,
    },
    /// A container mounts a volume in a way that cannot be.
    #[error("failed to mount volume {volume:?} at {path}: {problem}")]
    Mount {
        /// The volume's name in the pod.
        volume: String,
        /// Where the container wants to see it.
        path: String,
        /// What was wrong.
        problem: Box<Problem>,
    },
    /// The work itself failed.
    #[error("failed to prepare volumes: {0}")]
    Failed(String),
}

/// What was wrong with one volume.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A named object is not there.
    #[error("{kind} {name:?} not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An item names a key that the object lacks.
    #[error("references non-existent {kind} key: {key}")]
    NoKey {
        /// `config` or `secret`, as upstream says it.
        kind: &'static str,
        /// The key.
        key: String,
    },
    /// A downward API item that has no value.
    #[error(transparent)]
    Field(#[from] crate::environment::ConfigError),
    /// A path of an item or a mount leaves its volume.
    #[error("path {0:?} must be relative and must not contain '..'")]
    Escapes(String),
    /// A token could not be had; upstream's words.
    #[error("{0}")]
    Token(String),
    /// More than a volume of files may hold.
    #[error(
        "its files have {size} bytes, and {limit} are the most that a volume made of objects may have"
    )]
    TooLarge {
        /// What it would have.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// A type that this node does not know.
    #[error(
        "volumes of type {0:?} are not supported; use emptyDir, configMap, secret, downwardAPI, projected or hostPath"
    )]
    Unsupported(String),
    /// A mount of something that is no folder.
    #[error("{0:?} is not a folder, and only folders can be mounted into a wasm container")]
    NotAFolder(PathBuf),
    /// The pod has no such volume.
    #[error("the pod has no volume of this name")]
    NoVolume,
    /// `subPathExpr` is not known yet.
    #[error("subPathExpr is not supported; use subPath")]
    Expression,
    /// A hostPath that reaches into the cluster's own data.
    #[error(
        "hostPath {path:?} reaches into the data directory {data_directory:?} of this node, which pods may not see"
    )]
    DataDirectory {
        /// What was asked for, after links.
        path: PathBuf,
        /// What is closed.
        data_directory: PathBuf,
    },
    /// A hostPath whose folder is not there.
    #[error("hostPath type check failed: {0} is not a directory")]
    HostPathMissing(String),
    /// A hostPath type other than a folder.
    #[error("hostPath type {0:?} is not supported; use Directory or DirectoryOrCreate")]
    HostPathType(String),
    /// The disk said no.
    #[error("failed to {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl VolumeError {
    /// The volume whose token could not be had, and why.
    pub(crate) fn token((volume, why): (String, String)) -> Self {
        Self::SetUp {
            volume,
            problem: Box::new(Problem::Token(why)),
        }
    }
}

impl Problem {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Makes every volume of `pod`, which has `address`; of one that stands already, files whose sources
/// have changed are swapped for new ones in one step.
pub(crate) fn prepare(
    pod: &Pod,
    address: &str,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Result<(), VolumeError> {
    for volume in volumes(pod) {
        prepare_one(pod, volume, address, config, sources).map_err(|problem| {
            VolumeError::SetUp {
                volume: volume.name.clone(),
                problem: Box::new(problem),
            }
        })?;
    }
    Ok(())
}

/// The folders that `container` sees, in the order of its spec.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    config: &KubeletConfig,
) -> Result<Vec<Mount>, VolumeError> {
    let all = container.volume_mounts.iter().flatten();
    all.map(|mount| {
        mount_one(pod, mount, config).map_err(|problem| VolumeError::Mount {
            volume: mount.name.clone(),
            path: mount.mount_path.clone(),
            problem: Box::new(problem),
        })
    })
    .collect()
}

fn prepare_one(
    pod: &Pod,
    volume: &Volume,
    address: &str,
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Result<(), Problem> {
    if let Some(source) = &volume.host_path {
        return host_path::resolve(source, &config.data_directory).map(drop);
    }
    let directory = directory(pod, volume, config);
    if volume.empty_dir.is_some() {
        return make_folder(&directory);
    }
    let files = payload::of(pod, volume, address, sources)?;
    make_folder(&directory)?;
    generation::write(&directory, &files)
}

fn mount_one(pod: &Pod, mount: &VolumeMount, config: &KubeletConfig) -> Result<Mount, Problem> {
    let volume = volumes(pod)
        .find(|volume| volume.name == mount.name)
        .ok_or(Problem::NoVolume)?;
    if mount
        .sub_path_expr
        .as_deref()
        .is_some_and(|expression| !expression.is_empty())
    {
        return Err(Problem::Expression);
    }
    let root = match &volume.host_path {
        Some(source) => host_path::resolve(source, &config.data_directory)?,
        None => directory(pod, volume, config),
    };
    let may_write = volume.empty_dir.is_some() || volume.host_path.is_some();
    let host_path = match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => sub_path(&root, path, may_write)?,
        None => root,
    };
    Ok(Mount {
        host_path,
        container_path: mount.mount_path.clone(),
        // Files that come from objects are never written by guests (as upstream since 1.9.6).
        read_only: !may_write || mount.read_only == Some(true),
    })
}

/// The folder `path` below `root`, made if it is not there. A guest may have put links into the
/// volume, so every step is resolved and has to stay inside.
fn sub_path(root: &Path, path: &str, may_write: bool) -> Result<PathBuf, Problem> {
    let root = root.canonicalize().map_err(Problem::io("open", root))?;
    let mut folder = root.clone();
    for name in relative(path)? {
        let next = folder.join(name);
        match next.canonicalize() {
            Ok(resolved) => folder = resolved,
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_write => {
                fs::create_dir(&next).map_err(Problem::io("create folder", &next))?;
                folder = next;
            }
            Err(error) => return Err(Problem::io("open", &next)(error)),
        }
        if !folder.starts_with(&root) {
            return Err(Problem::Escapes(path.to_owned()));
        }
    }
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Problem::NotAFolder(folder))
    }
}

/// The names that make up a relative path; refuses everything that could lead elsewhere.
fn relative(path: &str) -> Result<Vec<&OsStr>, Problem> {
    let names = Path::new(path)
        .components()
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
    let names: Option<Vec<_>> = names.collect();
    names
        .filter(|names| !names.is_empty())
        .ok_or_else(|| Problem::Escapes(path.to_owned()))
}

fn volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
}

fn directory(pod: &Pod, volume: &Volume, config: &KubeletConfig) -> PathBuf {
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

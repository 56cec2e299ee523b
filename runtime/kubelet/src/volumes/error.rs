//! What can be wrong with a pod's volumes, in words for its author.

use std::io;
use std::path::{Path, PathBuf};

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
        "volumes of type {0:?} are not supported; use emptyDir, configMap, secret, downwardAPI, projected, image, persistentVolumeClaim, ephemeral or hostPath"
    )]
    Unsupported(String),
    /// A mount of something that guests could not open.
    #[error(
        "{0:?} is neither a folder nor a file, and nothing else can be mounted into a wasm container"
    )]
    NotMountable(PathBuf),
    /// The pod has no such volume.
    #[error("the pod has no volume of this name")]
    NoVolume,
    /// `subPathExpr` names a variable that the container does not have; upstream's words.
    #[error("failed to expand subPathExpr {expression:?}: missing value for {variable:?}")]
    Expression {
        /// The whole expression.
        expression: String,
        /// What is missing.
        variable: String,
    },
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
    /// A hostPath that is not what its type says; upstream's words.
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPathType {
        /// As the manifest has it.
        path: String,
        /// Such as `directory`.
        wanted: &'static str,
    },
    /// A hostPath type that there is not.
    #[error("hostPath type check failed: {0} is an invalid volume type")]
    NoSuchType(String),
    /// The claim is not there, or not bound, or not the pod's; upstream's words.
    #[error("{0}")]
    Claim(String),
    /// A volume of the cluster that is nothing of this host.
    #[error(
        "its PersistentVolume is of type {0:?}, which is not supported; use hostPath or local, or a StorageClass that provisions"
    )]
    UnsupportedClaim(String),
    /// The image of an `image` volume was not had before the container started.
    #[error("its image is not there")]
    NoImage,
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
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

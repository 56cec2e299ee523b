//! The folder that a cluster lives in, held by one process at a time.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use etcetera::BaseStrategy;

use crate::files;

/// A data directory that this process holds until it is dropped.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    /// Removes the folder at the end, for a throw-away cluster.
    _temporary: Option<tempfile::TempDir>,
}

impl DataDir {
    /// Makes and holds `chosen`, or the default; `throw_away` takes a temporary folder instead of
    /// the default, removed at the end.
    pub fn open(chosen: Option<&Path>, throw_away: bool) -> Result<Self> {
        let (path, temporary) = match chosen {
            Some(path) => (std::path::absolute(path)?, None),
            None if throw_away => {
                let folder = tempfile::Builder::new()
                    .prefix("coracle-")
                    .tempdir()
                    .context("failed to create a temporary folder")?;
                (folder.path().to_owned(), Some(folder))
            }
            None => (default_path()?, None),
        };
        files::make_private_folder(&path)?;
        let lock = lock(&path)?;
        Ok(Self {
            path,
            _lock: lock,
            _temporary: temporary,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// The folder of `--data-dir`, or the default, without holding it.
pub fn locate(chosen: Option<&Path>) -> Result<PathBuf> {
    match chosen {
        Some(path) => Ok(std::path::absolute(path)?),
        None => default_path(),
    }
}

fn default_path() -> Result<PathBuf> {
    let strategy = etcetera::choose_base_strategy().map_err(|_| {
        anyhow!("no home directory was found for the cluster's state: set HOME or pass --data-dir")
    })?;
    Ok(strategy
        .state_dir()
        .unwrap_or_else(|| strategy.data_dir())
        .join("coracle"))
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("failed to open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => String::new(),
                pid => format!(" (process {pid})"),
            };
            bail!(
                "the data directory {} is held by another coracle{holder}: stop that one, or choose another folder with --data-dir",
                folder.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .with_context(|| format!("failed to write {}", path.display()))?;
    Ok(file)
}

/// Removes what an earlier run of a throw-away cluster may have left, and what is rebuilt anyway.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data");
        let held = DataDir::open(Some(&path), false).expect("held");
        let error = DataDir::open(Some(&path), false)
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        DataDir::open(Some(&path), false).expect("free again");
    }

    #[test]
    fn a_throw_away_folder_goes_with_its_cluster() {
        let held = DataDir::open(None, true).expect("made");
        let path = held.path().to_owned();
        assert!(path.is_dir());
        drop(held);
        assert!(!path.exists());
    }
}

//! The file operations of the store, one by one, so that a test can stop the world between any two.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicI64, Ordering};

use coracle_clock::Clock;

use crate::digest::hex;

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {path}: {source}")]
pub struct StoreError {
    /// What was attempted.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// Why it failed; part of the message, because reporters of image errors print one line.
    pub source: io::Error,
}

impl StoreError {
    pub(crate) fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

/// Changes files; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// How many more changes happen before the process is "killed": from then on nothing does, not
    /// even cleaning up.
    #[cfg(test)]
    pub(crate) life: Option<Arc<AtomicI64>>,
}

impl Disk {
    #[cfg(test)]
    pub(crate) fn killed_after(changes: i64) -> Self {
        Self {
            life: Some(Arc::new(AtomicI64::new(changes))),
        }
    }

    fn alive(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(life) = &self.life
            && life.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            return Err(io::Error::other("killed"));
        }
        Ok(())
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.alive()?;
        fs::create_dir_all(path)
    }

    pub(crate) fn create_new(&self, path: &Path) -> io::Result<File> {
        self.alive()?;
        File::create_new(path)
    }

    pub(crate) fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if self.alive().is_err() {
            // Killed within the call: a part has arrived.
            let _ = file.write_all(&bytes[..bytes.len() / 2]);
            return Err(io::Error::other("killed"));
        }
        file.write_all(bytes)
    }

    pub(crate) fn truncate(&self, file: &File) -> io::Result<()> {
        self.alive()?;
        file.set_len(0)
    }

    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        self.alive()?;
        file.sync_all()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive()?;
        fs::rename(from, to)
    }

    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive()?;
        fs::hard_link(from, to)
    }

    #[cfg(unix)]
    pub(crate) fn symlink(&self, target: &Path, place: &Path) -> io::Result<()> {
        self.alive()?;
        std::os::unix::fs::symlink(target, place)
    }

    /// What is not there counts as removed.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Several changes: killed within, a part of it is left.
    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.alive()?;
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes `bytes` beside `path`, syncs them and renames them into place, so that a reader sees
    /// the old or the new content and a power cut leaves no half-written file under the name.
    pub(crate) fn replace(
        &self,
        path: &Path,
        bytes: &[u8],
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let temporary = path.with_extension(format!("{}.tmp", unique(clock)));
        let written = self.create_new(&temporary).and_then(|mut file| {
            self.write(&mut file, bytes)?;
            self.sync(&file)
        });
        let renamed = written.and_then(|()| self.rename(&temporary, path));
        renamed.map_err(|source| {
            // The write's own failure is the one to report.
            let _ = self.remove(&temporary);
            StoreError::new("write", path)(source)
        })
    }
}

/// A name that no other file has.
pub(crate) fn unique(clock: &Clock) -> String {
    let mut bytes = [0; 8];
    clock.random_bytes(&mut bytes);
    hex(&bytes)
}

/// See [`Disk::replace`].
pub(crate) fn replace_file(path: &Path, bytes: &[u8], clock: &Clock) -> Result<(), StoreError> {
    Disk::default().replace(path, bytes, clock)
}

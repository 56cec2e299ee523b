//! A blob that is on its way: written, hashed, and only then put where blobs are.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::disk::{Disk, StoreError};
use crate::digest::Digest;

/// Collects the bytes of one blob in a file of its own. What was written stays when it is dropped, so
/// that the next attempt goes on from there.
pub(crate) struct BlobWriter {
    disk: Disk,
    file: File,
    /// Where it is written.
    partial: PathBuf,
    /// Where it belongs.
    place: PathBuf,
    wanted: Digest,
    hasher: Sha256,
    len: u64,
}

impl BlobWriter {
    /// Goes on with `partial` if nobody else does; with `other`, a name of its own, otherwise.
    pub(super) fn open(
        disk: Disk,
        partial: PathBuf,
        other: PathBuf,
        place: PathBuf,
        wanted: Digest,
    ) -> Result<Self, StoreError> {
        let (file, path) = match claim(&partial).map_err(StoreError::new("open", &partial))? {
            Some(file) => (file, partial),
            None => {
                let file = disk.create_new(&other);
                (file.map_err(StoreError::new("create", &other))?, other)
            }
        };
        let mut writer = Self {
            disk,
            file,
            partial: path,
            place,
            wanted,
            hasher: Sha256::new(),
            len: 0,
        };
        writer.reread()?;
        Ok(writer)
    }

    /// Bytes that are there.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Hashes what an earlier attempt has left.
    fn reread(&mut self) -> Result<(), StoreError> {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = self.file.read(&mut buffer);
            match read.map_err(StoreError::new("read", &self.partial))? {
                0 => return Ok(()),
                read => {
                    self.hasher.update(&buffer[..read]);
                    self.len += read as u64;
                }
            }
        }
    }

    /// Appends off the async threads.
    pub(crate) async fn write(mut self, bytes: Vec<u8>) -> Result<Self, StoreError> {
        blocking(move || {
            self.append(&bytes)?;
            Ok(self)
        })
        .await
    }

    /// Appends.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.disk.write(&mut self.file, bytes);
        written.map_err(StoreError::new("write", &self.partial))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what was written.
    pub(crate) async fn restart(mut self) -> Result<Self, StoreError> {
        blocking(move || {
            self.clear()?;
            Ok(self)
        })
        .await
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        let cleared = self
            .disk
            .truncate(&self.file)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(StoreError::new("write", &self.partial))?;
        self.hasher = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// Puts the blob in its place if its digest is the one that was wanted. Otherwise gives the
    /// emptied writer back, and the digest that was found.
    pub(crate) async fn finish(self) -> Result<Result<(), (Self, Digest)>, StoreError> {
        blocking(move || self.finish_now()).await
    }

    /// [`finish`](Self::finish) on this thread.
    pub(crate) fn finish_now(mut self) -> Result<Result<(), (Self, Digest)>, StoreError> {
        let found = Digest::from(self.hasher.clone());
        if found != self.wanted {
            self.clear()?;
            return Ok(Err((self, found)));
        }
        let placed = self
            .disk
            .sync(&self.file)
            .and_then(|()| self.disk.rename(&self.partial, &self.place));
        placed.map_err(StoreError::new("write", &self.place))?;
        Ok(Ok(()))
    }
}

/// Opens `path` for this process alone; `None` when another one writes it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    // Its writer may have finished between our opening and our locking: then it is a blob by now.
    Ok(is_at(&file, path)?.then_some(file))
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok(there.ino() == ours.ino() && there.dev() == ours.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Nothing tells; each attempt begins anew.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Runs `work` where blocking on the disk hurts no one.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => Err(StoreError {
            action: "use",
            path: PathBuf::from("the image store"),
            source: io::Error::other(stopped),
        }),
    }
}

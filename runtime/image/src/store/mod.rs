//! The images of a node, on disk.
//!
//! ```text
//! <data>/images/blobs/sha256/<hex>   programs, manifests, configurations, layers
//! <data>/images/names/<hash>         JSON: which digest a name means now, and where it is from
//! <data>/images/roots/<hex>/         the files of an image of archives, unpacked, never changed
//! <data>/images/partial/<hex>        a blob that is on its way
//! <data>/images/lock                 held while names and blobs are compared
//! ```
//!
//! The digest of an image is that of its manifest or index, or of its only file when it is a bare
//! `.wasm`. Everything is written beside its place and renamed into it, blobs before the name that
//! needs them, names away before the blobs that they needed: killed at any moment, the store is whole
//! when it is opened again. Several processes may use it at once.

mod blob;
mod disk;
#[cfg(test)]
mod kill_tests;
mod names;
mod sweep;
#[cfg(test)]
mod tests;
mod turns;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_clock::Clock;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::reference::{InvalidReference, Name};

pub(crate) use blob::{BlobWriter, blocking};
pub use disk::StoreError;
pub(crate) use disk::{Disk, replace_file, unique};
pub(crate) use names::Access;
pub use names::{ImageInfo, Origin, Record};
use turns::Turns;

/// Bytes by digest and names for digests; cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    folder: PathBuf,
    clock: Clock,
    disk: Disk,
    /// Images that are being unpacked.
    unpacking: Arc<Turns>,
}

/// What a name means in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// The image's digest.
    pub digest: Digest,
    /// Bytes of everything that belongs to it.
    pub size: u64,
}

/// A file could not be put into the store under a name.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The name is not one, or carries a digest.
    #[error(transparent)]
    Name(#[from] InvalidReference),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ImageStore {
    /// Opens the store in `folder`, making the folder when it is not there.
    pub fn open(folder: impl Into<PathBuf>, clock: Clock) -> Result<Self, StoreError> {
        Self::on(Disk::default(), folder.into(), clock)
    }

    pub(crate) fn on(disk: Disk, folder: PathBuf, clock: Clock) -> Result<Self, StoreError> {
        for part in ["blobs/sha256", "names", "roots", "partial"] {
            let path = folder.join(part);
            disk.create_folder(&path)
                .map_err(StoreError::new("create", &path))?;
        }
        Ok(Self {
            folder,
            clock,
            disk,
            unpacking: Arc::default(),
        })
    }

    /// The folder that holds the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Turns at unpacking images.
    pub(crate) fn unpacking(&self) -> &Turns {
        &self.unpacking
    }

    /// Keeps `bytes` and returns their digest. Bytes that are there are not written again.
    pub fn put(&self, bytes: &[u8]) -> Result<StoredImage, StoreError> {
        self.put_as(Digest::of(bytes), bytes)
    }

    fn put_as(&self, digest: Digest, bytes: &[u8]) -> Result<StoredImage, StoreError> {
        let size = bytes.len() as u64;
        if self.size(&digest) != Some(size) {
            self.disk
                .replace(&self.blob_path(&digest), bytes, &self.clock)?;
        }
        Ok(StoredImage { digest, size })
    }

    /// The bytes of `digest`, or `None` when the store has none or what it has was damaged.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(StoreError::new("read", &path)(other)),
        };
        if Digest::of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "stored image is damaged and will be ignored");
            // So that it is fetched again.
            let _ = self.disk.remove(&path);
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Size of the bytes of `digest`, if the store has them.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.blob_path(digest))
            .ok()
            .map(|found| found.len())
    }

    /// Where the bytes of `digest` are, if the store has them.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    /// A place to write the blob of `digest`; goes on where an earlier attempt ended.
    pub(crate) fn writer(&self, digest: &Digest) -> Result<BlobWriter, StoreError> {
        let partial = self.folder.join("partial").join(digest.hex());
        let other = partial.with_extension(format!("{}.tmp", unique(&self.clock)));
        let place = self.blob_path(digest);
        BlobWriter::open(self.disk.clone(), partial, other, place, *digest)
    }

    /// Keeps bytes whose digest is not known yet.
    pub(crate) fn ingest(&self, from: &mut impl Read) -> io::Result<StoredImage> {
        let name = format!("{}.tmp", unique(&self.clock));
        let temporary = self.folder.join("partial").join(name);
        let mut file = self.disk.create_new(&temporary)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        let mut buffer = vec![0; 64 << 10];
        let placed = loop {
            match from.read(&mut buffer) {
                Ok(0) => {
                    let digest = Digest::from(hasher);
                    let synced = self.disk.sync(&file);
                    let place = self.blob_path(&digest);
                    break synced
                        .and_then(|()| self.disk.rename(&temporary, &place))
                        .map(|()| StoredImage { digest, size });
                }
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    size += read as u64;
                    if let Err(error) = self.disk.write(&mut file, &buffer[..read]) {
                        break Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        if placed.is_err() {
            let _ = self.disk.remove(&temporary);
        }
        placed
    }

    /// Where the unpacked files of the image with this manifest are, or would be.
    pub(crate) fn root_path(&self, manifest: &Digest) -> PathBuf {
        self.folder.join("roots").join(manifest.hex())
    }

    /// Puts the file at `path` into the store under `name`: `coracle image load FILE -t NAME:TAG`.
    /// Returns the name in its full form and what was stored. Works while a node uses the store.
    pub fn load(&self, path: &Path, name: &str) -> Result<(Name, StoredImage), LoadError> {
        let parsed = taggable(name)?;
        let bytes = fs::read(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let image = self.put_named(&parsed.to_string(), &bytes)?;
        Ok((parsed, image))
    }

    /// Runs `work` while no other process compares names with blobs.
    fn locked<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let path = self.folder.join("lock");
        let lock = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(StoreError::new("lock", &path))?;
        let done = work();
        // The end of the process, however it comes, gives it back too.
        drop(lock);
        done
    }
}

/// A name that something can be stored under: one without a digest.
pub(crate) fn taggable(name: &str) -> Result<Name, InvalidReference> {
    let parsed: Name = name.parse()?;
    match parsed.digest {
        None => Ok(parsed),
        Some(_) => Err(InvalidReference {
            reference: name.to_owned(),
            problem: "a name to load under has a tag, not a digest".to_owned(),
        }),
    }
}

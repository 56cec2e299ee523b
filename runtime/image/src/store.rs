//! The images of a node, on disk.
//!
//! ```text
//! <data>/images/blobs/sha256/<hex>   the bytes
//! <data>/images/names/<name>         JSON: which digest the name means now
//! ```
//!
//! One file per entry, written beside its place and renamed into it, so that several processes may
//! use the store at once without a lock.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coracle_clock::Clock;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hex};
use crate::reference::{InvalidReference, Name};

/// Bytes by digest and names for digests; cheap to clone.
#[derive(Clone)]
pub struct ImageStore {
    folder: PathBuf,
    clock: Clock,
}

/// What a name means in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
}

/// The file behind a name.
#[derive(Serialize, Deserialize)]
struct NameEntry {
    name: String,
    digest: String,
    size: u64,
}

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
        let folder = folder.into();
        for part in ["blobs/sha256", "names"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(error("create", &path))?;
        }
        Ok(Self { folder, clock })
    }

    /// The folder that holds the store.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps `bytes` and returns their digest. Bytes that are there are not written again.
    pub fn put(&self, bytes: &[u8]) -> Result<StoredImage, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if fs::metadata(&path).map(|found| found.len()).ok() != Some(bytes.len() as u64) {
            replace_file(&path, bytes, &self.clock)?;
        }
        Ok(StoredImage {
            digest,
            size: bytes.len() as u64,
        })
    }

    /// The bytes of `digest`, or `None` when the store has none or what it has was damaged.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(error("read", &path)(other)),
        };
        if Digest::of(&bytes) != *digest {
            tracing::warn!(path = %path.display(), "stored image is damaged and will be ignored");
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

    /// Lets `name` mean `image` from now on.
    pub fn set_name(&self, name: &str, image: &StoredImage) -> Result<(), StoreError> {
        let entry = NameEntry {
            name: name.to_owned(),
            digest: image.digest.to_string(),
            size: image.size,
        };
        let text = serde_json::to_vec(&entry).expect("strings and numbers always serialise");
        replace_file(&self.name_path(name), &text, &self.clock)
    }

    /// What `name` means, if it means anything and the bytes are there.
    pub fn resolve(&self, name: &str) -> Result<Option<StoredImage>, StoreError> {
        let path = self.name_path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(error("read", &path)(other)),
        };
        let entry = serde_json::from_slice::<NameEntry>(&text).ok();
        let image = entry
            .filter(|entry| entry.name == name)
            .and_then(|entry| entry.digest.parse::<Digest>().ok())
            .and_then(|digest| self.size(&digest).map(|size| StoredImage { digest, size }));
        if image.is_none() {
            tracing::warn!(name, path = %path.display(), "name without an image will be ignored");
        }
        Ok(image)
    }

    /// Puts the file at `path` into the store under `name`: `coracle image load FILE -t NAME:TAG`.
    /// Returns the name in its full form and what was stored. Works while a node uses the store.
    pub fn load(&self, path: &Path, name: &str) -> Result<(Name, StoredImage), LoadError> {
        let parsed: Name = name.parse()?;
        if parsed.digest.is_some() {
            let problem = "a name to load under has a tag, not a digest".to_owned();
            return Err(InvalidReference {
                reference: name.to_owned(),
                problem,
            }
            .into());
        }
        let bytes = fs::read(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let image = self.put(&bytes)?;
        self.set_name(&parsed.to_string(), &image)?;
        Ok((parsed, image))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.hex())
    }

    /// Names contain slashes and may be longer than a file name: their digest is the file's name.
    fn name_path(&self, name: &str) -> PathBuf {
        self.folder
            .join("names")
            .join(Digest::of(name.as_bytes()).hex())
    }
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError {
        action,
        path,
        source,
    }
}

/// Writes `bytes` beside `path`, syncs them and renames them into place, so that a reader sees the
/// old or the new content and a power cut leaves no half-written file under the name.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], clock: &Clock) -> Result<(), StoreError> {
    let mut unique = [0; 8];
    clock.random_bytes(&mut unique);
    let temporary = path.with_extension(format!("{}.tmp", hex(&unique)));
    let written = fs::File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&temporary, path));
    renamed.map_err(|source| {
        // The write's own failure is the one to report.
        let _ = fs::remove_file(&temporary);
        StoreError {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("images"), Clock::fake(1)).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn a_name_follows_the_latest_load() {
        let (folder, store) = store();
        let file = folder.path().join("app.wasm");
        fs::write(&file, b"one").unwrap();
        let (name, first) = store.load(&file, "app:dev").unwrap();
        assert_eq!(name.to_string(), "docker.io/library/app:dev");
        fs::write(&file, b"two").unwrap();
        let (_, second) = store.load(&file, "docker.io/library/app:dev").unwrap();
        assert_ne!(first.digest, second.digest);
        assert_eq!(store.resolve(&name.to_string()).unwrap(), Some(second));
        assert_eq!(store.get(&first.digest).unwrap().unwrap(), b"one");
    }

    #[tokio::test]
    async fn damaged_bytes_are_not_given_out() {
        let (_folder, store) = store();
        let image = store.put(b"good").unwrap();
        fs::write(store.blob_path(&image.digest), b"evil").unwrap();
        assert_eq!(store.get(&image.digest).unwrap(), None);
    }

    #[tokio::test]
    async fn a_name_without_bytes_means_nothing() {
        let (_folder, store) = store();
        let image = store.put(b"gone").unwrap();
        store.set_name("x", &image).unwrap();
        fs::remove_file(store.blob_path(&image.digest)).unwrap();
        assert_eq!(store.resolve("x").unwrap(), None);
        assert_eq!(store.resolve("never set").unwrap(), None);
    }

    #[tokio::test]
    async fn loading_names_what_is_missing() {
        let (folder, store) = store();
        let error = store
            .load(&folder.path().join("none.wasm"), "app")
            .unwrap_err();
        assert!(error.to_string().contains("none.wasm"), "{error}");
        let pinned = format!("app@{}", Digest::of(b""));
        assert!(store.load(folder.path(), &pinned).is_err());
    }
}

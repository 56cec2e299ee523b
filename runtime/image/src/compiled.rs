//! Machine code of images, kept so that a module is compiled once per node.
//!
//! Machine code is trusted like the node's own: whoever can change it runs outside the sandbox.
//! Each file therefore has a MAC under a key that only the node reads. An entry whose MAC does not
//! fit, for whatever reason, counts as absent and is compiled again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use coracle_clock::Clock;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::digest::Digest;
use crate::store::{StoreError, replace_file};

/// Machine code by image digest and engine; cheap to clone.
#[derive(Clone)]
pub struct CompiledCache {
    folder: PathBuf,
    key: [u8; 32],
    max_bytes: u64,
    clock: Clock,
}

/// Names one file of machine code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// The image.
    pub image: Digest,
    /// What the code depends on beside the image: the engine's version, settings and target.
    pub engine: u64,
}

impl CompiledCache {
    /// Opens the cache in `folder`, making the folder and the key when they are not there. Oldest
    /// entries are removed when more than `max_bytes` are kept.
    pub fn open(
        folder: impl Into<PathBuf>,
        max_bytes: u64,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|source| StoreError {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(|source| {
                StoreError {
                    action: "protect",
                    path: folder.clone(),
                    source,
                }
            })?;
        }
        let path = folder.join("key");
        let key = read_or_make_key(&path, &clock).map_err(|source| StoreError {
            action: "use",
            path,
            source,
        })?;
        Ok(Self {
            folder,
            key,
            max_bytes,
            clock,
        })
    }

    /// Keeps `code` under `entry`.
    pub fn put(&self, entry: &CacheEntry, code: &[u8]) -> Result<(), StoreError> {
        let (code_path, mac_path) = self.paths(entry);
        replace_file(&code_path, code, &self.clock)?;
        let mac = self.mac(entry, code).finalize().into_bytes();
        replace_file(&mac_path, &mac, &self.clock)?;
        self.trim(&code_path);
        Ok(())
    }

    /// The verified file of machine code, or `None` when there is none or it was tampered with. The
    /// caller may map it: entries are replaced by renames, never in place, and the folder is open to
    /// the node's user only.
    pub fn get(&self, entry: &CacheEntry) -> Option<PathBuf> {
        let (code_path, mac_path) = self.paths(entry);
        let expected = fs::read(mac_path).ok()?;
        let mut file = File::open(&code_path).ok()?;
        let mut mac = self.new_mac(entry);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => mac.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        if mac.verify_slice(&expected).is_err() {
            tracing::warn!(path = %code_path.display(),
                "compiled code does not match its MAC and will be compiled again");
            return None;
        }
        Some(code_path)
    }

    fn paths(&self, entry: &CacheEntry) -> (PathBuf, PathBuf) {
        let name = format!("{}-{:016x}", entry.image.hex(), entry.engine);
        (
            self.folder.join(format!("{name}.cwasm")),
            self.folder.join(format!("{name}.mac")),
        )
    }

    fn new_mac(&self, entry: &CacheEntry) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        // The entry is part of what is signed, so that one image's code cannot pose as another's.
        mac.update(entry.image.to_string().as_bytes());
        mac.update(&entry.engine.to_le_bytes());
        mac
    }

    fn mac(&self, entry: &CacheEntry, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.new_mac(entry);
        mac.update(code);
        mac
    }

    /// Removes the oldest entries until the rest fits; `newest` always stays.
    fn trim(&self, newest: &Path) {
        let Ok(files) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut entries: Vec<_> = files
            .filter_map(|file| {
                let file = file.ok()?;
                let path = file.path();
                let found = file.metadata().ok()?;
                (path.extension()? == "cwasm").then_some((
                    found.modified().ok()?,
                    found.len(),
                    path,
                ))
            })
            .collect();
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in entries {
            if total <= self.max_bytes {
                break;
            }
            if path == newest {
                continue;
            }
            // Code that is in use stays mapped; a file that cannot be removed is tried next time.
            if fs::remove_file(&path).is_ok() {
                let _ = fs::remove_file(path.with_extension("mac"));
                total -= size;
            }
        }
    }
}

fn read_or_make_key(path: &Path, clock: &Clock) -> io::Result<[u8; 32]> {
    match fs::read(path) {
        Ok(bytes) => {
            if let Ok(key) = bytes.try_into() {
                return Ok(key);
            }
            // A damaged key only costs compiling again.
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut key = [0; 32];
    clock.random_bytes(&mut key);
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(mut file) => {
            io::Write::write_all(&mut file, &key)?;
            file.sync_all()?;
            Ok(key)
        }
        // Another process made it between the read and the write.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let bytes = fs::read(path)?;
            bytes
                .try_into()
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(image: &[u8]) -> CacheEntry {
        CacheEntry {
            image: Digest::of(image),
            engine: 7,
        }
    }

    fn open(folder: &Path, max_bytes: u64) -> CompiledCache {
        CompiledCache::open(folder, max_bytes, Clock::fake(1)).unwrap()
    }

    #[tokio::test]
    async fn code_is_found_again_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 1 << 20)
            .put(&entry(b"a"), b"code")
            .unwrap();
        let next = open(folder.path(), 1 << 20);
        assert_eq!(fs::read(next.get(&entry(b"a")).unwrap()).unwrap(), b"code");
        assert!(
            next.get(&CacheEntry {
                engine: 8,
                ..entry(b"a")
            })
            .is_none()
        );
    }

    #[tokio::test]
    async fn changed_code_and_foreign_code_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), 1 << 20);
        cache.put(&entry(b"a"), b"code").unwrap();
        cache.put(&entry(b"b"), b"evil").unwrap();
        let (code, mac) = cache.paths(&entry(b"a"));
        let (foreign_code, foreign_mac) = cache.paths(&entry(b"b"));
        fs::write(&code, b"c0de").unwrap();
        assert!(cache.get(&entry(b"a")).is_none());
        fs::copy(foreign_code, code).unwrap();
        fs::copy(foreign_mac, mac).unwrap();
        assert!(cache.get(&entry(b"a")).is_none());
        cache.put(&entry(b"a"), b"code").unwrap();
        assert!(cache.get(&entry(b"a")).is_some());
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_node_reads_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 1);
        let mode = fs::metadata(folder.path().join("key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn the_cache_stays_below_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(folder.path(), 10);
        for image in [b"a", b"b", b"c"] {
            cache.put(&entry(image), b"8 bytes.").unwrap();
        }
        assert!(cache.get(&entry(b"c")).is_some());
        assert!(cache.get(&entry(b"a")).is_none() && cache.get(&entry(b"b")).is_none());
    }
}

//! Buckets on a volume: `keyvalue/BUCKET/KEY` below the mount, a file each.
//!
//! A value is written beside its place, synced, and renamed into it, so that after a crash a key has
//! either its old or its new value; an answered write is on the disk. A guest that has the volume
//! mounted may read the files, and may spoil them: nothing here follows a link out of the mount, and
//! what is no file of ours is not seen.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use cap_primitives::fs::{
    DirOptions, FollowSymlinks, OpenOptions, create_dir, open, open_dir, read_base_dir,
    remove_file, rename, stat,
};
use parking_lot::Mutex;

use super::names::{decode, encode};
use super::{
    Change, Failure, MAX_BUCKETS, MAX_KEYS, MAX_VALUE, Outcome, Store, check_value, other,
};

/// Holds the buckets.
const FOLDER: &str = "keyvalue";
/// A value that is not yet in its place. There is one writer at a time.
const UNFINISHED: &str = ".unfinished";

/// The stores that are in use, by the folder of the host: all containers with a volume share its locks.
#[derive(Default)]
pub(crate) struct Volumes(Mutex<HashMap<PathBuf, Weak<Writers>>>);

/// Who writes to a volume: one at a time.
#[derive(Default)]
struct Writers(Mutex<Known>);

/// Keys in each bucket, counted when first written to.
#[derive(Default)]
struct Known(HashMap<String, usize>);

/// Finds the folder of the host.
pub(super) type Locate = Box<dyn Fn() -> Option<PathBuf> + Send + Sync>;

/// One container's view of a volume.
struct Volume {
    locate: Locate,
    read_only: bool,
    writers: Arc<Writers>,
}

impl Volumes {
    /// The store on the volume at `host`, which `locate` finds each time, or finds to lead elsewhere by
    /// now.
    pub(super) fn open(&self, host: &Path, read_only: bool, locate: Locate) -> Arc<dyn Store> {
        let mut volumes = self.0.lock();
        volumes.retain(|_, writers| writers.strong_count() > 0);
        let known = volumes.get(host).and_then(Weak::upgrade);
        let writers = known.unwrap_or_else(|| {
            let writers = Arc::new(Writers::default());
            volumes.insert(host.to_owned(), Arc::downgrade(&writers));
            writers
        });
        Arc::new(Volume {
            locate,
            read_only,
            writers,
        })
    }
}

impl Volume {
    /// The folder of a bucket; `None` when nothing was ever written to it.
    fn bucket(&self, bucket: &str) -> Outcome<Option<File>> {
        let below = Path::new(FOLDER).join(encode(bucket)?);
        missing_is_none(open_dir(&self.root()?, &below))
    }

    fn root(&self) -> Outcome<File> {
        let host = (self.locate)().ok_or(Failure::AccessDenied)?;
        File::open(host).map_err(failed)
    }

    /// The same, made if need be. Counts what is in it when it was not counted yet.
    fn bucket_to_write(&self, known: &mut Known, bucket: &str) -> Outcome<File> {
        if self.read_only {
            return Err(Failure::AccessDenied);
        }
        let root = self.root()?;
        let buckets = folder(&root, Path::new(FOLDER))?;
        let name = encode(bucket)?;
        let folder = match missing_is_none(open_dir(&buckets, Path::new(&name)))? {
            Some(folder) => folder,
            None => {
                let there = read_base_dir(&buckets).map_err(failed)?.count();
                if there >= MAX_BUCKETS {
                    return Err(other(format!("a volume has at most {MAX_BUCKETS} buckets")));
                }
                let made = folder(&buckets, Path::new(&name))?;
                sync(&buckets)?;
                sync(&root)?;
                made
            }
        };
        if !known.0.contains_key(bucket) {
            // What an earlier run of the node left unfinished.
            let _ = remove_file(&folder, Path::new(UNFINISHED));
            known.0.insert(bucket.to_owned(), keys(&folder)?.len());
        }
        Ok(folder)
    }

    fn put(
        &self,
        known: &mut Known,
        bucket: &str,
        folder: &File,
        key: &str,
        value: &[u8],
    ) -> Outcome<()> {
        check_value(value)?;
        let name = encode(key)?;
        let place = Path::new(&name);
        let count = known.0.entry(bucket.to_owned()).or_default();
        let is_new = missing_is_none(stat(folder, place, FollowSymlinks::No))?.is_none();
        if is_new && *count >= MAX_KEYS {
            return Err(other(format!("a bucket has at most {MAX_KEYS} keys")));
        }
        let _ = remove_file(folder, Path::new(UNFINISHED));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let mut file = open(folder, Path::new(UNFINISHED), &options).map_err(failed)?;
        file.write_all(value).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        rename(folder, Path::new(UNFINISHED), folder, place).map_err(failed)?;
        *count += usize::from(is_new);
        Ok(())
    }
}

/// The folder `name` below `parent`, made when it is missing.
fn folder(parent: &File, name: &Path) -> Outcome<File> {
    match create_dir(parent, name, &DirOptions::new()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    open_dir(parent, name).map_err(failed)
}

/// Makes the names in a folder durable.
fn sync(folder: &File) -> Outcome<()> {
    // A folder that was opened below another is only a place, and has to be opened once more.
    #[cfg(unix)]
    {
        let mut options = OpenOptions::new();
        options.read(true);
        let opened = open(folder, Path::new("."), &options).map_err(failed)?;
        opened.sync_all().map_err(failed)?;
    }
    let _ = folder;
    Ok(())
}

fn missing_is_none<T>(result: io::Result<T>) -> Outcome<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Failure::AccessDenied
        }
        _ => other(format!("the volume: {error}")),
    }
}

/// The keys of a bucket in their order.
fn keys(folder: &File) -> Outcome<Vec<String>> {
    let mut keys = Vec::new();
    for entry in read_base_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        keys.extend(name.to_str().and_then(decode));
    }
    keys.sort();
    Ok(keys)
}

/// The value of a key, unless something else than a file bears its name.
fn read(folder: &File, key: &str) -> Outcome<Option<Vec<u8>>> {
    let name = encode(key)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe or a link must not hold up the node.
    #[cfg(unix)]
    {
        use cap_primitives::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let Some(file) = missing_is_none(open(folder, Path::new(&name), &options))? else {
        return Ok(None);
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Ok(None);
    }
    let mut value = Vec::new();
    let taken = file.take(MAX_VALUE as u64 + 1).read_to_end(&mut value);
    taken.map_err(failed)?;
    check_value(&value)?;
    Ok(Some(value))
}

impl Store for Volume {
    fn get(&self, bucket: &str, key: &str) -> Outcome<Option<Vec<u8>>> {
        match self.bucket(bucket)? {
            Some(folder) => read(&folder, key),
            None => Ok(None),
        }
    }

    fn set(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Outcome<()> {
        // What is refused makes no bucket.
        for (_, value) in &pairs {
            check_value(value)?;
        }
        let mut known = self.writers.0.lock();
        let folder = self.bucket_to_write(&mut known, bucket)?;
        for (key, value) in &pairs {
            self.put(&mut known, bucket, &folder, key, value)?;
        }
        sync(&folder)
    }

    fn delete(&self, bucket: &str, keys: &[String]) -> Outcome<()> {
        let mut known = self.writers.0.lock();
        if self.read_only {
            return Err(Failure::AccessDenied);
        }
        let Some(folder) = self.bucket(bucket)? else {
            return Ok(());
        };
        for key in keys {
            let removed = missing_is_none(remove_file(&folder, Path::new(&encode(key)?)))?;
            if removed.is_some()
                && let Some(count) = known.0.get_mut(bucket)
            {
                *count = count.saturating_sub(1);
            }
        }
        sync(&folder)
    }

    fn keys(&self, bucket: &str) -> Outcome<Vec<String>> {
        match self.bucket(bucket)? {
            Some(folder) => keys(&folder),
            None => Ok(Vec::new()),
        }
    }

    fn update(&self, bucket: &str, key: &str, change: &mut Change<'_>) -> Outcome<()> {
        let mut known = self.writers.0.lock();
        let folder = self.bucket_to_write(&mut known, bucket)?;
        let value = change(read(&folder, key)?.as_deref())?;
        self.put(&mut known, bucket, &folder, key, &value)?;
        sync(&folder)
    }
}

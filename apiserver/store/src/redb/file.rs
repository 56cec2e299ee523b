//! The data file: where it is made, who may read it, and why it can't be opened.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};

use crate::error::{Error, OpenError};

/// A data file that is being opened.
///
/// A new one is made beside its place and moved there once it is complete, so that a power cut in
/// between leaves no half-made file to stumble over.
pub(super) struct DataFile {
    path: PathBuf,
    /// Where the file is until it is complete.
    unfinished: Option<PathBuf>,
}

impl DataFile {
    /// Opens the file at `path`, or a new one for it.
    pub(super) fn open(path: &Path) -> Result<(File, Self), OpenError> {
        let failed = |source| OpenError::File {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(folder(path)).map_err(failed)?;
        match options().open(path) {
            Ok(file) => Ok((
                file,
                Self {
                    path: path.to_owned(),
                    unfinished: None,
                },
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(failed(error)),
        }
    }

    fn create(path: &Path) -> Result<(File, Self), OpenError> {
        let failed = |source| OpenError::File {
            path: path.to_owned(),
            source,
        };
        let mut unfinished = OsString::from(path);
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let file = options().create(true).open(&unfinished).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Whoever moved theirs into place before this lock was taken keeps it.
        if path.exists() {
            fs::remove_file(&unfinished).map_err(failed)?;
            return Self::open(path);
        }
        file.set_len(0).map_err(failed)?;
        // The database takes the lock again; on some systems a second lock would meet this one.
        file.unlock().map_err(failed)?;
        Ok((
            file,
            Self {
                path: path.to_owned(),
                unfinished: Some(unfinished),
            },
        ))
    }

    /// Moves a file that was new, and is complete and open now, to its place.
    pub(super) fn settle(self) -> Result<(), OpenError> {
        let Some(unfinished) = &self.unfinished else {
            return Ok(());
        };
        let moved =
            fs::rename(unfinished, &self.path).and_then(|()| sync_folder(folder(&self.path)));
        moved.map_err(|source| OpenError::File {
            path: self.path,
            source,
        })
    }
}

/// Where the journal of the data file at `path` is.
pub(super) fn journal_path(path: &Path) -> PathBuf {
    let mut journal = OsString::from(path);
    journal.push(".journal");
    PathBuf::from(journal)
}

/// Opens the journal's file, or makes it.
pub(super) fn open_journal(path: &Path) -> io::Result<File> {
    match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options().create(true).open(path)?;
            sync_folder(folder(path))?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Opens the journal's file once more, so that writes go past the page cache and are on the disk when they return.
/// `None`: the system or the file system knows no such thing.
#[cfg(target_os = "linux")]
pub(super) fn open_direct(path: &Path) -> Option<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    let flags = i32::try_from(flags.bits()).ok()?;
    let mut options = OpenOptions::new();
    options.write(true);
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags);
    options.open(path).ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn open_direct(_: &Path) -> Option<File> {
    None
}

/// Writes all of `data` at `offset`.
#[cfg(unix)]
pub(super) fn write_all_at(file: &File, data: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(not(unix))]
pub(super) fn write_all_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The file holds secrets: only its owner may read it.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// How many bytes there is room for on the disk of `folder`; a system that can't tell has plenty.
pub(super) fn room(folder: &Path) -> u64 {
    #[cfg(unix)]
    if let Ok(disk) = rustix::fs::statvfs(folder) {
        return disk.f_bavail.saturating_mul(disk.f_frsize);
    }
    u64::MAX
}

pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A name outlives a power cut only once its folder is on disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Says why redb didn't open the file at `path`.
pub(super) fn open_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse {
            path: path.to_owned(),
        },
        DatabaseError::Storage(StorageError::Io(source)) if !speaks_of_damage(&source) => {
            OpenError::File {
                path: path.to_owned(),
                source,
            }
        }
        other => database_error(path, other.into()),
    }
}

/// Says why the database in the file at `path` can't be used.
pub(super) fn database_error(path: &Path, source: Error) -> OpenError {
    use redb::Error as Cause;
    let path = path.to_owned();
    let damaged = match &source {
        Error::Storage { source } => match &**source {
            Cause::Corrupted(_) | Cause::UpgradeRequired(_) => true,
            Cause::TableTypeMismatch { .. } | Cause::TableIsMultimap(_) => true,
            Cause::Io(error) => speaks_of_damage(error),
            _ => false,
        },
        _ => false,
    };
    match damaged {
        true => OpenError::Damaged { path, source },
        false => OpenError::Database { path, source },
    }
}

/// Whether it is the file's content that is wrong, and not the access to it.
fn speaks_of_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

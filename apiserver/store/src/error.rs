//! Why a store refuses or fails.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error as ThisError;

use crate::types::{KeyValue, Revision};

/// Why a store's operation didn't happen.
#[derive(Clone, Debug, ThisError)]
pub enum Error {
    /// The precondition doesn't hold; `current` is what is there.
    #[error("key {} is at revision {}, which its precondition rules out", .current.key.escape_ascii(), .current.mod_revision)]
    Conflict {
        /// The key's present state.
        current: Box<KeyValue>,
    },

    /// The key isn't there.
    #[error("key {} not found", .key.escape_ascii())]
    NotFound {
        /// The key that was asked for.
        key: Bytes,
    },

    /// The revision lies in the part of the history that was compacted away.
    #[error(
        "revision {requested} has been compacted; the oldest is {compacted}, the newest {current}"
    )]
    Compacted {
        /// The revision that was asked for.
        requested: Revision,
        /// The oldest revision that can be asked for.
        compacted: Revision,
        /// The newest revision.
        current: Revision,
    },

    /// The revision hasn't been reached yet.
    #[error("revision {requested} is in the future; the newest is {current}")]
    FutureRevision {
        /// The revision that was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },

    /// The key is empty or too long.
    #[error("a key of {length} bytes can't be stored; keys have 1 to {limit}")]
    InvalidKey {
        /// The length of the key.
        length: usize,
        /// The longest key.
        limit: usize,
    },

    /// The value is too long.
    #[error("key {}: a value of {length} bytes is over the limit of {limit}", .key.escape_ascii())]
    TooLarge {
        /// The key.
        key: Bytes,
        /// The length of the value.
        length: usize,
        /// The longest value.
        limit: usize,
    },

    /// Too much is waiting already; nothing was written. Trying again later may help.
    #[error("the store has too many {what} waiting")]
    Full {
        /// What there is too much of.
        what: &'static str,
    },

    /// The watcher took its events too slowly and was cut off; list again and watch from there.
    #[error("the watch was cut off after {queued} events waited to be taken")]
    Lagged {
        /// How many events had gathered.
        queued: usize,
    },

    /// The store is closed.
    #[error("the store is closed")]
    Closed,

    /// A record can't be understood.
    #[error("the record of key {} at revision {revision} is damaged: {reason}", .key.escape_ascii())]
    Corrupt {
        /// The key.
        key: Bytes,
        /// The revision of the record.
        revision: Revision,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The disk or the database on it failed, for example because the disk is full. Writes that were under way
    /// may or may not be there afterwards.
    #[error("the store's database failed")]
    Storage {
        /// What the database said.
        #[source]
        source: Arc<::redb::Error>,
    },
}

impl Error {
    /// Whether the disk has no room left.
    pub fn is_full_disk(&self) -> bool {
        let Self::Storage { source } = self else {
            return false;
        };
        matches!(&**source, ::redb::Error::Io(error)
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether the database failed as a whole, and not this one request.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(self, Self::Storage { .. })
    }
}

macro_rules! storage_errors {
    ($($kind:ident)*) => {$(
        impl From<::redb::$kind> for Error {
            fn from(error: ::redb::$kind) -> Self {
                Self::Storage { source: Arc::new(error.into()) }
            }
        }
    )*};
}

storage_errors!(Error DatabaseError StorageError TableError TransactionError CommitError CompactionError SetDurabilityError);

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        ::redb::Error::Io(error).into()
    }
}

/// Why a store couldn't be opened.
#[derive(Debug, ThisError)]
pub enum OpenError {
    /// Another process has the store open.
    #[error("store {} is in use by another process; stop that process, or choose another data directory", .path.display())]
    InUse {
        /// The data file.
        path: PathBuf,
    },

    /// The folder or the file can't be made or opened.
    #[error("failed to open store {}", .path.display())]
    File {
        /// The data file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },

    /// The file isn't a store, or is damaged.
    #[error("store {} is damaged or not a store; restore it from a backup, or move it away to start afresh", .path.display())]
    Damaged {
        /// The data file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Error,
    },

    /// The store wasn't closed, and the journal that has its last writes is gone.
    #[error("store {} lacks its journal {}, which has its last writes; put that file back beside it, or restore both from a backup", .path.display(), .journal.display())]
    JournalMissing {
        /// The data file.
        path: PathBuf,
        /// Where its journal should be.
        journal: PathBuf,
    },

    /// A newer program wrote the store.
    #[error("store {} has schema version {found}, and this program knows none above {supported}; use the newer program", .path.display())]
    NewerSchema {
        /// The data file.
        path: PathBuf,
        /// The schema version of the file.
        found: u64,
        /// The newest schema version that this program knows.
        supported: u64,
    },

    /// The writer's thread can't be started.
    #[error("failed to start the store's thread")]
    Thread {
        /// Why not.
        #[source]
        source: io::Error,
    },

    /// The database failed otherwise.
    #[error("failed to open the database of store {}", .path.display())]
    Database {
        /// The data file.
        path: PathBuf,
        /// What the database said.
        #[source]
        source: Error,
    },
}

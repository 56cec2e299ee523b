//! The store on disk: revisions on top of redb.
//!
//! One [`writer`] writes, behind a [`desk`] that takes the writes in; any number of readers read snapshots
//! ([`history`]), a [`journal`] makes single writes durable while the database is left [behind](ahead) for as long as
//! nobody looks, and [`layout`] says how it all lies in the file.

mod ahead;
mod blocks;
mod desk;
mod file;
mod history;
mod journal;
mod layout;
mod writer;

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use coracle_clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    WriteTransaction,
};

use self::ahead::Ahead;
use self::blocks::BlockFile;
use self::desk::Desk;
use self::file::{DataFile, database_error, folder, journal_path, open_error, open_journal, room};
use self::history::Snapshot;
use self::journal::{CAPACITY, Journal};
use self::layout::{
    CLUSTER_ID, COMPACTED, EPOCH, LOG, META, MIGRATIONS, NEEDED, Schema, meta_number, migrate,
    set_meta_number,
};
use self::writer::{RESERVE, Turn, Work, Writer};
use crate::Store;
use crate::error::{Error, OpenError};
use crate::types::{Event, KeyValue, Op, Page, Precondition, Revision};
use crate::watch::{History, Hub, WatchStream};

/// How much of the file redb keeps in memory. Reads are rare (the server has its watch cache), so
/// this mostly holds what the next writes touch.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// A store in one file, with its journal beside it.
///
/// Dropping it waits for the accepted writes and gives the file free. After [`Error::Storage`] (a
/// full or broken disk) it goes back to what is on the disk for certain, and writes are refused with that error
/// for a second; then the next one is tried again. It writes on a thread of
/// its own, and a lone write at once where it is asked for if the disk is quick, so it isn't for tests on a paused clock: those use [`MemoryStore`](crate::MemoryStore).
pub struct RedbStore {
    shared: Arc<Shared>,
    clock: Clock,
    cluster_id: String,
    desk: Desk,
}

/// What the store, its writer and its watches share.
struct Shared {
    /// Locked before the database, and dropped before it.
    ahead: Mutex<Ahead>,
    /// Locked for reading by everyone who uses it, for writing by [`RedbStore::shrink`] and to open it again.
    database: RwLock<Opened>,
    hub: Arc<Hub>,
    compacted: AtomicU64,
    room: Room,
    /// Why the writer refuses writes.
    trouble: Mutex<Option<Error>>,
}

/// The database, or why there is none: after a failure it could not be opened again yet.
type Opened = Result<Database, Error>;

/// Opens a store's storage: at the start, and again after a failure of the disk.
type Opener = Box<dyn Fn() -> Result<(Database, Header), OpenError> + Send>;

/// How many bytes the disk still has room for.
type Room = Arc<dyn Fn() -> u64 + Send + Sync>;

impl RedbStore {
    /// Opens the store in the file at `path` and the journal beside it; makes them, and their folder, if there
    /// are none. `clock` tells when keys expire. Blocks.
    pub fn open(path: impl AsRef<Path>, clock: Clock) -> Result<Self, OpenError> {
        let (file_path, opening_clock) = (path.as_ref().to_owned(), clock.clone());
        let opener = move || {
            let path = &file_path;
            let (file, place) = DataFile::open(path)?;
            let opened = prepare(
                path,
                &opening_clock,
                || builder().create_file(file),
                |needed| Ok((journal_beside(path, needed)?, CAPACITY)),
            )?;
            place.settle()?;
            Ok(opened)
        };
        let folder = folder(path.as_ref()).to_owned();
        Self::start(Box::new(opener), Arc::new(move || room(&folder)), clock)
    }

    /// Opens a store on storage of the caller's making, one for the database and one for its journal: tests of
    /// disk faults do. Both are asked for again after a failure, and then have what they had. After
    /// `journal_bytes` of journal a commit is a checkpoint. `room` says how many bytes more there is room for.
    pub fn open_with_backends<D: StorageBackend, J: StorageBackend>(
        database: impl Fn() -> D + Send + 'static,
        journal: impl Fn() -> J + Send + 'static,
        journal_bytes: u64,
        room: impl Fn() -> u64 + Send + Sync + 'static,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let opening_clock = clock.clone();
        let opener = move || {
            prepare(
                Path::new("(custom storage)"),
                &opening_clock,
                || builder().create_with_backend(database()),
                |_| Ok((Box::new(journal()), journal_bytes)),
            )
        };
        Self::start(Box::new(opener), Arc::new(room), clock)
    }

    fn start(opener: Opener, room: Room, clock: Clock) -> Result<Self, OpenError> {
        let (database, header) = opener()?;
        let shared = Arc::new(Shared {
            ahead: Mutex::default(),
            database: RwLock::new(Ok(database)),
            hub: Arc::new(Hub::new(header.current)),
            compacted: AtomicU64::new(header.compacted.0),
            room,
            trouble: Mutex::default(),
        });
        let writer = Writer::new(shared.clone(), header.journal, opener, clock.clone());
        Ok(Self {
            shared,
            clock,
            cluster_id: header.cluster_id,
            desk: Desk::open(writer)?,
        })
    }

    /// Gives the file's unused space back to the disk. Reads and writes wait meanwhile: for a time
    /// of little use, after a large compaction.
    pub async fn shrink(&self) -> Result<(), Error> {
        let shared = self.shared.clone();
        blocking(move || {
            let mut ahead = shared.ahead.lock();
            ahead.commit()?;
            match &mut *shared.database.write() {
                Ok(database) => Ok(database.compact().map(drop)?),
                Err(error) => Err(error.clone()),
            }
        })
        .await
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn range(
        &self,
        prefix: &[u8],
        at: Option<Revision>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, Error> {
        let shared = self.shared.clone();
        let (prefix, after) = (prefix.to_vec(), after.map(<[u8]>::to_vec));
        blocking(move || {
            shared.read(|snapshot| snapshot.range(&prefix, at, after.as_deref(), limit))
        })
        .await
    }

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let (shared, key) = (self.shared.clone(), key.to_vec());
        blocking(move || shared.read(|snapshot| snapshot.get(&key))).await
    }

    async fn write(
        &self,
        op: Op,
        precondition: Precondition,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error> {
        op.check_size()?;
        let expires_at = ttl.map(|ttl| {
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            milliseconds(self.clock.now()).saturating_add(ttl)
        });
        let size = op.size();
        self.desk
            .ask(
                Work::Write {
                    op,
                    precondition,
                    expires_at,
                },
                size,
            )
            .await
            .map(Revision)
    }

    async fn watch(&self, from: Revision) -> Result<WatchStream, Error> {
        let (compacted, current) = (self.compacted_revision(), self.current_revision());
        if from < compacted {
            return Err(Error::Compacted {
                requested: from,
                compacted,
                current,
            });
        }
        if from > current {
            return Err(Error::FutureRevision {
                requested: from,
                current,
            });
        }
        let history = Arc::downgrade(&self.shared) as Weak<dyn History>;
        Ok(WatchStream::new(self.shared.hub.clone(), history, from))
    }

    fn current_revision(&self) -> Revision {
        self.shared.hub.published()
    }

    fn compacted_revision(&self) -> Revision {
        self.shared.compacted()
    }

    fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    async fn compact(&self, up_to: Revision) -> Result<(), Error> {
        self.desk.ask(Work::Compact { up_to }, 0).await.map(drop)
    }

    async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        self.desk
            .ask(
                Work::Expire {
                    now: milliseconds(now),
                },
                0,
            )
            .await
            .map(|count| count as usize)
    }

    fn writable(&self) -> Result<(), Error> {
        self.shared.check_room()?;
        self.shared.trouble.lock().clone().map_or(Ok(()), Err)
    }

    fn crowded(&self, is: bool) {
        self.desk.crowded(is);
    }

    async fn close(&self) {
        if let Some(thread) = self.desk.close() {
            // A panic of the writer has been reported by its thread; its queue is gone either way.
            drop(tokio::task::spawn_blocking(|| thread.join()).await);
        }
        self.shared.hub.close(Error::Closed);
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        if let Some(thread) = self.desk.close() {
            drop(thread.join());
        }
        self.shared.hub.close(Error::Closed);
    }
}

impl Shared {
    fn read<T>(&self, read: impl FnOnce(&Snapshot) -> Result<T, Error>) -> Result<T, Error> {
        // Before the snapshot is taken, so that it holds at least this revision.
        let current = self.hub.published();
        self.ahead.lock().commit()?;
        let database = self.database.read();
        let database = database.as_ref().map_err(Clone::clone)?;
        read(&Snapshot {
            transaction: database.begin_read()?,
            current,
        })
    }

    fn begin_write(&self) -> Result<WriteTransaction, Error> {
        let database = self.database.read();
        let database = database.as_ref().map_err(Clone::clone)?;
        Ok(database.begin_write()?)
    }

    /// Fails when the disk is nearly full: see [`RESERVE`].
    fn check_room(&self) -> Result<(), Error> {
        match (self.room)() < RESERVE {
            true => Err(io::Error::from(io::ErrorKind::StorageFull).into()),
            false => Ok(()),
        }
    }

    fn compacted(&self) -> Revision {
        Revision(self.compacted.load(Ordering::Acquire))
    }

    fn set_compacted(&self, revision: Revision) {
        self.compacted.store(revision.0, Ordering::Release);
    }
}

impl History for Shared {
    fn events_after(
        self: Arc<Self>,
        position: Revision,
    ) -> BoxFuture<'static, Result<Vec<Event>, Error>> {
        Box::pin(blocking(move || {
            self.read(|snapshot| snapshot.events_after(position))
        }))
    }
}

/// What a store finds out about its file as it opens it.
struct Header {
    cluster_id: String,
    current: Revision,
    compacted: Revision,
    journal: Journal,
}

impl Header {
    /// All in one transaction, which is a checkpoint too. A file of a newer schema isn't touched; the inner
    /// error is its version.
    fn read(
        database: &Database,
        clock: &Clock,
        journal: impl FnOnce(bool) -> Result<(Box<dyn StorageBackend>, u64), OpenError>,
    ) -> Result<Result<Self, Refused>, Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        if let Schema::Newer(found) = migrate(&transaction, MIGRATIONS)? {
            transaction.abort()?;
            return Ok(Err(Refused::Newer(found)));
        }
        let (cluster_id, epoch, needed) = {
            let mut meta = transaction.open_table(META)?;
            let known = meta
                .get(CLUSTER_ID)?
                .map(|id| String::from_utf8_lossy(id.value()).into_owned());
            let cluster_id = known.unwrap_or_else(|| clock.uuid());
            meta.insert(CLUSTER_ID, cluster_id.as_bytes())?;
            let needed = meta_number(&meta, NEEDED)? != 0;
            set_meta_number(&mut meta, NEEDED, 1)?;
            (cluster_id, meta_number(&meta, EPOCH)?, needed)
        };
        let (storage, capacity) = match journal(needed) {
            Ok(journal) => journal,
            Err(error) => {
                transaction.abort()?;
                return Ok(Err(Refused::Journal(error)));
            }
        };
        let mut journal = Journal::open(storage, &cluster_id, epoch, capacity)?;
        let (current, compacted) = replay(&transaction, &journal)?;
        set_meta_number(
            &mut transaction.open_table(META)?,
            EPOCH,
            journal.next_epoch(),
        )?;
        transaction.commit()?;
        journal.restart();
        Ok(Ok(Self {
            cluster_id,
            current,
            compacted,
            journal,
        }))
    }
}

/// Why a sound file isn't opened.
enum Refused {
    Newer(u64),
    Journal(OpenError),
}

/// Carries out what the journal has beyond the database; returns the newest and the compacted revision.
fn replay(
    transaction: &WriteTransaction,
    journal: &Journal,
) -> Result<(Revision, Revision), Error> {
    let compacted = meta_number(&transaction.open_table(META)?, COMPACTED)?.max(Revision::FIRST.0);
    let last = transaction
        .open_table(LOG)?
        .last()?
        .map_or(0, |(revision, _)| revision.value());
    let current = Revision(last.max(compacted));
    let mut turn = Turn::open(transaction, current)?;
    journal.replay(current, |row| turn.restore(&row))?;
    Ok((turn.revision(), Revision(compacted)))
}

/// Opens the journal's file beside the data file; one that is missing is an error if it is needed.
fn journal_beside(path: &Path, needed: bool) -> Result<Box<dyn StorageBackend>, OpenError> {
    let journal = journal_path(path);
    if needed && !journal.exists() {
        return Err(OpenError::JournalMissing {
            path: path.to_owned(),
            journal,
        });
    }
    let file = open_journal(&journal).map_err(|source| OpenError::File {
        path: journal.clone(),
        source,
    })?;
    match BlockFile::new(file, &journal) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(error) => Err(open_error(&journal, error)),
    }
}

/// Opens a database, brings its schema up to date and reads what the store needs to know.
fn prepare(
    path: &Path,
    clock: &Clock,
    open: impl FnOnce() -> Result<Database, DatabaseError>,
    journal: impl FnOnce(bool) -> Result<(Box<dyn StorageBackend>, u64), OpenError>,
) -> Result<(Database, Header), OpenError> {
    let opened = guarded(|| {
        let database = open().map_err(|error| open_error(path, error))?;
        let header =
            Header::read(&database, clock, journal).map_err(|error| database_error(path, error))?;
        Ok((database, header))
    });
    let (database, header) = opened
        .map_err(|error| database_error(path, error))
        .flatten()?;
    let refused = |refused| match refused {
        Refused::Newer(found) => OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: MIGRATIONS.len() as u64,
        },
        Refused::Journal(error) => error,
    };
    Ok((database, header.map_err(refused)?))
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// Runs what waits for the disk away from the tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    // Only a runtime that is shutting down doesn't finish the work.
    tokio::task::spawn_blocking(|| guarded(work).flatten())
        .await
        .unwrap_or(Err(Error::Closed))
}

/// Turns a panic into an error: redb takes the pages of a damaged file at their word in places.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or(panic.downcast_ref::<String>().map(|text| &**text));
        redb::Error::Corrupted(format!(
            "the database panicked: {}",
            text.unwrap_or("no message")
        ))
        .into()
    })
}

//! The store: revisioned keys with compare-and-swap, watch and compaction.
//!
//! The API server keeps every object here and nowhere else. One [`Store`] trait has two backends,
//! [`RedbStore`] on disk and [`MemoryStore`] for tests and `--in-memory`; both pass one contract
//! suite (`tests/store/contract.rs`), and an etcd backend can keep the same contract.
//!
//! ```text
//!            write(op, precondition)                    watch(from)
//! server ───────────────────────────▶ one writer ──▶ commit ──▶ publish ──▶ the server's cache
//!    ▲                                                  │
//!    └────────────── range(prefix, at), get ────────────┘
//! ```
//!
//! What every backend promises:
//!
//! - A store has one counter, the [`Revision`]. Every write takes the next one, so a history has no
//!   gaps, and two writes never share a revision even where they share a commit.
//! - An answered write is durable (as far as the backend is), and an event is published only after
//!   its commit, in the order of revisions.
//! - Reads and watches work at every revision from [`Store::compacted_revision`] to
//!   [`Store::current_revision`]; older ones are refused with [`Error::Compacted`].
//!
//! What it deliberately doesn't do: it sees bytes, never kinds; it knows no transaction over several
//! keys; it doesn't cache for readers (the API server's watch cache does).

mod compaction;
mod error;
mod memory;
mod redb;
mod types;
mod watch;

use std::time::Duration;

use async_trait::async_trait;
use coracle_clock::Timestamp;

pub use crate::compaction::{CompactionPolicy, run_compactor, run_expirer};
pub use crate::error::{Error, OpenError};
pub use crate::memory::MemoryStore;
pub use crate::redb::RedbStore;
pub use crate::types::{
    EXPIRE_BATCH, Event, EventKind, KeyValue, MAX_KEY_BYTES, MAX_VALUE_BYTES, Op, Page,
    Precondition, Revision, Version,
};
pub use crate::watch::{Sink, WatchItem, WatchStream};

/// Revisioned keys with compare-and-swap, watch and compaction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads the keys that start with `prefix`, in byte order, as they were at one revision.
    ///
    /// `at` is the revision to read at ([`None`]: the current one), `after` a key of an earlier page
    /// (only greater keys are returned), `limit` the most items to return. A list in pages passes
    /// the first page's [`Page::revision`] as `at` of the following ones, and goes on while
    /// [`Page::more`].
    async fn range(
        &self,
        prefix: &[u8],
        at: Option<Revision>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, Error>;

    /// Reads one key at the current revision.
    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error>;

    /// Changes one key and returns the revision of the change, once it is durable.
    ///
    /// A key that was put with a `ttl` is deleted by [`Store::expire`] after that time; putting it
    /// again replaces the time (`None`: it stays). Deletions ignore `ttl`.
    ///
    /// Dropping the future doesn't take the write back. [`Error::Full`] means that nothing was
    /// written; after [`Error::Storage`] the write may or may not be there.
    async fn write(
        &self,
        op: Op,
        precondition: Precondition,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error>;

    /// Follows all changes after the revision `from`: first those of the history, then live ones,
    /// without a gap and without repetition.
    async fn watch(&self, from: Revision) -> Result<WatchStream, Error>;

    /// The revision of the newest published write; never 0.
    fn current_revision(&self) -> Revision;

    /// The oldest revision that can still be read at or watched from.
    fn compacted_revision(&self) -> Revision;

    /// The identity that this store got when it was made.
    fn cluster_id(&self) -> &str;

    /// Forgets the history up to and including `up_to`; live values stay. A revision that is
    /// already compacted is no error.
    async fn compact(&self, up_to: Revision) -> Result<(), Error>;

    /// Deletes keys whose time was over at `now`, at most [`EXPIRE_BATCH`] of them, and returns how
    /// many there were. Each is an ordinary deletion with a revision and an event of its own.
    async fn expire(&self, now: Timestamp) -> Result<usize, Error>;

    /// Whether writes are taken at the moment; the error is what they would be refused with. Reads and watches go on
    /// meanwhile as far as they can.
    fn writable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Says whether others wait for the threads that writes are asked for on, which must not be held up meanwhile.
    fn crowded(&self, _is: bool) {}

    /// Refuses further writes, waits for the accepted ones, and ends all watches.
    async fn close(&self);
}

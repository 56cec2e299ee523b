//! A history checker: what concurrent clients were told, compared with a model of the store.
//!
//! ```text
//! clients: create, update, delete, read, list (present, past, in pages) ──┐
//!                                                                         ├─▶ notes ──▶ judge ◀── history of the store
//! watchers: watch, leave, go on where they were ──────────────────────────┘
//! ```
//!
//! - every answered write is an event, with that revision and that content, and no refused one is; one that was not
//!   answered may be, as a whole;
//! - revisions come once and in order, and a history is never written anew;
//! - a create found nothing, an update or a deletion found just the revision that it named;
//! - a list is what the events up to its revision lead to, whether it came at once, in pages or as a watch;
//! - a watch shows each event after its start once, and goes on after any break, or is refused with 410;
//! - no client is shown less than what any had been told when it asked.
//!
//! The same clients run while the power goes ([`power_cuts`]), while writes fail ([`torn_writes`]), while the server
//! is killed ([`kills`]) and while its past is forgotten ([`compaction`]); [`full_disk`] fills the disk. How often is
//! told in `docs/reliability.md`. That the judge finds what is wrong is shown by [`lies`].

mod api;
mod client;
mod crowd;
mod judge;
mod notes;
mod watcher;
mod world;

mod compaction;
mod full_disk;
mod kills;
mod lies;
mod power_cuts;
mod torn_writes;

use std::sync::Arc;

use coracle_clock::Clock;
use coracle_faults::{extent, seed};
use coracle_store::{MemoryStore, RedbStore, Store};

use self::api::Api;
use self::crowd::Crowd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_in_memory_is_that_of_one_store() {
    check(Arc::new(MemoryStore::new(Clock::system()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_on_disk_is_that_of_one_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(path, Clock::system()).expect("a fresh store");
    check(Arc::new(store)).await;
}

async fn check(store: Arc<dyn Store>) {
    let operations = extent("CORACLE_OPERATIONS", 200, 5_000);
    let mut crowd = Crowd::new(Clock::fake(seed()));
    let api = world::serve(store.clone()).await.expect("a sound store");
    let api = Arc::new(Api::Here(api));
    crowd.act(&api, move |number| number < operations).await;
    crowd.finish(&api).await;
    let figures = crowd.judge(&notes::history(&*store, 1).await);
    println!("{figures:?}");
    assert_eq!(figures.unknown, 0, "{figures:?}");
    assert_eq!(figures.gone[..2], [0, 0], "{figures:?}");
    assert!(figures.answered as u64 > operations, "{figures:?}");
}

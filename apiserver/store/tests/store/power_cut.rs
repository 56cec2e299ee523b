//! Power cuts: a disk that forgets what wasn't synced, cut at random points under concurrent writes.
//!
//! `CORACLE_POWER_CUTS` sets how many cuts there are (300; 10,000 in the long form), `CORACLE_SEED` where randomness
//! starts.
//! A failure names the seed of its disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_faults::{Disk, extent, seed};
use coracle_store::{
    Error, Event, EventKind, Op, OpenError, Precondition, RedbStore, Revision, Store, WatchItem,
};

use crate::{all_events, new_value};

const CUTS_PER_DISK: u64 = 25;
const WRITERS: u64 = 6;
const KEYS: u64 = 14;

#[test]
fn power_cuts_lose_no_answered_write() {
    let cuts = extent("CORACLE_POWER_CUTS", 300, 10_000);
    let first = seed();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut answered = 0;
    for number in 0..cuts.div_ceil(CUTS_PER_DISK) {
        let seed = first.wrapping_mul(1_000_003).wrapping_add(number);
        let outcome = std::panic::catch_unwind(|| runtime.block_on(one_disk(seed)));
        answered += outcome.unwrap_or_else(|_| panic!("failed with the disk of seed {seed}"));
    }
    // Cuts before anything was written would prove nothing.
    assert!(
        answered as u64 > cuts,
        "only {answered} writes were answered in {cuts} cuts"
    );
}

/// Cuts one disk many times, and returns how many writes were answered in all.
async fn one_disk(seed: u64) -> usize {
    let clock = Clock::fake(seed);
    let disk = Disk::new(clock.clone());
    let mut books = Books::default();
    drop(open(&disk, &clock).expect("a fresh disk opens"));
    for round in 0..CUTS_PER_DISK {
        disk.cut();
        // Now and then the power goes again while the store is being opened.
        let opening = if clock.random_below(4) == 0 {
            clock.random_below(12)
        } else {
            u64::MAX
        };
        disk.power_on(opening);
        let store = match open(&disk, &clock) {
            Ok(store) => Arc::new(store),
            Err(error) if disk.is_off() => {
                drop(error);
                continue;
            }
            Err(error) => panic!("the store doesn't open after a cut: {error:?}"),
        };
        disk.power_on(u64::MAX);
        books.audit(&store).await;
        disk.power_on(clock.random_below(300));
        run_until_the_cut(store, &clock, round, &mut books).await;
    }
    disk.cut();
    disk.power_on(u64::MAX);
    let store = open(&disk, &clock).expect("the store opens after the last cut");
    books.audit(&store).await;
    books.answered.len()
}

/// Opens the store whose database and journal are the two files of `disk`, with a checkpoint after 4 to 256 KiB.
fn open(disk: &Disk, clock: &Clock) -> Result<RedbStore, OpenError> {
    let bytes = 4096 << clock.random_below(7);
    let (database, journal) = (disk.clone(), disk.clone());
    RedbStore::open_with_backends(
        move || database.file(0),
        move || journal.file(1),
        bytes,
        || u64::MAX,
        clock.clone(),
    )
}

/// All that is known of a store from outside.
#[derive(Default)]
struct Books {
    /// What anyone tried to put.
    attempted: Mutex<HashSet<(Bytes, Bytes)>>,
    /// Writes that were answered: revision, key and value (`None`: a deletion).
    answered: BTreeMap<Revision, (Bytes, Option<Bytes>)>,
    /// Events that were published or found in the history.
    known: BTreeMap<Revision, Event>,
}

impl Books {
    fn note(&mut self, event: Event) {
        if let Some(known) = self.known.get(&event.revision) {
            assert_eq!(*known, event, "the history was rewritten");
        }
        self.known.insert(event.revision, event);
    }

    /// Compares a store that was just opened with the books.
    async fn audit(&mut self, store: &RedbStore) {
        let (compacted, current) = (store.compacted_revision(), store.current_revision());
        let newest_known = self
            .known
            .last_key_value()
            .map_or(Revision::FIRST, |(revision, _)| *revision);
        assert!(
            current >= newest_known,
            "published {newest_known}, but the store is back at {current}"
        );

        let history = all_events(store).await;
        let revisions: Vec<u64> = history.iter().map(|event| event.revision.0).collect();
        let all: Vec<u64> = (compacted.0 + 1..=current.0).collect();
        assert_eq!(revisions, all, "the history has a gap or a repetition");
        for event in history {
            if let Some(value) = new_value(&event) {
                let put = (event.key.clone(), Bytes::copy_from_slice(value));
                assert!(
                    self.attempted.lock().unwrap().contains(&put),
                    "nobody wrote {event:?}"
                );
            }
            self.note(event);
        }

        for (revision, (key, value)) in &self.answered {
            let event = self
                .known
                .get(revision)
                .unwrap_or_else(|| panic!("the write of {revision} is lost"));
            assert_eq!(
                (&event.key, new_value(event)),
                (key, value.as_deref()),
                "at revision {revision}"
            );
        }

        let mut expected = BTreeMap::new();
        for event in self.known.values() {
            match &event.kind {
                EventKind::Put { value, .. } => expected.insert(event.key.clone(), value.clone()),
                EventKind::Delete { .. } => expected.remove(&event.key),
            };
        }
        let page = store
            .range(b"", None, None, usize::MAX)
            .await
            .expect("a sound store can be read");
        assert_eq!(page.revision, current);
        let found: BTreeMap<_, _> = page
            .items
            .into_iter()
            .map(|item| (item.key, item.value))
            .collect();
        assert!(
            found == expected,
            "the state isn't what the history leads to"
        );
    }
}

/// Writes, compacts and watches until the disk is off, and enters what was seen into the books.
async fn run_until_the_cut(store: Arc<RedbStore>, clock: &Clock, round: u64, books: &mut Books) {
    let mut watch = store
        .watch(store.current_revision())
        .await
        .expect("the present can be watched");
    // One that was not live yet might find the compaction ahead of it.
    let live = watch.next().await;
    assert!(matches!(live, Ok(WatchItem::Progress(_))), "{live:?}");
    let attempted = Arc::new(Mutex::new(HashSet::new()));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            tokio::spawn(write_until_the_cut(
                store.clone(),
                clock.clone(),
                (round, writer),
                attempted.clone(),
            ))
        })
        .collect();
    let keeper = tokio::spawn(keep_house_until_the_cut(store.clone(), clock.clone()));

    let watcher = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            match watch.next().await {
                Ok(WatchItem::Event(event)) => seen.push(event),
                Ok(WatchItem::Progress(_)) => {}
                Err(Error::Closed | Error::Storage { .. }) => return seen,
                Err(error) => panic!("the watch ended with {error:?}"),
            }
        }
    });
    for writer in writers {
        books
            .answered
            .extend(writer.await.expect("a writer doesn't panic"));
    }
    keeper.await.expect("the keeper doesn't panic");
    store.close().await;
    for event in watcher.await.expect("the watcher doesn't panic") {
        books.note(event);
    }
    books
        .attempted
        .lock()
        .unwrap()
        .extend(attempted.lock().unwrap().drain());
}

type Answered = Vec<(Revision, (Bytes, Option<Bytes>))>;

async fn write_until_the_cut(
    store: Arc<RedbStore>,
    clock: Clock,
    (round, writer): (u64, u64),
    attempted: Arc<Mutex<HashSet<(Bytes, Bytes)>>>,
) -> Answered {
    let mut answered = Vec::new();
    for number in 0_u64.. {
        let key = Bytes::from(format!("key/{}", clock.random_below(KEYS)));
        let value =
            (clock.random_below(4) != 0).then(|| {
                let name = format!("{round}/{writer}/{number}:");
                // Long enough, now and then, to lie on pages of its own.
                Bytes::from(name.repeat(
                    clock.random_below(if number % 8 == 0 { 900 } else { 30 }) as usize + 1,
                ))
            });
        let op = match &value {
            Some(value) => {
                attempted
                    .lock()
                    .unwrap()
                    .insert((key.clone(), value.clone()));
                Op::put(key.clone(), value.clone())
            }
            None => Op::delete(key.clone()),
        };
        let precondition = match clock.random_below(4) {
            0 => Precondition::Absent,
            1 => Precondition::Exists,
            _ => Precondition::None,
        };
        let ttl = (clock.random_below(5) == 0).then_some(Duration::ZERO);
        match store.write(op, precondition, ttl).await {
            Ok(revision) => answered.push((revision, (key, value))),
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
            Err(Error::Storage { .. }) => break,
            Err(error) => panic!("a write was answered with {error:?}"),
        }
    }
    answered
}

async fn keep_house_until_the_cut(store: Arc<RedbStore>, clock: Clock) {
    loop {
        let result = match clock.random_below(8) {
            0 => {
                store
                    .compact(Revision(
                        store
                            .current_revision()
                            .0
                            .saturating_sub(clock.random_below(40))
                            .max(1),
                    ))
                    .await
            }
            1 => store.expire(clock.now()).await.map(drop),
            // Refused while anything reads; what matters is what it leaves behind when cut.
            2 => store.shrink().await.or(Ok(())),
            _ => store.get(b"key/1").await.map(drop),
        };
        match result {
            Err(Error::Storage { .. }) => return,
            // A store whose disk is off still answers this: look for the end where writes do.
            _ if store
                .write(Op::delete("none"), Precondition::None, None)
                .await
                .is_err_and(is_storage) =>
            {
                return;
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

fn is_storage(error: Error) -> bool {
    matches!(error, Error::Storage { .. })
}

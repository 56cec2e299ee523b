//! Who carries writes out: a lone one its caller, several at once the store's thread, in groups.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use coracle_clock::Clock;
use coracle_store::{Op, Precondition, RedbStore, Store};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::all_events;

/// A journal that notes who synced it.
#[derive(Debug)]
struct Watched {
    bytes: InMemoryBackend,
    syncs: Arc<Mutex<Vec<ThreadId>>>,
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs
            .lock()
            .expect("no holder panics")
            .push(thread::current().id());
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.bytes.write(offset, data)
    }
}

type Syncs = Arc<Mutex<Vec<ThreadId>>>;

fn open() -> (Arc<RedbStore>, Syncs) {
    let syncs = Syncs::default();
    let noted = syncs.clone();
    let store = RedbStore::open_with_backends(
        InMemoryBackend::new,
        move || Watched {
            bytes: InMemoryBackend::new(),
            syncs: noted.clone(),
        },
        256 * 1024,
        || u64::MAX,
        // Stands still: the disk takes no time.
        Clock::fake(1),
    );
    (Arc::new(store.expect("a fresh store")), syncs)
}

async fn put(store: &RedbStore, key: usize, bytes: usize) {
    let op = Op::put(format!("key/{key:05}"), vec![b'x'; bytes]);
    let written = store.write(op, Precondition::Absent, None).await;
    written.expect("there is room");
}

#[tokio::test]
async fn a_lone_write_is_carried_out_where_it_is_asked_for() {
    let (store, syncs) = open();
    let here = thread::current().id();
    // The first one makes the journal grow, which is the thread's work; it may still be at it when the next one comes.
    let mut key = 0;
    while syncs.lock().expect("no holder panics").last() != Some(&here) {
        assert!(key < 1000, "all are carried out by the thread");
        put(&store, key, 10).await;
        key += 1;
    }
    syncs.lock().expect("no holder panics").clear();
    for key in key..key + 20 {
        put(&store, key, 10).await;
    }
    assert_eq!(*syncs.lock().expect("no holder panics"), [here; 20]);
    // More than the journal has room for: a checkpoint, which takes its time and is the thread's work too.
    for key in key + 20..key + 24 {
        put(&store, key, 60 * 1024).await;
    }
    assert_eq!(all_events(&*store).await.len(), key + 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_of_many_threads_are_each_carried_out_once() {
    let (store, syncs) = open();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..300 {
                    put(&store, writer * 1000 + number, 100).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer doesn't panic");
    }
    let events = all_events(&*store).await;
    let mut keys: Vec<_> = events.iter().map(|event| event.key.clone()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((events.len(), keys.len()), (2400, 2400));
    assert!(!syncs.lock().expect("no holder panics").is_empty());
}

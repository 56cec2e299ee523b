//! A disk that is full for a while, and one whose writes and syncs fail now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_faults::Disk;
use coracle_store::{Error, Op, Precondition, RedbStore, Revision, Store};

use crate::{all_events, new_value};

fn open(disk: &Disk, clock: &Clock) -> RedbStore {
    let (database, journal, room) = (disk.clone(), disk.clone(), disk.clone());
    RedbStore::open_with_backends(
        move || database.file(0),
        move || journal.file(1),
        64 * 1024,
        move || room.room(),
        clock.clone(),
    )
    .expect("a sound disk opens")
}

/// Puts 3 KiB; long enough to fill a disk soon.
async fn put(store: &RedbStore, key: usize) -> Result<Revision, Error> {
    let op = Op::put(format!("key/{key:05}"), vec![b'x'; 3000]);
    store.write(op, Precondition::None, None).await
}

/// Tries until the store takes writes again; it does so within seconds of the disk's recovery.
async fn put_patiently(store: &RedbStore, key: usize) -> Revision {
    for _ in 0..100 {
        match put(store, key).await {
            Ok(revision) => return revision,
            Err(Error::Storage { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("the store takes no writes again");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room_and_reads_go_on() {
    let (disk, clock) = (Disk::new(Clock::fake(1)), Clock::fake(2));
    let store = open(&disk, &clock);
    put(&store, 0).await.unwrap();
    let mut watch = store.watch(Revision::FIRST).await.unwrap();
    disk.set_room(disk.used() + (16 << 20) + 300 * 1024);
    let mut written = 1;
    let error = loop {
        match put(&store, written).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full_disk(), "{error:?}");
    assert!(written > 50, "{written} writes fit");
    for key in 0..written {
        let found = store.get(format!("key/{key:05}").as_bytes()).await;
        assert!(found.unwrap().is_some(), "key {key}");
    }
    let again = put(&store, written).await.expect_err("it is still full");
    assert!(again.is_full_disk(), "{again:?}");
    let refusal = store.writable().expect_err("it is still full");
    assert!(refusal.is_full_disk(), "{refusal:?}");

    disk.set_room(usize::MAX);
    assert!(store.writable().is_ok(), "there is room");
    let revision = put_patiently(&store, written).await;
    let events = all_events(&store).await;
    assert_eq!(events.last().unwrap().revision, revision);
    // The watch saw the same without a break.
    for event in events {
        assert_eq!(crate::next_event(&mut watch).await.unwrap(), event);
    }
    drop(store);
    let store = open(&disk, &clock);
    assert_eq!(store.current_revision(), revision);
}

#[tokio::test]
async fn a_store_says_why_it_takes_no_writes_until_one_succeeds_again() {
    let (disk, clock) = (Disk::new(Clock::fake(1)), Clock::fake(2));
    let store = open(&disk, &clock);
    assert!(store.writable().is_ok());
    disk.fail_after(0);
    put(&store, 1).await.expect_err("the write fails");
    let Err(Error::Storage { .. }) = store.writable() else {
        panic!("it says nothing of the failure");
    };
    put_patiently(&store, 2).await;
    assert!(store.writable().is_ok());
}

#[tokio::test]
async fn failed_and_torn_writes_lose_no_answered_write() {
    // Side by side: each waits for seconds until writes are tried again.
    futures::future::join_all((0..12).map(fail_now_and_then)).await;
}

async fn fail_now_and_then(seed: u64) {
    let (disk, clock) = (Disk::new(Clock::fake(seed)), Clock::fake(seed + 100));
    let store = open(&disk, &clock);
    let mut answered = BTreeMap::new();
    for round in 0..3 {
        disk.fail_after(clock.random_below(60));
        // Until the failure, and on when it hit nothing that mattered.
        for _ in 0..80 {
            let key = clock.random_below(40) as usize;
            match put(&store, key).await {
                Ok(revision) => answered.insert(revision, key),
                Err(Error::Storage { .. }) => break,
                Err(error) => panic!("seed {seed}: {error:?}"),
            };
        }
        let key = 1000 + round;
        answered.insert(put_patiently(&store, key).await, key);
    }
    drop(store);
    disk.cut();
    disk.power_on(u64::MAX);
    let store = open(&disk, &clock);
    let events: BTreeMap<_, _> = all_events(&store)
        .await
        .into_iter()
        .map(|event| (event.revision, event))
        .collect();
    for (revision, key) in answered {
        let event = events.get(&revision);
        let event = event.unwrap_or_else(|| panic!("seed {seed}: {revision} is lost"));
        assert_eq!(event.key, format!("key/{key:05}"), "seed {seed}");
        assert_eq!(new_value(event), Some(&[b'x'; 3000][..]), "seed {seed}");
    }
}

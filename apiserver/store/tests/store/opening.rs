//! Opening a data file: what is kept from before, and what is said when it can't be opened.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_store::{Error, Op, OpenError, Precondition, RedbStore, Revision, Store};
use redb::{Database, TableDefinition};
use tempfile::tempdir;

use crate::all_events;

fn open(path: &Path) -> Result<RedbStore, OpenError> {
    RedbStore::open(path, Clock::fake(1))
}

async fn put(store: &RedbStore, key: &'static str, value: impl Into<Vec<u8>>) -> Revision {
    store
        .write(Op::put(key, value.into()), Precondition::None, None)
        .await
        .unwrap()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a/b/store.redb");
    let store = open(&path).unwrap();
    for n in 0..20 {
        put(
            &store,
            if n % 2 == 0 { "even" } else { "odd" },
            n.to_string(),
        )
        .await;
    }
    store
        .write(
            Op::put("brief", "x"),
            Precondition::None,
            Some(Duration::ZERO),
        )
        .await
        .unwrap();
    store.compact(Revision(10)).await.unwrap();
    let id = store.cluster_id().to_owned();
    let before = (
        all_events(&store).await,
        store.range(b"", None, None, 10).await.unwrap(),
    );
    drop(store);

    let store = RedbStore::open(&path, Clock::fake(2)).unwrap();
    assert_eq!(store.cluster_id(), id);
    assert_eq!(
        (store.compacted_revision(), store.current_revision()),
        (Revision(10), Revision(22))
    );
    assert_eq!(
        (
            all_events(&store).await,
            store.range(b"", None, None, 10).await.unwrap()
        ),
        before
    );
    assert_eq!(
        store
            .expire(Clock::fake(2).now() + Duration::from_secs(60))
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.current_revision(), Revision(23));

    store.compact(Revision(23)).await.unwrap();
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(
        (store.compacted_revision(), store.current_revision()),
        (Revision(23), Revision(23))
    );
    assert_eq!(put(&store, "even", "1").await, Revision(24));
}

#[tokio::test]
async fn accepted_writes_survive_a_drop() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(&path).unwrap();
    // Polled once each, so that they wait in the queue; then nobody waits for the answers.
    for n in 0..100 {
        let write = store.write(Op::put(format!("{n}"), "x"), Precondition::None, None);
        let _ = futures::FutureExt::now_or_never(write);
    }
    drop(store);
    assert_eq!(
        open(&path)
            .unwrap()
            .range(b"", None, None, 1000)
            .await
            .unwrap()
            .items
            .len(),
        100
    );
}

/// What a SIGKILL leaves: both files as the kernel has them.
fn killed_copy(path: &Path, folder: &Path) -> std::path::PathBuf {
    let copy = folder.join("copy.redb");
    fs::copy(path, &copy).unwrap();
    fs::copy(
        path.with_extension("redb.journal"),
        copy.with_extension("redb.journal"),
    )
    .unwrap();
    copy
}

#[tokio::test]
async fn writes_that_are_only_in_the_journal_survive_a_kill() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(&path).unwrap();
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    let brief = Op::put("brief", "x");
    let second = Some(Duration::from_secs(1));
    store
        .write(brief, Precondition::None, second)
        .await
        .unwrap();
    let gone = Op::delete("brief");
    store.write(gone, Precondition::None, None).await.unwrap();
    put(&store, "b", "3").await;
    let copy = open(&killed_copy(&path, folder.path())).unwrap();
    assert_eq!(all_events(&copy).await, all_events(&store).await);
    assert_eq!(
        copy.range(b"", None, None, 10).await.unwrap(),
        store.range(b"", None, None, 10).await.unwrap()
    );
    let later = Clock::fake(1).now() + Duration::from_secs(60);
    assert_eq!(copy.expire(later).await.unwrap(), 0, "it was deleted");
    assert_eq!(put(&copy, "c", "4").await, Revision(7));
}

#[tokio::test]
async fn a_store_whose_journal_is_gone_after_a_kill_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(&path).unwrap();
    put(&store, "a", "1").await;
    let copy = killed_copy(&path, folder.path());
    fs::remove_file(copy.with_extension("redb.journal")).unwrap();
    let error = open(&copy).err().expect("its last write is missing");
    assert!(
        matches!(error, OpenError::JournalMissing { .. }),
        "{error:?}"
    );
    // One that was closed can do without.
    drop(store);
    fs::remove_file(path.with_extension("redb.journal")).unwrap();
    assert_eq!(open(&path).unwrap().current_revision(), Revision(2));
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let first = open(&path).unwrap();
    let error = open(&path).err().expect("it is in use");
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(path.to_str().unwrap()) && text.contains("another process"),
        "{text}"
    );
    drop(first);
    open(&path).unwrap();
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(open(&path).unwrap());
    for file in ["store.redb", "store.redb.journal"] {
        let metadata = fs::metadata(folder.path().join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_file_that_was_never_finished_is_made_anew() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    fs::write(
        folder.path().join("store.redb.new"),
        b"what a power cut left",
    )
    .unwrap();
    drop(open(&path).unwrap());
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(!names.contains(&"store.redb.new".into()), "{names:?}");
}

#[test]
fn a_file_that_is_no_store_is_refused_and_kept() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    fs::write(&path, b"a letter to grandmother").unwrap();
    let error = open(&path).err().expect("it is no store");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.source().is_some());
    assert_eq!(fs::read(&path).unwrap(), b"a letter to grandmother");
}

#[test]
fn a_folder_in_the_place_of_the_file_is_refused() {
    let folder = tempdir().unwrap();
    let error = open(folder.path()).err().expect("it is a folder");
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}

#[test]
fn a_newer_schema_is_refused_and_kept() {
    const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    drop(open(&path).unwrap());
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(META)
        .unwrap()
        .insert("schema", 77_u64.to_le_bytes().as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let error = open(&path).err().expect("it is too new");
        assert!(
            matches!(
                error,
                OpenError::NewerSchema {
                    found: 77,
                    supported: 3,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

/// Damage must be reported, or lie where nothing is read; it must neither panic nor make up values.
#[test]
fn damaged_files_cause_no_panic() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = open(&path).unwrap();
    runtime.block_on(async {
        for n in 0..50 {
            put(&store, ["a", "b", "c", "d"][n % 4], vec![b'x'; 200]).await;
        }
    });
    drop(store);
    let good = fs::read(&path).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;

    let clock = Clock::fake(3);
    let (mut refused, mut read) = (0, 0);
    for round in 0..150 {
        let mut bad = good.clone();
        match round % 3 {
            0 => bad.truncate(clock.random_below(good.len() as u64) as usize),
            1 => bad[clock.random_below(320) as usize] ^= 1 << clock.random_below(8),
            _ => {
                let start = clock.random_below(used as u64) as usize;
                let end = (start + 64).min(used);
                clock.random_bytes(&mut bad[start..end]);
            }
        }
        fs::write(&path, &bad).unwrap();
        match open(&path) {
            Err(_) => refused += 1,
            Ok(store) => {
                let outcome = runtime.block_on(store.range(b"", None, None, 100));
                assert!(
                    matches!(
                        &outcome,
                        Ok(_) | Err(Error::Storage { .. } | Error::Corrupt { .. })
                    ),
                    "{outcome:?}"
                );
                read += usize::from(outcome.is_ok());
            }
        }
    }
    assert!(refused > 20 && read > 20, "{refused} refused, {read} read");
}

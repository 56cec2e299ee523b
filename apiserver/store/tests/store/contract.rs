//! What every backend promises, one test per promise and backend.

use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_store::{
    EXPIRE_BATCH, Error, EventKind, MAX_KEY_BYTES, MAX_VALUE_BYTES, MemoryStore, Op, Page,
    Precondition, RedbStore, Revision, Store, Version, WatchItem, run_expirer,
};

use crate::{all_events, new_value, next_event};

macro_rules! contract {
    ($($promise:ident)*) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $promise() {
                let clock = Clock::fake(1);
                super::$promise(Arc::new(super::MemoryStore::new(clock.clone())), clock).await;
            })*
            use super::{Arc, Clock};
        }
        mod redb {
            $(#[tokio::test]
            async fn $promise() {
                let clock = Clock::fake(1);
                let folder = tempfile::tempdir().unwrap();
                let store = super::RedbStore::open(folder.path().join("store.redb"), clock.clone()).unwrap();
                super::$promise(Arc::new(store), clock).await;
            })*
            use super::{Arc, Clock};
        }
    };
}

contract! {
    an_empty_store_has_a_revision_and_an_identity
    a_put_can_be_read_back
    every_write_has_the_next_revision
    writes_at_once_get_revisions_of_their_own
    preconditions_are_checked_against_the_newest_state
    only_one_of_many_creations_wins
    a_deletion_needs_a_key
    a_key_that_comes_back_is_created_again
    keys_and_values_have_limits
    a_range_is_ordered_and_has_its_prefix
    a_range_goes_on_after_a_key
    a_range_shows_an_older_revision
    pages_of_one_list_agree
    compaction_keeps_what_is_live
    compacted_revisions_are_refused
    compaction_beyond_the_present_is_refused
    revisions_of_the_future_are_refused
    a_watch_sees_history_then_live_events
    events_carry_both_sides
    a_caught_up_watch_reports_progress
    watches_under_load_miss_and_repeat_nothing
    a_slow_watcher_is_cut_off
    closing_ends_watches_and_refuses_writes
    keys_expire_with_an_event
    putting_again_replaces_the_expiry
    expiry_comes_in_batches
    the_expirer_sweeps_until_the_store_closes
}

type Shared = Arc<dyn Store>;

async fn put(store: &Shared, key: &str, value: &str) -> Revision {
    write(store, key, value, Precondition::None)
        .await
        .expect("an unconditional put succeeds")
}

async fn write(
    store: &Shared,
    key: &str,
    value: &str,
    precondition: Precondition,
) -> Result<Revision, Error> {
    store
        .write(
            Op::put(key.to_owned(), value.to_owned()),
            precondition,
            None,
        )
        .await
}

async fn delete(store: &Shared, key: &str, precondition: Precondition) -> Result<Revision, Error> {
    store
        .write(Op::delete(key.to_owned()), precondition, None)
        .await
}

/// What a page holds, as `key=value` words.
fn words(page: &Page) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let words: Vec<_> = page
        .items
        .iter()
        .map(|item| format!("{}={}", text(&item.key), text(&item.value)))
        .collect();
    words.join(" ")
}

async fn range(store: &Shared, prefix: &str, at: Option<Revision>) -> Result<String, Error> {
    store
        .range(prefix.as_bytes(), at, None, usize::MAX)
        .await
        .map(|page| words(&page))
}

async fn an_empty_store_has_a_revision_and_an_identity(store: Shared, _: Clock) {
    assert_eq!(store.current_revision(), Revision::FIRST);
    assert_eq!(store.cluster_id().len(), 36);
    let page = store.range(b"", None, None, 10).await.unwrap();
    assert_eq!(
        page,
        Page {
            revision: Revision::FIRST,
            items: vec![],
            more: false
        }
    );
    assert!(store.get(b"a").await.unwrap().is_none());
}

async fn a_put_can_be_read_back(store: Shared, _: Clock) {
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let found = store.get(b"a").await.unwrap().unwrap();
    assert_eq!((&found.key[..], &found.value[..]), (&b"a"[..], &b"2"[..]));
    assert_eq!((found.create_revision, found.mod_revision), (first, second));
    assert!(store.get(b"ab").await.unwrap().is_none());
    assert!(store.get(b"").await.unwrap().is_none());
}

async fn every_write_has_the_next_revision(store: Shared, _: Clock) {
    assert_eq!(put(&store, "a", "1").await, Revision(2));
    assert_eq!(put(&store, "a", "1").await, Revision(3));
    write(&store, "a", "x", Precondition::Absent)
        .await
        .unwrap_err();
    assert_eq!(
        delete(&store, "a", Precondition::None).await.unwrap(),
        Revision(4)
    );
    assert_eq!(store.current_revision(), Revision(4));
}

async fn writes_at_once_get_revisions_of_their_own(store: Shared, _: Clock) {
    let writes = (0..200).map(|n| {
        let store = store.clone();
        async move { put(&store, &format!("key-{n:03}"), &n.to_string()).await }
    });
    let mut revisions = futures::future::join_all(writes).await;
    revisions.sort();
    assert_eq!(revisions, (2..202).map(Revision).collect::<Vec<_>>());
    let page = store.range(b"key-", None, None, 1000).await.unwrap();
    assert_eq!((page.items.len(), page.revision), (200, Revision(201)));
}

async fn preconditions_are_checked_against_the_newest_state(store: Shared, _: Clock) {
    let missing = |result| matches!(result, Err(Error::NotFound { .. }));
    assert!(missing(write(&store, "a", "1", Precondition::Exists).await));
    assert!(missing(
        write(&store, "a", "1", Precondition::Revision(Revision(1))).await
    ));

    let first = write(&store, "a", "1", Precondition::Absent).await.unwrap();
    let second = write(&store, "a", "2", Precondition::Revision(first))
        .await
        .unwrap();
    for stale in [
        write(&store, "a", "3", Precondition::Revision(first)).await,
        write(&store, "a", "3", Precondition::Absent).await,
        delete(&store, "a", Precondition::Revision(first)).await,
        delete(&store, "a", Precondition::Absent).await,
    ] {
        let Err(Error::Conflict { current }) = stale else {
            panic!("not a conflict: {stale:?}")
        };
        assert_eq!(
            (&current.value[..], current.mod_revision),
            (&b"2"[..], second)
        );
    }
    write(&store, "a", "4", Precondition::Exists).await.unwrap();
    let now = store.get(b"a").await.unwrap().unwrap().mod_revision;
    delete(&store, "a", Precondition::Revision(now))
        .await
        .unwrap();
    assert!(store.get(b"a").await.unwrap().is_none());
}

async fn only_one_of_many_creations_wins(store: Shared, _: Clock) {
    let writes = (0..50).map(|n| {
        let store = store.clone();
        async move { write(&store, "one", &n.to_string(), Precondition::Absent).await }
    });
    let results = futures::future::join_all(writes).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Ok(_) | Err(Error::Conflict { .. })))
    );
    assert_eq!(store.current_revision(), Revision(2));
}

async fn a_deletion_needs_a_key(store: Shared, _: Clock) {
    assert!(matches!(
        delete(&store, "a", Precondition::None).await,
        Err(Error::NotFound { .. })
    ));
    put(&store, "a", "1").await;
    delete(&store, "a", Precondition::None).await.unwrap();
    assert!(matches!(
        delete(&store, "a", Precondition::None).await,
        Err(Error::NotFound { .. })
    ));
}

async fn a_key_that_comes_back_is_created_again(store: Shared, _: Clock) {
    put(&store, "a", "1").await;
    delete(&store, "a", Precondition::None).await.unwrap();
    let again = write(&store, "a", "2", Precondition::Absent).await.unwrap();
    assert_eq!(
        store.get(b"a").await.unwrap().unwrap().create_revision,
        again
    );
    let events = all_events(&*store).await;
    let EventKind::Put {
        previous,
        create_revision,
        ..
    } = &events[2].kind
    else {
        panic!("{events:?}")
    };
    assert_eq!((previous, *create_revision), (&None, again));
}

async fn keys_and_values_have_limits(store: Shared, _: Clock) {
    let put =
        |key: Vec<u8>, value: Vec<u8>| store.write(Op::put(key, value), Precondition::None, None);
    put(vec![b'k'; MAX_KEY_BYTES], vec![b'v'; MAX_VALUE_BYTES])
        .await
        .unwrap();
    put(vec![0xff; 3], vec![]).await.unwrap();
    assert!(matches!(
        put(vec![], vec![]).await,
        Err(Error::InvalidKey { length: 0, .. })
    ));
    assert!(matches!(
        put(vec![b'k'; MAX_KEY_BYTES + 1], vec![]).await,
        Err(Error::InvalidKey { .. })
    ));
    assert!(matches!(
        put(vec![b'k'], vec![0; MAX_VALUE_BYTES + 1]).await,
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(store.current_revision(), Revision(3));
}

async fn a_range_is_ordered_and_has_its_prefix(store: Shared, _: Clock) {
    for key in ["b/2", "a/1", "b", "b/10", "c/1", "b/1", "b0"] {
        put(&store, key, "x").await;
    }
    delete(&store, "b/10", Precondition::None).await.unwrap();
    assert_eq!(range(&store, "b/", None).await.unwrap(), "b/1=x b/2=x");
    assert_eq!(
        range(&store, "b", None).await.unwrap(),
        "b=x b/1=x b/2=x b0=x"
    );
    assert_eq!(
        range(&store, "", None).await.unwrap(),
        "a/1=x b=x b/1=x b/2=x b0=x c/1=x"
    );
    assert_eq!(range(&store, "d", None).await.unwrap(), "");
}

async fn a_range_goes_on_after_a_key(store: Shared, _: Clock) {
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        put(&store, key, "x").await;
    }
    let page = async |after: Option<&'static str>, limit| {
        let page = store
            .range(b"a/", None, after.map(str::as_bytes), limit)
            .await
            .unwrap();
        (words(&page), page.more)
    };
    assert_eq!(page(None, 2).await, ("a/1=x a/2=x".to_owned(), true));
    assert_eq!(page(None, 3).await, ("a/1=x a/2=x a/3=x".to_owned(), false));
    assert_eq!(page(Some("a/2"), 2).await, ("a/3=x".to_owned(), false));
    assert_eq!(page(Some("a/20"), 2).await, ("a/3=x".to_owned(), false));
    assert_eq!(page(Some("a/3"), 2).await, (String::new(), false));
    assert_eq!(page(Some("A"), 1).await, ("a/1=x".to_owned(), true));
    assert_eq!(page(None, 0).await, (String::new(), true));
}

async fn a_range_shows_an_older_revision(store: Shared, _: Clock) {
    let first = put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    let third = put(&store, "a", "2").await;
    delete(&store, "b", Precondition::None).await.unwrap();
    assert_eq!(range(&store, "", Some(Revision::FIRST)).await.unwrap(), "");
    assert_eq!(range(&store, "", Some(first)).await.unwrap(), "a=1");
    assert_eq!(range(&store, "", Some(third)).await.unwrap(), "a=2 b=1");
    assert_eq!(range(&store, "", None).await.unwrap(), "a=2");
    let page = store.range(b"", Some(first), None, 10).await.unwrap();
    assert_eq!((page.revision, page.items[0].mod_revision), (first, first));
}

async fn pages_of_one_list_agree(store: Shared, _: Clock) {
    for n in 0..10 {
        put(&store, &format!("k{n}"), "old").await;
    }
    let mut page = store.range(b"k", None, None, 3).await.unwrap();
    let (at, mut seen) = (page.revision, words(&page));
    while page.more {
        // Changes while a client turns the pages don't show.
        put(&store, "k9", "new").await;
        put(&store, &format!("k0{}", seen.len()), "new").await;
        let after = page.items.last().unwrap().key.clone();
        page = store.range(b"k", Some(at), Some(&after), 3).await.unwrap();
        seen = format!("{seen} {}", words(&page));
    }
    let wanted: Vec<_> = (0..10).map(|n| format!("k{n}=old")).collect();
    assert_eq!(seen, wanted.join(" "));
}

async fn compaction_keeps_what_is_live(store: Shared, _: Clock) {
    put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    put(&store, "gone", "1").await;
    delete(&store, "gone", Precondition::None).await.unwrap();
    let here = put(&store, "a", "2").await;
    let later = put(&store, "a", "3").await;
    store.compact(here).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    assert_eq!(store.compacted_revision(), here);
    assert_eq!(range(&store, "", Some(here)).await.unwrap(), "a=2 b=1");
    assert_eq!(range(&store, "", Some(later)).await.unwrap(), "a=3 b=1");

    // The first event after it still has both its sides.
    let events = all_events(&*store).await;
    let EventKind::Put {
        previous: Some(previous),
        ..
    } = &events[0].kind
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        (events.len(), &previous.value[..], previous.mod_revision),
        (1, &b"2"[..], here)
    );

    store.compact(later).await.unwrap();
    assert_eq!(range(&store, "", None).await.unwrap(), "a=3 b=1");
    assert!(all_events(&*store).await.is_empty());
    assert_eq!(put(&store, "a", "4").await, later.next());
}

async fn compacted_revisions_are_refused(store: Shared, _: Clock) {
    for n in 0..10 {
        put(&store, "a", &n.to_string()).await;
    }
    store.compact(Revision(5)).await.unwrap();
    let refused = |error| {
        matches!(
            error,
            Error::Compacted {
                compacted: Revision(5),
                current: Revision(11),
                ..
            }
        )
    };
    assert!(refused(
        range(&store, "", Some(Revision(4))).await.unwrap_err()
    ));
    assert!(refused(store.watch(Revision(4)).await.err().unwrap()));
    assert_eq!(range(&store, "", Some(Revision(5))).await.unwrap(), "a=3");
    let mut watch = store.watch(Revision(5)).await.unwrap();
    assert_eq!(next_event(&mut watch).await.unwrap().revision, Revision(6));

    // A watch that was let in and then overtaken is told as well.
    let mut overtaken = store.watch(Revision(5)).await.unwrap();
    store.compact(Revision(8)).await.unwrap();
    assert!(matches!(
        overtaken.next().await,
        Err(Error::Compacted {
            compacted: Revision(8),
            ..
        })
    ));
    assert!(matches!(overtaken.next().await, Err(Error::Closed)));
}

async fn compaction_beyond_the_present_is_refused(store: Shared, _: Clock) {
    let here = put(&store, "a", "1").await;
    assert!(matches!(
        store.compact(here.next()).await,
        Err(Error::FutureRevision { .. })
    ));
    assert_eq!(store.compacted_revision(), Revision::FIRST);
}

async fn revisions_of_the_future_are_refused(store: Shared, _: Clock) {
    let here = put(&store, "a", "1").await;
    let refused = |error| {
        matches!(
            error,
            Error::FutureRevision {
                requested: Revision(3),
                current: Revision(2)
            }
        )
    };
    assert!(refused(
        range(&store, "", Some(here.next())).await.unwrap_err()
    ));
    assert!(refused(store.watch(here.next()).await.err().unwrap()));
}

async fn a_watch_sees_history_then_live_events(store: Shared, _: Clock) {
    let first = put(&store, "a", "1").await;
    put(&store, "b", "2").await;
    let mut watch = store.watch(first).await.unwrap();
    assert_eq!(
        new_value(&next_event(&mut watch).await.unwrap()),
        Some(&b"2"[..])
    );
    put(&store, "c", "3").await;
    assert_eq!(
        new_value(&next_event(&mut watch).await.unwrap()),
        Some(&b"3"[..])
    );
    delete(&store, "c", Precondition::None).await.unwrap();
    let event = next_event(&mut watch).await.unwrap();
    assert_eq!((new_value(&event), event.revision), (None, Revision(5)));
    assert_eq!(watch.position(), Revision(5));
}

async fn events_carry_both_sides(store: Shared, _: Clock) {
    let mut live = store.watch(Revision::FIRST).await.unwrap();
    assert_eq!(
        live.next().await.unwrap(),
        WatchItem::Progress(Revision::FIRST)
    );
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let third = delete(&store, "a", Precondition::None).await.unwrap();

    let version = |value: &'static str, mod_revision| Version {
        value: value.into(),
        create_revision: first,
        mod_revision,
    };
    let put = |value: &'static str, previous| EventKind::Put {
        value: value.into(),
        create_revision: first,
        previous,
    };
    let wanted = vec![
        (first, put("1", None)),
        (second, put("2", Some(version("1", first)))),
        (
            third,
            EventKind::Delete {
                last: version("2", second),
            },
        ),
    ];
    let history = all_events(&*store).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next_event(&mut live).await.unwrap());
    }
    assert_eq!(
        seen, history,
        "live events are what the history tells later"
    );
    assert_eq!(
        seen.into_iter()
            .map(|event| (event.revision, event.kind))
            .collect::<Vec<_>>(),
        wanted
    );
}

async fn a_caught_up_watch_reports_progress(store: Shared, _: Clock) {
    let here = put(&store, "a", "1").await;
    let mut watch = store.watch(Revision::FIRST).await.unwrap();
    assert!(matches!(watch.next().await.unwrap(), WatchItem::Event(_)));
    assert_eq!(watch.next().await.unwrap(), WatchItem::Progress(here));
    assert!(watch.try_next().is_none());
    put(&store, "a", "2").await;
    assert!(matches!(watch.try_next(), Some(Ok(WatchItem::Event(_)))));
}

async fn watches_under_load_miss_and_repeat_nothing(store: Shared, _: Clock) {
    const WRITES: u64 = 600;
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..WRITES / 4 {
                put(&store, &format!("{writer}/{}", n % 7), &n.to_string()).await;
                tokio::task::yield_now().await;
            }
        })
    });
    let watchers = (0..6).map(|watcher| {
        let store = store.clone();
        tokio::spawn(async move {
            // Each joins at another time, so that they meet the writers at different points.
            while store.current_revision() < Revision(watcher * 60) {
                tokio::task::yield_now().await;
            }
            let mut watch = store.watch(Revision::FIRST).await.unwrap();
            for revision in 2..WRITES + 2 {
                assert_eq!(
                    next_event(&mut watch).await.unwrap().revision,
                    Revision(revision)
                );
                assert!(
                    store.current_revision() >= Revision(revision),
                    "what is seen can be read"
                );
            }
        })
    });
    let tasks: Vec<_> = writers.chain(watchers).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn a_slow_watcher_is_cut_off(store: Shared, _: Clock) {
    let mut slow = store.watch(Revision::FIRST).await.unwrap();
    slow.next().await.unwrap();
    let value = "x".repeat(MAX_VALUE_BYTES - 1);
    for _ in 0..20 {
        put(&store, "a", &value).await;
    }
    let error = loop {
        match slow.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Lagged { .. }), "{error}");
    // It can come back from where it was.
    let mut again = store.watch(slow.position()).await.unwrap();
    assert_eq!(
        next_event(&mut again).await.unwrap().revision,
        slow.position().next()
    );
}

async fn closing_ends_watches_and_refuses_writes(store: Shared, clock: Clock) {
    let mut watch = store.watch(Revision::FIRST).await.unwrap();
    watch.next().await.unwrap();
    put(&store, "a", "1").await;
    store.close().await;
    store.close().await;
    assert!(
        matches!(watch.next().await, Ok(WatchItem::Event(_))),
        "what was published is still delivered"
    );
    assert!(matches!(watch.next().await, Err(Error::Closed)));
    assert!(matches!(
        write(&store, "a", "1", Precondition::None).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        store.compact(Revision(2)).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        store.expire(clock.now()).await,
        Err(Error::Closed)
    ));
}

const MINUTE: Duration = Duration::from_secs(60);

async fn put_for(store: &Shared, key: String, ttl: Option<Duration>) -> Revision {
    store
        .write(Op::put(key, "x"), Precondition::None, ttl)
        .await
        .unwrap()
}

async fn keys_expire_with_an_event(store: Shared, clock: Clock) {
    put_for(&store, "short".into(), Some(MINUTE)).await;
    put_for(&store, "long".into(), Some(10 * MINUTE)).await;
    put_for(&store, "forever".into(), None).await;
    let now = clock.now();
    assert_eq!(store.expire(now).await.unwrap(), 0);
    assert_eq!(store.expire(now + 2 * MINUTE).await.unwrap(), 1);
    assert_eq!(range(&store, "", None).await.unwrap(), "forever=x long=x");
    let last = all_events(&*store).await.pop().unwrap();
    assert_eq!((&last.key[..], last.revision), (&b"short"[..], Revision(5)));
    assert!(matches!(last.kind, EventKind::Delete { last } if &last.value[..] == b"x"));
    assert_eq!(store.expire(now + 20 * MINUTE).await.unwrap(), 1);
    assert_eq!(store.expire(now + 20 * MINUTE).await.unwrap(), 0);
}

async fn putting_again_replaces_the_expiry(store: Shared, clock: Clock) {
    let now = clock.now();
    for key in ["stays", "longer", "back"] {
        put_for(&store, key.into(), Some(MINUTE)).await;
    }
    put_for(&store, "stays".into(), None).await;
    put_for(&store, "longer".into(), Some(10 * MINUTE)).await;
    delete(&store, "back", Precondition::None).await.unwrap();
    put_for(&store, "back".into(), None).await;
    assert_eq!(store.expire(now + 2 * MINUTE).await.unwrap(), 0);
    assert_eq!(store.expire(now + 20 * MINUTE).await.unwrap(), 1);
    assert_eq!(range(&store, "", None).await.unwrap(), "back=x stays=x");
}

async fn expiry_comes_in_batches(store: Shared, clock: Clock) {
    let puts =
        (0..EXPIRE_BATCH + 10).map(|n| put_for(&store, format!("\u{fffd}{n}"), Some(MINUTE)));
    futures::future::join_all(puts).await;
    let later = clock.now() + 2 * MINUTE;
    assert_eq!(store.expire(later).await.unwrap(), EXPIRE_BATCH);
    assert_eq!(store.expire(later).await.unwrap(), 10);
}

async fn the_expirer_sweeps_until_the_store_closes(store: Shared, clock: Clock) {
    let mut watch = store.watch(Revision::FIRST).await.unwrap();
    let puts = (0..EXPIRE_BATCH + 1).map(|n| put_for(&store, n.to_string(), Some(Duration::ZERO)));
    futures::future::join_all(puts).await;
    let sweep = tokio::spawn(run_expirer(store.clone(), clock, Duration::from_millis(1)));
    while next_event(&mut watch).await.unwrap().revision
        < Revision(2 * (EXPIRE_BATCH as u64 + 1) + 1)
    {}
    assert_eq!(range(&store, "", None).await.unwrap(), "");
    store.close().await;
    sweep.await.unwrap();
}

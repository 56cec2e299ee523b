//! Compaction under clients: the past is refused with 410, or shown as it was, and never anything else.

use std::sync::Arc;

use coracle_clock::Clock;
use coracle_faults::{extent, seed};
use coracle_store::{MemoryStore, RedbStore, Revision, Store, WatchItem, WatchStream};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::client::succeeded;
use super::crowd::Crowd;
use super::notes::{Event, event_of, items, object, text};
use super::world;
use crate::support::CONFIG_MAPS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_past_in_memory_is_refused_or_as_it_was() {
    check(Arc::new(MemoryStore::new(Clock::system()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_past_on_disk_is_refused_or_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let store = RedbStore::open(path, Clock::system()).expect("a fresh store");
    check(Arc::new(store)).await;
}

async fn check(store: Arc<dyn Store>) {
    let operations = extent("CORACLE_OPERATIONS", 300, 5_000);
    let clock = Clock::fake(seed());
    // The history is followed as it is made: afterwards most of it is forgotten.
    let recorder = record(store.watch(Revision(1)).await.expect("a fresh store"));
    let recorder = tokio::spawn(recorder);
    let mut crowd = Crowd::new(clock.clone());
    let api = world::serve(store.clone()).await.expect("a sound store");
    let api = Arc::new(Api::Here(api));
    let stop = CancellationToken::new();
    let compactor = tokio::spawn(compact(store.clone(), clock, stop.clone()));
    crowd.act(&api, move |number| number < operations).await;
    stop.cancel();
    let compactions = compactor.await.expect("the compactor does not panic");
    crowd.finish(&api).await;
    store.close().await;
    let history = recorder.await.expect("the recorder does not panic");
    let figures = crowd.judge(&history);
    println!("{compactions} compactions: {figures:?}");
    assert_eq!(figures.unknown, 0, "{figures:?}");
    assert!(compactions > 10, "{compactions} compactions");
    assert!(figures.gone[0] > 0 && figures.gone[1] > 0, "{figures:?}");
}

async fn record(mut watch: WatchStream) -> Vec<Event> {
    let mut events = Vec::new();
    // Its last word is that the store was closed.
    while let Ok(item) = watch.next().await {
        if let WatchItem::Event(event) = item {
            events.extend(event_of(&event));
        }
    }
    events
}

/// Forgets all but the newest few revisions, again and again.
async fn compact(store: Arc<dyn Store>, clock: Clock, stop: CancellationToken) -> usize {
    let (mut done, mut reached) = (0, 0);
    while !stop.is_cancelled() {
        let kept = clock.random_below(30);
        let up_to = store.current_revision().0.saturating_sub(kept).max(1);
        if up_to > reached {
            let compacted = store.compact(Revision(up_to)).await;
            compacted.expect("a sound store can be compacted");
            (done, reached) = (done + 1, up_to);
        }
        tokio::task::yield_now().await;
    }
    done
}

#[tokio::test]
async fn a_page_whose_state_is_forgotten_names_a_token_for_the_rest_as_it_is_now() {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let api = world::serve(store.clone()).await.expect("a fresh store");
    let api = Api::Here(api);
    for name in ["a", "b", "c", "d"] {
        let made = api.call("POST", CONFIG_MAPS, Some(object(name, "1"))).await;
        assert_eq!(made.expect("an answer").code, 201);
    }
    let path = format!("{CONFIG_MAPS}?limit=2");
    let first = succeeded(api.call("GET", &path, None).await.expect("an answer"));
    let names = |list| items(list).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&first), ["a", "b"]);
    // What comes before the place of the token is not shown again, whatever becomes of it.
    for name in ["b", "c"] {
        let path = format!("{CONFIG_MAPS}/{name}");
        let gone = api.call("DELETE", &path, None).await;
        assert_eq!(gone.expect("an answer").code, 200);
    }
    let made = api.call("POST", CONFIG_MAPS, Some(object("e", "1"))).await;
    assert_eq!(made.expect("an answer").code, 201);
    let compacted = store.compact(store.current_revision()).await;
    compacted.expect("it can be compacted");

    let token = text(&first["metadata"]["continue"]);
    let path = format!("{CONFIG_MAPS}?limit=2&continue={token}");
    let refused = api.call("GET", &path, None).await.expect("an answer");
    assert_eq!(refused.code, 410);
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                   new list without the continue parameter, or use the continue token in this response to retrieve \
                   the remainder of the results. Continuing with the provided token results in an inconsistent list \
                   - objects that were created, modified, or deleted between the time the first chunk was returned \
                   and now may show up in the list.";
    let new_token = text(&refused.body["metadata"]["continue"]);
    let expected = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {"continue": new_token},
        "status": "Failure",
        "message": message,
        "reason": "Expired",
        "code": 410,
    });
    assert_eq!(refused.body, expected);

    let path = format!("{CONFIG_MAPS}?limit=1&continue={new_token}");
    let rest = succeeded(api.call("GET", &path, None).await.expect("an answer"));
    assert_eq!(names(&rest), ["d"]);
    let token = text(&rest["metadata"]["continue"]);
    let path = format!("{CONFIG_MAPS}?limit=1&continue={token}");
    let rest = succeeded(api.call("GET", &path, None).await.expect("an answer"));
    assert_eq!(names(&rest), ["e"]);
}

#[tokio::test]
async fn a_list_of_a_forgotten_revision_says_that_it_is_too_old() {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let api = world::serve(store.clone()).await.expect("a fresh store");
    let api = Api::Here(api);
    for name in ["a", "b"] {
        let made = api.call("POST", CONFIG_MAPS, Some(object(name, "1"))).await;
        assert_eq!(made.expect("an answer").code, 201);
    }
    let current = store.current_revision();
    let compacted = store.compact(current).await;
    compacted.expect("it can be compacted");
    for query in ["resourceVersionMatch=Exact", "limit=1"] {
        let at = current.0 - 1;
        let path = format!("{CONFIG_MAPS}?resourceVersion={at}&{query}");
        let refused = api.call("GET", &path, None).await.expect("an answer");
        assert_eq!(refused.code, 410, "{query}");
        let expected = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": "The resourceVersion for the provided list is too old.",
            "reason": "Expired",
            "code": 410,
        });
        assert_eq!(refused.body, expected, "{query}");
    }
}

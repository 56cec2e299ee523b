//! A history checker: what concurrent clients were told, compared with a model of the store.
//!
//! Clients create, update under a `resourceVersion`, delete and list at random, and note what was asked and answered;
//! watchers note what they see. Afterwards:
//!
//! - every answered write is an event, with that revision and that content, and nobody's content is made up;
//! - revisions come once and in order, and the same to every watcher, whenever it joined;
//! - a create found nothing, an update or a deletion found just the revision that it named;
//! - a list is what the events up to its revision lead to;
//! - no client is answered a revision below one that it has seen.
//!
//! `CORACLE_LONG=1` asks for a hundred times as much; `CORACLE_SEED` says where randomness starts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_store::{MemoryStore, RedbStore, Store};
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, TestServer};

const CLIENTS: usize = 8;
const NAMES: u64 = 12;

/// How many operations each client does, and the seed.
fn extent() -> (usize, u64) {
    let long = std::env::var("CORACLE_LONG").is_ok_and(|value| value == "1");
    let seed = std::env::var("CORACLE_SEED").map_or(1, |text| text.parse().expect("a number"));
    (if long { 20_000 } else { 200 }, seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_in_memory_is_that_of_one_store() {
    check(|clock| Arc::new(MemoryStore::new(clock))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_on_disk_is_that_of_one_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    check(|clock| Arc::new(RedbStore::open(path, clock).expect("a fresh store"))).await;
}

/// A write that was answered.
#[derive(Debug)]
struct Written {
    name: String,
    revision: u64,
    /// The revision that it replaced; `None` for a create.
    replaced: Option<u64>,
    /// What it left; `None` for a deletion.
    content: Option<String>,
}

/// The objects at one revision: name → revision, content.
type State = BTreeMap<String, (u64, String)>;

/// What one client knows.
#[derive(Default)]
struct Notes {
    attempted: HashSet<String>,
    written: Vec<Written>,
    /// The revision of each list, and what it showed.
    lists: Vec<(u64, State)>,
}

/// An event as a watcher saw it.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    revision: u64,
    kind: String,
    name: String,
    content: String,
}

async fn check<S: Store>(open: impl FnOnce(Clock) -> Arc<S>) {
    let (operations, seed) = extent();
    println!("seed {seed}");
    let clock = Clock::fake(seed);
    let store = open(Clock::system());
    let server = TestServer::start_with(|config| {
        config.store = store;
        config.clock = Clock::system();
    });
    let server = Arc::new(server.await);
    let start = revision(&server.get(CONFIG_MAPS).await.ok());
    let early = tokio::spawn(watch(server.clone(), start));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|id| tokio::spawn(client(server.clone(), clock.clone(), id, operations)))
        .collect();
    let middle = revision(&server.get(CONFIG_MAPS).await.ok());
    let late = tokio::spawn(watch(server.clone(), middle));
    let mut notes = Vec::new();
    for client in clients {
        notes.push(client.await.expect("a client does not panic"));
    }
    server.config_map("the-end", json!({})).await;
    let events = early.await.expect("a watcher does not panic");
    let late = late.await.expect("a watcher does not panic");
    let suffix: Vec<Event> = events
        .iter()
        .filter(|event| event.revision > middle)
        .cloned()
        .collect();
    assert_eq!(late, suffix, "two watchers saw different histories");
    judge(start, &events, &notes);
}

/// Compares the notes with the one history that `events` is.
fn judge(start: u64, events: &[Event], notes: &[Notes]) {
    let attempted: HashSet<&String> = notes.iter().flat_map(|notes| &notes.attempted).collect();
    let mut writes: BTreeMap<u64, &Written> = BTreeMap::new();
    for write in notes.iter().flat_map(|notes| &notes.written) {
        let other = writes.insert(write.revision, write);
        assert!(other.is_none(), "two writes were answered {write:?}");
    }
    let mut lists: BTreeMap<u64, Vec<_>> = BTreeMap::new();
    for (revision, shown) in notes.iter().flat_map(|notes| &notes.lists) {
        lists.entry(*revision).or_default().push(shown);
    }

    let mut model = State::new();
    let (mut last, mut found) = (start, 0);
    for event in events {
        assert!(event.revision > last, "{event:?} comes after {last}");
        for (_, shown) in lists.range(last..event.revision) {
            for shown in shown {
                assert_eq!(**shown, model, "a list between {last} and {event:?}");
            }
        }
        last = event.revision;
        let before = model.get(&event.name).map(|(revision, _)| *revision);
        match event.kind.as_str() {
            "DELETED" => drop(model.remove(&event.name)),
            kind => {
                assert_eq!(kind == "ADDED", before.is_none(), "{event:?}");
                assert!(attempted.contains(&event.content), "nobody wrote {event:?}");
                let state = (event.revision, event.content.clone());
                model.insert(event.name.clone(), state);
            }
        }
        if let Some(write) = writes.get(&event.revision) {
            found += 1;
            assert_eq!(write.name, event.name);
            assert_eq!(write.replaced, before, "{write:?} met something else");
            let content = (event.kind != "DELETED").then(|| event.content.clone());
            assert_eq!(write.content, content, "{write:?}");
        }
    }
    for (_, shown) in lists.range(last..) {
        for shown in shown {
            assert_eq!(**shown, model, "a list after all events");
        }
    }
    assert_eq!(found, writes.len(), "an answered write is no event");
    assert!(!lists.is_empty() && found > CLIENTS, "too little happened");
}

/// Watches from `from` until the last object appears.
async fn watch(server: Arc<TestServer>, from: u64) -> Vec<Event> {
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}");
    let mut watch = server.watch(&path).await;
    let mut events = Vec::new();
    loop {
        let event = watch.next().await.expect("the watch goes on");
        let object = &event["object"];
        let name = text(&object["metadata"]["name"]);
        if name == "the-end" {
            return events;
        }
        events.push(Event {
            revision: revision(object),
            kind: text(&event["type"]),
            name,
            content: text(&object["data"]["content"]),
        });
    }
}

async fn client(server: Arc<TestServer>, clock: Clock, id: usize, operations: usize) -> Notes {
    let (mut notes, mut seen) = (Notes::default(), 0);
    for number in 0..operations {
        let name = format!("object-{}", clock.random_below(NAMES));
        let path = format!("{CONFIG_MAPS}/{name}");
        let content = format!("{id}/{number}");
        let mut object = json!({"metadata": {"name": name}, "data": {"content": content}});
        let (answer, replaced, content) = match clock.random_below(4) {
            0 => {
                let list = server.get(CONFIG_MAPS).await.ok();
                let at = revision(&list);
                assert!(at >= seen, "a list of {at} after {seen}");
                seen = at;
                notes.lists.push((at, shown(&list)));
                continue;
            }
            1 => {
                notes.attempted.insert(content.clone());
                let answer = server.post(CONFIG_MAPS, object).await;
                (answer, None, Some(content))
            }
            kind => {
                let current = server.get(&path).await;
                if !current.status.is_success() {
                    continue;
                }
                let at = revision(&current.ok());
                // Somebody else gets a chance to be faster.
                tokio::task::yield_now().await;
                if kind == 2 {
                    object["metadata"]["resourceVersion"] = at.to_string().into();
                    notes.attempted.insert(content.clone());
                    (server.put(&path, object).await, Some(at), Some(content))
                } else {
                    let options = json!({"preconditions": {"resourceVersion": at.to_string()}});
                    let answer = server.delete_with(&path, options).await;
                    (answer, Some(at), None)
                }
            }
        };
        if !answer.status.is_success() {
            let (code, ..) = answer.failure();
            assert!(code == 409 || code == 404, "{code} to {name}");
            continue;
        }
        let answer = answer.ok();
        // A deletion's answer has no revision of its own.
        if content.is_some() {
            let at = revision(&answer);
            assert!(at > seen, "a write of {at} after {seen}");
            seen = at;
            notes.written.push(Written {
                name,
                revision: at,
                replaced,
                content,
            });
        }
    }
    notes
}

fn shown(list: &Value) -> State {
    let items = list["items"].as_array().expect("a list has items");
    items
        .iter()
        .map(|item| {
            let state = (revision(item), text(&item["data"]["content"]));
            (text(&item["metadata"]["name"]), state)
        })
        .collect()
}

fn revision(object: &Value) -> u64 {
    let text = text(&object["metadata"]["resourceVersion"]);
    text.parse()
        .unwrap_or_else(|_| panic!("no revision in {object}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

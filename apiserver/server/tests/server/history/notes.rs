//! What clients and watchers note: what they asked for, and what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_store::{EventKind, Revision, Store, WatchItem};
use serde_json::{Value, json};

/// Where the store has the ConfigMaps.
const PREFIX: &[u8] = b"/registry/core/configmaps/default/";

/// The objects at one revision: name → revision, content.
pub(super) type State = BTreeMap<String, (u64, String)>;

/// A change as a watcher or the store tells it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) content: String,
}

/// A write that somebody asked for.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) name: String,
    /// The revision that it may replace; `None` for a create.
    pub(super) replaces: Option<u64>,
    /// What it leaves, different for each attempt; `None` for a deletion.
    pub(super) content: Option<String>,
    pub(super) outcome: Outcome,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered with success and, unless it was a deletion, a revision.
    Answered(Option<u64>),
    /// It was refused, so it never happens.
    Refused,
    /// It failed or was not answered: it may have happened.
    Unknown,
}

/// A list, or the rest of one.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) revision: u64,
    /// Only names after this one were asked for.
    pub(super) after: String,
    pub(super) shown: State,
    /// What had been answered before it was asked for; 0 where an older state was asked for.
    pub(super) floor: u64,
}

/// One object as it was read; `None`: it was not there.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) name: String,
    pub(super) found: Option<(u64, String)>,
    pub(super) floor: u64,
}

/// What one watch showed after the revision `from`, without a break.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) from: u64,
    pub(super) events: Vec<Event>,
}

/// The notes of one client or watcher.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) attempts: Vec<Attempt>,
    pub(super) lists: Vec<List>,
    pub(super) reads: Vec<Read>,
    pub(super) segments: Vec<Segment>,
    /// How often the past was refused with 410: lists of a revision, pages, watches.
    pub(super) gone: [usize; 3],
}

/// The newest revision that anyone was told. Whoever asks afterwards must be shown it or a newer one.
#[derive(Clone, Default)]
pub(super) struct Floor(Arc<AtomicU64>);

impl Floor {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn raise(&self, revision: u64) {
        self.0.fetch_max(revision, Ordering::SeqCst);
    }
}

/// An object with `content`, written twice so that half of it shows, and long now and then.
pub(super) fn object(name: &str, content: &str) -> Value {
    let number = content.bytes().map(usize::from).sum::<usize>();
    let times = if number.is_multiple_of(7) { 900 } else { 2 };
    json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "data": {"content": content, "copies": content.repeat(times)},
    })
}

/// The content of an object, which is whole.
pub(super) fn content(shown: &Value) -> String {
    let content = text(&shown["data"]["content"]);
    let name = text(&shown["metadata"]["name"]);
    assert_eq!(shown["data"], object(&name, &content)["data"], "in halves");
    content
}

/// The objects of a list.
pub(super) fn items(list: &Value) -> State {
    let items = list["items"].as_array().expect("a list has items");
    items
        .iter()
        .map(|item| {
            let state = (revision(item), content(item));
            (text(&item["metadata"]["name"]), state)
        })
        .collect()
}

/// The revision of an object or a list.
pub(super) fn revision(object: &Value) -> u64 {
    let text = text(&object["metadata"]["resourceVersion"]);
    text.parse()
        .unwrap_or_else(|_| panic!("no revision in {object}"))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The changes of ConfigMaps after `from`, as the store itself has them.
pub(super) async fn history(store: &dyn Store, from: u64) -> Vec<Event> {
    let mut watch = store
        .watch(Revision(from))
        .await
        .expect("the history is there");
    let mut events = Vec::new();
    while let WatchItem::Event(event) = watch.next().await.expect("the history can be read") {
        events.extend(event_of(&event));
    }
    events
}

/// A change in the store, if it is of one of the ConfigMaps.
pub(super) fn event_of(event: &coracle_store::Event) -> Option<Event> {
    let name = event.key.strip_prefix(PREFIX)?;
    let (kind, bytes) = match &event.kind {
        EventKind::Put {
            value, previous, ..
        } => match previous {
            None => ("ADDED", value),
            Some(_) => ("MODIFIED", value),
        },
        EventKind::Delete { last } => ("DELETED", &last.value),
    };
    // Something of the server's own comes before the object.
    let start = bytes.iter().position(|byte| *byte == b'{');
    let json = &bytes[start.expect("the store has an object")..];
    let stored = serde_json::from_slice(json).expect("the store has JSON");
    Some(Event {
        revision: event.revision.0,
        kind: kind.to_owned(),
        name: String::from_utf8(name.to_vec()).expect("a name"),
        content: content(&stored),
    })
}

//! The tests of the store: one contract for all backends, and what only the one on disk promises.

mod contract;
mod faults;
mod kills;
mod lone;
mod model;
mod opening;
mod power_cut;

use coracle_store::{Error, Event, EventKind, Store, WatchItem, WatchStream};

/// The next event of a watch.
async fn next_event(watch: &mut WatchStream) -> Result<Event, Error> {
    loop {
        if let WatchItem::Event(event) = watch.next().await? {
            return Ok(event);
        }
    }
}

/// All events that the history still has.
async fn all_events(store: &dyn Store) -> Vec<Event> {
    let mut watch = store
        .watch(store.compacted_revision())
        .await
        .expect("the oldest revision can be watched");
    let mut events = Vec::new();
    while let WatchItem::Event(event) = watch.next().await.expect("the history can be read") {
        events.push(event);
    }
    events
}

/// The value that an event gave its key.
fn new_value(event: &Event) -> Option<&[u8]> {
    match &event.kind {
        EventKind::Put { value, .. } => Some(value),
        EventKind::Delete { .. } => None,
    }
}

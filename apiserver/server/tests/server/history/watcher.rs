//! A watcher that goes on where it was: after a watch that it left, that ended, or whose server is another by now.

use std::time::Duration;

use coracle_clock::Clock;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::client::succeeded;
use super::notes::{Event, Floor, List, Notes, Segment, State, content, items, revision, text};
use crate::support::CONFIG_MAPS;

/// The object whose creation ends a history.
pub(super) const THE_END: &str = "the-end";

/// How long a watcher waits after a failure of the server.
const PAUSE: Duration = Duration::from_millis(10);

/// One of the watchers.
pub(super) struct Watcher {
    pub(super) clock: Clock,
    pub(super) floor: Floor,
    /// Where to go on; `None`: with a list.
    pub(super) position: Option<u64>,
    pub(super) notes: Notes,
}

impl Watcher {
    /// Watches until it sees [`THE_END`] or is told to stop.
    pub(super) async fn follow(mut self, api: &Api, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            match self.watch(api, &stop).await {
                Some(true) => break,
                Some(false) => {}
                None => tokio::time::sleep(PAUSE).await,
            }
        }
        self
    }

    /// Watches for a while; `Some(true)` after the end of the history, `None` when the server failed.
    async fn watch(&mut self, api: &Api, stop: &CancellationToken) -> Option<bool> {
        let from = match self.position {
            Some(position) => position,
            None if self.clock.random_below(2) == 0 => return self.stream_a_list(api, stop).await,
            None => match self.list(api).await? {
                (from, false) => from,
                // No watch from here on shows the end: it lies before.
                (_, true) => return Some(true),
            },
        };
        self.position = Some(from);
        let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}");
        let mut lines = match api.watch(&path).await? {
            Ok(lines) => lines,
            Err(answer) if answer.code == 410 => {
                self.gone(&answer.body);
                return Some(false);
            }
            Err(answer) => {
                assert!(answer.code >= 500, "{}", answer.body);
                return None;
            }
        };
        // Most watches are left after a while.
        let most = 1 + self.clock.random_below(200);
        let mut events: Vec<Event> = Vec::new();
        let mut ended = Some(false);
        while (events.len() as u64) < most {
            let line = tokio::select! {
                line = lines.next() => line,
                () = stop.cancelled() => break,
            };
            let Some(line) = line else {
                ended = None;
                break;
            };
            if line["type"] == "ERROR" {
                self.gone(&line["object"]);
                break;
            }
            let event = event(&line);
            let is_end = event.name == THE_END;
            events.push(event);
            if is_end {
                ended = Some(true);
                break;
            }
        }
        if let Some(last) = events.last() {
            self.floor.raise(last.revision);
            self.position = self.position.map(|_| last.revision);
        }
        self.notes.segments.push(Segment { from, events });
        ended
    }

    fn gone(&mut self, status: &Value) {
        assert_eq!(status["code"], 410, "{status}");
        assert_eq!(status["reason"], "Expired", "{status}");
        self.notes.gone[2] += 1;
        self.position = None;
    }

    /// The revision of a list, and whether the end of the history is in it.
    async fn list(&mut self, api: &Api) -> Option<(u64, bool)> {
        let floor = self.floor.get();
        let answer = api.call("GET", CONFIG_MAPS, None).await?;
        if answer.code >= 500 {
            return None;
        }
        let list = succeeded(answer);
        let shown = items(&list);
        let is_end = shown.contains_key(THE_END);
        Some((self.note_list(revision(&list), shown, floor), is_end))
    }

    /// Takes a list as the first events of a watch.
    async fn stream_a_list(&mut self, api: &Api, stop: &CancellationToken) -> Option<bool> {
        let floor = self.floor.get();
        let path = format!(
            "{CONFIG_MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
             &resourceVersionMatch=NotOlderThan"
        );
        let mut lines = api.watch(&path).await?.ok()?;
        let mut shown = State::new();
        loop {
            let line = tokio::select! {
                line = lines.next() => line?,
                () = stop.cancelled() => return Some(false),
            };
            if line["type"] == "BOOKMARK" {
                let at = revision(&line["object"]);
                let is_end = shown.contains_key(THE_END);
                self.position = Some(self.note_list(at, shown, floor));
                return Some(is_end);
            }
            let event = event(&line);
            assert_eq!(event.kind, "ADDED");
            shown.insert(event.name, (event.revision, event.content));
        }
    }

    fn note_list(&mut self, revision: u64, shown: State, floor: u64) -> u64 {
        self.floor.raise(revision);
        self.notes.lists.push(List {
            revision,
            after: String::new(),
            shown,
            floor,
        });
        revision
    }
}

fn event(line: &Value) -> Event {
    let object = &line["object"];
    Event {
        revision: revision(object),
        kind: text(&line["type"]),
        name: text(&object["metadata"]["name"]),
        content: content(object),
    }
}

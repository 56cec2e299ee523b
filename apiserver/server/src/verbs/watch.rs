//! WATCH: the changes of a collection as a stream of JSON lines, or of protobuf frames.
//!
//! ```text
//!            resourceVersion "" or 0, or sendInitialEvents      resourceVersion N
//!                              │                                       │
//!                  present objects as ADDED              changes after N from the history
//!                              │                         (forgotten: an ERROR event, 410, and the end)
//!                  bookmark "initial-events-end"          (not reached yet: silence until it is)
//!                              └──────────────▶ live ◀─────────────────┘
//!                                                │  bookmarks, until timeout, shutdown or a full queue
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::schema::from_kept_json;
use coracle_api::{Object, protobuf};
use futures::stream;
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};

use crate::answer::{Answer, Payload, to_json, to_protobuf};
use crate::body::BoxError;
use crate::cache::{Caches, Change, Entry, Interest, Watcher};
use crate::call::Call;
use crate::negotiate::{self, Format, Shape};
use crate::options::{ListOptions, parse_revision};
use crate::pause::others_first;
use crate::selection::Selection;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// How often bookmarks come.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How long a watch lasts at least when the client doesn't say; up to twice as long, so that clients don't come back at once.
const MIN_DURATION: u64 = 1800;
/// Waiting events are written together up to this size.
const MAX_CHUNK: usize = 32 * 1024;
/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Starts a watch.
pub(crate) async fn watch(server: &Arc<Server>, call: Call) -> Result<Answer> {
    let options = ListOptions::parse(&call.info.query, true)?;
    let mut selection = Selection::parse(&call.info.query, call.resource)?;
    if call.info.watch_prefix && !call.name().is_empty() {
        selection = selection.and_path_name(call.name())?;
    }
    let asked = parse_revision(&options.resource_version)?;
    let interest = Interest {
        scope: call.scope(),
        selection: Arc::new(selection),
    };
    let cache = server.storage.cache(call.resource)?;
    let initial = match options.send_initial_events {
        Some(wanted) => wanted,
        None => asked.is_none(),
    };
    if let Some(revision) = asked.filter(|_| initial)
        && let Err(error) = super::list::reach(server, revision).await
    {
        return Ok(failed(call.output.format, &error));
    }
    let progress = server.storage.catch_up().await;
    let (first, watcher, revision) = if initial {
        let (snapshot, watcher) = cache.list_and_watch(&interest.scope, progress, interest.clone());
        let first = snapshot
            .entries
            .into_iter()
            .filter(|entry| interest.wants(entry))
            .collect();
        (first, watcher, snapshot.revision)
    } else {
        let from = asked.unwrap_or(progress);
        match cache.watch(from, interest) {
            Ok(watcher) => (VecDeque::new(), watcher, from),
            Err(floor) => {
                let message = format!("too old resource version: {from} ({floor})");
                return Ok(failed(call.output.format, &ApiError::expired(message)));
            }
        }
    };
    let seconds = options
        .timeout_seconds
        .unwrap_or_else(|| MIN_DURATION + server.clock().random_below(MIN_DURATION));
    let timeline = Timeline::new(
        server.clock().monotonic(),
        Duration::from_secs(seconds),
        options.bookmarks,
    );
    let content_type = content_type(call.output.format);
    let feed = Feed {
        server: Arc::clone(server),
        call,
        first,
        initial_end: (options.send_initial_events == Some(true) && options.bookmarks)
            .then_some(revision),
        after: revision,
        watcher,
        timeline,
        headings: true,
        others_next: false,
    };
    server.metrics.watch_started();
    let stream = stream::unfold(feed, |mut feed| async move {
        let chunk = feed.next_chunk().await?;
        Some((Ok::<_, BoxError>(Frame::data(chunk)), feed))
    });
    let mut answer = Answer::bytes(StatusCode::OK, content_type, Bytes::new());
    answer.payload = Payload::Stream(StreamBody::new(stream).boxed_unsync());
    Ok(answer)
}

/// A watch that ends with what it has to say first. Upstream's watch cache (`newErrWatcher`) refuses like this, with a
/// status of 200, once a request is understood; the Python client lists again after such an event only.
fn failed(format: Format, error: &ApiError) -> Answer {
    let mut event = BytesMut::new();
    write_event(&mut event, format, "ERROR", &error.to_value());
    Answer::bytes(StatusCode::OK, content_type(format), event)
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Protobuf => negotiate::PROTOBUF_STREAM,
        _ => negotiate::JSON,
    }
}

/// When a watch says something by itself, in the clock's monotonic time.
struct Timeline {
    end: Duration,
    bookmark: Option<Duration>,
}

impl Timeline {
    fn new(now: Duration, lasts: Duration, bookmarks: bool) -> Self {
        let before_end = lasts.saturating_sub(BOOKMARK_BEFORE_END);
        Self {
            end: now + lasts,
            bookmark: bookmarks.then(|| now + before_end.min(BOOKMARK_EVERY)),
        }
    }

    /// Puts the next bookmark a minute on, or shortly before the end.
    fn bookmarked(&mut self, now: Duration) {
        let before_end = self.end.saturating_sub(BOOKMARK_BEFORE_END);
        let next = (now + BOOKMARK_EVERY).min(before_end);
        self.bookmark = (next > now).then_some(next);
    }
}

struct Feed {
    server: Arc<Server>,
    call: Call,
    first: VecDeque<Arc<Entry>>,
    /// The revision of the bookmark that is owed after the initial events.
    initial_end: Option<u64>,
    /// What is told comes after this revision, which may be yet to come.
    after: u64,
    watcher: Watcher,
    timeline: Timeline,
    headings: bool,
    /// Whether others have their turn before the next chunk.
    others_next: bool,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.server.metrics.watch_ended();
    }
}

impl Feed {
    /// The next lines; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.others_next) {
            others_first().await;
        }
        let mut chunk = BytesMut::new();
        while chunk.len() < MAX_CHUNK {
            if let Some(entry) = self.first.pop_front() {
                self.write(&mut chunk, "ADDED", &Seen::As(&entry));
            } else if let Some(revision) = self.initial_end.take() {
                self.write_bookmark(&mut chunk, revision, true);
            } else if let Some(change) = self.watcher.try_next() {
                self.write_change(&mut chunk, &change);
            } else if !chunk.is_empty() {
                break;
            } else if !self.wait(&mut chunk).await {
                return None;
            }
        }
        self.others_next = chunk.len() >= MAX_CHUNK;
        // No event can be told: an object is no list. Upstream, too, begins such a watch and ends it at the first event.
        let tells = !matches!(self.call.output.shape, Shape::PartialMetadataList(_));
        tells.then(|| chunk.freeze())
    }

    /// Waits for a change, a bookmark or the end.
    async fn wait(&mut self, chunk: &mut BytesMut) -> bool {
        let clock = self.server.clock().clone();
        let now = clock.monotonic();
        let until_end = self.timeline.end.saturating_sub(now);
        let until_bookmark = self
            .timeline
            .bookmark
            .map_or(until_end, |at| at.saturating_sub(now));
        let stop = self.server.stop.clone();
        tokio::select! {
            biased;
            change = self.watcher.next() => match change {
                Some(change) => self.write_change(chunk, &change),
                None => return false,
            },
            () = stop.cancelled() => return false,
            () = clock.sleep(until_bookmark.min(until_end)) => {
                if clock.monotonic() >= self.timeline.end {
                    return false;
                }
                self.bookmark(chunk);
                self.timeline.bookmarked(clock.monotonic());
            }
        }
        true
    }

    /// A bookmark promises that everything up to its revision was sent, so what is queued goes first.
    fn bookmark(&mut self, chunk: &mut BytesMut) {
        let revision = caches(&self.server).revision();
        while let Some(change) = self.watcher.try_next() {
            self.write_change(chunk, &change);
        }
        if revision >= self.after {
            self.write_bookmark(chunk, revision, false);
        }
    }

    /// Selectors turn changes into arrivals and departures.
    fn write_change(&mut self, chunk: &mut BytesMut, change: &Change) {
        if change.revision <= self.after {
            return;
        }
        let interest = &self.watcher.interest;
        let new = change.new.clone().filter(|entry| interest.wants(entry));
        let old = change.old.clone().filter(|entry| interest.wants(entry));
        match (new, old) {
            (Some(new), None) => self.write(chunk, "ADDED", &Seen::As(&new)),
            (Some(new), Some(_)) => self.write(chunk, "MODIFIED", &Seen::As(&new)),
            (None, Some(old)) => self.write(chunk, "DELETED", &Seen::At(&old, change.revision)),
            (None, None) => {}
        }
    }

    fn write(&mut self, chunk: &mut BytesMut, kind: &str, seen: &Seen<'_>) {
        match (self.call.output.shape, self.call.output.format, seen) {
            (Shape::Object, Format::Protobuf, Seen::As(entry)) => {
                let object = self.call.protobuf(entry);
                chunk.extend_from_slice(&protobuf::watch_frame(kind, &object));
            }
            (Shape::Object, Format::Json, seen) => {
                let json = seen.json();
                let (before, after) = self.call.form.parts(seen.entry(), &json);
                line(chunk, kind, &[before, after]);
            }
            (shape, _, seen) => {
                let object = from_kept_json(&seen.json());
                let object = Object::new(object.expect("cached bytes are JSON"));
                let value = self.reshape(shape, object);
                self.write_value(chunk, kind, &value);
            }
        }
    }

    fn write_value(&self, chunk: &mut BytesMut, kind: &str, value: &Value) {
        write_event(chunk, self.call.output.format, kind, value);
    }

    fn reshape(&mut self, shape: Shape, object: Object) -> Value {
        match shape {
            Shape::Object => object.into_value(),
            Shape::PartialMetadata(version) | Shape::PartialMetadataList(version) => {
                self.call.partial(&object, version)
            }
            Shape::Table(version) => {
                let headings = std::mem::replace(&mut self.headings, false);
                let metadata = json!({"resourceVersion": object.resource_version()});
                self.call.table(
                    version,
                    object,
                    self.server.clock().now(),
                    metadata,
                    headings,
                )
            }
        }
    }

    fn write_bookmark(&mut self, chunk: &mut BytesMut, revision: u64, ends_initial: bool) {
        let resource = self.call.resource;
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if ends_initial {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
        let shown = match self.call.output.shape {
            Shape::Object => object,
            shape => self.reshape(shape, Object::from_value(object).expect("an object")),
        };
        self.write_value(chunk, "BOOKMARK", &shown);
    }
}

/// An object as an event shows it.
enum Seen<'a> {
    /// As it is in the cache.
    As(&'a Entry),
    /// As it was last, at the revision of its deletion.
    At(&'a Entry, u64),
}

impl Seen<'_> {
    fn entry(&self) -> &Entry {
        match self {
            Self::As(entry) | Self::At(entry, _) => entry,
        }
    }

    fn json(&self) -> Bytes {
        match self {
            Self::As(entry) => entry.json(),
            Self::At(entry, revision) => entry.json_at(*revision),
        }
    }
}

fn caches(server: &Server) -> &Caches {
    server.storage.caches()
}

fn write_event(chunk: &mut BytesMut, format: Format, kind: &str, value: &Value) {
    match format {
        Format::Protobuf => {
            chunk.extend_from_slice(&protobuf::watch_frame(kind, &to_protobuf(value)));
        }
        _ => line(chunk, kind, &[&to_json(value)]),
    }
}

/// Writes an event of an object whose JSON comes in parts.
fn line(chunk: &mut BytesMut, kind: &str, object: &[&[u8]]) {
    chunk.reserve(object.iter().map(|part| part.len()).sum::<usize>() + 40);
    chunk.put_slice(br#"{"type":""#);
    chunk.put_slice(kind.as_bytes());
    chunk.put_slice(br#"","object":"#);
    for part in object {
        chunk.put_slice(part);
    }
    chunk.put_slice(b"}\n");
}

//! Watches: how published events reach their readers.
//!
//! ```text
//!                 position = published                      queue overflows
//! CatchingUp ───────────────────────────────▶ Live ───────────────────────────▶ Ended (Lagged)
//!  │    ▲ reads the history in chunks          │ store closes
//!  └────┘ while position < published           └─────────────────────────────▶ Ended (Closed)
//!  │ position < compacted
//!  └────────────────────▶ Ended (Compacted)
//! ```
//!
//! A watch joins the live events only at the very moment at which it has read everything that is
//! published, under the lock that publishing takes: so there is neither a gap nor a repetition. A
//! watch that is far behind reads the history at its own pace and holds one chunk of it in memory; a
//! live one holds its queue, which is bounded by count and bytes.
//!
//! A watch can also be handed over to a [`Sink`] once it is live. That one has no queue: it takes events on the thread
//! that publishes them, before their writes are answered, so that nobody has to be woken for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use futures::future::BoxFuture;
use futures::stream::{self, Stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Error;
use crate::types::{Event, Revision};

/// The most events that wait for one watcher.
const MAX_QUEUED_EVENTS: usize = 8 * 1024;

/// The most bytes that wait for one watcher. Events share their bytes, so this bounds what a watcher
/// keeps alive, not what it adds.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// The most live watchers of one store; the API server needs a handful.
const MAX_WATCHERS: usize = 1024;

/// Reads the published events of the past.
pub(crate) trait History: Send + Sync {
    /// Some of the published events after `position`, in order, at least one if there are any.
    fn events_after(
        self: Arc<Self>,
        position: Revision,
    ) -> BoxFuture<'static, Result<Vec<Event>, Error>>;
}

/// Takes events on the thread that publishes them; see [`WatchStream::hand_over`].
///
/// Every write waits for it, so it has to be quick; and it must not write to the store or wait for a read of it.
pub trait Sink: Send + Sync {
    /// Takes published events, which follow on those before.
    fn take(&self, events: &[Event]);

    /// There will be no further events.
    fn end(&self, error: Error);
}

/// What a watch yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchItem {
    /// The next write.
    Event(Event),
    /// Everything up to this revision has been yielded. Comes once the watch has caught up, and
    /// may come at any time later.
    Progress(Revision),
}

/// A running watch; see [`Store::watch`](crate::Store::watch).
pub struct WatchStream {
    hub: Arc<Hub>,
    history: Weak<dyn History>,
    position: Revision,
    phase: Phase,
}

enum Phase {
    CatchingUp(VecDeque<Event>),
    Live(Arc<Queue>),
    Ended,
}

impl WatchStream {
    pub(crate) fn new(hub: Arc<Hub>, history: Weak<dyn History>, from: Revision) -> Self {
        Self {
            hub,
            history,
            position: from,
            phase: Phase::CatchingUp(VecDeque::new()),
        }
    }

    /// Waits for the next item. Dropping the future loses nothing. After an error the watch is over,
    /// and every further call says [`Error::Closed`].
    pub async fn next(&mut self) -> Result<WatchItem, Error> {
        let result = self.advance().await;
        match &result {
            Ok(WatchItem::Event(event)) => self.position = event.revision,
            Ok(WatchItem::Progress(_)) => {}
            Err(_) => self.phase = Phase::Ended,
        }
        result
    }

    /// The next item if it is in memory already.
    pub fn try_next(&mut self) -> Option<Result<WatchItem, Error>> {
        let result = match &mut self.phase {
            Phase::CatchingUp(chunk) => chunk.pop_front().map(Ok),
            Phase::Live(queue) => queue.try_take(),
            Phase::Ended => Some(Err(Error::Closed)),
        }?;
        match &result {
            Ok(event) => self.position = event.revision,
            Err(_) => self.phase = Phase::Ended,
        }
        Some(result.map(WatchItem::Event))
    }

    /// Gives `sink` all further events of this watch: those of the past now, and live ones as they are published.
    pub async fn hand_over(mut self, sink: Arc<dyn Sink>) -> Result<(), Error> {
        loop {
            if let Phase::Live(queue) = &self.phase {
                return self.hub.attach(queue, sink);
            }
            if let WatchItem::Event(event) = self.next().await? {
                sink.take(std::slice::from_ref(&event));
            }
        }
    }

    /// The revision up to which this watch has yielded everything.
    pub fn position(&self) -> Revision {
        self.position
    }

    /// The same as a [`Stream`], which ends after its first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<WatchItem, Error>> + Send {
        stream::unfold(self, |mut watch| async move {
            if matches!(watch.phase, Phase::Ended) {
                return None;
            }
            let item = watch.next().await;
            Some((item, watch))
        })
    }

    async fn advance(&mut self) -> Result<WatchItem, Error> {
        loop {
            match &mut self.phase {
                Phase::Ended => return Err(Error::Closed),
                Phase::Live(queue) => return queue.take().await.map(WatchItem::Event),
                Phase::CatchingUp(chunk) => {
                    if let Some(event) = chunk.pop_front() {
                        return Ok(WatchItem::Event(event));
                    }
                    if let Some(queue) = self.hub.join(self.position)? {
                        self.phase = Phase::Live(queue);
                        return Ok(WatchItem::Progress(self.position));
                    }
                    let history = self.history.upgrade().ok_or(Error::Closed)?;
                    *chunk = history.events_after(self.position).await?.into();
                }
            }
        }
    }
}

/// Hands published events to the live watchers.
pub(crate) struct Hub {
    /// Written under the lock of `watchers`; read without it.
    published: AtomicU64,
    watchers: Mutex<Watchers>,
}

struct Watchers {
    live: Vec<Weak<Queue>>,
    sinks: Vec<Arc<dyn Sink>>,
    /// Why there will be no further events.
    end: Option<Error>,
}

impl Hub {
    pub(crate) fn new(published: Revision) -> Self {
        Self {
            published: AtomicU64::new(published.0),
            watchers: Mutex::new(Watchers {
                live: Vec::new(),
                sinks: Vec::new(),
                end: None,
            }),
        }
    }

    /// The revision of the newest published event.
    pub(crate) fn published(&self) -> Revision {
        Revision(self.published.load(Ordering::Acquire))
    }

    /// Publishes committed events, which follow on those before.
    pub(crate) fn publish(&self, events: &[Event]) {
        let Some(last) = events.last() else { return };
        let mut watchers = self.watchers.lock();
        // First, so that whoever sees an event can also read at its revision.
        self.published.store(last.revision.0, Ordering::Release);
        for sink in &watchers.sinks {
            sink.take(events);
        }
        watchers
            .live
            .retain(|queue| queue.upgrade().is_some_and(|queue| queue.append(events)));
    }

    /// Ends all watches with `error`, after what they have still queued.
    pub(crate) fn close(&self, error: Error) {
        let mut watchers = self.watchers.lock();
        for queue in watchers.live.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.end(error.clone());
        }
        for sink in watchers.sinks.drain(..) {
            sink.end(error.clone());
        }
        watchers.end.get_or_insert(error);
    }

    /// Puts `sink` in the place of the live watcher with `queue`.
    fn attach(&self, queue: &Arc<Queue>, sink: Arc<dyn Sink>) -> Result<(), Error> {
        let mut watchers = self.watchers.lock();
        // Nothing is published meanwhile: what waits is all there is.
        while let Some(event) = queue.try_take() {
            sink.take(std::slice::from_ref(&event?));
        }
        watchers
            .live
            .retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(queue)));
        watchers.sinks.push(sink);
        Ok(())
    }

    /// Joins the live events if `position` is where they go on; `None` if events lie in between.
    fn join(&self, position: Revision) -> Result<Option<Arc<Queue>>, Error> {
        let mut watchers = self.watchers.lock();
        if position < self.published() {
            return Ok(None);
        }
        if let Some(end) = &watchers.end {
            return Err(end.clone());
        }
        watchers.live.retain(|queue| queue.strong_count() > 0);
        if watchers.live.len() >= MAX_WATCHERS {
            return Err(Error::Full { what: "watches" });
        }
        let queue = Arc::new(Queue::default());
        watchers.live.push(Arc::downgrade(&queue));
        Ok(Some(queue))
    }
}

/// The events that wait for one live watcher.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    end: Option<Error>,
}

impl Queue {
    /// Adds events; `false` if they are too many and the watcher is cut off.
    fn append(&self, events: &[Event]) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.bytes += events.iter().map(Event::size).sum::<usize>();
        let queued = waiting.events.len() + events.len();
        let fits = queued <= MAX_QUEUED_EVENTS && waiting.bytes <= MAX_QUEUED_BYTES;
        if fits {
            waiting.events.extend(events.iter().cloned());
        } else {
            waiting.events = VecDeque::new();
            waiting.end = Some(Error::Lagged { queued });
        }
        drop(waiting);
        self.ready.notify_one();
        fits
    }

    fn end(&self, error: Error) {
        self.waiting.lock().end.get_or_insert(error);
        self.ready.notify_one();
    }

    fn try_take(&self) -> Option<Result<Event, Error>> {
        let mut waiting = self.waiting.lock();
        match waiting.events.pop_front() {
            Some(event) => {
                waiting.bytes -= event.size();
                Some(Ok(event))
            }
            None => waiting.end.clone().map(Err),
        }
    }

    async fn take(&self) -> Result<Event, Error> {
        loop {
            if let Some(result) = self.try_take() {
                return result;
            }
            // An event that came in between has left its permit here: nothing is missed.
            self.ready.notified().await;
        }
    }
}

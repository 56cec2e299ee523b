//! The store in memory: for tests, and for clusters that are thrown away.
//!
//! Everything happens under one lock and without awaiting, so it works on a paused clock. "Durable"
//! means "applied" here; all else is as [`Store`] says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_clock::{Clock, Timestamp};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::Store;
use crate::error::Error;
use crate::types::{EXPIRE_BATCH, Event, EventKind, KeyValue, Op, Page, Precondition, Revision};
use crate::watch::{History, Hub, WatchStream};

/// How many events of the history a watch reads at once.
const CHUNK: usize = 256;

/// A store that lives as long as its process.
pub struct MemoryStore {
    inner: Arc<Inner>,
    clock: Clock,
    cluster_id: String,
}

struct Inner {
    hub: Arc<Hub>,
    state: Mutex<State>,
}

struct State {
    closed: bool,
    compacted: Revision,
    /// What each key had, oldest first; the last one is what it has now.
    keys: BTreeMap<Bytes, VecDeque<Stored>>,
    /// All writes after `compacted`.
    log: VecDeque<Event>,
    /// When keys expire, in milliseconds since 1970.
    expiries: BTreeSet<(i64, Bytes)>,
}

struct Stored {
    revision: Revision,
    create_revision: Revision,
    expires_at: Option<i64>,
    /// `None`: the key was deleted.
    value: Option<Bytes>,
}

impl MemoryStore {
    /// An empty store; `clock` tells when keys expire.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            closed: false,
            compacted: Revision::FIRST,
            keys: BTreeMap::new(),
            log: VecDeque::new(),
            expiries: BTreeSet::new(),
        };
        let inner = Inner {
            hub: Arc::new(Hub::new(Revision::FIRST)),
            state: Mutex::new(state),
        };
        let cluster_id = clock.uuid();
        Self {
            inner: Arc::new(inner),
            clock,
            cluster_id,
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(
        &self,
        prefix: &[u8],
        at: Option<Revision>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, Error> {
        let state = self.inner.state.lock();
        let revision = state.readable(at, self.inner.hub.published())?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page {
            revision,
            items: Vec::new(),
            more: false,
        };
        for (key, versions) in state.keys.range::<[u8], _>((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            let Some(item) = at_revision(key, versions, revision) else {
                continue;
            };
            if page.items.len() == limit {
                page.more = true;
                break;
            }
            page.items.push(item);
        }
        Ok(page)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        Ok(self.inner.state.lock().current(key))
    }

    async fn write(
        &self,
        op: Op,
        precondition: Precondition,
        ttl: Option<Duration>,
    ) -> Result<Revision, Error> {
        op.check_size()?;
        let expires_at = ttl.map(|ttl| {
            let ttl = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
            self.clock.now().as_millisecond().saturating_add(ttl)
        });
        let mut state = self.inner.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let current = state.current(op.key());
        precondition.check(&op, current.as_ref())?;
        Ok(self.inner.apply(&mut state, op, current, expires_at))
    }

    async fn watch(&self, from: Revision) -> Result<WatchStream, Error> {
        self.inner
            .state
            .lock()
            .readable(Some(from), self.inner.hub.published())?;
        let history = Arc::downgrade(&self.inner) as Weak<dyn History>;
        Ok(WatchStream::new(self.inner.hub.clone(), history, from))
    }

    fn current_revision(&self) -> Revision {
        self.inner.hub.published()
    }

    fn compacted_revision(&self) -> Revision {
        self.inner.state.lock().compacted
    }

    fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    async fn compact(&self, up_to: Revision) -> Result<(), Error> {
        let mut state = self.inner.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let current = self.inner.hub.published();
        if up_to > current {
            return Err(Error::FutureRevision {
                requested: up_to,
                current,
            });
        }
        state.compact(up_to);
        Ok(())
    }

    async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        let mut state = self.inner.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let over = state
            .expiries
            .iter()
            .take_while(|(time, _)| *time <= now.as_millisecond());
        let keys: Vec<Bytes> = over
            .take(EXPIRE_BATCH)
            .map(|(_, key)| key.clone())
            .collect();
        for key in &keys {
            let current = state.current(key);
            self.inner
                .apply(&mut state, Op::delete(key.clone()), current, None);
        }
        Ok(keys.len())
    }

    async fn close(&self) {
        self.inner.state.lock().closed = true;
        self.inner.hub.close(Error::Closed);
    }
}

impl Inner {
    /// Applies and publishes a change whose precondition holds.
    fn apply(
        &self,
        state: &mut State,
        op: Op,
        current: Option<KeyValue>,
        expires_at: Option<i64>,
    ) -> Revision {
        let revision = self.hub.published().next();
        let create_revision = current
            .as_ref()
            .map_or(revision, |current| current.create_revision);
        let previous = current.as_ref().map(KeyValue::version);
        let (key, value) = match op {
            Op::Put { key, value } => (key, Some(value)),
            Op::Delete { key } => (key, None),
        };
        let expires_at = expires_at.filter(|_| value.is_some());
        let kind = match &value {
            Some(value) => EventKind::Put {
                value: value.clone(),
                create_revision,
                previous,
            },
            None => EventKind::Delete {
                last: previous.expect("only a key that is there is deleted"),
            },
        };

        let versions = state.keys.entry(key.clone()).or_default();
        if let Some(time) = versions.back().and_then(|last| last.expires_at) {
            state.expiries.remove(&(time, key.clone()));
        }
        if let Some(time) = expires_at {
            state.expiries.insert((time, key.clone()));
        }
        versions.push_back(Stored {
            revision,
            create_revision,
            expires_at,
            value,
        });

        let event = Event {
            key,
            revision,
            kind,
        };
        state.log.push_back(event.clone());
        self.hub.publish(&[event]);
        revision
    }
}

impl State {
    /// The revision to read at, if it is within the history.
    fn readable(&self, at: Option<Revision>, current: Revision) -> Result<Revision, Error> {
        let requested = at.unwrap_or(current);
        if requested < self.compacted {
            return Err(Error::Compacted {
                requested,
                compacted: self.compacted,
                current,
            });
        }
        if requested > current {
            return Err(Error::FutureRevision { requested, current });
        }
        Ok(requested)
    }

    fn current(&self, key: &[u8]) -> Option<KeyValue> {
        let (key, versions) = self.keys.get_key_value(key)?;
        at_revision(key, versions, Revision(u64::MAX))
    }

    fn compact(&mut self, up_to: Revision) {
        while self
            .log
            .front()
            .is_some_and(|event| event.revision <= up_to)
        {
            let event = self.log.pop_front().expect("there is a first one");
            let Some(versions) = self.keys.get_mut(&event.key) else {
                continue;
            };
            versions.retain(|version| match &event.kind {
                EventKind::Put { .. } => version.revision >= event.revision,
                EventKind::Delete { .. } => version.revision > event.revision,
            });
            if versions.is_empty() {
                self.keys.remove(&event.key);
            }
        }
        self.compacted = self.compacted.max(up_to);
    }
}

impl History for Inner {
    fn events_after(
        self: Arc<Self>,
        position: Revision,
    ) -> BoxFuture<'static, Result<Vec<Event>, Error>> {
        let state = self.state.lock();
        let events = state
            .readable(Some(position), self.hub.published())
            .map(|_| {
                // The log has no gaps and begins right after the compacted revision.
                let skipped = (position.0 - state.compacted.0) as usize;
                state
                    .log
                    .iter()
                    .skip(skipped)
                    .take(CHUNK)
                    .cloned()
                    .collect()
            });
        Box::pin(std::future::ready(events))
    }
}

/// What `key` had at `revision`.
fn at_revision(key: &Bytes, versions: &VecDeque<Stored>, revision: Revision) -> Option<KeyValue> {
    let stored = versions
        .iter()
        .rev()
        .find(|version| version.revision <= revision)?;
    Some(KeyValue {
        key: key.clone(),
        value: stored.value.clone()?,
        create_revision: stored.create_revision,
        mod_revision: stored.revision,
    })
}

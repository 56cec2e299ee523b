//! Reading: all of it from one snapshot, at one revision, without holding up the writer.

use std::ops::Bound;

use bytes::Bytes;
use redb::{AccessGuard, ReadTransaction, ReadableTable};

use super::layout::{COMPACTED, LOG, META, Record, VERSIONS, damaged, meta_number};
use crate::error::Error;
use crate::types::{Event, EventKind, KeyValue, Page, Revision};

/// How many events of the history a watch reads at once.
const CHUNK_EVENTS: usize = 256;

/// A chunk ends early once it has this many bytes.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A row of `versions`, still in the database's pages.
type Row = (
    AccessGuard<'static, (&'static [u8], u64)>,
    AccessGuard<'static, &'static [u8]>,
);

/// A snapshot of the store. Commits that aren't published yet may be in it: `current`, the newest
/// published revision, is where its readers stop.
pub(super) struct Snapshot {
    pub(super) transaction: ReadTransaction,
    pub(super) current: Revision,
}

impl Snapshot {
    /// The revision that readers of `at` read at, if it is within the history.
    pub(super) fn readable(&self, at: Option<Revision>) -> Result<Revision, Error> {
        let compacted = Revision(meta_number(&self.transaction.open_table(META)?, COMPACTED)?);
        let current = self.current.max(compacted);
        let requested = at.unwrap_or(current);
        if requested < compacted {
            return Err(Error::Compacted {
                requested,
                compacted,
                current,
            });
        }
        if requested > current {
            return Err(Error::FutureRevision { requested, current });
        }
        Ok(requested)
    }

    /// See [`Store::range`](crate::Store::range).
    pub(super) fn range(
        &self,
        prefix: &[u8],
        at: Option<Revision>,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, Error> {
        let revision = self.readable(at)?;
        let versions = self.transaction.open_table(VERSIONS)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((after, u64::MAX)),
            _ => Bound::Included((prefix, 0)),
        };
        let mut page = Page {
            revision,
            items: Vec::new(),
            more: false,
        };
        // The newest row so far, at or below `revision`, of the key that the scan is in.
        let mut newest: Option<Row> = None;
        for row in versions.range::<(&[u8], u64)>((start, Bound::Unbounded))? {
            let row = row?;
            let (key, written) = row.0.value();
            if !key.starts_with(prefix) {
                break;
            }
            if let Some(done) = newest.take_if(|newest| newest.0.value().0 != key) {
                page.add(&done, limit)?;
                if page.more {
                    return Ok(page);
                }
            }
            if written <= revision.0 {
                newest = Some(row);
            }
        }
        if let Some(done) = newest {
            page.add(&done, limit)?;
        }
        Ok(page)
    }

    /// See [`Store::get`](crate::Store::get).
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, Error> {
        let revision = self.readable(None)?;
        Ok(
            find(&self.transaction.open_table(VERSIONS)?, key, revision)?
                .and_then(|found| found.live),
        )
    }

    /// Some of the published events after `position`, in order.
    pub(super) fn events_after(&self, position: Revision) -> Result<Vec<Event>, Error> {
        self.readable(Some(position))?;
        let log = self.transaction.open_table(LOG)?;
        let versions = self.transaction.open_table(VERSIONS)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        if position >= self.current {
            return Ok(events);
        }
        for entry in log.range(position.next().0..=self.current.0)? {
            let (revision, key) = entry?;
            let event = event_at(&versions, key.value(), revision.value())?;
            bytes += event.size();
            events.push(event);
            if events.len() >= CHUNK_EVENTS || bytes >= CHUNK_BYTES {
                break;
            }
        }
        Ok(events)
    }
}

impl Page {
    /// Adds a row unless it is a deletion; past `limit` it only says that there is more.
    fn add(&mut self, row: &Row, limit: usize) -> Result<(), Error> {
        let (key, revision) = row.0.value();
        let record = Record::of(key, revision, row.1.value())?;
        if record.value.is_none() {
            return Ok(());
        }
        if self.items.len() == limit {
            self.more = true;
        } else {
            self.items.extend(key_value(key, revision, &record));
        }
        Ok(())
    }
}

/// The newest thing that is known of a key.
pub(super) struct Found {
    pub(super) expires_at: Option<u64>,
    /// `None`: it was deleted.
    pub(super) live: Option<KeyValue>,
}

/// The newest record of `key` at or below `revision`.
pub(super) fn find(
    versions: &impl ReadableTable<(&'static [u8], u64), &'static [u8]>,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Found>, Error> {
    let Some(row) = versions.range((key, 0)..=(key, revision.0))?.next_back() else {
        return Ok(None);
    };
    let (id, bytes) = row?;
    let written = id.value().1;
    let record = Record::of(key, written, bytes.value())?;
    let live = key_value(key, written, &record);
    Ok(Some(Found {
        expires_at: record.expires_at,
        live,
    }))
}

fn key_value(key: &[u8], revision: u64, record: &Record<'_>) -> Option<KeyValue> {
    Some(KeyValue {
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(record.value?),
        create_revision: record.create_revision,
        mod_revision: Revision(revision),
    })
}

/// The event of the write of `key` at `revision`, put together from the records of both its sides.
fn event_at(
    versions: &impl ReadableTable<(&'static [u8], u64), &'static [u8]>,
    key: &[u8],
    revision: u64,
) -> Result<Event, Error> {
    let bytes = versions
        .get((key, revision))?
        .ok_or_else(|| damaged(key, revision, "it is missing"))?;
    let record = Record::of(key, revision, bytes.value())?;
    let previous = match record.previous {
        Some(Revision(before)) => {
            let bytes = versions
                .get((key, before))?
                .ok_or_else(|| damaged(key, before, "it is missing"))?;
            let record = Record::of(key, before, bytes.value())?;
            key_value(key, before, &record).map(|previous| previous.version())
        }
        None => None,
    };
    let kind = match record.value {
        Some(value) => EventKind::Put {
            value: Bytes::copy_from_slice(value),
            create_revision: record.create_revision,
            previous,
        },
        None => EventKind::Delete {
            last: previous.ok_or_else(|| damaged(key, revision, "it deletes nothing"))?,
        },
    };
    Ok(Event {
        key: Bytes::copy_from_slice(key),
        revision: Revision(revision),
        kind,
    })
}

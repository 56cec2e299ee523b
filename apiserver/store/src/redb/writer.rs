//! The one writer: it commits in groups, on a thread of its own, or else a single write for its caller.
//!
//! ```text
//!  write() ─┐                      ┌──────────────────── one turn ─────────────────────┐
//!  write() ─┼─▶ bounded queue ──▶  │ take what waits (≤ 256 commands, ≤ 8 MiB)         │
//!  expire() ┤   full: refused      │   │                                               │
//!  compact()┘                      │   ▼ each in turn, seeing those before it          │
//!                                  │ precondition ──no──▶ outcome: refused             │
//!                                  │   │ yes                                           │
//!                                  │   ▼                                               │
//!                                  │ next revision, rows written, event noted          │
//!                                  │   ▼                                               │
//!                                  │ a slice of a compaction under way                 │
//!                                  │   ▼                                               │
//!                                  │ journal the rows and sync ──failed──▶ all get the │
//!                                  │   ▼                    │    error, no turns any   │
//!                                  │ leave open ────────────┘    more                  │
//!                                  │   │ (or commit durably, when the journal is full: │
//!                                  │   │  a checkpoint)                                │
//!                                  │   ▼                                               │
//!                                  │ publish the events, then answer                   │
//!                                  └───────────────────────────────────────────────────┘
//! ```
//!
//! While a commit waits for the disk the next group gathers, so groups grow with the load and a
//! single writer never waits for company. A write that is alone has its turn on the thread of its caller, if that will
//! not take long; see [`desk`](super::desk).
//!
//! A group is refused before it starts when the disk is nearly full: the database fails as a whole when it runs out
//! of room, and then reads would fail too. After a failure all the same, the storage is opened again at once, which
//! takes it back to what is durable for certain, and writes are tried again a second later.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use redb::{Durability, ReadableDatabase, ReadableTable, Table, WriteTransaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::ahead::Ahead;
use super::desk::{Pace, Place};
use super::history::{Found, Snapshot, find};
use super::journal::{Frame, Journal, Row};
use super::layout::{
    COMPACTED, EPOCH, EXPIRIES, LOG, META, NEEDED, Record, VERSIONS, meta_number, set_meta_number,
};
use super::{Opener, Shared, guarded};
use crate::error::{Error, OpenError};
use crate::types::{EXPIRE_BATCH, Event, EventKind, KeyValue, Op, Precondition, Revision};

/// How many revisions of a compaction ride on one commit.
const COMPACTION_SLICE: usize = 1024;

/// Room that is left on the disk: enough to carry out a whole journal again, and for what others write between two
/// looks.
pub(super) const RESERVE: u64 = 16 * 1024 * 1024;

/// How many turns, bytes of writes and how much time may pass between two looks at the room on the disk, which cost as
/// much as a whole read. Of the reserve, these bytes take little.
const LOOK_AFTER: (u32, usize, Duration) = (64, 256 * 1024, Duration::from_millis(100));

/// How long writes are refused after a failure before one is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Outcome = Result<u64, Error>;
type Reply = oneshot::Sender<Outcome>;

/// What the writer is asked to do, and where the answer goes.
pub(super) struct Command {
    pub(super) work: Work,
    pub(super) reply: Reply,
    /// Keeps the bytes of `work` counted while they wait.
    pub(super) room: OwnedSemaphorePermit,
    /// Keeps the command itself counted until it is answered.
    pub(super) place: Place,
}

/// Answered with a number each: the revision written, how many keys expired, the revision compacted.
pub(super) enum Work {
    Write {
        op: Op,
        precondition: Precondition,
        expires_at: Option<u64>,
    },
    Expire {
        now: u64,
    },
    Compact {
        up_to: Revision,
    },
}

/// What turns need.
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// `None` while the storage can't be opened.
    journal: Option<Journal>,
    opener: Opener,
    /// What has happened since the last look at the room on the disk: turns and bytes; and when that was.
    looked: (u32, usize, Duration),
    clock: Clock,
    /// How long the journal takes.
    pace: Pace,
    /// Compactions under way, and who waits for them.
    compactions: Vec<(Revision, Reply)>,
    /// Why there are no turns, and when that was found.
    failed: Option<(Error, Duration)>,
    /// There are no turns any more.
    finished: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal, opener: Opener, clock: Clock) -> Self {
        Self {
            shared,
            journal: Some(journal),
            opener,
            looked: LOOK_AFTER,
            clock,
            pace: Pace::default(),
            compactions: Vec::new(),
            failed: None,
            finished: false,
        }
    }

    /// Carries out a group, unless writes are refused for the moment. The answers are sent by whoever asked, after
    /// letting the writer go.
    pub(super) fn serve(&mut self, group: Vec<Command>) -> Answers {
        match &self.failed {
            Some((error, since)) if self.clock.monotonic().saturating_sub(*since) < RETRY_AFTER => {
                Answers::refuse(group, error)
            }
            Some(_) if self.journal.is_none() => {
                let shared = Arc::clone(&self.shared);
                let reopened = self.reopen(&mut shared.ahead.lock());
                match reopened {
                    Ok(()) => self.turn(group),
                    Err(error) => self.fail(group, error),
                }
            }
            _ => self.turn(group),
        }
    }

    /// Whether a turn with one write of `bytes` bytes will be over soon: nothing else is to be done in it, and the
    /// disk has been quick.
    pub(super) fn is_quick(&self, bytes: usize) -> bool {
        let journal = self.journal.as_ref();
        !self.finished
            && self.failed.is_none()
            && self.compactions.is_empty()
            && journal.is_some_and(|journal| journal.has_room_for(bytes))
            && self.pace.is_quick()
    }

    /// Whether there is more of a compaction to do.
    pub(super) fn is_compacting(&self) -> bool {
        !self.compactions.is_empty()
    }

    /// Ends everything: no turn comes after it.
    pub(super) fn end(&mut self) {
        self.finished = true;
        if self.failed.is_none()
            && let Err(error) = guarded(|| self.finish()).flatten()
        {
            // Nothing is lost: the journal is needed at the next start, that is all.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last checkpoint failed"
            );
        }
        // Nothing stays open that would keep the file from being closed.
        self.shared.ahead.lock().give_up();
        self.shared.hub.close(Error::Closed);
    }

    /// Fails when the disk has no room for a group of `bytes` bytes.
    fn check_room(&mut self, bytes: usize) -> Result<(), Error> {
        let (turns, written, time) = self.looked;
        let now = self.clock.monotonic();
        self.looked = (turns + 1, written.saturating_add(bytes), time);
        let due = turns >= LOOK_AFTER.0
            || self.looked.1 >= LOOK_AFTER.1
            || now.saturating_sub(time) >= LOOK_AFTER.2;
        if due {
            // Looked at again the next time if it fails: room may have been made.
            self.looked.0 = LOOK_AFTER.0;
            self.shared.check_room()?;
            self.looked = (0, 0, now);
        }
        Ok(())
    }

    fn turn(&mut self, group: Vec<Command>) -> Answers {
        let bytes = group.iter().map(|command| command.room.num_permits()).sum();
        if let Err(full) = self.check_room(bytes) {
            return Answers::refuse(group, &full);
        }
        let goal = self.compaction_goal(&group);
        let shared = Arc::clone(&self.shared);
        // Readers wait: until the group is durable, and after a failure until the database is what it was.
        let mut ahead = shared.ahead.lock();
        match guarded(|| self.commit(&mut ahead, &group, goal)).flatten() {
            Ok(done) => {
                drop(ahead);
                if self.failed.take().is_some() {
                    self.shared.trouble.lock().take();
                }
                self.shared.hub.publish(&done.events);
                self.shared.set_compacted(done.compacted);
                let mut answers = Vec::with_capacity(group.len());
                for (command, outcome) in group.into_iter().zip(done.outcomes) {
                    match command.work {
                        Work::Compact { up_to } if outcome.is_ok() => {
                            self.compactions.push((up_to, command.reply))
                        }
                        _ => {
                            // Before the answer: whoever gets it may write next, and is alone then.
                            drop(command.place);
                            answers.push((command.reply, outcome));
                        }
                    }
                }
                let compacted = self
                    .compactions
                    .extract_if(.., |(up_to, _)| *up_to <= done.compacted);
                answers.extend(compacted.map(|(_, reply)| (reply, Ok(done.compacted.0))));
                Answers(answers)
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store can't write"
                );
                let reopened = self.reopen(&mut ahead);
                drop(ahead);
                if let Err(error) = reopened {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "nor can it be read"
                    );
                }
                self.fail(group, error)
            }
        }
    }

    /// Answers what waits with `error`, and everyone else for a while.
    fn fail(&mut self, group: Vec<Command>, error: Error) -> Answers {
        *self.shared.trouble.lock() = Some(error.clone());
        let mut answers = Answers::refuse(group, &error);
        let compacting = self.compactions.drain(..);
        answers
            .0
            .extend(compacting.map(|(_, reply)| (reply, Err(error.clone()))));
        self.failed = Some((error, self.clock.monotonic()));
        answers
    }

    /// Goes back to what is on the disk for certain. A write that was answered with an error may turn out to be
    /// there; it is published like any other.
    fn reopen(&mut self, ahead: &mut Ahead) -> Result<(), Error> {
        self.journal = None;
        ahead.give_up();
        let mut place = self.shared.database.write();
        // Closed first: the file can't be locked twice.
        *place = Err(Error::Closed);
        let (database, header) = match (self.opener)() {
            Ok(opened) => opened,
            Err(error) => {
                let error = failure(error);
                *place = Err(error.clone());
                return Err(error);
            }
        };
        let published = self.shared.hub.published();
        if header.current < published {
            let error = redb::Error::Corrupted(format!(
                "the disk is back at revision {}, and {published} was durable",
                header.current
            ));
            *place = Err(error.into());
            return place.as_ref().map(drop).map_err(Clone::clone);
        }
        let mut position = published;
        while position < header.current {
            let snapshot = Snapshot {
                transaction: database.begin_read()?,
                current: header.current,
            };
            let events = snapshot.events_after(position)?;
            position = events.last().map_or(header.current, |event| event.revision);
            self.shared.hub.publish(&events);
        }
        self.shared.set_compacted(header.compacted);
        *place = Ok(database);
        self.journal = Some(header.journal);
        Ok(())
    }

    /// How far the compactions under way want to get.
    fn compaction_goal(&self, group: &[Command]) -> Option<Revision> {
        let current = self.shared.hub.published();
        let asked = group.iter().filter_map(|command| match command.work {
            Work::Compact { up_to } if up_to <= current => Some(up_to),
            _ => None,
        });
        self.compactions
            .iter()
            .map(|(up_to, _)| *up_to)
            .chain(asked)
            .max()
    }

    /// Carries out a group. An error means that nothing of it can be relied on.
    fn commit(
        &mut self,
        ahead: &mut Ahead,
        group: &[Command],
        goal: Option<Revision>,
    ) -> Result<Done, Error> {
        let transaction = ahead.take(&self.shared)?;
        let (done, frame) = self.carry_out(&transaction, group, goal)?;
        if done.events.is_empty() && done.compacted == self.shared.compacted() {
            ahead.keep(transaction);
            return Ok(done);
        }
        let journal = self.journal.as_mut().ok_or(Error::Closed)?;
        if journal.takes(&frame) {
            let start = self.clock.monotonic();
            journal.append(frame)?;
            let took = self.clock.monotonic().saturating_sub(start);
            self.pace.note(took);
            ahead.keep(transaction);
        } else {
            checkpoint(journal, *transaction)?;
            ahead.committed();
        }
        Ok(done)
    }

    /// Leaves a file that can do without its journal.
    fn finish(&mut self) -> Result<(), Error> {
        let mut ahead = self.shared.ahead.lock();
        let transaction = ahead.take(&self.shared)?;
        set_meta_number(&mut transaction.open_table(META)?, NEEDED, 0)?;
        checkpoint(self.journal.as_mut().ok_or(Error::Closed)?, *transaction)?;
        ahead.committed();
        Ok(())
    }

    fn carry_out(
        &self,
        transaction: &WriteTransaction,
        group: &[Command],
        goal: Option<Revision>,
    ) -> Result<(Done, Frame), Error> {
        let mut turn = Turn::open(transaction, self.shared.hub.published())?;
        let mut outcomes = Vec::with_capacity(group.len());
        for command in group {
            match turn.carry_out(&command.work) {
                Err(error) if error.is_fatal() => return Err(error),
                outcome => outcomes.push(outcome),
            }
        }
        let compacted = self.shared.compacted();
        let compacted = match goal {
            Some(goal) if goal > compacted => turn.compact(goal)?,
            _ => compacted,
        };
        let done = Done {
            outcomes,
            events: turn.events,
            compacted,
        };
        Ok((done, turn.frame))
    }
}

/// Commits so that the database needs none of the journal's frames, and starts the journal again.
fn checkpoint(journal: &mut Journal, mut transaction: WriteTransaction) -> Result<(), Error> {
    let epoch = journal.next_epoch();
    set_meta_number(&mut transaction.open_table(META)?, EPOCH, epoch)?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    transaction.commit()?;
    journal.restart();
    Ok(())
}

/// Why the storage couldn't be opened again, as an error of the store.
fn failure(error: OpenError) -> Error {
    match error {
        OpenError::Database { source, .. } | OpenError::Damaged { source, .. } => source,
        OpenError::File { source, .. } => source.into(),
        other => redb::Error::Corrupted(other.to_string()).into(),
    }
}

/// What a committed group did.
struct Done {
    outcomes: Vec<Outcome>,
    events: Vec<Event>,
    compacted: Revision,
}

/// What a turn answers, and to whom.
///
/// Sent when the writer has been let go: whoever gets one may write next, and must find nobody at the writer. The
/// thread that is woken often runs before the one that woke it, so one that still held the writer would send it to the
/// queue each time.
#[must_use = "whoever wrote waits for them"]
pub(super) struct Answers(Vec<(Reply, Outcome)>);

impl Answers {
    /// The same error for all of `group`.
    fn refuse(group: Vec<Command>, error: &Error) -> Self {
        let refused = group.into_iter();
        Self(
            refused
                .map(|command| (command.reply, Err(error.clone())))
                .collect(),
        )
    }

    pub(super) fn send(self) {
        for (reply, outcome) in self.0 {
            // Whoever waits no more doesn't want it.
            drop(reply.send(outcome));
        }
    }
}

type Expiries<'txn> = Table<'txn, (u64, &'static [u8]), ()>;

/// The tables of one transaction, and what has been done to them so far.
pub(super) struct Turn<'txn> {
    transaction: &'txn WriteTransaction,
    versions: Table<'txn, (&'static [u8], u64), &'static [u8]>,
    log: Table<'txn, u64, &'static [u8]>,
    /// Opened for those that need it: few keys expire, and a table costs as much as a row.
    expiries: Option<Expiries<'txn>>,
    revision: Revision,
    events: Vec<Event>,
    frame: Frame,
}

impl<'txn> Turn<'txn> {
    pub(super) fn open(
        transaction: &'txn WriteTransaction,
        revision: Revision,
    ) -> Result<Self, Error> {
        Ok(Self {
            transaction,
            versions: transaction.open_table(VERSIONS)?,
            log: transaction.open_table(LOG)?,
            expiries: None,
            revision,
            events: Vec::new(),
            frame: Frame::default(),
        })
    }

    fn expiries(&mut self) -> Result<&mut Expiries<'txn>, Error> {
        let expiries = match self.expiries.take() {
            Some(open) => open,
            None => self.transaction.open_table(EXPIRIES)?,
        };
        Ok(self.expiries.insert(expiries))
    }

    /// The revision of the newest write.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// Carries out a row of the journal again; it follows on [`Turn::revision`].
    pub(super) fn restore(&mut self, row: &Row<'_>) -> Result<(), Error> {
        let record = Record::of(row.key, row.revision.0, row.record)?;
        let old_expiry = match record.previous {
            Some(previous) => {
                find(&self.versions, row.key, previous)?.and_then(|found| found.expires_at)
            }
            None => None,
        };
        self.versions
            .insert((row.key, row.revision.0), row.record)?;
        self.index(row.key, row.revision, old_expiry, record.expires_at)?;
        self.revision = row.revision;
        Ok(())
    }

    /// Enters a row of `versions` into the other tables.
    fn index(
        &mut self,
        key: &[u8],
        revision: Revision,
        old_expiry: Option<u64>,
        expiry: Option<u64>,
    ) -> Result<(), Error> {
        self.log.insert(revision.0, key)?;
        if let Some(time) = old_expiry {
            self.expiries()?.remove((time, key))?;
        }
        if let Some(time) = expiry {
            self.expiries()?.insert((time, key), ())?;
        }
        Ok(())
    }

    /// Any error but a fatal one leaves the tables as they were.
    fn carry_out(&mut self, work: &Work) -> Result<u64, Error> {
        match work {
            Work::Write {
                op,
                precondition,
                expires_at,
            } => {
                let found = find(&self.versions, op.key(), Revision(u64::MAX))?;
                precondition.check(op, found.as_ref().and_then(|found| found.live.as_ref()))?;
                self.write(op, found, *expires_at)
            }
            Work::Expire { now } => self.expire(*now),
            Work::Compact { up_to } if *up_to > self.revision => Err(Error::FutureRevision {
                requested: *up_to,
                current: self.revision,
            }),
            Work::Compact { up_to } => Ok(up_to.0),
        }
    }

    /// Writes the rows of a change whose precondition holds.
    fn write(
        &mut self,
        op: &Op,
        found: Option<Found>,
        expires_at: Option<u64>,
    ) -> Result<u64, Error> {
        let revision = self.revision.next();
        let (key, value) = match op {
            Op::Put { key, value } => (key, Some(value)),
            Op::Delete { key } => (key, None),
        };
        let old_expiry = found.as_ref().and_then(|found| found.expires_at);
        let current = found.and_then(|found| found.live);
        let create_revision = current
            .as_ref()
            .map_or(revision, |current| current.create_revision);
        let record = Record {
            create_revision,
            previous: current.as_ref().map(|current| current.mod_revision),
            expires_at: expires_at.filter(|_| value.is_some()),
            value: value.map(|value| &value[..]),
        };

        let encoded = self.frame.push(revision, key, record.encoded_len(), |out| {
            record.encode(out)
        });
        self.versions.insert((&key[..], revision.0), encoded)?;
        self.index(key, revision, old_expiry, record.expires_at)?;

        let previous = current.as_ref().map(KeyValue::version);
        let kind = match value {
            Some(value) => EventKind::Put {
                value: value.clone(),
                create_revision,
                previous,
            },
            None => EventKind::Delete {
                last: previous.expect("only a key that is there is deleted"),
            },
        };
        self.events.push(Event {
            key: key.clone(),
            revision,
            kind,
        });
        self.revision = revision;
        Ok(revision.0)
    }

    fn expire(&mut self, now: u64) -> Result<u64, Error> {
        let mut due: Vec<(u64, Bytes)> = Vec::new();
        for entry in self
            .expiries()?
            .range(..(now.saturating_add(1), &[][..]))?
            .take(EXPIRE_BATCH)
        {
            let (id, _) = entry?;
            let (time, key) = id.value();
            due.push((time, Bytes::copy_from_slice(key)));
        }
        let mut expired = 0;
        for (time, key) in due {
            match find(&self.versions, &key, Revision(u64::MAX)) {
                Ok(Some(found)) if found.live.is_some() => {
                    self.write(&Op::Delete { key }, Some(found), None)?;
                    expired += 1;
                }
                Err(error) if error.is_fatal() => return Err(error),
                // Only damage leads here; it must not hold up the expiry of other keys.
                _ => {
                    tracing::warn!(key = %key.escape_ascii(), "a key that should expire can't be read");
                    self.expiries()?.remove((time, &key[..]))?;
                }
            }
        }
        Ok(expired)
    }

    /// Forgets a slice of the history, and returns how far that got.
    fn compact(&mut self, goal: Revision) -> Result<Revision, Error> {
        let mut meta = self.transaction.open_table(META)?;
        let from = meta_number(&meta, COMPACTED)? + 1;
        let mut slice: Vec<(u64, Bytes)> = Vec::new();
        for entry in self.log.range(from..=goal.0)?.take(COMPACTION_SLICE) {
            let (revision, key) = entry?;
            slice.push((revision.value(), Bytes::copy_from_slice(key.value())));
        }
        for (revision, key) in &slice {
            // A write makes the record before it unreachable; a deletion is of no use itself. What
            // can't be read stays, and reports its damage to whoever reads it.
            let (previous, deleted) = self.references(key, *revision)?.unwrap_or((None, false));
            if let Some(previous) = previous {
                self.versions.remove((&key[..], previous.0))?;
            }
            if deleted {
                self.versions.remove((&key[..], *revision))?;
            }
            self.log.remove(*revision)?;
        }
        let reached = slice.last().map_or(goal.0, |(revision, _)| *revision);
        set_meta_number(&mut meta, COMPACTED, reached)?;
        Ok(Revision(reached))
    }

    /// The record that this one replaced, and whether this one is a deletion.
    fn references(
        &self,
        key: &[u8],
        revision: u64,
    ) -> Result<Option<(Option<Revision>, bool)>, Error> {
        let Some(bytes) = self.versions.get((key, revision))? else {
            return Ok(None);
        };
        let record = Record::decode(bytes.value()).ok();
        Ok(record.map(|record| (record.previous, record.value.is_none())))
    }
}

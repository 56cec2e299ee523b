//! Where writes are taken in: into the queue of the writer's thread, or carried out at once.
//!
//! ```text
//! ask ──▶ is it alone, does nobody wait for this thread, is nobody at the writer, will the turn be quick?
//!           │ yes                               │ no
//!           ▼                                   ▼
//!         its turn, here and now              bounded queue ──▶ thread: groups ──▶ their turns
//! ```
//!
//! Two wakings of a thread cost about as much as a whole commit, and a lone writer would pay them with every write.
//! But the caller is a task among others on its thread, which wait meanwhile: so it has to be quick, and whether it
//! will be is told by how long the disk took lately. Where several write at once, groups are better than either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::writer::{Command, Work, Writer};
use crate::error::{Error, OpenError};

/// The most commands that wait for the writer.
const MAX_WAITING: usize = 4 * 1024;

/// The most bytes that wait for the writer.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The most commands of one commit.
const MAX_GROUP: usize = 256;

/// A group is complete once it has this many bytes.
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The most bytes of a write that is carried out at once.
const MAX_DIRECT_BYTES: usize = 64 * 1024;

/// How long the disk may take for writes to be carried out at once.
const QUICK: Duration = Duration::from_micros(300);

/// Takes writes in.
pub(super) struct Desk {
    writer: Arc<Mutex<Writer>>,
    /// Commands that are not answered yet.
    open: Arc<AtomicUsize>,
    /// `None` once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Command>>>,
    /// Whether others wait for the callers' threads.
    crowded: AtomicBool,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Desk {
    /// Starts the thread.
    pub(super) fn open(writer: Writer) -> Result<Self, OpenError> {
        let writer = Arc::new(Mutex::new(writer));
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let thread = {
            let writer = writer.clone();
            thread::Builder::new()
                .name("store-writer".into())
                .spawn(move || run(&writer, waiting))
                .map_err(|source| OpenError::Thread { source })?
        };
        Ok(Self {
            writer,
            open: Arc::default(),
            queue: Mutex::new(Some(queue)),
            crowded: AtomicBool::new(false),
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has `work` of `size` bytes done and waits for the answer. Dropping the future takes nothing back.
    pub(super) async fn ask(&self, work: Work, size: usize) -> Result<u64, Error> {
        // A caller that only writes must let others on its thread have their turn all the same.
        tokio::task::coop::consume_budget().await;
        let room = u32::try_from(size)
            .ok()
            .and_then(|size| self.room.clone().try_acquire_many_owned(size).ok());
        let room = room.ok_or(Error::Full {
            what: "bytes of writes",
        })?;
        let (reply, mut answer) = oneshot::channel();
        let (place, alone) = Place::take(&self.open);
        let crowded = self.crowded.load(Ordering::Relaxed);
        let direct =
            alone && !crowded && size <= MAX_DIRECT_BYTES && matches!(work, Work::Write { .. });
        let command = Command {
            work,
            reply,
            room,
            place,
        };
        if direct
            && let Some(mut writer) = self.writer.try_lock()
            && writer.is_quick(size)
        {
            let answers = writer.serve(vec![command]);
            drop(writer);
            answers.send();
            return answer.try_recv().unwrap_or(Err(Error::Closed));
        }
        {
            let queue = self.queue.lock();
            let queue = queue.as_ref().ok_or(Error::Closed)?;
            queue.try_send(command).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Error::Full { what: "writes" },
                mpsc::error::TrySendError::Closed(_) => Error::Closed,
            })?;
        }
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Says whether others wait for the callers' threads.
    pub(super) fn crowded(&self, is: bool) {
        self.crowded.store(is, Ordering::Relaxed);
    }

    /// Takes nothing in any more; the thread ends when it has done what waits. `None` if that was asked for before.
    pub(super) fn close(&self) -> Option<JoinHandle<()>> {
        drop(self.queue.lock().take());
        self.thread.lock().take()
    }
}

/// Serves until the queue is closed and empty.
fn run(writer: &Mutex<Writer>, mut queue: mpsc::Receiver<Command>) {
    loop {
        let first = if writer.lock().is_compacting() {
            queue.try_recv().ok()
        } else {
            match queue.blocking_recv() {
                Some(command) => Some(command),
                None => return writer.lock().end(),
            }
        };
        // Whoever holds it now is done soon; what comes meanwhile joins the group.
        let mut held = writer.lock();
        let mut group = Vec::from_iter(first);
        let mut bytes = 0;
        while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
            let Ok(command) = queue.try_recv() else {
                break;
            };
            bytes += command.room.num_permits();
            group.push(command);
        }
        let answers = held.serve(group);
        drop(held);
        answers.send();
    }
}

/// A command's place among those that are not answered yet.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes one; says whether there is no other.
    fn take(open: &Arc<AtomicUsize>) -> (Self, bool) {
        let others = open.fetch_add(1, Ordering::AcqRel);
        (Self(open.clone()), others == 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How long the disk takes, as an average in which the last times count most.
pub(super) struct Pace(Duration);

impl Default for Pace {
    /// Not quick before it has been seen to be.
    fn default() -> Self {
        Self(QUICK)
    }
}

impl Pace {
    /// Takes a time into the average. A single long one does not count for all that it was: on a busy machine it says
    /// that others had the processor.
    pub(super) fn note(&mut self, took: Duration) {
        self.0 = (self.0 * 7 + took.min(3 * QUICK)) / 8;
    }

    /// Whether it is quick enough to wait for.
    pub(super) fn is_quick(&self) -> bool {
        self.0 < QUICK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_quick_until_it_hesitates_and_again_after_a_while() {
        let mut pace = Pace::default();
        assert!(!pace.is_quick(), "nothing is known yet");
        for _ in 0..10 {
            pace.note(Duration::from_micros(80));
        }
        assert!(pace.is_quick());
        pace.note(Duration::from_millis(10));
        assert!(pace.is_quick(), "once is nothing");
        for _ in 0..3 {
            pace.note(Duration::from_millis(10));
        }
        assert!(!pace.is_quick());
        let again = (1..100).find(|_| {
            pace.note(Duration::from_micros(80));
            pace.is_quick()
        });
        assert!(again.is_some_and(|count| count > 1), "{again:?}");
    }

    #[test]
    fn a_command_is_alone_until_another_comes() {
        let open = Arc::new(AtomicUsize::new(0));
        let (first, alone) = Place::take(&open);
        assert!(alone);
        let (second, alone) = Place::take(&open);
        assert!(!alone);
        drop((first, second));
        assert!(Place::take(&open).1);
    }
}

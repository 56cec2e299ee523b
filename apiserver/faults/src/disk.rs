//! A disk in memory with two files that keeps, over a power cut, what was synced and a random part of the rest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use coracle_clock::Clock;
use redb::StorageBackend;

/// The unit in which an unsynced write survives or doesn't.
const SECTOR: usize = 512;

/// A handle on a disk; clones are handles on the same one. Its randomness is that of the clock.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

/// One of the files of a disk, opened. Once the power goes it is of no use any more, as the process that had it isn't.
pub struct DiskFile {
    disk: Disk,
    number: usize,
    /// How many cuts there had been when it was opened.
    cuts: u64,
}

struct State {
    files: [Content; 2],
    /// How many more changes there will be power for.
    power: u64,
    off: bool,
    /// How many cuts there have been.
    cuts: u64,
    /// How many bytes both files may have together.
    room: usize,
    /// How many more writes succeed before one fails, if any shall.
    failing: Option<u64>,
}

#[derive(Default)]
struct Content {
    /// What a cut can't take.
    synced: Vec<u8>,
    /// What was done since, in order.
    unsynced: Vec<Change>,
    /// What readers see: `synced` with all of `unsynced`.
    seen: Vec<u8>,
}

enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Disk {
    /// An empty disk with power.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            files: Default::default(),
            power: u64::MAX,
            off: false,
            cuts: 0,
            room: usize::MAX,
            failing: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            clock,
        }
    }

    /// Opens the file of that number, 0 or 1; it is empty at first.
    pub fn file(&self, number: usize) -> DiskFile {
        DiskFile {
            disk: self.clone(),
            number,
            cuts: self.lock().cuts,
        }
    }

    /// Gives power for that many further changes.
    pub fn power_on(&self, changes: u64) {
        let mut state = self.lock();
        state.power = changes;
        state.off = false;
    }

    /// Lets the disk be full once both files have `bytes` bytes together.
    pub fn set_room(&self, bytes: usize) {
        self.lock().room = bytes;
    }

    /// How many bytes both files have together.
    pub fn used(&self) -> usize {
        self.lock().used()
    }

    /// How many bytes more there is room for.
    pub fn room(&self) -> u64 {
        let state = self.lock();
        state.room.saturating_sub(state.used()) as u64
    }

    /// Lets one write or sync fail, after `count` that succeed, with half of it done.
    pub fn fail_after(&self, count: u64) {
        self.lock().failing = Some(count);
    }

    /// Whether a write or sync has still to fail.
    pub fn will_fail(&self) -> bool {
        self.lock().failing.is_some()
    }

    /// Whether the power has gone.
    pub fn is_off(&self) -> bool {
        self.lock().off
    }

    /// Cuts the power, if it isn't gone already: what wasn't synced survives in part. The disk stays
    /// off until [`Disk::power_on`].
    pub fn cut(&self) {
        let mut state = self.lock();
        state.off = true;
        state.cuts += 1;
        let kept_of_ten = [0, 3, 5, 8, 10][self.clock.random_below(5) as usize];
        for content in &mut state.files {
            content.forget(&self.clock, kept_of_ten);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        if self.off {
            Err(io::Error::other("the power is off"))
        } else {
            Ok(())
        }
    }

    /// Uses power for a change, and fails if that was the last of it.
    fn use_power(&mut self) -> io::Result<()> {
        self.check()?;
        self.off = self.power == 0;
        self.power = self.power.saturating_sub(1);
        self.check()
    }

    fn used(&self) -> usize {
        self.files.iter().map(|content| content.seen.len()).sum()
    }

    /// Whether this is the write that is to fail.
    fn fails(&mut self) -> bool {
        let fails = self.failing == Some(0);
        self.failing = self.failing.and_then(|count| count.checked_sub(1));
        fails
    }

    fn change(&mut self, number: usize, mut change: Change) -> io::Result<()> {
        let end = match &change {
            Change::Write { offset, data } => offset + data.len(),
            Change::SetLen(len) => *len,
        };
        let growth = end.saturating_sub(self.files[number].seen.len());
        if growth > 0 && self.used() + growth > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let fails = self.fails();
        if let (true, Change::Write { data, .. }) = (fails, &mut change) {
            data.truncate(data.len() / 2);
        }
        let content = &mut self.files[number];
        change.apply(&mut content.seen);
        // The change that the cut falls into may survive in part like those before it.
        content.unsynced.push(change);
        self.use_power()?;
        match fails {
            true => Err(io::Error::other("the write failed half-way")),
            false => Ok(()),
        }
    }
}

impl Content {
    /// Keeps what was synced and, of the rest, about `kept_of_ten` tenths.
    fn forget(&mut self, clock: &Clock, kept_of_ten: u64) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { offset, data } => {
                    for (number, sector) in data.chunks(SECTOR).enumerate() {
                        if clock.random_below(10) < kept_of_ten {
                            write(&mut self.synced, offset + number * SECTOR, sector);
                        }
                    }
                }
                Change::SetLen(len) if clock.random_below(10) < kept_of_ten => {
                    self.synced.resize(len, 0)
                }
                Change::SetLen(_) => {}
            }
        }
        self.seen = self.synced.clone();
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => write(bytes, *offset, data),
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl DiskFile {
    /// The disk, if it still has power and this file is of that time.
    fn open(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.check()?;
        match state.cuts == self.cuts {
            true => Ok(state),
            false => Err(io::Error::other("the power was off in between")),
        }
    }
}

impl StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.open()?;
        Ok(state.files[self.number].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.open()?;
        let start = offset as usize;
        let bytes = state.files[self.number]
            .seen
            .get(start..start + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.open()?
            .change(self.number, Change::SetLen(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.open()?;
        state.use_power()?;
        if state.fails() {
            return Err(io::Error::other("the sync failed"));
        }
        let content = &mut state.files[self.number];
        for change in std::mem::take(&mut content.unsynced) {
            change.apply(&mut content.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write {
            offset: offset as usize,
            data: data.to_vec(),
        };
        self.open()?.change(self.number, change)
    }
}

impl std::fmt::Debug for DiskFile {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("DiskFile").finish_non_exhaustive()
    }
}

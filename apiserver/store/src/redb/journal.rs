//! The journal: what makes a commit durable before the database itself is.
//!
//! A durable commit of the database costs two syncs and some dozen pages. So most groups are committed to it
//! without durability, after one frame with the same writes was appended here and synced. Every now and then a
//! group is committed to the database durably instead, a *checkpoint*, and the journal starts again at its
//! beginning. After a crash the database is back at its last checkpoint, and the frames since are carried out
//! again.
//!
//! ```text
//! file  = frame · zeros to the end of its last block · frame · … · whatever was here before
//! frame = length of body · checksum of (cluster id, epoch, body) · body
//! body  = epoch · first revision · row · row · …
//! row   = length of key · length of record · key · record
//! ```
//!
//! Numbers are little-endian; lengths and checksums have 4 bytes, the epoch and the revision 8. The rows of a frame
//! have one revision each, in order. The *epoch* is a number that every checkpoint raises, in the same commit, in
//! the database's `meta`: frames of an older one are in the database already, and a frame that a torn write left
//! further back is never taken for one that follows.
//!
//! A frame begins at a [block](super::blocks), so that no write touches a block, and no disk a sector, that has a frame in
//! it which was answered for, and so that blocks can be written past the page cache. Stores of before schema 3 have
//! frames without gaps, which are still read.

use std::io;

use redb::StorageBackend;

use super::blocks::{BLOCK, Blocks};
use crate::types::Revision;

/// The bytes of a journal: as many blocks as there may be frames. A group that does not fit any more is committed as a
/// checkpoint.
pub(super) const CAPACITY: u64 = 8 * 1024 * 1024;

/// The bytes of its frames without the gaps, which bound what is to be carried out again.
const MAX_CONTENT: u64 = CAPACITY / 2;

/// The most frames between two checkpoints: the database can't use pages again that non-durable commits set free.
const MAX_FRAMES: u32 = 2048;

/// The journal's file grows by so many zeros at a time: a sync of bytes that were there before has no length to
/// write, which is half of its cost.
const GROWTH: usize = 256 * 1024;

const HEAD: usize = 4 + 4;
const BODY_HEAD: usize = 8 + 8;
/// More than a row's lengths and its record's own fields take.
const ROW_EXTRA: usize = 64;

/// The rows of one group, as they will be written.
#[derive(Default)]
pub(super) struct Frame {
    /// Room for the head, then the body; empty while there are no rows.
    bytes: Vec<u8>,
}

impl Frame {
    /// Adds the row of `revision`, whose record has `length` bytes that `encode` fills; returns the record.
    pub(super) fn push(
        &mut self,
        revision: Revision,
        key: &[u8],
        length: usize,
        encode: impl FnOnce(&mut [u8]),
    ) -> &[u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD + 8, 0);
            self.bytes.extend_from_slice(&revision.0.to_le_bytes());
        }
        for length in [key.len(), length] {
            let length = u32::try_from(length).expect("keys and values are shorter by far");
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.bytes.extend_from_slice(key);
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        encode(&mut self.bytes[start..]);
        &self.bytes[start..]
    }
}

/// A row of a frame that was read back.
pub(super) struct Row<'a> {
    pub(super) revision: Revision,
    pub(super) key: &'a [u8],
    pub(super) record: &'a [u8],
}

/// The journal of an open store.
pub(super) struct Journal {
    storage: Box<dyn StorageBackend>,
    /// What its checksums start with, so that no other store's frames are taken for this one's.
    identity: crc32fast::Hasher,
    epoch: u64,
    capacity: u64,
    /// Where the next frame goes.
    end: u64,
    frames: u32,
    /// The bytes of the frames.
    content: u64,
    /// What is being written.
    blocks: Blocks,
    /// How far the storage has been written before.
    written: u64,
}

impl Journal {
    /// The journal of at most `capacity` bytes of the store `cluster_id` whose database is at `epoch`. Its frames are read with
    /// [`Journal::replay`] before anything is appended.
    pub(super) fn open(
        storage: Box<dyn StorageBackend>,
        cluster_id: &str,
        epoch: u64,
        capacity: u64,
    ) -> io::Result<Self> {
        let mut identity = crc32fast::Hasher::new();
        identity.update(cluster_id.as_bytes());
        let written = storage.len()?;
        Ok(Self {
            storage,
            identity,
            epoch,
            capacity,
            end: 0,
            frames: 0,
            content: 0,
            blocks: Blocks::default(),
            written,
        })
    }

    /// Hands every row that follows on the revision `current` to `apply`, in order.
    pub(super) fn replay<E: From<io::Error>>(
        &self,
        mut current: Revision,
        mut apply: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while let Some(body) = self.next(&mut at)? {
            let first = number(&body, 8);
            for (row, revision) in Rows(&body[BODY_HEAD..]).zip(first..) {
                if revision <= current.0 {
                    continue;
                }
                if revision != current.0 + 1 {
                    return Ok(());
                }
                current = Revision(revision);
                apply(Row {
                    revision: current,
                    ..row
                })?;
            }
        }
        Ok(())
    }

    /// The body of the frame at `at` or at the next block; `at` is moved behind it.
    fn next(&self, at: &mut u64) -> io::Result<Option<Vec<u8>>> {
        // Behind a frame there are zeros, or another one if the store is of before schema 3.
        for start in [*at, at.next_multiple_of(BLOCK as u64)] {
            if let Some(body) = self.read(start)? {
                *at = start + (HEAD + body.len()) as u64;
                return Ok(Some(body));
            }
        }
        Ok(None)
    }

    /// The body of the frame at `at`, if there is a sound one of this epoch.
    fn read(&self, at: u64) -> io::Result<Option<Vec<u8>>> {
        let mut head = [0; HEAD];
        if at + HEAD as u64 > self.written {
            return Ok(None);
        }
        self.storage.read(at, &mut head)?;
        let length = u64::from(u32::from_le_bytes(
            head[..4].try_into().expect("four bytes"),
        ));
        let fits = at + HEAD as u64 + length <= self.written;
        if !fits || length < BODY_HEAD as u64 {
            return Ok(None);
        }
        let mut body = vec![0; length as usize];
        self.storage.read(at + HEAD as u64, &mut body)?;
        let sound = head[4..] == self.checksum(&body).to_le_bytes();
        Ok((sound && number(&body, 0) == self.epoch).then_some(body))
    }

    fn checksum(&self, body: &[u8]) -> u32 {
        let mut hasher = self.identity.clone();
        hasher.update(body);
        hasher.finalize()
    }

    /// Whether a frame may still be appended before the next checkpoint.
    pub(super) fn takes(&self, frame: &Frame) -> bool {
        self.end_after(frame.bytes.len()) <= self.capacity
    }

    /// Whether a frame with one write of `bytes` bytes may still be appended for certain, without the file growing.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        let end = self.end_after(HEAD + BODY_HEAD + ROW_EXTRA + bytes);
        end <= self.capacity.min(self.written)
    }

    /// Where the frame after one of so many bytes would begin; past every end if there may be none.
    fn end_after(&self, bytes: usize) -> u64 {
        let fits = self.frames < MAX_FRAMES && self.content + bytes as u64 <= MAX_CONTENT;
        match fits {
            true => self.end + bytes.next_multiple_of(BLOCK) as u64,
            false => u64::MAX,
        }
    }

    /// The epoch after the next checkpoint, which [`Journal::restart`] begins.
    pub(super) fn next_epoch(&self) -> u64 {
        self.epoch + 1
    }

    /// Appends a frame and waits until it is on the disk. After an error it may or may not be there.
    pub(super) fn append(&mut self, mut frame: Frame) -> io::Result<()> {
        self.frames += 1;
        if frame.bytes.is_empty() {
            return Ok(());
        }
        frame.bytes[HEAD..HEAD + 8].copy_from_slice(&self.epoch.to_le_bytes());
        let (head, body) = frame.bytes.split_at_mut(HEAD);
        head[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&self.checksum(body).to_le_bytes());
        let blocks = self.blocks.fill(&frame.bytes);
        let end = self.end + blocks.len() as u64;
        while self.written < end {
            let grown = self.written + GROWTH as u64;
            self.storage.set_len(grown)?;
            self.storage.write(self.written, &[0; GROWTH])?;
            self.written = grown;
        }
        self.storage.write(self.end, blocks)?;
        self.storage.sync_data()?;
        self.end = end;
        self.content += frame.bytes.len() as u64;
        Ok(())
    }

    /// Starts again at the beginning, once the checkpoint that states [`Journal::next_epoch`] is durable.
    pub(super) fn restart(&mut self) {
        self.epoch += 1;
        self.end = 0;
        self.frames = 0;
        self.content = 0;
    }
}

/// The rows of a body, without their revisions. It ends early where lengths don't fit, which a sound
/// checksum rules out.
struct Rows<'a>(&'a [u8]);

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let (lengths, rest) = self.0.split_at_checked(8)?;
        let length = |at: usize| {
            u32::from_le_bytes(lengths[at..at + 4].try_into().expect("four bytes")) as usize
        };
        let (key, rest) = rest.split_at_checked(length(0))?;
        let (record, rest) = rest.split_at_checked(length(4))?;
        self.0 = rest;
        Some(Row {
            revision: Revision(0),
            key,
            record,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    fn journal(storage: InMemoryBackend, cluster: &str, epoch: u64) -> Journal {
        Journal::open(Box::new(storage), cluster, epoch, CAPACITY).unwrap()
    }

    fn frame(rows: &[(u64, &str)]) -> Frame {
        let mut frame = Frame::default();
        for (revision, key) in rows {
            frame.push(Revision(*revision), key.as_bytes(), 3, |out| out.fill(7));
        }
        frame
    }

    fn replayed(journal: &Journal, current: u64) -> Vec<(u64, String)> {
        let mut rows = Vec::new();
        journal
            .replay(Revision(current), |row| {
                assert_eq!(row.record, [7; 3]);
                rows.push((row.revision.0, String::from_utf8(row.key.to_vec()).unwrap()));
                io::Result::Ok(())
            })
            .unwrap();
        rows
    }

    fn rows(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter()
            .map(|(r, key)| (*r, (*key).to_owned()))
            .collect()
    }

    #[test]
    fn frames_are_read_back_from_the_revision_that_the_database_has() {
        let mut journal = journal(InMemoryBackend::new(), "c", 1);
        journal.append(frame(&[(5, "a"), (6, "b")])).unwrap();
        journal.append(frame(&[])).unwrap();
        journal.append(frame(&[(7, "c")])).unwrap();
        assert_eq!(replayed(&journal, 4), rows(&[(5, "a"), (6, "b"), (7, "c")]));
        assert_eq!(replayed(&journal, 6), rows(&[(7, "c")]));
        assert_eq!(replayed(&journal, 3), rows(&[]), "5 does not follow on 3");
    }

    #[test]
    fn frames_of_before_a_checkpoint_or_of_another_store_are_passed_over() {
        let mut first = journal(InMemoryBackend::new(), "c", 1);
        first.append(frame(&[(2, "a")])).unwrap();
        first.append(frame(&[(3, "b")])).unwrap();
        first.restart();
        assert_eq!(replayed(&first, 1), rows(&[]));
        first.append(frame(&[(4, "c")])).unwrap();
        assert_eq!(replayed(&first, 3), rows(&[(4, "c")]));
        first.identity = crc32fast::Hasher::new();
        assert_eq!(replayed(&first, 3), rows(&[]));
    }

    #[test]
    fn a_frame_behind_a_torn_one_is_lost_with_it() {
        let mut journal = journal(InMemoryBackend::new(), "c", 1);
        journal.append(frame(&[(2, "a")])).unwrap();
        let torn = journal.end;
        journal.append(frame(&[(3, "b")])).unwrap();
        journal.append(frame(&[(4, "c")])).unwrap();
        journal.storage.write(torn + HEAD as u64, &[0xee]).unwrap();
        assert_eq!(replayed(&journal, 1), rows(&[(2, "a")]));
    }

    #[test]
    fn every_frame_has_blocks_of_its_own() {
        let mut journal = journal(InMemoryBackend::new(), "c", 1);
        let mut large = Frame::default();
        large.push(Revision(3), b"b", BLOCK, |out| out.fill(7));
        for (frame, blocks) in [(frame(&[(2, "a")]), 1), (large, 3), (frame(&[]), 3)] {
            journal.append(frame).unwrap();
            assert_eq!(journal.end, blocks * BLOCK as u64);
        }
        let mut revisions = Vec::new();
        let noted = journal.replay(Revision(1), |row| {
            revisions.push(row.revision.0);
            io::Result::Ok(())
        });
        noted.unwrap();
        assert_eq!(revisions, [2, 3]);
    }

    #[test]
    fn frames_without_gaps_are_read_too() {
        let mut journal = journal(InMemoryBackend::new(), "c", 1);
        for revision in 2..200 {
            // As they were written once; they reach over blocks.
            let start = journal.end;
            journal.append(frame(&[(revision, "some key")])).unwrap();
            let mut head = [0; HEAD];
            journal.storage.read(start, &mut head).unwrap();
            let length = u32::from_le_bytes(head[..4].try_into().unwrap());
            journal.end = start + HEAD as u64 + u64::from(length);
        }
        let read = replayed(&journal, 1);
        assert_eq!(read.len(), 198);
        assert_eq!(read.last().unwrap().0, 199);
    }

    #[test]
    fn a_full_journal_takes_no_more() {
        let mut journal = journal(InMemoryBackend::new(), "c", 1);
        let mut large = Frame::default();
        large.push(Revision(2), b"a", MAX_CONTENT as usize, |_| {});
        assert!(!journal.takes(&large));
        assert!(!journal.has_room_for(MAX_CONTENT as usize));
        assert!(!journal.has_room_for(1), "the file has to grow for it");
        journal.append(frame(&[(2, "a")])).unwrap();
        assert!(journal.has_room_for(1));
        journal.frames = MAX_FRAMES;
        assert!(!journal.takes(&frame(&[(2, "a")])));
        journal.restart();
        assert!(journal.takes(&frame(&[(2, "a")])));
    }
}

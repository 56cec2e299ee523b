//! The journal's file: whole blocks are written past the page cache, where the system and the file system allow it.
//!
//! ```text
//! write of whole blocks ──▶ O_DIRECT | O_DSYNC: on the disk when it returns ──▶ sync: nothing left to do
//!          │ not there, or refused
//!          ▼
//! any other write ────────▶ page cache ───────────────────────────────────────▶ sync: fdatasync
//! ```
//!
//! One call that waits for one write costs a third less processor time than a write and an `fdatasync`, which looks for
//! what is to be written, and asks the disk twice. Either way a sync says the same: what was written before is on the disk.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::file::{open_direct, write_all_at};

/// What is written at once: no disk that is in use has larger sectors, so none has to read and write again what is
/// beside it.
pub(super) const BLOCK: usize = 4096;

/// Larger buffers are not kept.
const MAX_KEPT: usize = 256 * 1024;

/// Bytes at a place in memory from which they can be written past the page cache.
#[derive(Default)]
pub(super) struct Blocks {
    bytes: Vec<u8>,
}

impl Blocks {
    /// Holds `data`, and zeros up to the end of its last block.
    pub(super) fn fill(&mut self, data: &[u8]) -> &[u8] {
        let length = data.len().next_multiple_of(BLOCK);
        if self.bytes.len() < length + BLOCK || self.bytes.len() > MAX_KEPT {
            self.bytes = vec![0; length + BLOCK];
        }
        // Where no multiple can be told, the blocks go through the cache: a file looks for itself.
        let start = self.bytes.as_ptr().align_offset(BLOCK).min(BLOCK);
        let blocks = &mut self.bytes[start..start + length];
        blocks[..data.len()].copy_from_slice(data);
        blocks[data.len()..].fill(0);
        blocks
    }
}

/// The file of a journal.
#[derive(Debug)]
pub(super) struct BlockFile {
    cached: FileBackend,
    /// The same file past the page cache.
    direct: Option<File>,
    /// Whether the file system refused such a write.
    refused: AtomicBool,
    /// Whether a sync has something to do.
    unsynced: AtomicBool,
}

impl BlockFile {
    /// The journal's `file`, which is at `path`.
    pub(super) fn new(file: File, path: &Path) -> Result<Self, redb::DatabaseError> {
        Ok(Self {
            cached: FileBackend::new(file)?,
            direct: open_direct(path),
            refused: AtomicBool::new(false),
            unsynced: AtomicBool::new(true),
        })
    }

    /// Writes past the page cache; `false`: that is not possible, and nothing can be said of what is there now.
    fn write_direct(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        let Some(direct) = &self.direct else {
            return Ok(false);
        };
        let fits = offset.is_multiple_of(BLOCK as u64)
            && data.len().is_multiple_of(BLOCK)
            && data.as_ptr().addr().is_multiple_of(BLOCK);
        if !fits || self.refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match write_all_at(direct, data, offset) {
            Ok(()) => Ok(true),
            // Sectors that are larger still, or a file system that only seemed to know it.
            Err(error) if is_refusal(&error) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

impl StorageBackend for BlockFile {
    fn len(&self) -> io::Result<u64> {
        self.cached.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.cached.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.unsynced.store(true, Ordering::Relaxed);
        self.cached.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.unsynced.load(Ordering::Relaxed) {
            self.cached.sync_data()?;
            self.unsynced.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.write_direct(offset, data)? {
            return Ok(());
        }
        self.unsynced.store(true, Ordering::Relaxed);
        self.cached.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.cached.close()
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::open_journal;
    use super::*;

    #[test]
    fn blocks_hold_the_data_and_zeros_and_lie_where_they_can_be_written() {
        let mut blocks = Blocks::default();
        for length in [MAX_KEPT * 2, 1, BLOCK, BLOCK + 1, 0] {
            let data = vec![7; length];
            let filled = blocks.fill(&data);
            assert_eq!(filled.len(), length.next_multiple_of(BLOCK));
            assert!(filled.as_ptr().addr().is_multiple_of(BLOCK));
            assert_eq!(filled[..length], data);
            assert!(filled[length..].iter().all(|byte| *byte == 0), "{length}");
        }
        assert!(blocks.bytes.len() <= MAX_KEPT);
    }

    fn file(folder: &Path) -> BlockFile {
        let path = folder.join("journal");
        BlockFile::new(open_journal(&path).unwrap(), &path).unwrap()
    }

    /// Writes blocks and other bytes by turns, and reads all back with a second handle.
    fn write_and_read(mut file: BlockFile, folder: &Path, change: impl FnOnce(&mut BlockFile)) {
        change(&mut file);
        file.set_len(8 * BLOCK as u64).unwrap();
        file.write(0, &vec![1; 8 * BLOCK][..]).unwrap();
        let mut blocks = Blocks::default();
        for round in 2..6_u8 {
            let at = u64::from(round) * BLOCK as u64;
            file.write(at, blocks.fill(&[round; 100])).unwrap();
            file.write(at + 50, &[round + 100; 10]).unwrap();
            file.sync_data().unwrap();
            let mut read = [0; 110];
            super::tests::file(folder).read(at, &mut read).unwrap();
            assert_eq!(read[..50], [round; 50]);
            assert_eq!(read[50..60], [round + 100; 10]);
            assert_eq!(read[60..100], [round; 40]);
            assert_eq!(read[100..], [0; 10]);
        }
    }

    #[test]
    fn what_is_written_either_way_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_and_read(file(path), path, |_| {});
        write_and_read(file(path), path, |file| file.direct = None);
        write_and_read(file(path), path, |file| *file.refused.get_mut() = true);
    }

    #[test]
    fn a_failed_write_is_an_error_and_no_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut file = file(folder.path());
        // Opened for reading alone: the write fails, whatever the file system knows.
        file.direct = Some(File::open(&path).unwrap());
        let mut blocks = Blocks::default();
        file.write(0, blocks.fill(b"x")).unwrap_err();
        assert!(!*file.refused.get_mut());
        file.write(0, b"x").expect("that goes through the cache");
    }
}

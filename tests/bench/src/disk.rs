//! What the disk alone can do: the peer of every durable write.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_clock::Clock;

/// Bytes written between two syncs: a page of the store.
const BLOCK: [u8; 4096] = [0x5a; 4096];
/// The blocks are written over and over, as a database writes over its pages.
const BLOCKS: u64 = 256;

/// How often a second a block in `folder` is written and `fdatasync`ed, one after the other.
pub(crate) fn syncs_per_second(folder: &Path, duration: Duration, clock: &Clock) -> Result<f64> {
    let failed = || format!("failed to write to {}", folder.display());
    let mut file = tempfile::tempfile_in(folder).with_context(failed)?;
    for _ in 0..BLOCKS {
        file.write_all(&BLOCK).with_context(failed)?;
    }
    file.sync_all().with_context(failed)?;
    let (start, mut count) = (clock.monotonic(), 0u64);
    while clock.monotonic() - start < duration {
        write_block(&mut file, count % BLOCKS).with_context(failed)?;
        count += 1;
    }
    Ok(count as f64 / (clock.monotonic() - start).as_secs_f64())
}

fn write_block(file: &mut File, index: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(index * BLOCK.len() as u64))?;
    file.write_all(&BLOCK)?;
    file.sync_data()
}

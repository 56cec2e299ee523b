//! Reads the log files of containers.
//!
//! The pod runtime writes one file per run, in the CRI line format; this module turns it into what
//! `kubectl logs` shows. A file that is put aside while it is followed is read to its end before the
//! new one; earlier files of a run are not shown (as upstream).

mod line;
mod options;
mod reader;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use coracle_clock::Timestamp;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

pub(crate) use options::decode;
pub use options::{InvalidOption, LogOptions};
use reader::Reader;

/// The log of one run of a container.
pub struct PodLogs {
    /// The file of the run.
    pub path: PathBuf,
    /// Whether the run may still write. What it wrote is in the file before this turns false.
    pub is_running: Box<dyn Fn() -> bool + Send + Sync>,
    /// Ends readers that follow.
    pub stop: CancellationToken,
}

impl PodLogs {
    /// The lines that `options` ask for, in blocks of whole lines (or parts of very long ones).
    /// `now` is what `sinceSeconds` counts back from. A file that is not there has no lines.
    pub fn read(
        self,
        options: &LogOptions,
        now: Timestamp,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let reader = Reader::new(self, options, now);
        Box::pin(futures::stream::try_unfold(
            reader,
            |mut reader| async move { Ok(reader.next().await?.map(|block| (block, reader))) },
        ))
    }
}

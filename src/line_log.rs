//! Logs of JSON lines, in files that rotate by size, written off the threads that have something to tell: the audit log
//! and the access log.
//!
//! Nobody waits for the disk: lines that don't fit into the queue are lost and counted, which `/metrics` tells as
//! `apiserver_audit_error_total` and `coracle_access_log_lost_total`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;

use coracle_server::audit::Sink;
use coracle_services::AccessSink;
use file_rotate::compression::Compression;
use file_rotate::suffix::{AppendTimestamp, FileLimit};
use file_rotate::{ContentLimit, FileRotate};
use parking_lot::Mutex;

/// Lines that may wait to be written; further ones are dropped and counted.
const QUEUE: usize = 10_000;

/// The file's bounds, with the defaults that upstream's documentation proposes.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The file. Those rotated away lie beside it, with a time after the name.
    pub path: PathBuf,
    /// Bytes after which the file rotates.
    pub max_bytes: usize,
    /// Rotated files that are kept.
    pub max_backups: usize,
}

impl LogConfig {
    /// 100 MB, and 10 files before it.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_bytes: 100_000_000,
            max_backups: 10,
        }
    }
}

/// A file that lines are appended to, in order, by a thread of its own.
pub struct LineLog {
    queue: Mutex<Option<SyncSender<Vec<u8>>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lost: Arc<AtomicU64>,
}

impl LineLog {
    /// Opens the file, readable by its owner only. An error if it can't be written.
    pub fn open(config: LogConfig) -> io::Result<Self> {
        options().open(&config.path)?;
        let (queue, lines) = mpsc::sync_channel::<Vec<u8>>(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let failed = Arc::clone(&lost);
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                let mut file = rotating(&config);
                while let Ok(line) = lines.recv() {
                    if let Err(error) = file.write_all(&line) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(%error, path = %config.path.display(), "a line of a log was not written");
                    }
                }
                let _ = file.flush();
            })?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            writer: Mutex::new(Some(writer)),
            lost,
        })
    }

    /// Writes what waits, and closes the file. Blocks.
    pub fn close(&self) {
        self.queue.lock().take();
        if let Some(writer) = self.writer.lock().take() {
            // It has logged what went wrong.
            let _ = writer.join();
        }
    }
}

impl LineLog {
    /// Never waits: when the disk can't follow, the line is lost and counted.
    pub fn append(&self, line: Vec<u8>) {
        let queue = self.queue.lock().clone();
        let sent = match queue {
            Some(queue) => queue.try_send(line),
            None => Err(TrySendError::Disconnected(line)),
        };
        if sent.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Sink for LineLog {
    fn append(&self, line: Vec<u8>) {
        LineLog::append(self, line);
    }

    fn lost(&self) -> u64 {
        LineLog::lost(self)
    }
}

impl AccessSink for LineLog {
    fn append(&self, line: Vec<u8>) {
        LineLog::append(self, line);
    }
}

impl Drop for LineLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).create(true).append(true).mode(0o600);
    options
}

fn rotating(config: &LogConfig) -> FileRotate<AppendTimestamp> {
    FileRotate::new(
        Path::new(&config.path),
        AppendTimestamp::default(FileLimit::MaxFiles(config.max_backups)),
        ContentLimit::BytesSurpassed(config.max_bytes),
        Compression::None,
        Some(options()),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_rotates_within_its_bounds_and_is_nobody_elses() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let log = LineLog::open(LogConfig {
            max_bytes: 1000,
            max_backups: 2,
            ..LogConfig::new(path.clone())
        });
        let log = log.expect("it opens");
        for index in 0..1000 {
            log.append(format!("{index}\n").into());
        }
        log.close();
        log.append(b"too late\n".to_vec());
        assert_eq!(log.lost(), 1);
        let files: Vec<PathBuf> = std::fs::read_dir(folder.path())
            .expect("a listing")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(files.len(), 3, "{files:?}");
        for file in &files {
            let metadata = std::fs::metadata(file).expect("a file");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            assert!(metadata.len() < 1100);
        }
        let last = std::fs::read_to_string(path).expect("text");
        assert!(last.ends_with("\n999\n"), "{last}");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let missing = PathBuf::from("/nowhere/at/all/audit.log");
        assert!(LineLog::open(LogConfig::new(missing)).is_err());
    }
}

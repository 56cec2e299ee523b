//! The task that writes a container's log file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use tokio::task::JoinHandle;

use super::queue::LogQueue;
use super::rate::LogRate;
use crate::threads::GuestThreads;

/// How long lines may come together before they are written: the first one after a silence is written
/// at once, and a busy guest does not cost a write for every line.
const LINGER: Duration = Duration::from_millis(10);

/// Bytes written with one call. A thread that is in the system cannot be sent away from its core, whoever wants it.
const PIECE: usize = 32 << 10;
/// Bytes given back with one call, for the same reason.
const REMOVED_PIECE: u64 = 256 << 10;

/// When a log file is put aside, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes after which a new file is begun.
    pub(crate) max_bytes: u64,
    /// Files of one run, the current one included.
    pub(crate) max_files: usize,
}

/// Upstream's `containerLogMaxSize` and `containerLogMaxFiles`.
impl Default for Rotation {
    fn default() -> Self {
        Self {
            max_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// Writes the lines of a [`LogQueue`] to a file until the queue is closed.
pub(crate) struct LogWriter(JoinHandle<()>);

impl LogWriter {
    /// Starts to write to `file`: on the guests' threads for what blocks, those of the heavy ones while the pod floods.
    pub(crate) fn start(
        mut file: LogFile,
        queue: Arc<LogQueue>,
        rate: Arc<LogRate>,
        threads: GuestThreads,
    ) -> Self {
        let GuestThreads { light, heavy } = threads;
        let pace = file.clock.clone();
        Self(tokio::spawn(async move {
            let mut failed = false;
            while let Some(lines) = queue.take().await {
                let pause = rate.spend(lines.len());
                let on = if rate.floods() { &heavy } else { &light };
                let writing = on.spawn_blocking(move || {
                    let outcome = file.write(&lines);
                    (file, outcome)
                });
                let Ok((kept, outcome)) = writing.await else {
                    // The threads have ended, and with them the node.
                    return;
                };
                file = kept;
                // A full disk costs log lines, never the guest; said once per run.
                if let Err(error) = outcome
                    && !std::mem::replace(&mut failed, true)
                {
                    tracing::warn!(path = %file.path.display(), %error, "log lines are lost");
                }
                // The little that is left of a run that has ended holds nobody up.
                if pause.is_zero() {
                    queue.linger(LINGER).await;
                } else {
                    tokio::select! {
                        () = pace.sleep(pause) => {}
                        () = queue.closed() => {}
                    }
                }
            }
        }))
    }

    /// Waits until everything is in the file. The queue must have been closed.
    pub(crate) async fn finish(self) {
        if let Err(error) = self.0.await {
            tracing::error!(%error, "log writer failed");
        }
    }
}

/// A log file, and what becomes of it when it is full.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
    rotation: Rotation,
    clock: Clock,
}

impl LogFile {
    /// Opens `path` for appending, making its folder.
    pub(crate) fn open(path: PathBuf, rotation: Rotation, clock: Clock) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            written,
            rotation,
            clock,
        })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        // Before the write and not after it, so that the current file always has the last lines.
        if self.written >= self.rotation.max_bytes {
            self.rotate()?;
        }
        for piece in lines.chunks(PIECE) {
            self.file.write_all(piece)?;
        }
        self.written += lines.len() as u64;
        Ok(())
    }

    /// Puts the file aside as `<name>.<time>`, like the kubelet of Kubernetes, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        let time = self.clock.now().strftime("%Y%m%d-%H%M%S.%f").to_string();
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".{time}"));
        fs::rename(&self.path, &aside)?;
        self.file = open(&self.path)?;
        self.written = 0;
        let mut old = rotated_files(&self.path)?;
        old.sort();
        let kept = self.rotation.max_files.saturating_sub(1);
        let surplus = old.len().saturating_sub(kept);
        for path in old.into_iter().take(surplus) {
            remove(&path)?;
        }
        Ok(())
    }
}

/// Removes a file from its end on. Whoever reads it still, four files behind, finds that it ends where they are.
fn remove(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    while left > REMOVED_PIECE {
        left -= REMOVED_PIECE;
        file.set_len(left)?;
    }
    fs::remove_file(path)
}

/// Removes the logs of runs before number `first` from the folder of a container: nobody can ask for them, and a container
/// that fails again and again would fill the disk with them.
pub(crate) fn remove_runs_before(first: u32, folder: &Path) -> io::Result<()> {
    let files = match fs::read_dir(folder) {
        // No run has come as far as to have a log.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for entry in files {
        let entry = entry?;
        let name = entry.file_name();
        let run = name.to_string_lossy();
        let run = run.split_once(".log").and_then(|(run, _)| run.parse().ok());
        if run.is_some_and(|run: u32| run < first) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::{FloodRate, GuestOutput, MAX_LINE};
    use super::*;
    use std::task::Context;

    use bytes::Bytes;
    use wasmtime_wasi::cli::StdoutStream;

    fn rate(clock: &Clock) -> Arc<LogRate> {
        Arc::new(LogRate::new(clock.clone(), FloodRate::new(clock)))
    }

    /// The test's own.
    fn threads() -> GuestThreads {
        let own = tokio::runtime::Handle::current();
        GuestThreads {
            light: own.clone(),
            heavy: own,
        }
    }

    struct Run {
        folder: tempfile::TempDir,
        queue: Arc<LogQueue>,
        writer: LogWriter,
    }

    async fn run(rotation: Rotation) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fake(1);
        let queue = LogQueue::new(clock.clone());
        let path = folder.path().join("app/0.log");
        let file = LogFile::open(path, rotation, clock.clone()).unwrap();
        let writer = LogWriter::start(file, queue.clone(), rate(&clock), threads());
        Run {
            folder,
            queue,
            writer,
        }
    }

    impl Run {
        async fn finish(self) -> (tempfile::TempDir, String) {
            self.queue.close();
            self.writer.finish().await;
            let text = std::fs::read_to_string(self.folder.path().join("app/0.log")).unwrap();
            (self.folder, text)
        }
    }

    fn contents(text: &str) -> Vec<&str> {
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect()
    }

    #[tokio::test]
    async fn lines_have_time_stream_and_tag_and_the_last_needs_no_line_feed() {
        let run = run(Rotation::default()).await;
        let (stdout, stderr) = GuestOutput::pair(&run.queue);
        let (mut out, mut err) = (stdout.p2_stream(), stderr.p2_stream());
        out.write(Bytes::from_static(b"one\ntw")).unwrap();
        err.write(Bytes::from_static(b"oops\n")).unwrap();
        out.write(Bytes::from_static(b"o\n\nlast")).unwrap();
        drop((stdout, stderr, out, err));
        let (_folder, text) = run.finish().await;
        assert_eq!(
            contents(&text),
            [
                "stdout F one",
                "stderr F oops",
                "stdout F two",
                "stdout F ",
                "stdout F last"
            ]
        );
        assert!(text.starts_with("2030-01-01T00:00:00.0"), "{text}");
        assert_eq!(
            text.split(' ').next().unwrap().len(),
            "2030-01-01T00:00:00.000000000Z".len()
        );
    }

    #[tokio::test]
    async fn long_lines_come_in_parts() {
        let run = run(Rotation::default()).await;
        let (stdout, _stderr) = GuestOutput::pair(&run.queue);
        let mut out = stdout.p2_stream();
        out.write(Bytes::from(vec![b'a'; MAX_LINE + 10])).unwrap();
        out.write(Bytes::from_static(b"b\n")).unwrap();
        let (_folder, text) = run.finish().await;
        let lines = contents(&text);
        assert_eq!(lines[0], format!("stdout P {}", "a".repeat(MAX_LINE)));
        assert_eq!(lines[1], format!("stdout F {}b", "a".repeat(10)));
    }

    #[tokio::test]
    async fn a_full_queue_lets_the_guest_wait_until_the_writer_is_through() {
        let queue = LogQueue::new(Clock::fake(1));
        let (stdout, _stderr) = GuestOutput::pair(&queue);
        let mut out = stdout.p2_stream();
        let mut written = 0;
        while out.check_write().unwrap() > 0 {
            out.write(Bytes::from(vec![b'\n'; 1024])).unwrap();
            written += 1024;
            assert!(written < 1 << 20, "the queue has no bound");
        }
        let mut ready = out.ready();
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(ready.as_mut().poll(&mut context).is_pending());
        assert!(queue.take().await.is_some());
        ready.await;
        assert!(out.check_write().unwrap() > 0);
    }

    /// In virtual time: what goes beyond the burst of 256 KiB takes a second for each 64 KiB.
    #[tokio::test(start_paused = true)]
    async fn a_flood_is_paced() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fake(1);
        let queue = LogQueue::new(clock.clone());
        let path = folder.path().join("app/0.log");
        let slow = Arc::new(LogRate::of(
            clock.clone(),
            FloodRate::new(&clock),
            64 << 10,
            256 << 10,
        ));
        let file = LogFile::open(path, Rotation::default(), clock.clone()).unwrap();
        let writer = LogWriter::start(file, queue.clone(), slow, threads());
        let (stdout, _stderr) = GuestOutput::pair(&queue);
        let mut out = stdout.p2_stream();
        let block = Bytes::from([[b'x'; 1023].as_slice(), b"\n"].concat().repeat(64));
        for _ in 0..24 {
            out.ready().await;
            out.write(block.clone()).unwrap();
        }
        // Of 24 blocks four are free, and at most ten wait in the queue or are being written.
        let took = clock.monotonic();
        assert!(took >= Duration::from_secs(8), "{took:?}");
        drop((out, stdout));
        queue.close();
        // The rest holds nobody up.
        writer.finish().await;
        assert!(clock.monotonic() < took + Duration::from_secs(10));
    }

    #[test]
    fn what_is_left_of_a_removed_file_is_no_more_than_a_piece() {
        let folder = tempfile::tempdir().unwrap();
        for pieces in [0, 1, 3] {
            let path = folder.path().join("0.log");
            let file = File::create(&path).unwrap();
            file.set_len(pieces * REMOVED_PIECE + 1).unwrap();
            remove(&path).unwrap();
            assert!(!path.exists());
            let left = file.metadata().unwrap().len();
            assert!((1..=REMOVED_PIECE).contains(&left), "{left}");
        }
    }

    #[test]
    fn logs_of_runs_that_nobody_can_ask_for_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "0.log",
            "8.log",
            "8.log.20300101-000000.1",
            "9.log",
            "10.log",
            "notes",
        ] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        remove_runs_before(9, folder.path()).unwrap();
        let left = std::fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["10.log", "9.log", "notes"]);
        remove_runs_before(9, &folder.path().join("missing")).unwrap();
    }

    #[tokio::test]
    async fn old_files_are_put_aside_and_the_oldest_removed() {
        let run = run(Rotation {
            max_bytes: 10,
            max_files: 2,
        })
        .await;
        let (stdout, _stderr) = GuestOutput::pair(&run.queue);
        let mut out = stdout.p2_stream();
        for line in ["first\n", "second\n", "third\n"] {
            out.write(Bytes::from_static(line.as_bytes())).unwrap();
            // Each line is a batch of its own once the writer has taken the one before.
            while !run.queue.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        let (folder, text) = run.finish().await;
        assert_eq!(contents(&text), ["stdout F third"]);
        let files = std::fs::read_dir(folder.path().join("app"))
            .unwrap()
            .count();
        assert_eq!(files, 2);
    }
}

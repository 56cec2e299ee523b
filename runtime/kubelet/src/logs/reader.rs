//! From a log file to the blocks that are sent.

use std::collections::VecDeque;
use std::io::{self, BufRead, SeekFrom};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use coracle_clock::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::line::Line;
use super::{LogOptions, PodLogs};

/// What is read at once.
const BLOCK: usize = 64 << 10;
/// A line that is longer was written by nobody we know; it is cut here.
const LONGEST_LINE: usize = 1 << 20;
/// How often a file that has ended for now is looked at again.
const POLL: Duration = Duration::from_millis(100);

/// Where one reader is in its file.
pub(super) struct Reader {
    logs: PodLogs,
    file: Option<File>,
    /// Read and not yet shown: the beginning of a line.
    pending: BytesMut,
    /// Nothing of the current line was shown.
    at_line_start: bool,
    follow: bool,
    timestamps: bool,
    stream: Option<&'static str>,
    /// Until a line is new enough.
    since: Option<Timestamp>,
    /// Before the file was opened.
    tail: Option<u64>,
    /// Bytes that may still be shown.
    left: Option<u64>,
}

impl Reader {
    pub(super) fn new(logs: PodLogs, options: &LogOptions, now: Timestamp) -> Self {
        Self {
            logs,
            file: None,
            pending: BytesMut::new(),
            at_line_start: true,
            follow: options.follow,
            timestamps: options.timestamps,
            stream: options.stream,
            since: options.since(now),
            tail: options.tail_lines,
            left: options.limit_bytes,
        }
    }

    /// The next lines, or `None` after the last.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            // Asked before the read: what was written before the end is then in the file.
            let is_running = self.follow && (self.logs.is_running)();
            let mut has_more = self.read().await? > 0;
            let is_aside = !has_more && self.was_put_aside().await;
            if is_aside {
                // What came between the two looks is the last that came.
                has_more = self.read().await? > 0;
            }
            if has_more {
                let shown = self.show();
                if !shown.is_empty() {
                    return Ok(Some(shown));
                }
                continue;
            }
            if is_aside {
                self.file = None;
                self.tail = None;
                // A file that is being removed may end within a line.
                self.pending.clear();
                continue;
            }
            if !is_running {
                return Ok(None);
            }
            tokio::select! {
                () = self.logs.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// Reads some more; 0 at the end of what is there.
    async fn read(&mut self) -> io::Result<usize> {
        if self.file.is_none() {
            self.file = self.open().await?;
        }
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        self.pending.reserve(BLOCK);
        file.read_buf(&mut self.pending).await
    }

    async fn open(&mut self) -> io::Result<Option<File>> {
        let mut file = match File::open(&self.logs.path).await {
            Ok(file) => file,
            // Nothing was written yet, or the pod's files are gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(lines) = self.tail.take() {
            let whole = file.try_clone().await?.into_std().await;
            let count = move || tail_offset(io::BufReader::with_capacity(BLOCK, whole), lines);
            let offset = tokio::task::spawn_blocking(count)
                .await
                .map_err(io::Error::other)??;
            file.seek(SeekFrom::Start(offset)).await?;
        }
        Ok(Some(file))
    }

    /// Whether the path names another file by now.
    async fn was_put_aside(&mut self) -> bool {
        let Some(file) = &mut self.file else {
            return false;
        };
        let Ok(open) = file.metadata().await else {
            return false;
        };
        match tokio::fs::metadata(&self.logs.path).await {
            Ok(current) => !is_same(&open, &current),
            Err(_) => false,
        }
    }

    /// What of the pending bytes is to be shown now.
    fn show(&mut self) -> Bytes {
        let mut shown = BytesMut::new();
        loop {
            let end = match self.pending.iter().position(|byte| *byte == b'\n') {
                Some(end) => end,
                None if self.pending.len() > LONGEST_LINE => LONGEST_LINE,
                None => break,
            };
            let line = self.pending.split_to(end);
            self.pending
                .advance(usize::from(self.pending.first() == Some(&b'\n')));
            if let Some(line) = Line::parse(&line) {
                self.show_line(line, &mut shown);
            }
        }
        if let Some(left) = &mut self.left {
            shown.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= shown.len() as u64;
        }
        shown.freeze()
    }

    fn show_line(&mut self, line: Line<'_>, shown: &mut BytesMut) {
        if self
            .stream
            .is_some_and(|stream| stream.as_bytes() != line.stream)
        {
            return;
        }
        if let Some(since) = self.since {
            if !line.is_since(since) {
                return;
            }
            // Lines are written in the order of their times.
            self.since = None;
        }
        if self.timestamps && self.at_line_start {
            shown.extend_from_slice(line.time);
            shown.extend_from_slice(b" ");
        }
        shown.extend_from_slice(line.content);
        if !line.is_partial {
            shown.extend_from_slice(b"\n");
        }
        self.at_line_start = !line.is_partial;
    }
}

/// Where the last `lines` lines of a log begin. Parts of one line count once.
fn tail_offset(mut file: impl BufRead, lines: u64) -> io::Result<u64> {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let (mut starts, mut offset, mut begins) = (VecDeque::new(), 0u64, true);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 || line.last() != Some(&b'\n') {
            break;
        }
        if begins {
            starts.push_back(offset);
            if starts.len() > lines {
                starts.pop_front();
            }
        }
        begins = Line::parse(&line[..length - 1]).is_none_or(|line| !line.is_partial);
        offset += length as u64;
    }
    Ok(starts.front().copied().unwrap_or(offset))
}

#[cfg(unix)]
fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Without file numbers, a file that has become shorter is another one.
#[cfg(not(unix))]
fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    other.len() >= one.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_counts_whole_lines() {
        let text = "t stdout F one\nt stdout P tw\nt stdout F o\nt stdout F three\n";
        let tail = |lines| {
            &text[usize::try_from(tail_offset(text.as_bytes(), lines).expect("read"))
                .expect("small")..]
        };
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "t stdout F three\n");
        assert_eq!(tail(2), "t stdout P tw\nt stdout F o\nt stdout F three\n");
        assert_eq!(tail(9), text);
        assert_eq!(tail_offset(&b""[..], 3).expect("read"), 0);
    }
}

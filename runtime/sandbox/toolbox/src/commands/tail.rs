//! `tail`: the end of a stream, or everything from a place on, and what is added later.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use super::parts::{Count, head_or_tail_count};
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::filter::{Filter, over, pump};

const SPEC: &str = "n:c:fFqvs:";

/// How often a file is looked at with `-f`.
const LOOK: Duration = Duration::from_millis(200);

/// What is kept in memory at most; older bytes are given up.
const KEPT: usize = 16 << 20;

struct Tail {
    count: Count,
    /// Bytes or lines passed, for the counts from the start.
    passed: u64,
    kept: VecDeque<u8>,
    /// Line ends among the kept bytes.
    ends: u64,
}

impl Tail {
    fn new(count: Count) -> Self {
        Self {
            count,
            passed: 0,
            kept: VecDeque::new(),
            ends: 0,
        }
    }

    fn forget(&mut self, bytes: usize) {
        let gone = self
            .kept
            .drain(..bytes)
            .filter(|byte| *byte == b'\n')
            .count();
        self.ends -= gone as u64;
    }

    fn forget_first_line(&mut self) {
        let end = self
            .kept
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(self.kept.len(), |at| at + 1);
        self.forget(end);
    }
}

impl Filter for Tail {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        match self.count {
            Count::FromByte(from) => {
                let skip = from
                    .saturating_sub(1)
                    .saturating_sub(self.passed)
                    .min(bytes.len() as u64);
                self.passed += bytes.len() as u64;
                out.write_all(&bytes[skip as usize..])
            }
            Count::FromLine(from) => {
                let mut start = 0;
                while self.passed + 1 < from && start < bytes.len() {
                    match bytes[start..].iter().position(|byte| *byte == b'\n') {
                        Some(end) => {
                            self.passed += 1;
                            start += end + 1;
                        }
                        None => start = bytes.len(),
                    }
                }
                out.write_all(&bytes[start..])
            }
            Count::Bytes(count) => {
                self.kept.extend(bytes);
                self.ends += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                let most = usize::try_from(count).unwrap_or(usize::MAX).min(KEPT);
                self.forget(self.kept.len().saturating_sub(most));
                Ok(())
            }
            Count::Lines(count) => {
                self.kept.extend(bytes);
                self.ends += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                // A line without its end is one more.
                while self.ends > count
                    || self.ends == count && self.kept.back().is_some_and(|last| *last != b'\n')
                {
                    self.forget_first_line();
                    if count == 0 && !self.kept.contains(&b'\n') {
                        self.forget(self.kept.len());
                        break;
                    }
                }
                self.forget(self.kept.len().saturating_sub(KEPT));
                Ok(())
            }
        }
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        let (front, back) = self.kept.as_slices();
        out.write_all(front)?;
        out.write_all(back)?;
        self.kept.clear();
        Ok(0)
    }
}

pub fn tail(cx: &mut Cx, args: &[String]) -> Outcome {
    let (count, options) = head_or_tail_count(args, SPEC)?;
    let many = options.operands.len() > 1;
    let mut first = true;
    let code = over(cx, "tail", &options.operands, |cx, file| {
        if let Some(file) = file.filter(|_| many) {
            writeln!(cx.out, "{}==> {file} <==", if first { "" } else { "\n" })?;
        }
        first = false;
        Ok(Box::new(Tail::new(count)))
    })?;
    if (options.has('f') || options.has('F')) && !options.operands.is_empty() {
        follow(cx, &options.operands)?;
    }
    Ok(code)
}

pub fn tail_filter(_cx: &Cx, args: &[String]) -> Result<Option<Box<dyn Filter>>, Failure> {
    let (count, options) = head_or_tail_count(args, SPEC)?;
    Ok(if options.operands.is_empty() {
        Some(Box::new(Tail::new(count)))
    } else {
        None
    })
}

/// Copies what is added to the files, until the reader has gone.
fn follow(cx: &mut Cx, files: &[String]) -> Outcome {
    let size =
        |cx: &Cx, file: &str| std::fs::metadata(cx.path(file)).map_or(0, |found| found.len());
    let mut ends: Vec<u64> = files.iter().map(|file| size(cx, file)).collect();
    loop {
        cx.out.flush()?;
        std::thread::sleep(LOOK);
        for (file, end) in files.iter().zip(&mut ends) {
            let now = size(cx, file);
            if now < *end {
                cx.complain("tail", &format!("{file}: file truncated"));
                *end = 0;
            }
            if now > *end {
                let mut opened = crate::filter::open(cx, file)?;
                opened.seek(SeekFrom::Start(*end))?;
                let mut added = opened.take(now - *end);
                pump(&mut added, &mut Copy, &mut cx.out)?;
                *end = now;
            }
        }
    }
}

struct Copy;

impl Filter for Copy {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        out.write_all(bytes)
    }

    fn finish(&mut self, _out: &mut dyn Write) -> io::Result<u8> {
        Ok(0)
    }
}

//! One client: lines in, answers out, never blocking.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::Book;
use crate::poll::Interest;

/// Longest line that is taken.
const MAX_LINE: usize = 4 * 1024;
/// A client that neither sends nor takes anything for this long is let go.
const MAX_SILENCE: Duration = Duration::from_secs(60);

pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// No more lines are taken; the connection ends when the output has gone.
    ending: bool,
    last_bytes: Instant,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            ending: false,
            last_bytes: Instant::now(),
        }
    }

    /// What this connection waits for: room for its answer, else the next line.
    pub fn interest(&self) -> (i32, Interest) {
        let interest = if self.output.is_empty() {
            Interest::Read
        } else {
            Interest::Write
        };
        (self.stream.as_raw_fd(), interest)
    }

    pub fn is_silent(&self) -> bool {
        self.last_bytes.elapsed() > MAX_SILENCE
    }

    /// Reads, answers and writes as far as it goes without blocking; false when the connection is over.
    pub fn advance(&mut self, book: &mut Book) -> bool {
        self.last_bytes = Instant::now();
        match self.try_advance(book) {
            Ok(open) => open,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => true,
            Err(e) => {
                eprintln!("connection lost: {e}");
                false
            }
        }
    }

    fn try_advance(&mut self, book: &mut Book) -> io::Result<bool> {
        loop {
            self.flush()?;
            if self.ending {
                return Ok(false);
            }
            if let Some(line) = self.next_line() {
                match book.answer(&line) {
                    Some(answer) => self.output.extend(answer.into_bytes()),
                    None => self.ending = true,
                }
                continue; // One answer at a time bounds the output.
            }
            if self.input.len() > MAX_LINE {
                self.output.extend_from_slice(b"ERR the line is too long\n");
                self.ending = true;
                continue;
            }
            let mut bytes = [0; 1024];
            match self.stream.read(&mut bytes)? {
                0 => return Ok(false),
                n => self.input.extend_from_slice(&bytes[..n]),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => drop(self.output.drain(..n)),
            }
        }
        Ok(())
    }

    /// Takes a complete line out of the input.
    fn next_line(&mut self) -> Option<String> {
        let end = self.input.iter().position(|b| *b == b'\n')?;
        let line: Vec<u8> = self.input.drain(..=end).collect();
        Some(
            String::from_utf8_lossy(&line)
                .trim_end_matches(['\r', '\n'])
                .to_owned(),
        )
    }
}

//! A container's output: from the guest's streams to a file in the CRI line format.
//!
//! ```text
//! stdout ─▶ LineBuffer ─┐
//! stderr ─▶ LineBuffer ─┼▶ bounded queue ─▶ writer task ─▶ <container>/<run>.log
//! (one pair per store)  ┘
//! ```
//!
//! A guest whose queue is full waits in its write; it never blocks a thread. That bounds the queue, and with
//! [`LogRate`] how fast a pod may fill the disk. What a guest wrote is in
//! the file before its container counts as exited, the last line included, with or without its
//! line feed.

mod queue;
mod rate;
mod stream;
mod writer;

pub(crate) use queue::LogQueue;
pub(crate) use rate::{FloodRate, LogRate};
pub(crate) use stream::GuestOutput;
pub(crate) use writer::{LogFile, LogWriter, Rotation, remove_runs_before};

/// Longest content of one log line; longer lines are split, as containerd does.
const MAX_LINE: usize = 16 << 10;

/// One of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

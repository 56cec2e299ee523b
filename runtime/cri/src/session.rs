//! Streams to a guest: what `exec` and `attach` ask for and get.

use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

use crate::ContainerId;

/// Bytes from a guest, of any kind of stream.
pub type BoxedReader = Pin<Box<dyn AsyncRead + Send>>;

/// Bytes to a guest, of any kind of stream.
pub type BoxedWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// How a session ends: the exit code as a shell would show it.
pub type Exited = Pin<Box<dyn Future<Output = Result<i32, ExecError>> + Send>>;

/// Which streams of a guest are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input is fed; without, it is at its end from the start.
    pub stdin: bool,
    /// Standard output is read; without, it is discarded.
    pub stdout: bool,
    /// Standard error is read; without, it is discarded.
    pub stderr: bool,
    /// The streams are a terminal: standard error, if any, comes on standard output.
    pub tty: bool,
}

/// A command to run beside a container's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program's name and its arguments; never empty.
    pub command: Vec<String>,
    /// Its streams.
    pub streams: Streams,
    /// It is the node's own, a probe or a hook: it waits for its turn among these instead of being refused,
    /// and sessions of users take no place from it.
    pub waits: bool,
}

/// A wish to see, and to feed, what a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Streams of the container's run; `stdin` means something only if the container keeps it open.
    pub streams: Streams,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Streams to something that runs.
///
/// All streams are bounded: what an exec runs waits while nobody reads what it writes (an attached
/// session fails instead when it is too far behind), and a writer waits while the guest does not read. Whoever holds a session reads its outputs to their end *while* it waits
/// for [`exited`](Self::exited); both outputs end soon after the run has.
///
/// Dropping `exited` before it is ready ends what an exec runs, and detaches from what was attached to.
pub struct Session {
    /// Standard input, if it was asked for and is open. Shutting it down, or dropping it, is its end.
    pub stdin: Option<BoxedWriter>,
    /// Standard output, if it was asked for.
    pub stdout: Option<BoxedReader>,
    /// Standard error, if it was asked for and there is no terminal.
    pub stderr: Option<BoxedReader>,
    /// The size of the terminal, if there is one; what counts is the latest.
    pub resize: Option<watch::Sender<Option<TerminalSize>>>,
    /// The end of the run. What there is to say about a trap was written to standard error.
    pub exited: Exited,
}

impl Session {
    /// Closes standard input, waits for the end, and returns the exit code and the first `most` bytes
    /// of both outputs, in the order in which they came.
    pub async fn output(self, most: usize) -> Result<(i32, Vec<u8>), ExecError> {
        drop(self.stdin);
        let kept = std::sync::Mutex::new(Vec::new());
        let read = async |stream: Option<BoxedReader>| {
            let Some(mut stream) = stream else { return };
            let mut buffer = [0; 4096];
            // A stream that fails has ended.
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let mut kept = kept.lock().expect("nobody panics while holding it");
                let room = most.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&buffer[..room]);
            }
        };
        let (exited, (), ()) = tokio::join!(self.exited, read(self.stdout), read(self.stderr));
        let kept = kept.into_inner().expect("nobody panics while holding it");
        Ok((exited?, kept))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// Why nothing runs, or ran to its end. The `Display` text is shown to users as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The runtime knows no such container.
    #[error("container {0} was not found in the pod runtime")]
    NotFound(ContainerId),
    /// The container is there and does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// No such program or export: what was looked for, where, and what there is.
    #[error("{0}")]
    CommandNotFound(String),
    /// The program is there and cannot be run here, or not with these arguments: why.
    #[error("{0}")]
    CannotExecute(String),
    /// A limit of the pod or the node was reached: what, and how to raise it.
    #[error("{0}")]
    Exhausted(String),
    /// Anything else that went wrong.
    #[error("{0}")]
    Failed(String),
}

impl ExecError {
    /// What a shell would exit with for a command that it could not run. None when the failure says
    /// nothing about the command.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::CommandNotFound(_) => Some(127),
            Self::CannotExecute(_) => Some(126),
            Self::NotFound(_) | Self::NotRunning(_) | Self::Exhausted(_) | Self::Failed(_) => None,
        }
    }
}

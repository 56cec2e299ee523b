//! Scripted sessions of the fake runtime.

use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{ContainerId, ExecError, Session, Streams, TerminalSize};

/// Bytes that wait in each of a process' streams.
const BUFFER: usize = 64 << 10;

/// The other end of a [`Session`]: what a scripted process sees of it.
pub struct Process {
    /// The container it runs in or is attached to.
    pub container: ContainerId,
    /// What was asked to run; empty when this is an attach.
    pub command: Vec<String>,
    /// What was asked for.
    pub streams: Streams,
    /// What it is fed, if it is.
    pub stdin: Option<DuplexStream>,
    /// What it prints, if anyone reads.
    pub stdout: Option<DuplexStream>,
    /// What it complains about, if anyone reads and there is no terminal.
    pub stderr: Option<DuplexStream>,
    /// Sizes of its terminal, if there is one.
    pub sizes: Option<watch::Receiver<Option<TerminalSize>>>,
}

/// How a scripted process runs and ends.
pub type Running = Pin<Box<dyn Future<Output = Result<i32, ExecError>> + Send>>;

/// What a process does.
pub(super) type Handler = Arc<dyn Fn(Process) -> Result<Running, ExecError> + Send + Sync>;

/// Runs `handler` until it ends, `ended` says that its container has, or the session is dropped.
pub(super) fn start(
    handler: &Handler,
    container: ContainerId,
    command: Vec<String>,
    streams: Streams,
    mut ended: watch::Receiver<bool>,
) -> Result<Session, ExecError> {
    let pipe = |wanted: bool| wanted.then(|| duplex(BUFFER)).unzip();
    let (stdin, fed) = pipe(streams.stdin);
    let (stdout, printed) = pipe(streams.stdout);
    let (stderr, complained) = pipe(streams.stderr && !streams.tty);
    let (resize, sizes) = streams.tty.then(|| watch::channel(None)).unzip();
    let running = handler(Process {
        container,
        command,
        streams,
        stdin: fed,
        stdout: printed,
        stderr: complained,
        sizes,
    })?;
    let task = tokio::spawn(async move {
        tokio::select! {
            exit = running => exit,
            // Ended, or forgotten with its sandbox.
            _ = ended.wait_for(|ended| *ended) => Ok(137),
        }
    });
    let mut task = AbortOnDrop(task);
    Ok(Session {
        stdin: stdin.map(|stream| Box::pin(stream) as _),
        stdout: stdout.map(|stream| Box::pin(stream) as _),
        stderr: stderr.map(|stream| Box::pin(stream) as _),
        resize,
        exited: Box::pin(async move {
            let end = (&mut task.0).await;
            end.unwrap_or_else(|error| Err(ExecError::Failed(error.to_string())))
        }),
    })
}

/// What runs ends with whoever waits for it.
struct AbortOnDrop(JoinHandle<Result<i32, ExecError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

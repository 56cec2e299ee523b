//! A guest's stdout and stderr.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::queue::LogQueue;
use super::{MAX_LINE, Stream};

/// Bytes that a guest may write at once after it found room.
const PERMIT: usize = 64 << 10;

/// One output stream of one store. All handles that the guest opens share its line buffer; dropping
/// the last writes what is left of a line.
#[derive(Clone)]
pub(crate) struct GuestOutput(Arc<LineBuffer>);

struct LineBuffer {
    stream: Stream,
    terminal: bool,
    queue: Arc<LogQueue>,
    line: Mutex<Vec<u8>>,
}

impl GuestOutput {
    fn new(stream: Stream, terminal: bool, queue: Arc<LogQueue>) -> Self {
        Self(Arc::new(LineBuffer {
            stream,
            terminal,
            queue,
            line: Mutex::default(),
        }))
    }

    /// The pair of streams of a new store.
    pub(crate) fn pair(queue: &Arc<LogQueue>) -> (Self, Self) {
        (
            Self::new(Stream::Stdout, false, queue.clone()),
            Self::new(Stream::Stderr, false, queue.clone()),
        )
    }

    /// The pair of a store at a terminal, which has one output.
    pub(crate) fn terminal(queue: &Arc<LogQueue>) -> (Self, Self) {
        let output = Self::new(Stream::Stdout, true, queue.clone());
        (output.clone(), output)
    }
}

impl LineBuffer {
    fn write(&self, mut bytes: &[u8]) {
        let mut line = self.line.lock();
        self.queue.audience().show(self.stream, bytes);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            if line.is_empty() {
                self.queue.push(self.stream, &bytes[..end], true);
            } else {
                line.extend_from_slice(&bytes[..end]);
                self.queue.push(self.stream, &line, true);
                line.clear();
            }
            bytes = &bytes[end + 1..];
        }
        line.extend_from_slice(bytes);
        let whole_parts = line.len() - line.len() % MAX_LINE;
        if line.len() > MAX_LINE {
            self.queue.push(self.stream, &line[..whole_parts], false);
            line.drain(..whole_parts);
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        let line = self.line.get_mut();
        if !line.is_empty() {
            self.queue.push(self.stream, line, true);
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        self.0.terminal
    }
}

impl StdoutStream for GuestOutput {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Handle {
            output: self.clone(),
            granted: false,
            waiting: None,
        })
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Handle {
            output: self.clone(),
            granted: false,
            waiting: None,
        })
    }
}

/// One open handle of the guest.
struct Handle {
    output: GuestOutput,
    /// `ready` found room. The next write is taken even if others filled the queue meanwhile, so
    /// that being ready always means being able to write.
    granted: bool,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

#[async_trait::async_trait]
impl Pollable for Handle {
    async fn ready(&mut self) {
        self.output.0.queue.room().await;
        self.granted = true;
    }
}

impl OutputStream for Handle {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.granted = false;
        self.output.0.write(&bytes);
        Ok(())
    }

    /// The queue outlives the guest and always reaches the file, so there is nothing to wait for.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.granted || self.output.0.queue.has_room() {
            PERMIT
        } else {
            0
        })
    }
}

impl AsyncWrite for Handle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.waiting.is_none() && !this.output.0.queue.has_room() {
            let queue = this.output.0.queue.clone();
            this.waiting = Some(Box::pin(async move { queue.room().await }));
        }
        if let Some(waiting) = &mut this.waiting {
            if waiting.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            this.waiting = None;
        }
        let taken = bytes.len().min(PERMIT);
        this.output.0.write(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

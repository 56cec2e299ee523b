//! A bounded queue of bytes between a guest and whoever holds a session.
//!
//! ```text
//! guest ── GuestEnd (wasi streams) ──▶ Pipe ──▶ Reader (AsyncRead) ── session
//! guest ◀── GuestEnd ──────────────── Pipe ◀── Writer (AsyncWrite) ── session
//! ```
//!
//! A writer waits while the queue is full; either end learns when the other has gone.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::terminal::with_returns;
use crate::sockets::without_waiting;

/// Bytes that wait in a pipe.
pub(crate) const CAPACITY: usize = 64 << 10;

/// The queue.
pub(crate) struct Pipe {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    /// No more will be written.
    ended: bool,
    /// Nobody reads any more.
    unread: bool,
    /// What is written is forgotten.
    discards: bool,
    /// A writer that goes is not the end.
    kept_open: bool,
    /// Whoever waits for a change, reader or writer.
    wakers: Vec<Waker>,
}

impl State {
    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        if !self.wakers.iter().any(|w| w.will_wake(context.waker())) {
            self.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    fn changed(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}

impl Pipe {
    /// A pipe with both ends.
    pub(crate) fn new() -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { state })
    }

    /// A pipe whose reader nobody asked for.
    pub(crate) fn discarding() -> Arc<Self> {
        let pipe = Self::new();
        pipe.state.lock().discards = true;
        pipe
    }

    /// A pipe whose writers come and go.
    pub(crate) fn kept_open() -> Arc<Self> {
        let pipe = Self::new();
        pipe.state.lock().kept_open = true;
        pipe
    }

    /// A pipe that nothing will come from.
    pub(crate) fn empty() -> Arc<Self> {
        let pipe = Self::new();
        pipe.end();
        pipe
    }

    /// The next bytes, at most `most`; `None` at the end.
    pub(crate) fn poll_read(&self, context: &Context<'_>, most: usize) -> Poll<Option<Bytes>> {
        let mut state = self.state.lock();
        if state.bytes.is_empty() {
            return if state.ended {
                Poll::Ready(None)
            } else {
                state.wait(context)
            };
        }
        let taken = state.bytes.len().min(most);
        let bytes = state.bytes.split_to(taken).freeze();
        state.changed();
        Poll::Ready(Some(bytes))
    }

    /// Waits until there is something to read, or the end.
    fn poll_readable(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.bytes.is_empty() && !state.ended {
            return state.wait(context);
        }
        Poll::Ready(())
    }

    /// How many bytes may be written, at least one; `None` when nobody reads.
    pub(crate) fn poll_room(&self, context: &Context<'_>) -> Poll<Option<usize>> {
        let mut state = self.state.lock();
        if state.unread || state.ended {
            return Poll::Ready(None);
        }
        match CAPACITY.saturating_sub(state.bytes.len()) {
            0 => state.wait(context),
            room => Poll::Ready(Some(room)),
        }
    }

    /// Adds bytes, whether there is room or not: it is for the writer to ask before.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if !(state.unread || state.ended || state.discards) {
            state.bytes.extend_from_slice(bytes);
            state.changed();
        }
    }

    /// Adds bytes if at most `most` wait afterwards, or nobody cares. False, and nothing is added, when
    /// the reader is too far behind.
    fn offer(&self, bytes: &[u8], most: usize) -> bool {
        let fits = self.state.lock().bytes.len() + bytes.len() <= most;
        if fits {
            self.push(bytes);
        }
        fits
    }

    /// True when nothing will be written any more, or nobody reads.
    pub(crate) fn has_ended(&self) -> bool {
        let state = self.state.lock();
        state.ended || state.unread
    }

    /// A writer has gone.
    pub(crate) fn writer_left(&self) {
        let kept_open = self.state.lock().kept_open;
        if !kept_open {
            self.end();
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.changed();
    }

    /// Says that nobody reads any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        state.unread = true;
        state.bytes.clear();
        state.changed();
    }
}

/// The session's end of an output. Dropping it tells the guest that nobody reads.
pub(crate) struct Reader(pub(crate) Arc<Pipe>);

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = std::task::ready!(self.0.poll_read(context, buffer.remaining()));
        buffer.put_slice(&bytes.unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The session's end of an input. Dropping it is the input's end, unless the pipe is kept open.
pub(crate) struct Writer(pub(crate) Arc<Pipe>);

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(room) = std::task::ready!(self.0.poll_room(context)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let taken = bytes.len().min(room);
        self.0.push(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.writer_left();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.writer_left();
    }
}

/// The guest's end of a pipe.
#[derive(Clone)]
pub(crate) struct GuestEnd {
    pub(crate) pipe: Arc<Pipe>,
    /// The guest sees a terminal: line ends become CR LF on their way out.
    pub(crate) terminal: bool,
}

impl GuestEnd {
    fn write(&self, bytes: &[u8]) {
        self.pipe.push(&self.cooked(bytes));
    }

    /// Writes if at most `most` bytes wait afterwards; false when the reader is too far behind.
    pub(crate) fn offer(&self, bytes: &[u8], most: usize) -> bool {
        self.pipe.offer(&self.cooked(bytes), most)
    }

    fn cooked<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self.terminal {
            true => Cow::Owned(with_returns(bytes)),
            false => Cow::Borrowed(bytes),
        }
    }
}

impl IsTerminal for GuestEnd {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for GuestEnd {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Not `Reader`: one handle that the guest closes leaves the others open.
        Box::new(Handle(self.clone()))
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Handle(self.clone()))
    }
}

impl StdoutStream for GuestEnd {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(OutputHandle(self.clone()))
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(OutputHandle(self.clone()))
    }
}

/// One open handle of the guest on its input.
struct Handle(GuestEnd);

#[async_trait::async_trait]
impl Pollable for Handle {
    async fn ready(&mut self) {
        poll_fn(|context| self.0.pipe.poll_readable(context)).await;
    }
}

impl InputStream for Handle {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.0.pipe.poll_read(&without_waiting(), size) {
            Poll::Ready(Some(bytes)) => Ok(bytes),
            Poll::Ready(None) => Err(StreamError::Closed),
            Poll::Pending => Ok(Bytes::new()),
        }
    }
}

impl AsyncRead for Handle {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = std::task::ready!(self.0.pipe.poll_read(context, buffer.remaining()));
        buffer.put_slice(&bytes.unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

/// One open handle of the guest on an output. Only this guest writes here, so room that was found
/// stays until it writes.
struct OutputHandle(GuestEnd);

#[async_trait::async_trait]
impl Pollable for OutputHandle {
    async fn ready(&mut self) {
        poll_fn(|context| self.0.pipe.poll_room(context).map(drop)).await;
    }
}

impl OutputStream for OutputHandle {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.write(&bytes);
        Ok(())
    }

    /// What was written is the reader's; there is nothing to wait for.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.0.pipe.poll_room(&without_waiting()) {
            Poll::Ready(Some(room)) => Ok(room),
            Poll::Ready(None) => Err(StreamError::Closed),
            Poll::Pending => Ok(0),
        }
    }
}

impl AsyncWrite for OutputHandle {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(room) = std::task::ready!(self.0.pipe.poll_room(context)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let taken = bytes.len().min(room);
        self.0.write(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_writer_waits_for_room_and_learns_that_nobody_reads() {
        let pipe = Pipe::new();
        let (mut reader, mut writer) = (Reader(pipe.clone()), Writer(pipe.clone()));
        writer.write_all(&vec![7; CAPACITY]).await.unwrap();
        assert!(pipe.poll_room(&without_waiting()).is_pending());
        let writing = tokio::spawn(async move {
            writer.write_all(b"more").await.unwrap();
            writer
        });
        let mut all = vec![0; CAPACITY + 4];
        reader.read_exact(&mut all).await.unwrap();
        assert_eq!(all[CAPACITY..], *b"more");
        let mut writer = writing.await.unwrap();
        drop(reader);
        let error = writer.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read() {
        let pipe = Pipe::new();
        let (mut reader, mut writer) = (Reader(pipe.clone()), Writer(pipe));
        writer.write_all(b"last").await.unwrap();
        drop(writer);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");
    }
}

//! What bounds a connection: how long its first bytes may take, how long it may be idle, and how long it may leave
//! unread what it was sent.
//!
//! ```text
//! accepted ─TLS─▶ first bytes ─▶ HTTP/1.1 or HTTP/2 ─▶ requests ⇄ idle ─▶ a head begins
//!     │ 10 s          │ 32 s                              │          │ 90 s     │ 32 s
//!     └───────────────┴── closed ◀── unread for 60 s ─────┘◀─────────┴──────────┘
//! ```
//!
//! The times are those of upstream's `http.Server` (`IdleTimeout` and `ReadHeaderTimeout` in apiserver's
//! pkg/server/secure_serving.go). hyper's own time for a head runs while a connection is idle, too, so it is not used.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use coracle_clock::Clock;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::body::{Body, BoxError};

/// How long a connection may be without a request, as upstream's.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How long the head of a request may take, as upstream's.
const HEAD_TIMEOUT: Duration = Duration::from_secs(32);
/// How long a client may take to read anything of what it was sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose first bytes were looked at, and which fails once nobody reads what is written.
pub(crate) struct Transport<S> {
    stream: S,
    seen: Bytes,
    is_http2: bool,
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs from the first bytes of a head to its end.
    head: Option<Pin<Box<Sleep>>>,
    patient: Arc<AtomicBool>,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Reads until it is clear what the client speaks; with `true` it is HTTP/2. `None`: it took too long, or the
    /// client went away.
    pub(crate) async fn detect(mut stream: S, clock: &Clock) -> Option<Self> {
        let mut seen = BytesMut::with_capacity(PREFACE.len());
        let reading = async {
            while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
                let mut rest = (&mut stream).take((PREFACE.len() - seen.len()) as u64);
                if rest.read_buf(&mut seen).await? == 0 {
                    break;
                }
            }
            Ok::<_, std::io::Error>(())
        };
        tokio::time::timeout(HEAD_TIMEOUT, reading)
            .await
            .ok()?
            .ok()?;
        Some(Self {
            stream,
            is_http2: seen == PREFACE,
            seen: seen.freeze(),
            stalled: None,
            head: None,
            patient: Arc::default(),
            activity: Activity::new(clock),
        })
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// The requests of the connection, which whoever serves it counts.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.activity)
    }

    /// Once set, the client may leave bytes unread for ever: a paused log, a tunnel.
    pub(crate) fn patience(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.patient)
    }

    /// Lets a write that waits for the client fail when it has waited for too long.
    fn guard<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.patient.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        ready!(stalled.as_mut().poll(context));
        if self.patient.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let message = "the client does not read what it is sent";
        Poll::Ready(Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            message,
        )))
    }
}

impl<S: AsyncRead + Unpin> Transport<S> {
    /// Lets a read that waits for the rest of a head fail when it has waited for too long. `came`: it has got bytes.
    fn hurry(
        &mut self,
        context: &mut Context<'_>,
        read: Poll<std::io::Result<()>>,
        came: bool,
    ) -> Poll<std::io::Result<()>> {
        // What comes during a request is its body, and in HTTP/2 no byte is part of a head for certain.
        if self.is_http2 || self.activity.is_busy() || self.patient.load(Ordering::Relaxed) {
            self.head = None;
            return read;
        }
        if came && self.head.is_none() {
            self.head = Some(Box::pin(tokio::time::sleep(HEAD_TIMEOUT)));
        }
        if read.is_ready() {
            return read;
        }
        let Some(head) = &mut self.head else {
            return Poll::Pending;
        };
        ready!(head.as_mut().poll(context));
        let message = "the head of a request takes too long";
        Poll::Ready(Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            message,
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = if self.seen.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let length = self.seen.len().min(buffer.remaining());
            buffer.put_slice(&self.seen[..length]);
            self.seen.advance(length);
            Poll::Ready(Ok(()))
        };
        let came = buffer.filled().len() > before;
        self.hurry(context, read, came)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.guard(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.guard(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.guard(context, flushed)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.guard(context, closed)
    }
}

/// Counts the requests of one connection that are not answered to their end, and remembers when the last one was.
///
/// Nobody is told when a request ends: that would be the connection's own task, which runs already, and waking it once
/// more wakes another thread to help.
pub(crate) struct Activity {
    clock: Clock,
    requests: AtomicUsize,
    /// In nanoseconds of the clock's monotonic time.
    ended: AtomicU64,
}

/// One request under way.
pub(crate) struct Active(Arc<Activity>);

impl Activity {
    /// Of a connection that begins now.
    pub(crate) fn new(clock: &Clock) -> Arc<Self> {
        let activity = Self {
            clock: clock.clone(),
            requests: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
        };
        activity.end();
        Arc::new(activity)
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.requests.fetch_add(1, Ordering::SeqCst);
        Active(Arc::clone(self))
    }

    /// Whether a request is under way.
    fn is_busy(&self) -> bool {
        self.requests.load(Ordering::SeqCst) > 0
    }

    fn end(&self) {
        let now = u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.ended.store(now, Ordering::SeqCst);
    }

    /// Completes once there was no request for [`IDLE_TIMEOUT`].
    pub(crate) async fn idle(&self) {
        loop {
            let ended = Duration::from_nanos(self.ended.load(Ordering::SeqCst));
            let idle = match self.is_busy() {
                true => Duration::ZERO,
                false => self.clock.monotonic().saturating_sub(ended),
            };
            if idle >= IDLE_TIMEOUT {
                return;
            }
            self.clock.sleep(IDLE_TIMEOUT - idle).await;
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.end();
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of an answer, during which its connection is not idle.
pub(crate) struct ActiveBody {
    body: Body,
    _active: Active,
}

impl ActiveBody {
    pub(crate) fn new(body: Body, active: Active) -> Self {
        Self {
            body,
            _active: active,
        }
    }
}

impl HttpBody for ActiveBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

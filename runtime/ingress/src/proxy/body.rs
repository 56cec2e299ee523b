//! Bodies on their way through, chunk by chunk, with what bounds them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use coracle_clock::Clock;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use super::pool::Lease;
use crate::access::Entry;
use crate::activity::Active;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Fails a body whose next frame takes too long.
struct Patience {
    time: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(time: Duration) -> Self {
        Self {
            time,
            stalled: None,
        }
    }

    /// What came, or whether it is too late for it.
    fn poll<T>(&mut self, context: &mut Context<'_>, came: Poll<T>) -> Poll<Result<T, Late>> {
        if let Poll::Ready(came) = came {
            self.stalled = None;
            return Poll::Ready(Ok(came));
        }
        let time = self.time;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        stalled.as_mut().poll(context).map(|()| Err(Late))
    }
}

/// Nothing came in time.
#[derive(Debug, thiserror::Error)]
#[error("the body made no progress in time")]
struct Late;

/// The body is longer than it may be.
#[derive(Debug, thiserror::Error)]
#[error("the body is larger than it may be")]
struct TooLarge;

/// How sending a request's body goes, for who waits for the answer.
pub(crate) struct Upload {
    clock: Clock,
    /// When a part of it was last sent, in nanoseconds of the monotonic clock.
    last: AtomicU64,
    /// See [`Trouble`].
    trouble: AtomicU8,
}

/// Why a request's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It is larger than it may be.
    TooLarge,
    /// The client sent nothing for too long.
    Slow,
    /// The client went away.
    Gone,
}

impl Upload {
    pub(crate) fn new(clock: &Clock) -> Arc<Self> {
        let upload = Self {
            clock: clock.clone(),
            last: AtomicU64::new(0),
            trouble: AtomicU8::new(0),
        };
        upload.moved();
        Arc::new(upload)
    }

    fn moved(&self) {
        let now = u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn fail(&self, trouble: Trouble) {
        let code = match trouble {
            Trouble::TooLarge => 1,
            Trouble::Slow => 2,
            Trouble::Gone => 3,
        };
        self.trouble.store(code, Ordering::Relaxed);
    }

    /// Time since a part of the body was last sent.
    pub(crate) fn rests_for(&self) -> Duration {
        let last = Duration::from_nanos(self.last.load(Ordering::Relaxed));
        self.clock.monotonic().saturating_sub(last)
    }

    /// Why it ended early, if it did.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        match self.trouble.load(Ordering::Relaxed) {
            1 => Some(Trouble::TooLarge),
            2 => Some(Trouble::Slow),
            3 => Some(Trouble::Gone),
            _ => None,
        }
    }
}

/// The body of a request, as the backend gets it.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// As the client sends it.
    Sent(Box<Sending>),
}

/// A body that a client sends.
pub(crate) struct Sending {
    body: Incoming,
    /// How many bytes may still come.
    left: Option<u64>,
    patience: Patience,
    upload: Arc<Upload>,
}

impl RequestBody {
    pub(crate) fn new(
        body: Incoming,
        limit: Option<u64>,
        patience: Duration,
        upload: &Arc<Upload>,
    ) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Sent(Box::new(Sending {
            body,
            left: limit,
            patience: Patience::new(patience),
            upload: upload.clone(),
        }))
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let sending = match &mut *self {
            Self::Empty => return Poll::Ready(None),
            Self::Sent(sending) => &mut **sending,
        };
        let frame = Pin::new(&mut sending.body).poll_frame(context);
        let Poll::Ready(frame) = sending.patience.poll(context, frame) else {
            return Poll::Pending;
        };
        sending.upload.moved();
        Poll::Ready(match frame {
            Ok(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                match sending.left.map(|left| left.checked_sub(length)) {
                    Some(None) => {
                        sending.upload.fail(Trouble::TooLarge);
                        Some(Err(TooLarge.into()))
                    }
                    left => {
                        sending.left = left.flatten();
                        Some(Ok(frame))
                    }
                }
            }
            Ok(Some(Err(error))) => {
                sending.upload.fail(Trouble::Gone);
                Some(Err(error.into()))
            }
            Ok(None) => None,
            Err(late) => {
                sending.upload.fail(Trouble::Slow);
                Some(Err(late.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Sent(sending) => sending.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Sent(sending) => sending.body.size_hint(),
        }
    }
}

/// What a request holds until its answer has been read.
pub(crate) struct Held {
    pub(crate) active: Active,
    pub(crate) place: Option<OwnedSemaphorePermit>,
    pub(crate) entry: Option<Entry>,
}

/// The body of an answer.
pub(crate) struct Body {
    from: Source,
    held: Option<Held>,
}

enum Source {
    Text(Full<Bytes>),
    Backend {
        body: Incoming,
        patience: Patience,
        lease: Option<Lease>,
    },
}

impl Body {
    /// A text of the proxy's own.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        Self {
            from: Source::Text(Full::new(text.into())),
            held: None,
        }
    }

    /// What a backend sends; its connection is used again after the end.
    pub(crate) fn of_backend(body: Incoming, patience: Duration, lease: Lease) -> Self {
        let mut this = Self {
            from: Source::Backend {
                body,
                patience: Patience::new(patience),
                lease: Some(lease),
            },
            held: None,
        };
        this.give_back();
        this
    }

    /// The same, which holds a request's things until it ends.
    pub(crate) fn holding(mut self, held: Held) -> Self {
        self.held = Some(held);
        self
    }

    /// Gives the connection back, if the backend has sent all.
    fn give_back(&mut self) {
        if let Source::Backend { body, lease, .. } = &mut self.from
            && body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.finish();
        }
    }

    fn note(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, BoxError>>>) {
        let Some(held) = &mut self.held else { return };
        match frame {
            // From now on it is the client who is waited for.
            Poll::Ready(Some(Ok(frame))) => {
                held.active.has_sent();
                let length = frame.data_ref().map_or(0, Bytes::len);
                if let Some(entry) = &mut held.entry {
                    entry.bytes += length as u64;
                }
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(entry) = &mut held.entry {
                    entry.error = Some(error.to_string());
                }
            }
            Poll::Ready(None) => {
                if let Some(entry) = &mut held.entry {
                    entry.is_whole = true;
                }
            }
            Poll::Pending => held.active.waits(),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.from {
            Source::Text(text) => Pin::new(text)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Source::Backend {
                body,
                patience,
                lease,
            } => {
                let mut poll = |context: &mut Context<'_>| Pin::new(&mut *body).poll_frame(context);
                let frame = match lease {
                    Some(lease) => lease.drive(context, poll),
                    None => poll(context),
                };
                match patience.poll(context, frame) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Ok(Some(Ok(frame)))) => Poll::Ready(Some(Ok(frame))),
                    Poll::Ready(Ok(Some(Err(error)))) => Poll::Ready(Some(Err(error.into()))),
                    Poll::Ready(Err(late)) => Poll::Ready(Some(Err(late.into()))),
                    Poll::Ready(Ok(None)) => {
                        if let Some(lease) = lease.take() {
                            lease.finish();
                        }
                        Poll::Ready(None)
                    }
                }
            }
        };
        self.give_back();
        self.note(&frame);
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            Source::Text(text) => text.is_end_stream(),
            Source::Backend { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            Source::Text(text) => text.size_hint(),
            Source::Backend { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // Whoever knows the length reads no end.
        if self.is_end_stream()
            && let Some(held) = &mut self.held
            && let Some(entry) = &mut held.entry
        {
            entry.is_whole = true;
        }
    }
}

//! The body of a request, whose client may stop sending it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Sleep;
use wasmtime_wasi_http::Error;

/// A body that fails when the guest waits for its next frame for too long: the guest then hears
/// `connection-read-timeout`.
pub(super) struct RequestBody<B = Incoming> {
    body: B,
    patience: Option<Duration>,
    /// Runs while the guest waits.
    late: Option<Pin<Box<Sleep>>>,
    has_failed: bool,
    upload: Arc<Upload>,
}

/// How the body of a request comes along. A guest that waits for it is not late with its answer.
pub(super) struct Upload {
    clock: Clock,
    progress: Mutex<Progress>,
}

struct Progress {
    /// The guest waits for the client.
    waits: bool,
    /// When it last got something.
    moved: Duration,
}

impl Upload {
    pub(super) fn new(clock: &Clock) -> Arc<Self> {
        let moved = clock.monotonic();
        Arc::new(Self {
            clock: clock.clone(),
            progress: Mutex::new(Progress {
                waits: false,
                moved,
            }),
        })
    }

    /// For how much longer a guest is excused that has sent nothing for `patience`.
    pub(super) fn excuse(&self, patience: Duration) -> Option<Duration> {
        let progress = self.progress.lock();
        if progress.waits {
            return Some(patience);
        }
        let until = progress.moved + patience;
        let left = until.saturating_sub(self.clock.monotonic());
        (!left.is_zero()).then_some(left)
    }

    fn waits(&self) {
        self.progress.lock().waits = true;
    }

    fn moves(&self) {
        let moved = self.clock.monotonic();
        *self.progress.lock() = Progress {
            waits: false,
            moved,
        };
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, patience: Option<Duration>, upload: Arc<Upload>) -> Self {
        Self {
            body,
            patience,
            late: None,
            has_failed: false,
            upload,
        }
    }
}

impl<B> Drop for RequestBody<B> {
    fn drop(&mut self) {
        // Whatever the guest waits for now, it is not this.
        self.upload.moves();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B>
where
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.has_failed {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.late = None;
            this.upload.moves();
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        this.upload.waits();
        let Some(patience) = this.patience else {
            return Poll::Pending;
        };
        let sleep = || Box::pin(tokio::time::sleep(patience));
        let late = this.late.get_or_insert_with(sleep);
        std::task::ready!(late.as_mut().poll(context));
        this.has_failed = true;
        this.upload.moves();
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_failed || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    /// Sends a frame after each of the given times, and then nothing at all.
    struct Slow(Vec<Duration>, Option<Pin<Box<Sleep>>>);

    impl Body for Slow {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            if self.1.is_none() {
                let Some(next) = self.0.pop() else {
                    return Poll::Pending;
                };
                self.1 = Some(Box::pin(tokio::time::sleep(next)));
            }
            if let Some(sleep) = &mut self.1 {
                std::task::ready!(sleep.as_mut().poll(context));
            }
            self.1 = None;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_is_waited_for_only_so_long() {
        let (clock, second) = (Clock::fake(1), Duration::from_secs(1));
        let (patience, upload) = (second * 10, Upload::new(&clock));
        let slow = Slow(vec![second * 9, second * 9], None);
        let mut body = RequestBody::new(slow, Some(patience), upload.clone());
        for _ in 0..2 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        let failed = body.frame().await.unwrap();
        assert!(matches!(failed, Err(Error::ConnectionReadTimeout)));
        assert_eq!(clock.monotonic(), second * 28);
        assert!(body.frame().await.is_none());
        // The guest has that long to say something about it.
        assert_eq!(upload.excuse(patience), Some(patience));
        tokio::time::advance(patience).await;
        assert_eq!(upload.excuse(patience), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_waits_for_its_client_is_excused() {
        let (patience, upload) = (Duration::from_secs(1), Upload::new(&Clock::fake(1)));
        tokio::time::advance(patience).await;
        assert_eq!(upload.excuse(patience), None);
        let mut body = RequestBody::new(Slow(Vec::new(), None), None, upload.clone());
        let waiting = tokio::time::timeout(patience * 9, body.frame());
        assert!(waiting.await.is_err());
        assert_eq!(upload.excuse(patience), Some(patience));
        drop(body);
        tokio::time::advance(patience).await;
        assert_eq!(upload.excuse(patience), None);
    }
}

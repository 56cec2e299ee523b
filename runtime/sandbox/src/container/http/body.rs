//! The body of an answer, and the guest that is still at work on it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::time::Sleep;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::Handler;
use super::answer::Label;
#[cfg(feature = "p3")]
use super::instances::Seat;
use super::request::Upload;
use super::traffic::{Open, Stream};
use crate::metered::Metered;

/// A guest that answers one request, in an instance of its own.
pub(super) type Run = Metered<()>;

/// What makes an answer. Dropping it gives the request up.
pub(super) enum Work {
    /// An instance that runs where it is polled, and nowhere else.
    Own(Run),
    /// A place in an instance with a task of its own.
    #[cfg(feature = "p3")]
    Shared(Seat),
}

/// The body of an answer.
///
/// The guest runs while its body is read, in the task of the connection: a client that reads slowly
/// slows the guest down, and one that leaves takes the guest along.
pub(super) struct AnswerBody {
    body: HyperOutgoingBody,
    stream: Arc<Stream>,
    /// The request is in flight until this is dropped.
    open: Option<Open>,
}

/// A guest that has begun its answer, and has not returned.
pub(super) struct AtWork {
    work: Work,
    handler: Arc<Handler>,
    label: Label,
    /// Nothing more will be read: the last byte was taken, or the answer has no body.
    is_read: bool,
    /// How the request comes along, which may be what the guest waits for.
    upload: Arc<Upload>,
    /// Bytes that are missing until the announced length, if one was announced.
    left: Option<u64>,
    /// Runs while the guest sends nothing.
    idle: Option<Pin<Box<Sleep>>>,
}

impl Work {
    /// Goes on; true once the guest has returned.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Own(run) => Pin::new(run).poll(context).is_ready(),
            #[cfg(feature = "p3")]
            Self::Shared(_) => false,
        }
    }
}

impl AnswerBody {
    /// The answer to the request `label`, of a guest that has not returned if there is `work`.
    pub(super) fn of(
        response: Response<HyperOutgoingBody>,
        label: Label,
        work: Option<Work>,
        upload: Arc<Upload>,
        handler: &Arc<Handler>,
    ) -> Response<Self> {
        let bodiless = matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let is_read = bodiless || label.method() == Method::HEAD;
        let length = response.headers().get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let guest = work.map(|work| AtWork {
            work,
            handler: handler.clone(),
            label,
            is_read,
            upload,
            left,
            idle: None,
        });
        response.map(|body| {
            let stream = Arc::new(Stream::default());
            stream.0.lock().guest = guest;
            Self {
                body,
                stream,
                open: None,
            }
        })
    }

    /// Text of the runtime's own.
    pub(super) fn text(text: &str) -> Self {
        Self::whole(Bytes::from(format!("{text}\n")))
    }

    /// Nothing at all.
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    fn whole(bytes: Bytes) -> Self {
        let body = Full::new(bytes);
        let body = body.map_err(|never: Infallible| match never {});
        Self {
            body: body.boxed_unsync(),
            stream: Arc::default(),
            open: None,
        }
    }

    /// Counts as a request in flight from now on; one that `may_stand` is looked after.
    pub(super) fn counted(mut self, mut open: Open, may_stand: bool) -> Self {
        if may_stand {
            open.watch(&self.stream);
        }
        self.open = Some(open);
        self
    }
}

impl AtWork {
    /// True once the guest has sent nothing for as long as it may, and got nothing either.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(patience) = self.handler.settings.idle else {
            return false;
        };
        let mut left = patience;
        loop {
            let sleep = || Box::pin(tokio::time::sleep(left));
            let idle = self.idle.get_or_insert_with(sleep);
            if idle.as_mut().poll(context).is_pending() {
                return false;
            }
            match self.upload.excuse(patience) {
                Some(more) => (self.idle, left) = (None, more),
                None => return true,
            }
        }
    }

    /// The client took nothing for `patience`.
    pub(super) fn left_standing(self, patience: Duration) {
        let logs = &self.handler.guest.logs;
        logs.note(&format!(
            "{}: the client took nothing of the answer for {patience:?}; it was cut off",
            self.label
        ));
    }

    fn saw(&mut self, frame: Option<&Result<Frame<Bytes>, Error>>) {
        self.idle = None;
        match frame {
            None => self.is_read = true,
            Some(Ok(frame)) => {
                if let (Some(left), Some(data)) = (&mut self.left, frame.data_ref()) {
                    *left = left.saturating_sub(data.len() as u64);
                    self.is_read |= *left == 0;
                }
            }
            Some(Err(_)) => {}
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let mut standing = this.stream.0.lock();
        if standing.is_cut {
            return Poll::Ready(Some(Err(Error::HttpResponseTimeout)));
        }
        standing.with_client = None;
        let mut frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_pending()
            && let Some(guest) = &mut standing.guest
        {
            if guest.work.poll(context) {
                standing.guest = None;
            }
            frame = Pin::new(&mut this.body).poll_frame(context);
        }
        if let Poll::Ready(Some(Ok(_))) = frame {
            standing.with_client = this.open.as_ref().map(Open::now);
        }
        let Some(guest) = &mut standing.guest else {
            return frame;
        };
        match &frame {
            Poll::Ready(frame) => guest.saw(frame.as_ref()),
            Poll::Pending if guest.is_late(context) => {
                let patience = guest.handler.settings.idle.unwrap_or(Duration::ZERO);
                let logs = &guest.handler.guest.logs;
                logs.note(&format!(
                    "{}: the answer made no progress for {patience:?} and was cut off",
                    guest.label
                ));
                standing.guest = None;
                return Poll::Ready(Some(Err(Error::HttpResponseTimeout)));
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let is_end = self.body.is_end_stream();
        let guest = self.stream.0.lock().guest.take();
        if let Some(guest) = guest
            && (guest.is_read || is_end)
        {
            // The answer is complete; what the guest does after it is its own business for a while.
            match guest.work {
                Work::Own(run) => guest.handler.finish(run),
                #[cfg(feature = "p3")]
                Work::Shared(seat) => seat.answered(),
            }
        }
    }
}

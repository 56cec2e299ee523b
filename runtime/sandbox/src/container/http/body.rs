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

/// A guest that answers one request.
pub(super) type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of an answer.
///
/// The guest runs while its body is read, in the task of the connection: a client that reads slowly
/// slows the guest down, and one that leaves takes the guest along.
pub(super) struct AnswerBody {
    body: HyperOutgoingBody,
    guest: Option<AtWork>,
}

/// A guest that has begun its answer, and has not returned.
struct AtWork {
    run: Run,
    handler: Arc<Handler>,
    /// Nothing more will be read: the last byte was taken, or the answer has no body.
    is_read: bool,
    /// Bytes that are missing until the announced length, if one was announced.
    left: Option<u64>,
    /// Runs while the guest sends nothing.
    idle: Option<Pin<Box<Sleep>>>,
}

impl AnswerBody {
    /// The answer to a request with `method`, of a guest that has not returned if there is a `run`.
    pub(super) fn of(
        response: Response<HyperOutgoingBody>,
        method: &Method,
        run: Option<Run>,
        handler: &Arc<Handler>,
    ) -> Response<Self> {
        let bodiless = matches!(
            response.status(),
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let is_read = bodiless || method == Method::HEAD;
        let length = response.headers().get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let guest = run.map(|run| AtWork {
            run,
            handler: handler.clone(),
            is_read,
            left,
            idle: None,
        });
        response.map(|body| Self { body, guest })
    }

    /// Text of the runtime's own.
    pub(super) fn text(text: &str) -> Self {
        let body = Full::new(Bytes::from(format!("{text}\n")));
        let body = body.map_err(|never: Infallible| match never {});
        Self {
            body: body.boxed_unsync(),
            guest: None,
        }
    }

    /// Nothing at all.
    pub(super) fn empty() -> Self {
        let body = Full::new(Bytes::new());
        let body = body.map_err(|never: Infallible| match never {});
        Self {
            body: body.boxed_unsync(),
            guest: None,
        }
    }
}

impl AtWork {
    /// True once the guest has sent nothing for as long as it may.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(patience) = self.handler.settings.idle else {
            return false;
        };
        let sleep = || Box::pin(tokio::time::sleep(patience));
        let idle = self.idle.get_or_insert_with(sleep);
        idle.as_mut().poll(context).is_ready()
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
        let mut frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_pending()
            && let Some(guest) = &mut this.guest
        {
            if guest.run.as_mut().poll(context).is_ready() {
                this.guest = None;
            }
            frame = Pin::new(&mut this.body).poll_frame(context);
        }
        let Some(guest) = &mut this.guest else {
            return frame;
        };
        match &frame {
            Poll::Ready(frame) => guest.saw(frame.as_ref()),
            Poll::Pending if guest.is_late(context) => {
                let patience = guest.handler.settings.idle.unwrap_or(Duration::ZERO);
                let logs = &guest.handler.guest.logs;
                logs.note(&format!(
                    "an answer made no progress for {patience:?} and was cut off"
                ));
                this.guest = None;
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
        if let Some(guest) = self.guest.take()
            && (guest.is_read || is_end)
        {
            // The answer is complete; what the guest does after it is its own business for a while.
            guest.handler.finish(guest.run);
        }
    }
}

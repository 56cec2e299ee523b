//! One request: its turn, its instance, and the head of its answer.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
#[cfg(feature = "p3")]
use wasmtime_wasi_http::handler::ProxyPre;

use super::body::{AnswerBody, Work};
#[cfg(feature = "p3")]
use super::instances::Job;
use super::request::{RequestBody, Upload};
use super::turns::{Place, Turn};
use super::{Handler, ResponseSender};
#[cfg(feature = "p3")]
use crate::link::Linked;

/// How long a request waits for the node to have room for its instance. Those that hold the room may
/// wait for this very answer, so it is bounded whatever the manifest says.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

/// What a client should wait before it asks a busy server again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What a request is called in the log.
#[derive(Clone)]
pub(super) struct Label {
    method: Method,
    uri: Uri,
}

impl Label {
    pub(super) fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri }
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.uri.path())
    }
}

impl Handler {
    /// Answers a request. The guest runs in the polls of this future and of the body: dropping them
    /// drops the guest.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Response<AnswerBody> {
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            return refusal(StatusCode::BAD_REQUEST, "the request names no host");
        }
        // Made now and not when it is first polled: waiting counts.
        let late = self.settings.timeout.map(tokio::time::sleep);
        let mut deadline = pin!(async move {
            match late {
                Some(late) => late.await,
                None => std::future::pending().await,
            }
        });
        let turn = match self.turns.take() {
            Place::Turn(turn) => turn,
            Place::Queued(waiting) => match within(deadline.as_mut(), waiting).await {
                Some(turn) => turn,
                None => return busy("the request waited for its turn for too long"),
            },
            Place::Full => return busy("too many requests are waiting"),
        };
        let label = Label::new(request.method().clone(), request.uri().clone());
        let upload = Upload::new(self.guest.cpu.clock());
        let (idle, sent) = (self.settings.idle, upload.clone());
        let request = request.map(|body| RequestBody::new(body, idle, sent));
        let (sender, mut receiver) = oneshot::channel();
        let Some(mut work) = self.begin(request, sender, label.clone(), turn).await else {
            return busy("the node runs as many instances as it may");
        };
        let mut has_ended = false;
        let head = std::future::poll_fn(|context| {
            if !has_ended {
                has_ended = work.poll(context);
            }
            // A guest that has ended dropped the sender, if it did not use it.
            Pin::new(&mut receiver).poll(context)
        });
        match within(deadline.as_mut(), head).await {
            Some(Ok(Ok(response))) => {
                let work = (!has_ended).then_some(work);
                AnswerBody::of(response, label, work, upload, &self)
            }
            Some(Ok(Err(code))) => {
                let logs = &self.guest.logs;
                logs.note(&format!("{label}: the guest answered with {code:?}"));
                refusal(StatusCode::BAD_GATEWAY, "the guest could not answer")
            }
            // The guest ended without an answer; `call` has said why.
            Some(Err(_)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed"),
            None => {
                let (logs, patience) = (&self.guest.logs, self.settings.timeout);
                let patience = patience.unwrap_or_default();
                logs.note(&format!("{label}: no answer within {patience:?}"));
                let text = "the guest did not answer in time";
                refusal(StatusCode::GATEWAY_TIMEOUT, text)
            }
        }
    }

    /// Gives the request to an instance, which answers to `sender`; nothing when the node has no room for
    /// one.
    async fn begin(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        sender: ResponseSender,
        label: Label,
        turn: Turn,
    ) -> Option<Work> {
        #[cfg(feature = "p3")]
        if self.settings.reuse.requests > 1
            && let Linked::Http(ProxyPre::P3(pre)) = &self.guest.program.linked
        {
            let job = Box::new(Job {
                request,
                sender,
                label,
                turn,
            });
            let job = match self.instances.join(job) {
                Ok(seat) => return Some(Work::Shared(seat)),
                Err(job) => job,
            };
            let place = self.place().await?;
            let seat = self.instances.start(self, pre, place, job);
            return seat.ok().map(Work::Shared);
        }
        let place = self.place().await?;
        let handler = self.clone();
        let call = async move {
            handler.call(request, sender, label).await;
            drop((turn, place));
        };
        Some(Work::Own(self.guest.meter(call)))
    }

    /// Room for an instance, which may have to be waited for.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let places = self.guest.admission.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        let place = timeout(NODE_PATIENCE, places.acquire_owned()).await;
        place.ok()?.ok()
    }
}

/// What `future` gives, or nothing when the deadline is earlier.
async fn within<F: Future>(
    deadline: Pin<&mut impl Future<Output = ()>>,
    future: F,
) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = deadline => None,
    }
}

/// An answer of the runtime's own.
fn refusal(status: StatusCode, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::text(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// A refusal that another try may not meet.
fn busy(text: &str) -> Response<AnswerBody> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, text);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

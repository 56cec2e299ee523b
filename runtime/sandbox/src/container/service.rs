//! Requests to `wasi:http` 0.3 components.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{Error, WasiHttpView, p3};

use crate::link::ComponentState;

type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Whether an instance has failed; what it had begun then is no whole answer, though it has ended.
#[derive(Clone, Default)]
pub(super) struct Health(Arc<AtomicBool>);

impl Health {
    /// The instance has failed.
    pub(super) fn fail(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Has `service` answer `request`, the only one of its instance. Returns when nothing of the guest runs
/// any more.
pub(super) async fn answer<B>(
    store: &mut Store<ComponentState>,
    service: &Service,
    request: Request<B>,
    sender: oneshot::Sender<Answer>,
) -> wasmtime::Result<()>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let health = Health::default();
    let served = store.run_concurrent(async |accessor| {
        call(accessor, service, request, sender, &health).await?;
        rest(accessor).await;
        Ok(())
    });
    let outcome = served.await.flatten();
    if outcome.is_err() {
        health.fail();
    }
    outcome
}

/// Has `service` answer `request`. Returns when the last byte of the answer was taken, or nobody wants
/// the answer any more.
pub(super) async fn call<B>(
    accessor: &Accessor<ComponentState>,
    service: &Service,
    request: Request<B>,
    sender: oneshot::Sender<Answer>,
    health: &Health,
) -> wasmtime::Result<()>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let request = with_target(request);
    let (request, received) = accessor.with(|mut store| {
        let hooks = store.data_mut().http().hooks;
        let (request, received) = p3::Request::from_http(hooks, request);
        let received: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> = Box::pin(received);
        (request, received)
    });
    let response = match service.handle(accessor, request).await? {
        Ok(response) => response,
        Err(code) => {
            let code = ErrorCode::InternalError(Some(code.to_string()));
            let _ = sender.send(Err(code));
            return Ok(());
        }
    };
    let response = accessor.with(|store| response.into_http(store, received))?;
    let (done, body_is_done) = oneshot::channel();
    let response = response.map(|body| {
        let health = health.clone();
        let watched = Watched {
            body,
            health,
            _done: done,
        };
        watched.boxed_unsync()
    });
    if sender.send(Ok(response)).is_ok() {
        // The guest makes the body while it is read.
        let _ = body_is_done.await;
    }
    Ok(())
}

/// In HTTP/1.1 the header `host` says which authority is asked, and guests do not see that header.
fn with_target<B>(mut request: Request<B>) -> Request<B> {
    if request.uri().authority().is_some() {
        return request;
    }
    let host = request.headers().get(header::HOST);
    let mut parts = request.uri().clone().into_parts();
    parts.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.scheme = Some(Scheme::HTTP);
    if parts.authority.is_some()
        && let Ok(uri) = Uri::from_parts(parts)
    {
        *request.uri_mut() = uri;
    }
    request
}

/// Waits until the guest has nothing more to do.
pub(super) async fn rest(accessor: &Accessor<ComponentState>) {
    std::future::poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
}

/// A body that tells when it is dropped, and is not whole when its instance fails.
struct Watched<B> {
    body: B,
    health: Health,
    _done: oneshot::Sender<()>,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() && self.health.has_failed() {
            return Poll::Ready(Some(Err(Error::HttpResponseIncomplete)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.health.has_failed()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

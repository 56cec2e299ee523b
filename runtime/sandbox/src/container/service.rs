//! A request to a `wasi:http` 0.3 component.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p3;

use crate::link::ComponentState;

type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Has `service` answer `request`. Returns when the last byte of the answer was taken, or nobody wants
/// the answer any more.
pub(super) async fn answer(
    store: &mut Store<ComponentState>,
    service: &p3::bindings::Service,
    request: Request<Incoming>,
    sender: oneshot::Sender<Answer>,
) -> wasmtime::Result<()> {
    let hooks = store.data_mut().http().hooks;
    let (request, received) = p3::Request::from_http(hooks, request);
    let served = store.run_concurrent(async |accessor| {
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
        let response = response.map(|body| Watched { body, _done: done }.boxed_unsync());
        if sender.send(Ok(response)).is_ok() {
            // The guest makes the body while it is read.
            let _ = body_is_done.await;
        }
        Ok(())
    });
    served.await.flatten()
}

/// A body that tells when it is dropped.
struct Watched<B> {
    body: B,
    _done: oneshot::Sender<()>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

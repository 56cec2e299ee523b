//! `wasi:http` components: the runtime listens for them and makes an instance per request.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use coracle_cri::RuntimeError;
use coracle_network::{TcpListener, TcpStream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::guest::Guest;
use super::stop::StopSignal;
use super::turns::Turns;
use super::{any_address, http_port};
use crate::exit::{Exit, trap_message};
use crate::link::{ComponentState, Linked, new_store};

/// Bytes of a page of linear memory.
const WASM_PAGE: u64 = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 1024;

/// A bound port and the component behind it.
pub(crate) struct Server {
    listener: TcpListener,
    handler: Arc<Handler>,
}

/// Answers requests.
struct Handler {
    guest: Arc<Guest>,
    pre: ProxyPre<ComponentState>,
    turns: Arc<Turns>,
    /// Guests and connections that are not finished.
    work: TaskTracker,
    /// Drops all of them.
    kill: CancellationToken,
    /// An instance was refused memory, which ends the container.
    out_of_memory: Notify,
}

type ResponseSender = oneshot::Sender<Result<Response<HyperOutgoingBody>, ErrorCode>>;

impl Server {
    /// Binds the container's port; from then on the container is ready.
    pub(super) fn bind(guest: Arc<Guest>) -> Result<Self, RuntimeError> {
        let Linked::Http(pre) = &guest.program.linked else {
            unreachable!("only http components are served")
        };
        let port = http_port(&guest.config.ports);
        let address = any_address(guest.scope.namespace().address(), port);
        let listener = guest.scope.listen_tcp(address, BACKLOG).map_err(|error| {
            RuntimeError::Start(format!(
                "failed to listen on port {port} for wasi:http: {error}"
            ))
        })?;
        let initial = pre.instance_pre().component().resources_required();
        let initial = initial.map_or(0, |needed| {
            u64::from(needed.num_memories)
                .saturating_mul(needed.max_initial_memory_size.unwrap_or(0))
                .saturating_mul(WASM_PAGE)
        });
        let handler = Handler {
            turns: Turns::new(guest.memory.limit(), initial),
            pre: pre.clone(),
            work: TaskTracker::new(),
            kill: CancellationToken::new(),
            out_of_memory: Notify::new(),
            guest,
        };
        Ok(Self {
            listener,
            handler: Arc::new(handler),
        })
    }

    /// Serves until stopped or out of memory.
    pub(super) async fn run(self, mut stop: StopSignal) -> Exit {
        let Self { listener, handler } = self;
        let guest = handler.guest.clone();
        let connections = GracefulShutdown::new();
        let refused = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => handler.serve(stream, &connections),
                    // The namespace was closed; the stop that follows ends the run.
                    Err(_) => break false,
                },
                () = stop.asked() => break false,
                () = handler.out_of_memory.notified() => break true,
            }
        };
        if refused {
            handler.end().await;
            let refusal = guest.memory.refusal().expect("set before the notification");
            return Exit::out_of_memory(refusal);
        }
        guest.scope.stop_listening();
        handler.work.close();
        let finished = async {
            connections.shutdown().await;
            handler.work.wait().await;
        };
        let in_time = tokio::select! {
            biased;
            // Without any grace the guest is killed, whatever it does.
            () = stop.grace_over() => false,
            () = finished => true,
        };
        handler.end().await;
        Exit::stopped(in_time)
    }
}

impl Handler {
    /// Serves one connection, HTTP/1 or HTTP/2 without TLS.
    fn serve(self: &Arc<Self>, stream: TcpStream, connections: &GracefulShutdown) {
        let handler = self.clone();
        let service = service_fn(move |request| {
            let handler = handler.clone();
            async move { Ok::<_, Infallible>(handler.answer(request).await) }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let connection = server
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = connections.watch(connection);
        let kill = self.kill.clone();
        self.work.spawn_on(
            async move {
                if let Some(Err(error)) = kill.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "connection of an http guest ended");
                }
            },
            &self.guest.threads,
        );
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<HyperOutgoingBody> {
        let label = format!("{} {}", request.method(), request.uri().path());
        let turn = tokio::select! {
            turn = self.turns.take() => turn,
            () = self.kill.cancelled() => None,
        };
        let Some(turn) = turn else {
            return refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests are waiting",
            );
        };
        if request.uri().authority().is_none()
            && !request.headers().contains_key(http::header::HOST)
        {
            return refusal(StatusCode::BAD_REQUEST, "the request names no host");
        }
        // Waiting here could never end: the instances that hold the places may wait for this answer.
        let Ok(place) = self.guest.admission.clone().try_acquire_owned() else {
            return refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "the node runs as many instances as it may",
            );
        };
        let (sender, receiver) = oneshot::channel();
        let (handler, name) = (self.clone(), label.clone());
        let call = async move {
            handler.call(request, sender, name).await;
            drop((turn, place));
        };
        let kill = self.kill.clone();
        let metered = self.guest.cpu.meter(call);
        self.work.spawn_on(
            async move { kill.run_until_cancelled(metered).await },
            &self.guest.threads,
        );
        match receiver.await {
            Ok(Ok(response)) => response,
            Ok(Err(code)) => {
                self.guest
                    .logs
                    .note(&format!("{label}: the guest answered with {code:?}"));
                refusal(StatusCode::BAD_GATEWAY, "the guest could not answer")
            }
            // The guest ended without an answer; `call` has said why.
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the guest failed"),
        }
    }

    /// Runs one instance for one request, beyond the head of its response to the end of its body.
    async fn call(&self, request: Request<Incoming>, sender: ResponseSender, label: String) {
        let Err(error) = self.instance(request, sender).await else {
            return;
        };
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            if exit.0 != 0 {
                self.guest
                    .logs
                    .note(&format!("{label}: the guest exited with code {}", exit.0));
            }
        } else if self.guest.memory.refusal().is_some() {
            self.out_of_memory.notify_one();
        } else {
            self.guest
                .logs
                .note(&format!("{label}: {}", trap_message(&error)));
        }
    }

    async fn instance(
        &self,
        request: Request<Incoming>,
        sender: ResponseSender,
    ) -> wasmtime::Result<()> {
        let guest = &self.guest;
        let mut store = new_store(&guest.engine.engine, guest.component_state()?, &guest.cpu);
        let request = store
            .data_mut()
            .http()
            .new_incoming_request(Scheme::Http, request)?;
        let response = store.data_mut().http().new_response_outparam(sender)?;
        let proxy = self.pre.instantiate_async(&mut store).await?;
        let outcome = proxy
            .wasi_http_incoming_handler()
            .call_handle(&mut store, request, response)
            .await;
        self.turns.learn(store.data().memory.charged());
        outcome
    }

    /// Drops everything that still runs.
    async fn end(&self) {
        self.kill.cancel();
        self.work.close();
        self.work.wait().await;
    }
}

/// An answer of the runtime's own.
fn refusal(status: StatusCode, text: &'static str) -> Response<HyperOutgoingBody> {
    let body = Full::new(Bytes::from(format!("{text}\n")));
    let mut response = Response::new(
        body.map_err(|never: Infallible| match never {})
            .boxed_unsync(),
    );
    *response.status_mut() = status;
    response
}

//! `wasi:http` components: the runtime listens for them and makes an instance per request.
//!
//! ```text
//! connection ─▶ request ─▶ turn, or queue ─▶ instance ─▶ head ─▶ body ─▶ gone
//!               (503)      (503 when full)    (504 when late)    └ runs while it is read
//! ```
//!
//! All of it happens in the task of the connection, on a thread of the guests: a request costs no
//! hand-over between tasks, and ends with its client. Instances of `wasi:http` 0.3 that a manifest lets
//! answer several requests have a task of their own.

mod answer;
mod body;
mod connection;
#[cfg(feature = "p3")]
mod instances;
mod request;
mod settings;
mod traffic;
mod turns;
mod upgrade;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use coracle_cri::RuntimeError;
use coracle_network::{SocketScope, TcpListener};
use http::{Request, Response};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use self::answer::Label;
use self::body::Run;
use self::connection::{Protocol, Spawner, protocol};
#[cfg(feature = "p3")]
use self::instances::Instances;
use self::request::RequestBody;
use self::settings::Settings;
use self::turns::Turns;
use super::guest::Guest;
use super::http_port;
#[cfg(feature = "p3")]
use super::service;
use super::stop::StopSignal;
use crate::exit::{Exit, trap_message};
use crate::link::{Linked, new_component_store};

/// Bytes of a page of linear memory.
const WASM_PAGE: u64 = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 1024;
/// How long a connection may be without a first request when the container is stopped.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a guest may go on after its answer was read.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// A bound port and the component behind it.
pub(crate) struct Server {
    listener: TcpListener,
    handler: Arc<Handler>,
}

/// Answers requests.
struct Handler {
    guest: Arc<Guest>,
    settings: Settings,
    turns: Arc<Turns>,
    spawner: Spawner,
    protocol: Protocol,
    /// Instances that answer several requests.
    #[cfg(feature = "p3")]
    instances: Instances,
    /// Tells connections and instances when a drain begins.
    drain: CancellationToken,
    /// An instance was refused memory, which ends the container.
    out_of_memory: Notify,
    /// How that instance ended.
    ended: OnceLock<Exit>,
}

type ResponseSender = oneshot::Sender<Result<Response<HyperOutgoingBody>, ErrorCode>>;

impl Server {
    /// Binds the container's port; from then on the container is ready.
    pub(super) fn bind(guest: Arc<Guest>) -> Result<Self, RuntimeError> {
        let settings = Settings::read(&guest.config.annotations)?;
        let port = http_port(&guest.config.ports);
        let listener = guest
            .scope
            .listen_tcp_anywhere(port, BACKLOG)
            .map_err(|error| {
                RuntimeError::Start(format!(
                    "failed to listen on port {port} for wasi:http: {error}"
                ))
            })?;
        let component = guest.program.linked.component();
        let initial = component.and_then(|pre| pre.component().resources_required());
        let initial = initial.map_or(0, |needed| {
            u64::from(needed.num_memories)
                .saturating_mul(needed.max_initial_memory_size.unwrap_or(0))
                .saturating_mul(WASM_PAGE)
        });
        let spawner = Spawner {
            threads: guest.threads.light.clone(),
            work: TaskTracker::new(),
            kill: CancellationToken::new(),
        };
        let memory = guest.memory.clone();
        let handler = Handler {
            turns: Turns::new(memory, settings.concurrency, settings.queue, initial),
            protocol: protocol(spawner.clone(), settings.head),
            settings,
            spawner,
            #[cfg(feature = "p3")]
            instances: Instances::default(),
            drain: CancellationToken::new(),
            out_of_memory: Notify::new(),
            ended: OnceLock::new(),
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
        let refused = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => handler.serve(stream),
                    // The namespace was closed; the stop that follows ends the run.
                    Err(_) => break false,
                },
                () = stop.asked() => break false,
                () = handler.out_of_memory.notified() => break true,
            }
        };
        if refused {
            handler.end().await;
            let ended = handler.ended.get().cloned();
            return ended.expect("set before the notification");
        }
        guest.scope.stop_listening();
        // Who was let in before is served.
        while let Some(stream) = listener.waiting() {
            handler.serve(stream);
        }
        let finished = async {
            first_requests(&guest.scope).await;
            handler.drain.cancel();
            handler.spawner.work.close();
            handler.spawner.work.wait().await;
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

/// Waits until no connection is without its first byte, for as long as a client may take that was let
/// in just before the stop: it does not know of it, and has sent its request or is about to.
async fn first_requests(scope: &SocketScope) {
    let mut waited = Duration::ZERO;
    while scope.silent_connections() > 0 && waited < FIRST_REQUEST {
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
}

impl Handler {
    /// Runs one instance for one request, beyond the head of its response to the end of its body.
    async fn call(&self, request: Request<RequestBody>, sender: ResponseSender, label: Label) {
        if let Err(error) = self.instance(request, sender).await {
            self.failed(&label.to_string(), &error);
        }
    }

    /// Says how an instance failed that answered `label`, or has the container end for it.
    fn failed(&self, label: &str, error: &wasmtime::Error) {
        let logs = &self.guest.logs;
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            if exit.0 != 0 {
                logs.note(&format!("{label}: the guest exited with code {}", exit.0));
            }
        } else if self.guest.memory.refusal().is_some() {
            // The first counts: others are refused because of it.
            let _ = self.ended.set(Exit::from_error(error, &self.guest.memory));
            self.out_of_memory.notify_one();
        } else {
            logs.note(&format!("{label}: {}", trap_message(error)));
        }
    }

    async fn instance(
        &self,
        request: Request<RequestBody>,
        sender: ResponseSender,
    ) -> wasmtime::Result<()> {
        let guest = &self.guest;
        let mut store = new_component_store(guest)?;
        let Linked::Http(pre) = &guest.program.linked else {
            unreachable!("only http components are served")
        };
        let outcome = match pre {
            ProxyPre::P2(pre) => {
                let mut view = store.data_mut().http();
                let request = view.new_incoming_request(Scheme::Http, request)?;
                let response = view.new_response_outparam(sender)?;
                let proxy = pre.instantiate_async(&mut store).await?;
                let handler = proxy.wasi_http_incoming_handler();
                handler.call_handle(&mut store, request, response).await
            }
            #[cfg(feature = "p3")]
            ProxyPre::P3(pre) => {
                let service = pre.instantiate_async(&mut store).await?;
                service::answer(&mut store, &service, request, sender).await
            }
            #[cfg(not(feature = "p3"))]
            ProxyPre::P3(_) => unreachable!("refused when it was detected"),
        };
        self.turns.learn(store.data().memory.charged());
        outcome
    }

    /// Lets a guest end whose answer was read.
    fn finish(&self, run: Run) {
        self.spawner.spawn(async move {
            let _ = tokio::time::timeout(AFTERWARDS, run).await;
        });
    }

    /// Drops everything that still runs.
    async fn end(&self) {
        self.spawner.kill.cancel();
        self.spawner.work.close();
        self.spawner.work.wait().await;
        self.guest.is_gone().await;
    }
}

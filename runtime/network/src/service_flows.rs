//! What goes through a Service: counted where connections are made, and told one by one when they have ended.
//!
//! ```text
//! connect, deliver ──▶ Attempt ──taken by an endpoint──▶ Passage (held by the stream) ──dropped──▶ FlowRecord
//!                         └──────nobody took it───────────────────────────────────────────────────▶ FlowRecord
//! ```
//!
//! Bytes of open connections are read from their [`Flow`]s when somebody asks, so that moving bytes costs nothing more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use slab::Slab;

use crate::error::NetError;
use crate::flows::{ACCEPT_WAITS, Flow, Waits, count};

/// Takes the records of connections that have ended. Called by whoever ends them, so it must not wait.
pub trait FlowLog: Send + Sync + 'static {
    /// One connection to the Service has ended, or found nobody.
    fn ended(&self, record: FlowRecord);
}

/// One connection to a Service, after its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Who opened it.
    pub client: SocketAddr,
    /// `namespace/name` of the pod that opened it, if it is one of this node.
    pub client_pod: Option<String>,
    /// The address of the Service that was dialled; of a client outside the host's own.
    pub service: SocketAddr,
    /// Who took it.
    pub endpoint: Option<SocketAddr>,
    /// Bytes from the client to the endpoint.
    pub received_bytes: u64,
    /// Bytes from the endpoint to the client.
    pub sent_bytes: u64,
    /// From the attempt to the end.
    pub duration: Duration,
    /// How it ended.
    pub outcome: FlowOutcome,
}

/// How a connection to a Service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowOutcome {
    /// In order.
    Closed,
    /// The client left bytes unread, or vanished.
    ResetByClient,
    /// The endpoint left bytes unread, or vanished.
    ResetByEndpoint,
    /// It never began.
    Refused(RefusedFlow),
}

/// Why nobody took a connection to a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFlow {
    /// The Service has no endpoint that serves.
    NoEndpoints,
    /// The Service has no such port.
    NoPort,
    /// None of those that were tried took it.
    Endpoints,
    /// A policy forbids it.
    Policy,
    /// Nobody took it in time.
    TimedOut,
}

impl RefusedFlow {
    /// All reasons, in the order of [`ServiceTraffic::refused`].
    pub const ALL: [Self; 5] = [
        Self::NoEndpoints,
        Self::NoPort,
        Self::Endpoints,
        Self::Policy,
        Self::TimedOut,
    ];

    /// One word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoEndpoints => "no-endpoints",
            Self::NoPort => "no-port",
            Self::Endpoints => "endpoints",
            Self::Policy => "policy",
            Self::TimedOut => "timeout",
        }
    }
}

/// What went through a Service since it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceTraffic {
    /// Connections that an endpoint took.
    pub connections: u64,
    /// Those of them that are open.
    pub open: u64,
    /// Connections that nobody took, by [`RefusedFlow::ALL`].
    pub refused: [u64; RefusedFlow::ALL.len()],
    /// Endpoints that did not take a connection; the next one was tried.
    pub passed_over: u64,
    /// Connections that clients reset.
    pub reset_by_clients: u64,
    /// Connections that endpoints reset.
    pub reset_by_endpoints: u64,
    /// How long connections waited to be accepted by guests: their number by the classes of
    /// [`ACCEPT_WAITS`], longer ones last.
    pub waits: [u64; ACCEPT_WAITS.len() + 1],
    /// The sum of those waits.
    pub waited: Duration,
    /// Bytes from clients to endpoints, datagrams too.
    pub received_bytes: u64,
    /// Bytes from endpoints to clients, datagrams too.
    pub sent_bytes: u64,
}

impl ServiceTraffic {
    /// Whether anything was ever asked of the Service.
    pub fn is_any(&self) -> bool {
        *self != Self::default()
    }
}

/// Counts what goes through one Service. Whoever answers [`ServiceRouter`](crate::ServiceRouter) keeps one for each.
#[derive(Default)]
pub struct ServiceFlows {
    connections: AtomicU64,
    refused: [AtomicU64; RefusedFlow::ALL.len()],
    passed_over: AtomicU64,
    reset_by_clients: AtomicU64,
    reset_by_endpoints: AtomicU64,
    waits: Waits,
    bytes: Mutex<Bytes>,
    log: RwLock<Option<Arc<dyn FlowLog>>>,
}

/// Under one lock, so that a connection's bytes are in exactly one of the two places.
#[derive(Default)]
struct Bytes {
    received: u64,
    sent: u64,
    open: Slab<(Arc<Flow>, Near)>,
}

impl ServiceFlows {
    /// Tells `log` of every connection that ends from now on; `None` tells nobody.
    pub fn set_log(&self, log: Option<Arc<dyn FlowLog>>) {
        *self.log.write() = log;
    }

    /// What went through by now.
    pub fn traffic(&self) -> ServiceTraffic {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (waits, waited) = self.waits.read();
        let bytes = self.bytes.lock();
        let (mut received, mut sent) = (bytes.received, bytes.sent);
        for (_, (flow, near)) in &bytes.open {
            let (more_received, more_sent) = near.directions(flow.moved());
            received += more_received;
            sent += more_sent;
        }
        ServiceTraffic {
            connections: load(&self.connections),
            open: bytes.open.len() as u64,
            refused: self.refused.each_ref().map(load),
            passed_over: load(&self.passed_over),
            reset_by_clients: load(&self.reset_by_clients),
            reset_by_endpoints: load(&self.reset_by_endpoints),
            waits,
            waited,
            received_bytes: received,
            sent_bytes: sent,
        }
    }

    /// A datagram of so many bytes was sent to an endpoint.
    pub fn datagram_received(&self, bytes: usize) {
        self.bytes.lock().received += bytes as u64;
    }

    /// A datagram of so many bytes came back from an endpoint.
    pub fn datagram_sent(&self, bytes: usize) {
        self.bytes.lock().sent += bytes as u64;
    }

    /// A connection was accepted that had waited for `waited`.
    pub(crate) fn accepted(&self, waited: Duration) {
        self.waits.add(waited);
    }

    fn tell(&self, record: impl FnOnce() -> FlowRecord) {
        let log = self.log.read().clone();
        if let Some(log) = log {
            log.ended(record());
        }
    }
}

impl std::fmt::Debug for ServiceFlows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceFlows({:?})", self.traffic())
    }
}

/// Which end of the connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Near {
    Client,
    Endpoint,
}

impl Near {
    /// Bytes to the endpoint, and from it, of what the near end has read and written.
    fn directions(self, (read, written): (u64, u64)) -> (u64, u64) {
        match self {
            Self::Client => (written, read),
            Self::Endpoint => (read, written),
        }
    }
}

/// A connection to a Service that nobody has taken yet.
#[derive(Clone)]
pub(crate) struct Attempt {
    service: Arc<ServiceFlows>,
    client: SocketAddr,
    client_pod: Option<String>,
    to: SocketAddr,
    /// As `Clock::monotonic`.
    began: Duration,
}

impl Attempt {
    pub(crate) fn new(
        service: Arc<ServiceFlows>,
        client: SocketAddr,
        pod: Option<&str>,
        to: SocketAddr,
        now: Duration,
    ) -> Self {
        // The name costs an allocation: only who is told of it needs it.
        let client_pod = pod.filter(|_| service.log.read().is_some());
        Self {
            client_pod: client_pod.map(str::to_owned),
            service,
            client,
            to,
            began: now,
        }
    }

    pub(crate) fn service(&self) -> &Arc<ServiceFlows> {
        &self.service
    }

    /// One endpoint did not take it.
    pub(crate) fn passed_over(&self) {
        count(&self.service.passed_over);
    }

    /// An endpoint is about to take it.
    pub(crate) fn taken(self, endpoint: SocketAddr, near: Near) -> Passage {
        Passage {
            attempt: self,
            endpoint,
            near,
            key: None,
        }
    }

    /// Nobody took it.
    pub(crate) fn refused(&self, reason: RefusedFlow, now: Duration) {
        let place = RefusedFlow::ALL.iter().position(|other| *other == reason);
        if let Some(counter) = place.and_then(|place| self.service.refused.get(place)) {
            count(counter);
        }
        self.service
            .tell(|| self.record(None, (0, 0), FlowOutcome::Refused(reason), now));
    }

    fn record(
        &self,
        endpoint: Option<SocketAddr>,
        (received_bytes, sent_bytes): (u64, u64),
        outcome: FlowOutcome,
        now: Duration,
    ) -> FlowRecord {
        FlowRecord {
            client: self.client,
            client_pod: self.client_pod.clone(),
            service: self.to,
            endpoint,
            received_bytes,
            sent_bytes,
            duration: now.saturating_sub(self.began),
            outcome,
        }
    }
}

/// Why a connection to a Service found nobody; `refused` is what a refusal means.
pub(crate) fn reason(error: &NetError, refused: RefusedFlow) -> RefusedFlow {
    match error {
        NetError::Denied { .. } => RefusedFlow::Policy,
        NetError::TimedOut(_) => RefusedFlow::TimedOut,
        _ => refused,
    }
}

/// A connection to a Service that an endpoint has taken. The stream at one of its ends holds it.
pub(crate) struct Passage {
    attempt: Attempt,
    endpoint: SocketAddr,
    near: Near,
    /// Its place among the open ones, from [`begins`](Self::begins) to [`ends`](Self::ends).
    key: Option<usize>,
}

impl Passage {
    pub(crate) fn service(&self) -> &Arc<ServiceFlows> {
        self.attempt.service()
    }

    /// The stream is there.
    pub(crate) fn begins(&mut self, flow: &Arc<Flow>) {
        count(&self.service().connections);
        let key = self
            .service()
            .bytes
            .lock()
            .open
            .insert((flow.clone(), self.near));
        self.key = Some(key);
    }

    /// The stream goes; `reset` tells by which end it was reset, the near one or the far one.
    pub(crate) fn ends(&mut self, reset: Option<Side>, now: Duration) {
        let Some(key) = self.key.take() else { return };
        let service = self.service();
        let moved = {
            let mut bytes = service.bytes.lock();
            let moved = match bytes.open.try_remove(key) {
                Some((flow, near)) => near.directions(flow.moved()),
                None => (0, 0),
            };
            bytes.received += moved.0;
            bytes.sent += moved.1;
            moved
        };
        let outcome = match (reset, self.near) {
            (None, _) => FlowOutcome::Closed,
            (Some(Side::Near), Near::Client) | (Some(Side::Far), Near::Endpoint) => {
                count(&service.reset_by_clients);
                FlowOutcome::ResetByClient
            }
            (Some(Side::Far), Near::Client) | (Some(Side::Near), Near::Endpoint) => {
                count(&service.reset_by_endpoints);
                FlowOutcome::ResetByEndpoint
            }
        };
        let endpoint = Some(self.endpoint);
        service.tell(|| self.attempt.record(endpoint, moved, outcome, now));
    }
}

/// An end of a connection, seen from the stream that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Near,
    Far,
}

/// What a stream has to do with a Service.
#[derive(Default)]
pub(crate) enum Through {
    /// Nothing.
    #[default]
    None,
    /// It was accepted for it; the other end tells the rest.
    Accepted(Arc<ServiceFlows>),
    /// It tells all.
    Passage(Box<Passage>),
}

impl Through {
    /// The Service that a wait to be accepted is told to.
    pub(crate) fn service(&self) -> Option<&Arc<ServiceFlows>> {
        match self {
            Self::None => None,
            Self::Accepted(service) => Some(service),
            Self::Passage(passage) => Some(passage.service()),
        }
    }
}

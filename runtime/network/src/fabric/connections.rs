//! TCP connections: of pods and of the node, and those that the host accepted for a pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Fabric;
use super::targets::{Caller, Target, is_same};
use crate::account::SocketSlot;
use crate::error::NetError;
use crate::flows::count;
use crate::host::HostSocket;
use crate::listener::{Backlog, Refusal};
use crate::namespace::{BoundPort, NetworkNamespace, source_address};
use crate::route::{Protocol, StreamHandler};
use crate::service_flows::{Attempt, Near, RefusedFlow, ServiceFlows, Through, reason};
use crate::socket::canonical;
use crate::stream::{Carrier, Path, TcpStream};

/// Why one endpoint did not take a connection.
enum Miss {
    Error(NetError),
    Full(Arc<Backlog>),
}

impl From<NetError> for Miss {
    fn from(error: NetError) -> Self {
        Self::Error(error)
    }
}

impl Fabric {
    /// Opens a connection from the node into the pod network: to a pod, a Service or a handler.
    pub async fn dial(&self, to: SocketAddr) -> Result<TcpStream, NetError> {
        self.dial_for(to, None).await
    }

    /// The same, on behalf of whoever wants `service`, which counts it.
    pub async fn dial_for(
        &self,
        to: SocketAddr,
        service: Option<Arc<ServiceFlows>>,
    ) -> Result<TcpStream, NetError> {
        let to = canonical(to);
        let caller = self.node_caller();
        self.connect_for(&caller, self.node.take_slot()?, None, to, service)
            .await
    }

    /// Hands a connection that the host accepted to the first of `endpoints` that takes it. The
    /// pod reads and writes the host's socket itself and sees `peer`. When none takes it, the
    /// connection is reset.
    pub async fn deliver(
        &self,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        endpoints: &[SocketAddr],
    ) -> Result<(), NetError> {
        self.deliver_for(stream, peer, endpoints, None).await
    }

    /// The same, for a `service` that counts it.
    pub async fn deliver_for(
        &self,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        endpoints: &[SocketAddr],
        service: Option<Arc<ServiceFlows>>,
    ) -> Result<(), NetError> {
        let peer = canonical(peer);
        let attempt = service.map(|service| {
            let dialled = stream.local_addr().unwrap_or(peer);
            Attempt::new(service, peer, None, dialled, self.clock.monotonic())
        });
        let caller = self.node_caller();
        let mut carrier = Carrier::Host(HostSocket::new(stream));
        let patience = self.patience(endpoints.len());
        let work = async {
            loop {
                let mut error = None;
                let mut full = None;
                for endpoint in endpoints {
                    let endpoint = canonical(*endpoint);
                    let handed = self
                        .hand_over(&caller, carrier, peer, endpoint, attempt.as_ref(), patience)
                        .await;
                    if let (Err(_), Some(attempt)) = (&handed, &attempt) {
                        attempt.passed_over();
                    }
                    let back = match handed {
                        Ok(()) => return Ok(()),
                        Err((Miss::Full(backlog), back)) => {
                            full.get_or_insert(backlog);
                            back
                        }
                        Err((Miss::Error(failure), back)) => {
                            error = Some(failure);
                            back
                        }
                    };
                    carrier = back;
                }
                match (full, error) {
                    (Some(backlog), _) => std::future::poll_fn(|cx| backlog.poll_room(cx)).await,
                    (None, error) => {
                        if let Carrier::Host(socket) = &carrier {
                            socket.reset();
                        }
                        let nobody = NetError::ConnectionRefused(peer);
                        return Err(error.unwrap_or(nobody));
                    }
                }
            }
        };
        let to = endpoints.first().copied().unwrap_or(peer);
        let outcome = tokio::time::timeout(self.config.connect_timeout, work)
            .await
            .unwrap_or(Err(NetError::TimedOut(to)));
        if let (Err(error), Some(attempt)) = (&outcome, &attempt) {
            let refused = match endpoints {
                [] => RefusedFlow::NoEndpoints,
                _ => RefusedFlow::Endpoints,
            };
            attempt.refused(reason(error, refused), self.clock.monotonic());
        }
        outcome
    }

    /// Resets a connection that the host accepted, because a `service` does not let the client in, and counts that.
    pub fn deny_for(
        &self,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
        service: Arc<ServiceFlows>,
    ) {
        let peer = canonical(peer);
        let dialled = stream.local_addr().unwrap_or(peer);
        let now = self.clock.monotonic();
        // Counted by the time that the client knows.
        Attempt::new(service, peer, None, dialled, now).refused(RefusedFlow::Policy, now);
        HostSocket::new(stream).reset();
    }

    /// Gives one endpoint the carrier, or the carrier back.
    async fn hand_over(
        &self,
        caller: &Caller,
        carrier: Carrier,
        peer: SocketAddr,
        endpoint: SocketAddr,
        attempt: Option<&Attempt>,
        patience: Duration,
    ) -> Result<(), (Miss, Carrier)> {
        let passage = || Some(attempt?.clone().taken(endpoint, Near::Endpoint));
        let target = match self.target(caller, endpoint, Protocol::Tcp) {
            Ok(target) => target,
            Err(error) => return Err((error.into(), carrier)),
        };
        match target {
            Target::Pod(namespace) => {
                if let Err(error) = self.may_accept(peer.ip(), endpoint, Protocol::Tcp) {
                    return Err((error.into(), carrier));
                }
                let through = passage().map(Box::new);
                let through = through.map_or(Through::None, Through::Passage);
                offer(&namespace, carrier, endpoint, peer, through)
            }
            Target::Handler(handler) => match self.node.take_slot() {
                Ok(slot) => {
                    let ends = (endpoint, peer);
                    handler.handle(TcpStream::passing(carrier, ends, slot, passage()));
                    Ok(())
                }
                Err(error) => Err((error.into(), carrier)),
            },
            Target::Datagrams(_) => Err((NetError::ConnectionRefused(endpoint).into(), carrier)),
            target @ (Target::Remote(_) | Target::Outside) => {
                let (slot, own) = match (self.node.take_slot(), self.node.take_slot()) {
                    (Ok(slot), Ok(own)) => (slot, own),
                    (Err(error), _) | (_, Err(error)) => return Err((error.into(), carrier)),
                };
                let from = self.node_source(caller, endpoint.ip());
                match self
                    .open(caller, &slot, from, &(endpoint, target), None, patience)
                    .await
                {
                    Ok(far) => {
                        let mut far = TcpStream::new(far, from, endpoint, slot, None);
                        let ends = (endpoint, peer);
                        let mut near = TcpStream::passing(carrier, ends, own, passage());
                        tokio::spawn(async move {
                            // An error ends the connection on both sides, which is all to be done.
                            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                        });
                        Ok(())
                    }
                    Err(miss) => Err((miss, carrier)),
                }
            }
        }
    }

    /// Opens a connection for a pod or the node, and counts what becomes of it.
    pub(crate) async fn connect(
        &self,
        caller: &Caller,
        slot: SocketSlot,
        port: Option<BoundPort>,
        to: SocketAddr,
    ) -> Result<TcpStream, NetError> {
        self.connect_for(caller, slot, port, to, None).await
    }

    async fn connect_for(
        &self,
        caller: &Caller,
        slot: SocketSlot,
        port: Option<BoundPort>,
        to: SocketAddr,
        service: Option<Arc<ServiceFlows>>,
    ) -> Result<TcpStream, NetError> {
        let pod = slot.account.pod.clone();
        let outcome = self.try_connect(caller, slot, port, to, service).await;
        count(match &outcome {
            Ok(_) => &pod.connections.opened,
            Err(NetError::Denied { .. }) => &pod.connections.denied,
            Err(_) => &pod.connections.failed,
        });
        outcome
    }

    async fn try_connect(
        &self,
        caller: &Caller,
        slot: SocketSlot,
        port: Option<BoundPort>,
        to: SocketAddr,
        service: Option<Arc<ServiceFlows>>,
    ) -> Result<TcpStream, NetError> {
        let from = match &port {
            Some(port) => source_address(port.address(), caller, to)?,
            None => self.node_source(caller, to.ip()),
        };
        let routes = self.routes(caller, to, Protocol::Tcp)?;
        let attempt = routes.service.or(service).map(|service| {
            let pod = caller.namespace.as_ref().map(|own| own.pod());
            Attempt::new(service, from, pod, to, self.clock.monotonic())
        });
        let service = attempt.as_ref().map(Attempt::service);
        let ends = routes.ends;
        let patience = self.patience(ends.len());
        let work = async {
            loop {
                let mut error = routes.failure.clone();
                let mut full = None;
                for one in &ends {
                    let opened = self.open(caller, &slot, from, one, service, patience).await;
                    if let (Err(_), Some(attempt)) = (&opened, &attempt) {
                        attempt.passed_over();
                    }
                    match opened {
                        Ok(carrier) => return Ok((carrier, one.0)),
                        Err(Miss::Full(backlog)) => drop(full.get_or_insert(backlog).clone()),
                        Err(Miss::Error(failure)) => error = failure,
                    }
                }
                match full {
                    Some(backlog) => std::future::poll_fn(|cx| backlog.poll_room(cx)).await,
                    None => return Err(error),
                }
            }
        };
        let outcome = tokio::time::timeout(self.config.connect_timeout, work)
            .await
            .unwrap_or(Err(NetError::TimedOut(to)));
        match outcome {
            Ok((carrier, endpoint)) => {
                let passage = attempt.map(|attempt| attempt.taken(endpoint, Near::Client));
                let path = Path { from, to, endpoint };
                Ok(TcpStream::opened(carrier, path, slot, port, passage))
            }
            Err(error) => {
                if let Some(attempt) = attempt {
                    attempt.refused(reason(&error, routes.refused), self.clock.monotonic());
                }
                Err(error)
            }
        }
    }

    /// How long each of so many endpoints may be silent, if it is outside: an even share of the whole, so that all have their
    /// turn.
    fn patience(&self, endpoints: usize) -> Duration {
        let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX).max(1);
        self.config.connect_timeout / endpoints
    }

    /// Tries one endpoint; gives the caller's end. One outside has `patience` to answer.
    async fn open(
        &self,
        caller: &Caller,
        slot: &SocketSlot,
        from: SocketAddr,
        (to, target): &(SocketAddr, Target),
        service: Option<&Arc<ServiceFlows>>,
        patience: Duration,
    ) -> Result<Carrier, Miss> {
        let to = *to;
        if caller.namespace.is_some() {
            self.may_connect(caller, to, Protocol::Tcp)?;
        }
        match target {
            Target::Pod(namespace) => {
                if caller.namespace.is_some() && !is_same(caller, namespace) {
                    self.may_accept(from.ip(), to, Protocol::Tcp)?;
                }
                let (near, far) =
                    Carrier::pair_of(slot.account.pod.clone(), namespace.account().clone());
                let through = service.cloned();
                let through = through.map_or(Through::None, Through::Accepted);
                offer(namespace, far, to, from, through).map_err(|(miss, _)| miss)?;
                Ok(near)
            }
            Target::Handler(handler) => Ok(self.hand_pair(handler.as_ref(), slot, from, to)?),
            Target::Datagrams(_) => Err(NetError::ConnectionRefused(to).into()),
            Target::Remote(remote) => {
                let opened = tokio::time::timeout(patience, remote.open(from, to)).await;
                let handler = opened.unwrap_or(Err(NetError::TimedOut(to)))?;
                Ok(self.hand_pair(handler.as_ref(), slot, from, to)?)
            }
            Target::Outside => {
                let connect = tokio::net::TcpStream::connect(to);
                let connected = tokio::time::timeout(patience, connect).await;
                let stream = connected
                    .map_err(|_| NetError::TimedOut(to))?
                    .map_err(|error| NetError::from_host(&error, to))?;
                Ok(Carrier::Host(HostSocket::new(stream)))
            }
        }
    }

    /// Gives a handler one end of a connection in memory, and returns the other.
    fn hand_pair(
        &self,
        handler: &dyn StreamHandler,
        slot: &SocketSlot,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Carrier, NetError> {
        let node = self.node.take_slot()?;
        let (near, far) = Carrier::pair(slot, &node);
        handler.handle(TcpStream::new(far, to, from, node, None));
        Ok(near)
    }
}

fn offer(
    namespace: &NetworkNamespace,
    carrier: Carrier,
    local: SocketAddr,
    peer: SocketAddr,
    through: Through,
) -> Result<(), (Miss, Carrier)> {
    let refused = || {
        count(&namespace.account().connections.refused);
        Miss::Error(NetError::ConnectionRefused(local))
    };
    let Some(backlog) = namespace.backlog(local) else {
        return Err((refused(), carrier));
    };
    backlog
        .offer(carrier, local, peer, through)
        .map_err(|(refusal, carrier)| match refusal {
            Refusal::Refused => (refused(), carrier),
            Refusal::Full => (Miss::Full(backlog.clone()), carrier),
        })
}

//! The node's switch: finds who answers at an address, and joins the two ends.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use ipnet::IpNet;
use parking_lot::RwLock;

use crate::account::{Account, Limits, PodAccount, SocketSlot};
use crate::egress::EgressPolicy;
use crate::error::NetError;
use crate::flows::count;
use crate::host::HostSocket;
use crate::listener::{Backlog, Refusal};
use crate::names::{NoNames, Resolver};
use crate::namespace::{BoundPort, NamespaceConfig, NetworkNamespace, source_address};
use crate::ports::EPHEMERAL;
use crate::route::{
    AllowAll, ConnectionPolicy, DatagramHandler, NoRemoteNodes, NoServices, Protocol, RemoteNodes,
    Route, ServiceRouter, StreamHandler, Verdict,
};
use crate::service_flows::{Attempt, Near, RefusedFlow, ServiceFlows, Through, reason};
use crate::socket::canonical;
use crate::stream::{Carrier, TcpStream};

/// Sockets that the node itself may have in the pod network (probes, proxies, the API server).
const NODE_SOCKETS: usize = 65_536;

/// What a fabric is made of.
pub struct FabricConfig {
    /// The node's own address in the pod network.
    pub node_address: IpAddr,
    /// Its address of the other family, if the cluster has both.
    pub second_node_address: Option<IpAddr>,
    /// Addresses of the cluster's pods. What nobody holds there is unreachable, never the outside.
    pub pod_ranges: Vec<IpNet>,
    /// Addresses of Services. What no Service has there is unreachable, never the outside.
    pub service_ranges: Vec<IpNet>,
    /// What pods may dial outside.
    pub egress: EgressPolicy,
    /// How long a connect may take.
    pub connect_timeout: Duration,
}

impl FabricConfig {
    /// A node with the given address, no cluster, the default egress policy and 30 s to connect.
    pub fn new(node_address: IpAddr) -> Self {
        Self {
            node_address,
            second_node_address: None,
            pod_ranges: Vec::new(),
            service_ranges: Vec::new(),
            egress: EgressPolicy::default(),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

/// Routes between the pods of a node, Services, handlers of this process, and the outside.
pub struct Fabric {
    config: FabricConfig,
    clock: Clock,
    namespaces: RwLock<HashMap<IpAddr, Arc<NetworkNamespace>>>,
    handlers: RwLock<HashMap<SocketAddr, Arc<dyn StreamHandler>>>,
    datagrams: RwLock<HashMap<SocketAddr, Arc<dyn DatagramHandler>>>,
    router: RwLock<Arc<dyn ServiceRouter>>,
    resolver: RwLock<Arc<dyn Resolver>>,
    policy: RwLock<Arc<dyn ConnectionPolicy>>,
    remote: RwLock<Arc<dyn RemoteNodes>>,
    node: Arc<Account>,
    next_node_port: AtomicU16,
}

/// Who opens a connection: a pod, or without a namespace the node.
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    /// Of the other family.
    pub(crate) second_address: Option<IpAddr>,
    pub(crate) namespace: Option<Arc<NetworkNamespace>>,
}

impl Caller {
    /// Its address of the family of `to`.
    pub(crate) fn address_towards(&self, to: IpAddr) -> Option<IpAddr> {
        let mut all = [Some(self.address), self.second_address].into_iter();
        all.find_map(|own| own.filter(|own| own.is_ipv4() == to.is_ipv4()))
    }
}

/// Who answers at an address.
#[derive(Clone)]
pub(crate) enum Target {
    Pod(Arc<NetworkNamespace>),
    Handler(Arc<dyn StreamHandler>),
    Datagrams(Arc<dyn DatagramHandler>),
    Remote(Arc<dyn RemoteNodes>),
    Outside,
}

/// Where a connect or a message leads.
pub(crate) struct Routes {
    /// The endpoints to try, in order.
    pub(crate) ends: Vec<(SocketAddr, Target)>,
    /// What to say if there is none.
    pub(crate) failure: NetError,
    /// What it is to the Service if nobody takes the connection.
    refused: RefusedFlow,
    /// Who counts what becomes of it.
    pub(crate) service: Option<Arc<ServiceFlows>>,
}

impl Routes {
    fn to(address: SocketAddr, target: Target) -> Self {
        Self {
            ends: vec![(address, target)],
            failure: NetError::ConnectionRefused(address),
            refused: RefusedFlow::Endpoints,
            service: None,
        }
    }
}

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
    /// A switch without pods, Services and names.
    pub fn new(config: FabricConfig, clock: Clock) -> Arc<Self> {
        let limits = Limits {
            sockets: NODE_SOCKETS,
            ..Limits::default()
        };
        Arc::new(Self {
            node: Account::new(PodAccount::new(limits), clock.clone()),
            config,
            clock,
            namespaces: RwLock::default(),
            handlers: RwLock::default(),
            datagrams: RwLock::default(),
            router: RwLock::new(Arc::new(NoServices)),
            resolver: RwLock::new(Arc::new(NoNames)),
            policy: RwLock::new(Arc::new(AllowAll)),
            remote: RwLock::new(Arc::new(NoRemoteNodes)),
            next_node_port: AtomicU16::new(0),
        })
    }

    /// The node's own address in the pod network.
    pub fn node_address(&self) -> IpAddr {
        self.config.node_address
    }

    /// All addresses of the node in the pod network: one, or one of each family.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let both = [
            Some(self.config.node_address),
            self.config.second_node_address,
        ];
        both.into_iter().flatten()
    }

    /// Sets who knows the Services.
    pub fn set_router(&self, router: Arc<dyn ServiceRouter>) {
        *self.router.write() = router;
    }

    /// Sets who knows the names.
    pub fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        *self.resolver.write() = resolver;
    }

    /// Sets who decides which connections may be.
    pub fn set_policy(&self, policy: Arc<dyn ConnectionPolicy>) {
        *self.policy.write() = policy;
    }

    /// Sets who reaches the pods of other nodes.
    pub fn set_remote_nodes(&self, remote: Arc<dyn RemoteNodes>) {
        *self.remote.write() = remote;
    }

    /// Makes the namespace of a pod; fails while its address is held by another.
    pub fn create_namespace(
        self: &Arc<Self>,
        config: NamespaceConfig,
    ) -> Result<Arc<NetworkNamespace>, NetError> {
        let second = config.second_address;
        if second.is_some_and(|second| second.is_ipv4() == config.address.is_ipv4()) {
            return Err(NetError::InvalidArgument(
                "a pod's addresses are of different families",
            ));
        }
        let mut namespaces = self.namespaces.write();
        for address in [Some(config.address), second].into_iter().flatten() {
            if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                return Err(NetError::InvalidArgument("a pod needs a unicast address"));
            }
            let is_node = self.node_addresses().any(|node| node == address);
            if is_node || namespaces.contains_key(&address) {
                return Err(NetError::AddressInUse(SocketAddr::new(address, 0)));
            }
        }
        let namespace = NetworkNamespace::new(config, self);
        for address in namespace.addresses() {
            namespaces.insert(address, namespace.clone());
        }
        Ok(namespace)
    }

    /// The local namespace that holds `address`.
    pub fn namespace(&self, address: IpAddr) -> Option<Arc<NetworkNamespace>> {
        self.namespaces.read().get(&address).cloned()
    }

    /// Serves connections to `address` (usually a port of the node) inside this process, until
    /// [`remove_handler`](Self::remove_handler); an earlier handler is replaced.
    pub fn set_handler(&self, address: SocketAddr, handler: Arc<dyn StreamHandler>) {
        self.handlers.write().insert(address, handler);
    }

    /// Refuses connections to a handler's address again.
    pub fn remove_handler(&self, address: SocketAddr) {
        self.handlers.write().remove(&address);
    }

    /// Answers datagrams to `address` inside this process, until
    /// [`remove_datagram_handler`](Self::remove_datagram_handler); an earlier handler is replaced.
    pub fn set_datagram_handler(&self, address: SocketAddr, handler: Arc<dyn DatagramHandler>) {
        self.datagrams.write().insert(address, handler);
    }

    /// Loses datagrams to a handler's address again.
    pub fn remove_datagram_handler(&self, address: SocketAddr) {
        self.datagrams.write().remove(&address);
    }

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
        let work = async {
            loop {
                let mut error = None;
                let mut full = None;
                for endpoint in endpoints {
                    let endpoint = canonical(*endpoint);
                    let handed = self
                        .hand_over(&caller, carrier, peer, endpoint, attempt.as_ref())
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
                    handler.handle(TcpStream::passing(carrier, ends, slot, None, passage()));
                    Ok(())
                }
                Err(error) => Err((error.into(), carrier)),
            },
            Target::Datagrams(_) => Err((NetError::ConnectionRefused(endpoint).into(), carrier)),
            Target::Remote(_) | Target::Outside => {
                let (slot, own) = match (self.node.take_slot(), self.node.take_slot()) {
                    (Ok(slot), Ok(own)) => (slot, own),
                    (Err(error), _) | (_, Err(error)) => return Err((error.into(), carrier)),
                };
                let from = self.node_source(endpoint.ip());
                match self
                    .open(caller, &slot, from, endpoint, &target, None)
                    .await
                {
                    Ok(far) => {
                        let mut far = TcpStream::new(far, from, endpoint, slot, None);
                        let ends = (endpoint, peer);
                        let mut near = TcpStream::passing(carrier, ends, own, None, passage());
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
            None => self.node_source(to.ip()),
        };
        let routes = self.routes(caller, to, Protocol::Tcp)?;
        let attempt = routes.service.or(service).map(|service| {
            let pod = caller.namespace.as_ref().map(|own| own.pod());
            Attempt::new(service, from, pod, to, self.clock.monotonic())
        });
        let service = attempt.as_ref().map(Attempt::service);
        let ends = routes.ends;
        let work = async {
            loop {
                let mut error = routes.failure.clone();
                let mut full = None;
                for (endpoint, target) in &ends {
                    let opened = self
                        .open(caller, &slot, from, *endpoint, target, service)
                        .await;
                    if let (Err(_), Some(attempt)) = (&opened, &attempt) {
                        attempt.passed_over();
                    }
                    match opened {
                        Ok(carrier) => return Ok((carrier, *endpoint)),
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
                Ok(TcpStream::passing(carrier, (from, to), slot, port, passage))
            }
            Err(error) => {
                if let Some(attempt) = attempt {
                    attempt.refused(reason(&error, routes.refused), self.clock.monotonic());
                }
                Err(error)
            }
        }
    }

    /// Tries one endpoint; gives the caller's end.
    async fn open(
        &self,
        caller: &Caller,
        slot: &SocketSlot,
        from: SocketAddr,
        to: SocketAddr,
        target: &Target,
        service: Option<&Arc<ServiceFlows>>,
    ) -> Result<Carrier, Miss> {
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
                let handler = remote.open(from, to).await?;
                Ok(self.hand_pair(handler.as_ref(), slot, from, to)?)
            }
            Target::Outside => {
                let stream = tokio::net::TcpStream::connect(to)
                    .await
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

    /// The endpoints that a connect to `to` may end at, in order; none only if a Service has none.
    pub(crate) fn routes(
        &self,
        caller: &Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<Routes, NetError> {
        if to.ip().is_loopback()
            && let Some(own) = &caller.namespace
        {
            // What listens in the pod is nearer than what listens on the host.
            let is_host = own.is_on_host() && !own.has_taker(to, protocol);
            let target = match is_host {
                true => Target::Outside,
                false => Target::Pod(own.clone()),
            };
            return Ok(Routes::to(to, target));
        }
        if let Some(target) = self.inside(to, protocol) {
            return Ok(Routes::to(to, target));
        }
        let router = self.router();
        let from = caller.address_towards(to.ip()).unwrap_or(caller.address);
        let (route, service) = router.route_counted(from, to, protocol);
        let mut routes = Routes {
            ends: Vec::new(),
            failure: NetError::ConnectionRefused(to),
            refused: RefusedFlow::NoEndpoints,
            service,
        };
        match route {
            Route::NotAService => {
                return Ok(Routes::to(to, self.target(caller, to, protocol)?));
            }
            Route::Refuse => {}
            Route::NoPort => routes.refused = RefusedFlow::NoPort,
            Route::Deny { reason } => {
                routes.failure = NetError::Denied {
                    address: to.ip(),
                    reason,
                }
            }
            Route::Endpoints(endpoints) => {
                routes.refused = RefusedFlow::Endpoints;
                routes.ends.reserve(endpoints.len());
                for endpoint in endpoints.into_iter().map(canonical) {
                    match self.target(caller, endpoint, protocol) {
                        Ok(target) => routes.ends.push((endpoint, target)),
                        Err(error) => routes.failure = error,
                    }
                }
            }
        }
        Ok(routes)
    }

    /// Who answers at an address that is not a Service's. A Service's endpoints may have been
    /// written by anyone, so loopback and the host are closed to them like to any other dial.
    pub(crate) fn target(
        &self,
        caller: &Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<Target, NetError> {
        if let Some(target) = self.inside(to, protocol) {
            return Ok(target);
        }
        let ip = to.ip();
        let remote = self.remote.read().clone();
        if remote.reaches(ip) {
            return Ok(Target::Remote(remote));
        }
        if self.node_addresses().any(|node| node == ip) {
            return Err(NetError::ConnectionRefused(to));
        }
        let mut ranges = self
            .config
            .pod_ranges
            .iter()
            .chain(&self.config.service_ranges);
        if ranges.any(|range| range.contains(&ip)) {
            return Err(NetError::HostUnreachable(to));
        }
        let exempt = match &caller.namespace {
            Some(namespace) if namespace.is_on_host() => return Ok(Target::Outside),
            Some(namespace) => namespace.exempt(),
            None => &[],
        };
        self.config.egress.check(ip, exempt)?;
        Ok(Target::Outside)
    }

    /// Pods and handlers of this node.
    fn inside(&self, to: SocketAddr, protocol: Protocol) -> Option<Target> {
        if let Some(namespace) = self.namespaces.read().get(&to.ip()) {
            return Some(Target::Pod(namespace.clone()));
        }
        match protocol {
            Protocol::Tcp => self.handlers.read().get(&to).cloned().map(Target::Handler),
            Protocol::Udp => self
                .datagrams
                .read()
                .get(&to)
                .cloned()
                .map(Target::Datagrams),
        }
    }

    /// The caller is asked about by its address of the family of `to`, so that one that dials itself is seen to.
    pub(crate) fn may_connect(
        &self,
        caller: &Caller,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<(), NetError> {
        let from = caller.address_towards(to.ip()).unwrap_or(caller.address);
        let verdict = self.policy.read().on_connect(from, to, protocol);
        judge(verdict, to)
    }

    pub(crate) fn may_accept(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<(), NetError> {
        let verdict = self.policy.read().on_accept(from, to, protocol);
        judge(verdict, to)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who decides which connections may be.
    pub fn policy(&self) -> Arc<dyn ConnectionPolicy> {
        self.policy.read().clone()
    }

    /// Who knows the Services, for whoever wants to know where an address leads.
    pub fn router(&self) -> Arc<dyn ServiceRouter> {
        self.router.read().clone()
    }

    /// Who knows the names, for whoever puts itself before them.
    pub fn resolver(&self) -> Arc<dyn Resolver> {
        self.resolver.read().clone()
    }

    /// Frees the address of a namespace, unless another one holds it by now.
    pub(crate) fn remove(&self, namespace: &Arc<NetworkNamespace>) {
        let mut namespaces = self.namespaces.write();
        for address in namespace.addresses() {
            let held = namespaces.get(&address);
            if held.is_some_and(|held| Arc::ptr_eq(held, namespace)) {
                namespaces.remove(&address);
            }
        }
    }

    /// Takes a UDP port of the node that nobody holds.
    pub(crate) fn claim_node_udp(
        &self,
        handler: Arc<dyn DatagramHandler>,
        towards: IpAddr,
    ) -> Result<SocketAddr, NetError> {
        let mut datagrams = self.datagrams.write();
        for _ in EPHEMERAL {
            let address = self.node_source(towards);
            if let std::collections::hash_map::Entry::Vacant(free) = datagrams.entry(address) {
                free.insert(handler);
                return Ok(address);
            }
        }
        Err(NetError::AddressInUse(SocketAddr::new(
            self.config.node_address,
            0,
        )))
    }

    /// The node as the one who opens a connection.
    pub(crate) fn node_caller(&self) -> Caller {
        Caller {
            address: self.config.node_address,
            second_address: self.config.second_node_address,
            namespace: None,
        }
    }

    /// An address for a connection that the node opens. Nothing ever connects to it, so ports may
    /// repeat.
    fn node_source(&self, towards: IpAddr) -> SocketAddr {
        let offset = self.next_node_port.fetch_add(1, Ordering::Relaxed);
        let range = EPHEMERAL.end() - EPHEMERAL.start() + 1;
        let own = self.node_caller().address_towards(towards);
        let own = own.unwrap_or(self.config.node_address);
        SocketAddr::new(own, EPHEMERAL.start() + offset % range)
    }
}

/// Whether the caller is the pod itself, whose own connections no policy concerns.
pub(crate) fn is_same(caller: &Caller, namespace: &Arc<NetworkNamespace>) -> bool {
    caller
        .namespace
        .as_ref()
        .is_some_and(|own| Arc::ptr_eq(own, namespace))
}

fn judge(verdict: Verdict, to: SocketAddr) -> Result<(), NetError> {
    match verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny { reason } => Err(NetError::Denied {
            address: to.ip(),
            reason,
        }),
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

//! A pod's network namespace: the value that a pause container stands for elsewhere.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use coracle_clock::Clock;
use parking_lot::Mutex;

use crate::account::{Account, Limits, PodAccount, SocketSlot, Traffic};
use crate::error::{NetError, ResolveError};
use crate::fabric::{Caller, Fabric};
use crate::flows::{SocketState, SocketStatus};
use crate::listener::{Backlog, TcpListener};
use crate::names::{DnsConfig, Hosts, NamespaceView, normalise, own_names};
use crate::ports::PortTable;
use crate::route::Protocol;
use crate::socket::TcpSocket;
use crate::stream::{Path, TcpStream};
use crate::udp::{Inbox, UdpSocket};

/// What a namespace is made of.
#[derive(Clone, Debug)]
pub struct NamespaceConfig {
    /// `namespace/name` of the pod, for messages and for the resolver.
    pub pod: String,
    /// The pod's address, which the caller allocated.
    pub address: IpAddr,
    /// Its address of the other family, if the cluster has both.
    pub second_address: Option<IpAddr>,
    /// Its sockets reach what those of the host's own programs reach: the host's loopback and addresses too.
    pub host_network: bool,
    /// The name that the pod knows itself by.
    pub hostname: String,
    /// That name with its domain, if it has one.
    pub full_name: Option<String>,
    /// Further lines of the hosts file. Outside addresses named here may be dialled even if they
    /// are link-local or the host's own.
    pub host_aliases: Vec<(IpAddr, Vec<String>)>,
    /// How names are looked up.
    pub dns: DnsConfig,
    /// Bounds of the pod's sockets.
    pub limits: Limits,
}

impl NamespaceConfig {
    /// A namespace with nothing but an address and a name.
    pub fn new(pod: impl Into<String>, address: IpAddr, hostname: impl Into<String>) -> Self {
        Self {
            pod: pod.into(),
            address,
            second_address: None,
            host_network: false,
            hostname: hostname.into(),
            full_name: None,
            host_aliases: Vec::new(),
            dns: DnsConfig::default(),
            limits: Limits::default(),
        }
    }
}

/// One pod's addresses, ports and names. Made by [`Fabric::create_namespace`] before the first
/// container; it outlives restarts of containers and ends with [`close`](Self::close).
pub struct NetworkNamespace {
    pod: String,
    address: IpAddr,
    second_address: Option<IpAddr>,
    host_network: bool,
    hosts: Hosts,
    exempt: Vec<IpAddr>,
    dns: DnsConfig,
    fabric: Weak<Fabric>,
    tcp: Mutex<PortTable<Holder>>,
    udp: Mutex<PortTable<Arc<Inbox>>>,
    account: Arc<PodAccount>,
    clock: Clock,
    /// Pays for the node's end of connections that the node opens into the pod's loopback: they are none of the pod's doing.
    visitors: Arc<Account>,
    closed: AtomicBool,
}

/// A port that a socket of the pod holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortInUse {
    /// TCP, else UDP.
    pub tcp: bool,
    /// A TCP socket that listens, else one that is bound or connected.
    pub listening: bool,
    /// Where it is bound.
    pub address: SocketAddr,
}

/// Who holds a TCP port.
enum Holder {
    /// A bound socket that does not listen, or an outgoing connection.
    Bound,
    Listening(Arc<Backlog>),
}

impl NetworkNamespace {
    pub(crate) fn new(config: NamespaceConfig, fabric: &Arc<Fabric>) -> Arc<Self> {
        let account = PodAccount::new(config.limits);
        let clock = fabric.clock();
        let exempt = config
            .host_aliases
            .iter()
            .map(|(ip, _)| ip.to_canonical())
            .collect();
        Arc::new(Self {
            pod: config.pod,
            address: config.address,
            second_address: config.second_address,
            host_network: config.host_network,
            hosts: Hosts::new(
                [Some(config.address), config.second_address]
                    .into_iter()
                    .flatten()
                    .collect(),
                own_names(config.hostname, config.full_name),
                config.host_aliases,
            ),
            exempt,
            dns: config.dns,
            fabric: Arc::downgrade(fabric),
            tcp: Mutex::new(PortTable::new(clock.random_u64())),
            udp: Mutex::new(PortTable::new(clock.random_u64())),
            visitors: Account::new(PodAccount::new(config.limits), clock.clone()),
            clock: clock.clone(),
            account,
            closed: AtomicBool::new(false),
        })
    }

    /// `namespace/name` of the pod.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The pod's address, of its first family if it has both.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// All addresses of the pod: one, or one of each family.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(self.address), self.second_address]
            .into_iter()
            .flatten()
    }

    /// Whether the pod has an IPv6 address, and so sockets of that family.
    pub fn has_ipv6(&self) -> bool {
        self.addresses().any(|address| address.is_ipv6())
    }

    /// How names are looked up.
    pub fn dns(&self) -> &DnsConfig {
        &self.dns
    }

    /// The text of `/etc/hosts`.
    pub fn hosts_file(&self) -> String {
        self.hosts.text()
    }

    /// The text of `/etc/resolv.conf`.
    pub fn resolv_conf(&self) -> String {
        self.dns.resolv_conf()
    }

    /// Traffic since the namespace was made.
    pub fn traffic(&self) -> Traffic {
        self.account.traffic()
    }

    /// Sockets that the pod has, connections waiting to be accepted included.
    pub fn sockets(&self) -> usize {
        self.account.sockets()
    }

    /// Bytes that arrived and were not read: what the pod's sockets cost the node.
    pub fn buffered_bytes(&self) -> usize {
        self.account.buffered() + self.visitors.pod.buffered()
    }

    /// Addresses that are listened on, in order.
    pub fn listening(&self) -> Vec<SocketAddr> {
        let table = self.tcp.lock();
        let listening = table
            .iter()
            .filter(|(_, held)| matches!(held, Holder::Listening(_)));
        let mut addresses: Vec<_> = listening.map(|(address, _)| address).collect();
        addresses.sort();
        addresses
    }

    /// All ports that are held, in order of protocol and address.
    pub fn ports(&self) -> Vec<PortInUse> {
        let tcp = self.tcp.lock();
        let tcp = tcp.iter().map(|(address, held)| PortInUse {
            tcp: true,
            listening: matches!(held, Holder::Listening(_)),
            address,
        });
        let mut ports: Vec<_> = tcp.collect();
        let udp = self.udp.lock();
        ports.extend(udp.iter().map(|(address, _)| PortInUse {
            tcp: false,
            listening: false,
            address,
        }));
        drop(udp);
        ports.sort_by_key(|port| (!port.tcp, port.address));
        ports
    }

    /// All sockets: listeners first, then by protocol and address.
    pub fn socket_table(&self) -> Vec<SocketStatus> {
        let mut sockets = self.account.flows.list();
        let connected: HashSet<u16> = sockets.iter().map(|flow| flow.local.port()).collect();
        let without_peer = |protocol, state, local, (receive_queue, send_queue)| SocketStatus {
            protocol,
            state,
            local,
            peer: None,
            received_bytes: 0,
            sent_bytes: 0,
            receive_queue,
            send_queue,
        };
        for (local, held) in self.tcp.lock().iter() {
            let (state, queues) = match held {
                Holder::Listening(backlog) => {
                    let (waiting, limit) = backlog.fill();
                    (SocketState::Listening, (waiting as u64, limit as u64))
                }
                // Held by an outgoing connection, which is on the list.
                Holder::Bound if connected.contains(&local.port()) => continue,
                Holder::Bound => (SocketState::Unconnected, (0, 0)),
            };
            sockets.push(without_peer(Protocol::Tcp, state, local, queues));
        }
        for (local, inbox) in self.udp.lock().iter() {
            let queues = (inbox.waiting() as u64, 0);
            sockets.push(without_peer(
                Protocol::Udp,
                SocketState::Unconnected,
                local,
                queues,
            ));
        }
        sockets.sort_by_key(|socket| {
            let listens = socket.state == SocketState::Listening;
            let is_udp = socket.protocol == Protocol::Udp;
            (!listens, is_udp, socket.local, socket.peer)
        });
        sockets
    }

    /// Whether its sockets reach what the host's own do.
    pub(crate) fn is_on_host(&self) -> bool {
        self.host_network
    }

    /// Whether somebody takes what is sent to `to`, an address of the pod.
    pub(crate) fn has_taker(&self, to: SocketAddr, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Tcp => self.backlog(to).is_some(),
            Protocol::Udp => self.inbox(to).is_some(),
        }
    }

    /// Whether a connect to `port` of an address of the pod would find a listener.
    pub fn is_listening(&self, port: u16) -> bool {
        self.addresses()
            .any(|address| self.backlog(SocketAddr::new(address, port)).is_some())
    }

    /// A view for one container: its sockets are counted together, and can be stopped together.
    pub fn scope(self: &Arc<Self>) -> SocketScope {
        SocketScope {
            account: Account::new(self.account.clone(), self.clock.clone()),
            listeners: Arc::default(),
            namespace: self.clone(),
        }
    }

    /// Connects to `port` as a process of the pod would connect to `localhost`; listeners on the
    /// pod's addresses are found too. Of the pod's connections it counts as one that is accepted, or refused.
    pub async fn dial_loopback(self: &Arc<Self>, port: u16) -> Result<TcpStream, NetError> {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut all = loopback.into_iter().chain(self.addresses());
        let to = all.find(|ip| self.backlog(SocketAddr::new(*ip, port)).is_some());
        let to = SocketAddr::new(to.unwrap_or(self.address), port);
        let fabric = self.fabric()?;
        fabric
            .connect(&self.caller(), self.visitors.take_slot()?, None, to)
            .await
    }

    /// Connects from the node to `port` of the pod's address, as others do.
    pub async fn dial(&self, port: u16) -> Result<TcpStream, NetError> {
        let to = SocketAddr::new(self.address, port);
        self.fabric()?.dial(to).await
    }

    /// The addresses of `name`: an address, the hosts file, or what the resolver says to the
    /// candidates that the search suffixes give.
    pub async fn lookup(self: &Arc<Self>, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let name = normalise(name)?;
        let known = self.hosts.lookup(&name);
        if !known.is_empty() {
            return Ok(known);
        }
        let Some(fabric) = self.fabric.upgrade() else {
            return Err(ResolveError::Failed(name));
        };
        let resolver = fabric.resolver();
        let view = NamespaceView {
            pod: &self.pod,
            address: self.address,
            dns: &self.dns,
            namespace: self,
        };
        let mut failure = ResolveError::NotFound(name.clone());
        for candidate in self.dns.candidates(&name) {
            match resolver.lookup(view, &candidate).await {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) | Err(ResolveError::NotFound(_)) => {}
                // As in resolv.conf(5), a server that fails does not end the search, but the
                // failure shows if nothing else is found.
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Ends the namespace: its address is free, its listeners are closed, no socket can be made.
    /// Connections end when their holders drop them.
    pub fn close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        if let Some(fabric) = self.fabric.upgrade() {
            fabric.remove(self);
        }
        let backlogs: Vec<_> = {
            let table = self.tcp.lock();
            let listening = table.iter().filter_map(|(_, held)| match held {
                Holder::Listening(backlog) => Some(backlog.clone()),
                Holder::Bound => None,
            });
            listening.collect()
        };
        for backlog in backlogs {
            backlog.close();
        }
    }

    pub(crate) fn fabric(&self) -> Result<Arc<Fabric>, NetError> {
        self.check_open()?;
        self.fabric.upgrade().ok_or(NetError::Closed)
    }

    /// This pod as the one who opens a connection.
    pub(crate) fn caller(self: &Arc<Self>) -> Caller {
        Caller {
            address: self.address,
            second_address: self.second_address,
            namespace: Some(self.clone()),
        }
    }

    pub(crate) fn exempt(&self) -> &[IpAddr] {
        &self.exempt
    }

    pub(crate) fn account(&self) -> &Arc<PodAccount> {
        &self.account
    }

    /// The listener that a connect to `to` finds.
    pub(crate) fn backlog(&self, to: SocketAddr) -> Option<Arc<Backlog>> {
        match self.tcp.lock().find(to)? {
            Holder::Listening(backlog) => Some(backlog.clone()),
            Holder::Bound => None,
        }
    }

    /// The socket that a datagram for `to` is for.
    pub(crate) fn inbox(&self, to: SocketAddr) -> Option<Arc<Inbox>> {
        self.udp.lock().find(to).cloned()
    }

    pub(crate) fn bind_tcp(self: &Arc<Self>, address: SocketAddr) -> Result<BoundPort, NetError> {
        self.check_bindable(address)?;
        let address = self.tcp.lock().claim(address, Holder::Bound)?;
        Ok(BoundPort {
            namespace: self.clone(),
            protocol: Protocol::Tcp,
            address,
        })
    }

    pub(crate) fn bind_udp(
        self: &Arc<Self>,
        address: SocketAddr,
    ) -> Result<(BoundPort, Arc<Inbox>), NetError> {
        self.check_bindable(address)?;
        let inbox = Inbox::new(self.account.clone());
        let address = self.udp.lock().claim(address, inbox.clone())?;
        Ok((
            BoundPort {
                namespace: self.clone(),
                protocol: Protocol::Udp,
                address,
            },
            inbox,
        ))
    }

    /// Connects to a bound port find the backlog from now on.
    fn serve(&self, port: &BoundPort, backlog: &Arc<Backlog>) {
        let mut table = self.tcp.lock();
        let holder = table
            .get_mut(port.address)
            .expect("a bound port is in the table");
        *holder = Holder::Listening(backlog.clone());
    }

    fn check_bindable(&self, address: SocketAddr) -> Result<(), NetError> {
        self.check_open()?;
        let ip = address.ip();
        let special = ip.is_unspecified() || ip.is_loopback();
        let own =
            self.addresses().any(|own| own == ip) || (special && (ip.is_ipv4() || self.has_ipv6()));
        if own {
            Ok(())
        } else {
            Err(NetError::AddressNotBindable(address))
        }
    }

    fn check_open(&self) -> Result<(), NetError> {
        if self.closed.load(Ordering::Acquire) {
            Err(NetError::Closed)
        } else {
            Ok(())
        }
    }
}

impl std::fmt::Debug for NetworkNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetworkNamespace({} {})", self.pod, self.address)
    }
}

/// One container's door to its pod's namespace. Clones are the same scope.
#[derive(Clone)]
pub struct SocketScope {
    namespace: Arc<NetworkNamespace>,
    account: Arc<Account>,
    listeners: Arc<Mutex<Vec<Weak<Backlog>>>>,
}

impl SocketScope {
    /// The pod's namespace.
    pub fn namespace(&self) -> &Arc<NetworkNamespace> {
        &self.namespace
    }

    /// A new TCP socket, or [`NetError::SocketLimit`].
    pub fn tcp_socket(&self) -> Result<TcpSocket, NetError> {
        self.namespace.check_open()?;
        Ok(TcpSocket::new(self.clone(), self.account.take_slot()?))
    }

    /// A new TCP socket that listens on `address`.
    pub fn listen_tcp(&self, address: SocketAddr, backlog: usize) -> Result<TcpListener, NetError> {
        let mut socket = self.tcp_socket()?;
        socket.bind(address)?;
        socket.listen(backlog)
    }

    /// A new TCP socket that listens on a port of all addresses of the pod, of both families if it has them.
    pub fn listen_tcp_anywhere(&self, port: u16, backlog: usize) -> Result<TcpListener, NetError> {
        let listener = self.listen_tcp((Ipv4Addr::UNSPECIFIED, port).into(), backlog)?;
        if !self.namespace.has_ipv6() {
            return Ok(listener);
        }
        let port = listener.local_addr().port();
        let second = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let second = self.namespace.bind_tcp(second)?;
        self.namespace.serve(&second, listener.backlog());
        Ok(listener.also_at(second))
    }

    /// A new TCP connection to `to`.
    pub async fn connect_tcp(&self, to: SocketAddr) -> Result<TcpStream, NetError> {
        self.tcp_socket()?.connect(to).await
    }

    /// Whether a connection of the pod's could be opened now as it was: its Service still has the endpoint, and policies let it
    /// through. For whoever uses connections again instead of opening others.
    pub fn could_connect(&self, path: &Path) -> bool {
        let fabric = self.namespace.fabric();
        fabric.is_ok_and(|fabric| fabric.could_connect(&self.namespace.caller(), path))
    }

    /// A place below the pod's socket limit for something that is about to become a socket.
    pub fn permit(&self) -> Result<SocketPermit, NetError> {
        Ok(SocketPermit(self.account.take_slot()?))
    }

    /// A new UDP socket bound to `address`.
    pub fn bind_udp(&self, address: SocketAddr) -> Result<UdpSocket, NetError> {
        self.bind_udp_with(self.permit()?, address)
    }

    /// A new UDP socket bound to `address`, in a place that was taken before.
    pub fn bind_udp_with(
        &self,
        permit: SocketPermit,
        address: SocketAddr,
    ) -> Result<UdpSocket, NetError> {
        let slot = permit.0;
        let (port, inbox) = self.namespace.bind_udp(address)?;
        Ok(UdpSocket::new(self.namespace.clone(), slot, port, inbox))
    }

    /// The addresses of `name`; see [`NetworkNamespace::lookup`].
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.namespace.lookup(name).await
    }

    /// Connections of this container that are open, accepted or not.
    pub fn open_connections(&self) -> usize {
        self.account.connections()
    }

    /// Those of them that were let in, and of which no byte was read yet.
    pub fn silent_connections(&self) -> usize {
        self.account.silent()
    }

    /// How often bytes were moved on the sockets of this container, received or sent: whoever looks twice knows
    /// whether they were quiet.
    pub fn moves(&self) -> u64 {
        self.account.moves()
    }

    /// Refuses new connections from now on; those that wait can still be accepted, and a guest in
    /// `accept` goes on waiting. The first step of termination.
    pub fn stop_listening(&self) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.stop();
        }
    }

    pub(crate) fn listen(
        &self,
        port: BoundPort,
        slot: SocketSlot,
        backlog: usize,
    ) -> Result<TcpListener, NetError> {
        let backlog = Backlog::new(self.account.clone(), backlog);
        self.namespace.serve(&port, &backlog);
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&backlog));
        Ok(TcpListener::new(backlog, port, slot))
    }
}

/// A place below the pod's socket limit; given back when dropped.
pub struct SocketPermit(SocketSlot);

/// An address held in a port table; given back when dropped.
pub(crate) struct BoundPort {
    namespace: Arc<NetworkNamespace>,
    protocol: Protocol,
    address: SocketAddr,
}

impl BoundPort {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for BoundPort {
    fn drop(&mut self) {
        match self.protocol {
            Protocol::Tcp => self.namespace.tcp.lock().release(self.address),
            Protocol::Udp => self.namespace.udp.lock().release(self.address),
        }
    }
}

/// The address that the other side sees of a socket of `caller` bound to `bound` when it talks to `to`.
pub(crate) fn source_address(
    bound: SocketAddr,
    caller: &Caller,
    to: SocketAddr,
) -> Result<SocketAddr, NetError> {
    let of_family = caller.address_towards(to.ip());
    // A caller of one family alone may talk to the other one outside: its sockets there are the host's.
    if of_family.is_some() && bound.is_ipv4() != to.is_ipv4() {
        return Err(NetError::InvalidArgument(
            "the socket and the remote address are of different families",
        ));
    }
    let own = of_family.unwrap_or(caller.address);
    let ip = match bound.ip() {
        ip if ip.is_unspecified() && to.ip().is_loopback() => to.ip(),
        ip if ip.is_unspecified() => own,
        ip if ip.is_loopback() && !(to.ip().is_loopback() || to.ip() == own) => {
            return Err(NetError::HostUnreachable(to));
        }
        ip => ip,
    };
    Ok(SocketAddr::new(ip, bound.port()))
}

/// A message to a UDP socket of the pod; lost when its queue is full. False when nobody is there.
pub(crate) fn deliver_datagram(
    namespace: &NetworkNamespace,
    from: SocketAddr,
    to: SocketAddr,
    data: Bytes,
) -> bool {
    let inbox = namespace.inbox(to);
    if let Some(inbox) = &inbox {
        inbox.deliver(data, from);
    }
    inbox.is_some()
}

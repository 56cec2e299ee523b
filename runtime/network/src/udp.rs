//! UDP as message queues: bounded, and lossy past the bound.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use socket2::SockRef;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::account::{PodAccount, SocketSlot};
use crate::error::NetError;
use crate::fabric::{Caller, Fabric, Target, is_same};
use crate::namespace::{BoundPort, NetworkNamespace, deliver_datagram, source_address};
use crate::route::{DatagramHandler, Protocol};
use crate::service_flows::ServiceFlows;
use crate::socket::canonical;
use crate::wakers::Wakers;

/// The longest message that fits into a UDP datagram over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;

/// Bytes waiting on one socket; more are lost.
const QUEUE_BYTES: usize = 512 * 1024;
/// Peers that a socket remembers: Services that it talks to, and addresses outside.
const FLOWS: usize = 256;
/// A Service keeps the endpoint that it was given while messages go there at least this often.
const FLOW_LIFE: Duration = Duration::from_secs(60);

/// Errors in a row after which a host socket is taken for broken.
const RECEIVE_ERRORS: usize = 64;

/// A message and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its bytes.
    pub data: Bytes,
    /// The sender; a Service's address if the socket sent to that Service.
    pub from: SocketAddr,
}

/// The receiving side of a socket, as the port table holds it.
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    account: Arc<PodAccount>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Datagram>,
    bytes: usize,
    /// The peer of this connected socket whose port nobody holds.
    refused: Option<SocketAddr>,
    readers: Wakers,
}

impl Inbox {
    pub(crate) fn new(account: Arc<PodAccount>) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            account,
        })
    }

    /// Queues a message, or loses it when the queue is full.
    pub(crate) fn deliver(&self, data: Bytes, from: SocketAddr) {
        let limits = &self.account.limits;
        let mut queue = self.queue.lock();
        let full = queue.messages.len() >= limits.datagrams
            || queue.bytes + data.len() > QUEUE_BYTES
            || self.account.buffered() >= limits.buffered_bytes;
        if full {
            self.account.count_dropped();
            return;
        }
        queue.bytes += data.len();
        self.account.charge(data.len());
        queue.messages.push_back(Datagram { data, from });
        let readers = queue.readers.take();
        drop(queue);
        readers.wake();
    }
}

impl Inbox {
    /// Somebody said that the port of the peer is nobody's.
    fn refuse(&self, peer: SocketAddr) {
        let mut queue = self.queue.lock();
        queue.refused = Some(peer);
        let readers = queue.readers.take();
        drop(queue);
        readers.wake();
    }

    /// Bytes that wait to be received.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().bytes
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.account.release(self.queue.get_mut().bytes);
    }
}

/// A bound UDP socket. Clones are handles of the same socket.
#[derive(Clone)]
pub struct UdpSocket(Arc<End>);

struct End {
    namespace: Arc<NetworkNamespace>,
    slot: SocketSlot,
    port: BoundPort,
    inbox: Arc<Inbox>,
    flows: Mutex<Flows>,
    outside: Mutex<Outside>,
}

/// Who takes messages that come back: a socket of a pod, or a handler of this process.
#[derive(Clone)]
pub(crate) enum Taker {
    Inbox(Weak<Inbox>),
    Handler(Weak<dyn DatagramHandler>),
}

impl Taker {
    /// False once it is gone.
    fn take(&self, data: Bytes, from: SocketAddr) -> bool {
        match self {
            Self::Inbox(inbox) => match inbox.upgrade() {
                Some(inbox) => inbox.deliver(data, from),
                None => return false,
            },
            Self::Handler(handler) => match handler.upgrade() {
                Some(handler) => handler.handle(data, from, DatagramReply::nowhere()),
                None => return false,
            },
        }
        true
    }
}

/// The way back to whoever sent a message to a handler of this process.
pub struct DatagramReply {
    to: Taker,
    from: SocketAddr,
}

impl DatagramReply {
    pub(crate) fn new(to: Taker, from: SocketAddr) -> Self {
        Self { to, from }
    }

    /// Of a message that is an answer itself.
    fn nowhere() -> Self {
        let from = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Self::new(Taker::Inbox(Weak::new()), from)
    }

    /// Sends one message back; lost when who sent has gone or its queue is full.
    pub fn send(&self, data: Bytes) {
        self.to.take(data, self.from);
    }
}

/// Which endpoint stands for which Service, so that replies come from the address that was
/// written to.
#[derive(Default)]
struct Flows {
    by_service: HashMap<SocketAddr, Flow>,
    by_endpoint: HashMap<SocketAddr, SocketAddr>,
}

struct Flow {
    endpoint: SocketAddr,
    last_used: Duration,
    /// The Service that counts what comes back.
    counted: Option<Arc<ServiceFlows>>,
}

/// Host sockets for the outside, one per address family, made when first needed.
#[derive(Default)]
pub(crate) struct Outside {
    v4: Option<HostUdp>,
    v6: Option<HostUdp>,
}

struct HostUdp {
    socket: Arc<tokio::net::UdpSocket>,
    /// Only those who were written to may write back.
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    receiver: AbortHandle,
}

impl Drop for HostUdp {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

impl UdpSocket {
    pub(crate) fn new(
        namespace: Arc<NetworkNamespace>,
        slot: SocketSlot,
        port: BoundPort,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self(Arc::new(End {
            namespace,
            slot,
            port,
            inbox,
            flows: Mutex::default(),
            outside: Mutex::default(),
        }))
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.port.address()
    }

    /// Sends one message without waiting. As with any UDP, success does not mean arrival.
    pub fn send_to(&self, data: Bytes, to: SocketAddr) -> Result<(), NetError> {
        self.send(data, to).map(drop)
    }

    /// As [`send_to`](Self::send_to), for a socket that is connected to `peer`: that nobody holds
    /// the peer's port inside the cluster is told by the next call, as an ICMP message would.
    pub fn send_connected(&self, data: Bytes, peer: SocketAddr) -> Result<(), NetError> {
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        if !self.send(data, peer)? {
            self.0.inbox.refuse(peer);
        }
        Ok(())
    }

    /// That the peer refused a message, if nobody was told of it yet.
    pub fn take_error(&self) -> Option<NetError> {
        let refused = self.0.inbox.queue.lock().refused.take();
        refused.map(NetError::ConnectionRefused)
    }

    /// Sends one message; false when nobody is there to take it.
    fn send(&self, data: Bytes, to: SocketAddr) -> Result<bool, NetError> {
        let to = canonical(to);
        if to.port() == 0 || to.ip().is_unspecified() {
            return Err(NetError::InvalidArgument(
                "the remote address is incomplete",
            ));
        }
        if data.len() > MAX_DATAGRAM {
            return Err(NetError::DatagramTooLarge(data.len()));
        }
        let end = &self.0;
        let fabric = end.namespace.fabric()?;
        let caller = end.namespace.caller();
        let from = source_address(end.port.address(), &caller, to)?;
        let (endpoint, target, service) = self.endpoint(&fabric, &caller, to)?;
        fabric.may_connect(&caller, endpoint, Protocol::Udp)?;
        let length = data.len();
        let mut taken = true;
        match target {
            Target::Pod(namespace) => {
                if !is_same(&caller, &namespace) {
                    fabric.may_accept(from.ip(), endpoint, Protocol::Udp)?;
                }
                taken = deliver_datagram(&namespace, from, endpoint, data);
            }
            Target::Outside => {
                let back = Taker::Inbox(Arc::downgrade(&end.inbox));
                let account = &end.inbox.account;
                end.outside.lock().send(&data, endpoint, &back, account)?;
            }
            Target::Datagrams(handler) => {
                let back = Taker::Inbox(Arc::downgrade(&end.inbox));
                handler.handle(data, from, DatagramReply::new(back, endpoint));
            }
            Target::Handler(_) | Target::Remote(_) => {
                return Err(NetError::HostUnreachable(to));
            }
        }
        end.slot.account.moved_out(length);
        if let Some(service) = service {
            service.datagram_received(length);
        }
        Ok(taken)
    }

    /// Who gets a message to `to`: of a Service the endpoint that its flow has, as long as that lasts and the Service has the
    /// endpoint, else the next one.
    fn endpoint(
        &self,
        fabric: &Fabric,
        caller: &Caller,
        to: SocketAddr,
    ) -> Result<(SocketAddr, Target, Option<Arc<ServiceFlows>>), NetError> {
        let now = fabric.clock().monotonic();
        let held = self.0.flows.lock().held(to, now);
        if let Some((endpoint, service)) = held
            && fabric.still_leads(caller, to, endpoint, Protocol::Udp)
            && let Ok(target) = fabric.target(caller, endpoint, Protocol::Udp)
        {
            return Ok((endpoint, target, service));
        }
        let routes = fabric.routes(caller, to, Protocol::Udp)?;
        let first = routes.ends.into_iter().next();
        let (endpoint, target) = first.ok_or(routes.failure)?;
        if endpoint != to {
            let flow = Flow {
                endpoint,
                last_used: now,
                counted: routes.service.clone(),
            };
            self.0.flows.lock().begin(to, flow);
        }
        Ok((endpoint, target, routes.service))
    }

    /// Takes the oldest message. Refusals are passed over, as for a socket without a peer.
    pub fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Datagram> {
        self.poll_take(cx, self.0.inbox.queue.lock())
    }

    /// Takes the peer's refusal, or the oldest message.
    pub fn poll_recv_connected(&self, cx: &mut Context<'_>) -> Poll<Result<Datagram, NetError>> {
        let mut queue = self.0.inbox.queue.lock();
        match queue.refused.take() {
            Some(peer) => Poll::Ready(Err(NetError::ConnectionRefused(peer))),
            None => self.poll_take(cx, queue).map(Ok),
        }
    }

    fn poll_take(&self, cx: &mut Context<'_>, mut queue: MutexGuard<'_, Queue>) -> Poll<Datagram> {
        let Some(mut message) = queue.messages.pop_front() else {
            queue.readers.park(cx.waker());
            return Poll::Pending;
        };
        queue.bytes -= message.data.len();
        drop(queue);
        self.0.inbox.account.release(message.data.len());
        self.0.slot.account.moved_in(message.data.len());
        let flows = self.0.flows.lock();
        if let Some(service) = flows.by_endpoint.get(&message.from) {
            message.from = *service;
            let flow = flows.by_service.get(service);
            if let Some(counted) = flow.and_then(|flow| flow.counted.as_ref()) {
                counted.datagram_sent(message.data.len());
            }
        }
        drop(flows);
        Poll::Ready(message)
    }

    /// Ready when a message or a refusal waits. Exact: never ready in vain.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.inbox.queue.lock();
        if queue.messages.is_empty() && queue.refused.is_none() {
            queue.readers.park(cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// As [`poll_readable`](Self::poll_readable), for a socket that is connected to `peer`: what
    /// others sent is thrown away.
    pub fn poll_readable_connected(&self, cx: &mut Context<'_>, peer: SocketAddr) -> Poll<()> {
        let mut queue = self.0.inbox.queue.lock();
        loop {
            if queue.refused.is_some() {
                return Poll::Ready(());
            }
            let Some(message) = queue.messages.front() else {
                queue.readers.park(cx.waker());
                return Poll::Pending;
            };
            let flows = self.0.flows.lock();
            if *flows
                .by_endpoint
                .get(&message.from)
                .unwrap_or(&message.from)
                == peer
            {
                return Poll::Ready(());
            }
            drop(flows);
            let length = message.data.len();
            queue.messages.pop_front();
            queue.bytes -= length;
            self.0.inbox.account.release(length);
        }
    }

    /// Waits for a message.
    pub async fn recv(&self) -> Datagram {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }
}

impl std::fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UdpSocket({})", self.local_addr())
    }
}

impl Outside {
    /// Sends one message; what `to` answers goes to `back`. A message that the host has no room for is lost, and counted.
    pub(crate) fn send(
        &mut self,
        data: &[u8],
        to: SocketAddr,
        back: &Taker,
        account: &PodAccount,
    ) -> Result<(), NetError> {
        let place = match to {
            SocketAddr::V4(_) => &mut self.v4,
            SocketAddr::V6(_) => &mut self.v6,
        };
        if place.is_none() {
            *place = Some(HostUdp::open(to, back.clone())?);
        }
        let host = place.as_ref().expect("opened just now");
        {
            let mut peers = host.peers.lock();
            if peers.len() >= FLOWS && !peers.contains(&to) {
                peers.clear();
            }
            peers.insert(to);
        }
        // Past tokio, which would not send before it has seen the new socket become writable.
        match SockRef::from(&*host.socket).send_to(data, &to.into()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                account.count_dropped();
                Ok(())
            }
            Err(error) => Err(NetError::from_host(&error, to)),
        }
    }
}

impl HostUdp {
    /// Opens a host socket whose messages go to `back`.
    fn open(to: SocketAddr, back: Taker) -> Result<Self, NetError> {
        let runtime = Handle::try_current()
            .map_err(|_| NetError::InvalidState("sending needs a tokio runtime"))?;
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))
            .and_then(|socket| {
                socket.set_nonblocking(true)?;
                tokio::net::UdpSocket::from_std(socket)
            })
            .map_err(|error| NetError::from_host(&error, to))?;
        let socket = Arc::new(socket);
        let peers: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
        let task = runtime.spawn(receive(socket.clone(), peers.clone(), back));
        Ok(Self {
            socket,
            peers,
            receiver: task.abort_handle(),
        })
    }
}

/// Brings messages from the outside in until the socket goes.
async fn receive(
    socket: Arc<tokio::net::UdpSocket>,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    back: Taker,
) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut errors = 0;
    while errors < RECEIVE_ERRORS {
        // Most errors are those of earlier sends (unreachable ports): UDP goes on.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            errors += 1;
            continue;
        };
        errors = 0;
        if !peers.lock().contains(&from) {
            continue;
        }
        if !back.take(Bytes::copy_from_slice(&buffer[..length]), from) {
            return;
        }
    }
}

impl Flows {
    /// The endpoint of the flow to `to` while it lasts, and who counts.
    fn held(
        &mut self,
        to: SocketAddr,
        now: Duration,
    ) -> Option<(SocketAddr, Option<Arc<ServiceFlows>>)> {
        let flow = self.by_service.get_mut(&to)?;
        if now.saturating_sub(flow.last_used) >= FLOW_LIFE {
            return None;
        }
        flow.last_used = now;
        Some((flow.endpoint, flow.counted.clone()))
    }

    /// Remembers the endpoint of a Service, in place of another.
    fn begin(&mut self, to: SocketAddr, flow: Flow) {
        self.forget(to);
        if self.by_service.len() >= FLOWS
            && let Some(oldest) = self
                .by_service
                .iter()
                .min_by_key(|(_, flow)| flow.last_used)
                .map(|(to, _)| *to)
        {
            self.forget(oldest);
        }
        self.by_endpoint.insert(flow.endpoint, to);
        self.by_service.insert(to, flow);
    }

    fn forget(&mut self, service: SocketAddr) {
        if let Some(flow) = self.by_service.remove(&service)
            && self.by_endpoint.get(&flow.endpoint) == Some(&service)
        {
            self.by_endpoint.remove(&flow.endpoint);
        }
    }
}

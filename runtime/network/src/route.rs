//! The questions that the fabric asks others: where Services lead, what policies allow.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::NetError;
use crate::service_flows::ServiceFlows;
use crate::stream::TcpStream;
use crate::udp::DatagramReply;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Where a Service's address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The address belongs to no Service.
    NotAService,
    /// It does, but nothing serves there: the connection is refused.
    Refuse,
    /// It does, but not with this port: the connection is refused.
    NoPort,
    /// It does, but the Service does not let this client in.
    Deny {
        /// Names the Service; shown to users.
        reason: String,
    },
    /// The addresses to try, in this order, until one does not refuse.
    Endpoints(Vec<SocketAddr>),
}

/// Knows the Services. Asked at every connect that leaves the pod and leads to no pod's own
/// address, so it must answer from memory.
pub trait ServiceRouter: Send + Sync + 'static {
    /// Where a connect from `from` (a pod, or the node itself) to `to` leads.
    fn route(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Route;

    /// The same, with who counts what comes of it.
    fn route_counted(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> (Route, Option<Arc<ServiceFlows>>) {
        (self.route(from, to, protocol), None)
    }

    /// Whether a connect from `from` to `to` may still end at `endpoint`, which an earlier one did.
    fn still_leads(
        &self,
        from: IpAddr,
        to: SocketAddr,
        endpoint: SocketAddr,
        protocol: Protocol,
    ) -> bool {
        match self.route(from, to, protocol) {
            Route::NotAService => to == endpoint,
            Route::Endpoints(all) => all.contains(&endpoint),
            Route::Refuse | Route::NoPort | Route::Deny { .. } => false,
        }
    }
}

/// A cluster without Services.
pub(crate) struct NoServices;

impl ServiceRouter for NoServices {
    fn route(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Route {
        Route::NotAService
    }
}

/// What a policy says of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Refuse, and tell why.
    Deny {
        /// Names the policy; shown to users.
        reason: String,
    },
}

/// Decides which connections may be; both questions must be answered from memory.
pub trait ConnectionPolicy: Send + Sync + 'static {
    /// May the pod at `from` connect to `to`? `to` is an endpoint, never a Service's address.
    fn on_connect(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Verdict;

    /// May the pod at `to` be reached from `from`? Connections from the node itself are not asked
    /// about, as in Kubernetes.
    fn on_accept(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Verdict;

    /// May the pod at `from` know of the absolute name (lower case, without the last dot)? Asked by whoever answers
    /// names in messages; lookups in process go through a [`Resolver`](crate::Resolver).
    fn on_question(&self, _from: IpAddr, _name: &str) -> Verdict {
        Verdict::Allow
    }

    /// The pod at `from` was told that the name stands for these addresses.
    fn on_answer(&self, _from: IpAddr, _name: &str, _addresses: &[IpAddr]) {}
}

/// The policy of a cluster without policies.
pub(crate) struct AllowAll;

impl ConnectionPolicy for AllowAll {
    fn on_connect(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Verdict {
        Verdict::Allow
    }

    fn on_accept(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Verdict {
        Verdict::Allow
    }
}

/// Serves connections inside this process, such as the API server at the node's address.
pub trait StreamHandler: Send + Sync + 'static {
    /// Takes one connection over. Must not block: spawn a task. The stream knows the real peer.
    fn handle(&self, stream: TcpStream);
}

impl<F: Fn(TcpStream) + Send + Sync + 'static> StreamHandler for F {
    fn handle(&self, stream: TcpStream) {
        self(stream);
    }
}

/// Answers datagrams inside this process, such as DNS at the node's address.
pub trait DatagramHandler: Send + Sync + 'static {
    /// Takes one message that `from` sent. Must not block: what takes time belongs into a task,
    /// which may use `reply` later.
    fn handle(&self, data: Bytes, from: SocketAddr, reply: DatagramReply);
}

/// The pods of other nodes.
#[async_trait]
pub trait RemoteNodes: Send + Sync + 'static {
    /// Whether another node holds `address`. Must answer from memory.
    fn reaches(&self, address: IpAddr) -> bool;

    /// Opens a connection to `to` for `from`; the handler is then given the near end.
    async fn open(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Arc<dyn StreamHandler>, NetError>;
}

/// A cluster of one node.
pub(crate) struct NoRemoteNodes;

#[async_trait]
impl RemoteNodes for NoRemoteNodes {
    fn reaches(&self, _address: IpAddr) -> bool {
        false
    }

    async fn open(
        &self,
        _from: SocketAddr,
        to: SocketAddr,
    ) -> Result<Arc<dyn StreamHandler>, NetError> {
        Err(NetError::HostUnreachable(to))
    }
}

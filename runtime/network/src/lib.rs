//! A pod's network without a kernel namespace: addresses, ports and sockets in user space.
//!
//! In Kubernetes the pause container holds the pod's network namespace. Here a
//! [`NetworkNamespace`] is a value: the sandbox makes it before the first container, every
//! container of the pod holds the same `Arc`, and it dies with the pod. The [`Fabric`] is the
//! node's switch: it maps the address of a connect to another namespace, to a Service's endpoints,
//! to a handler inside the process (the API server), to another node, or to the outside.
//!
//! ```text
//! guest ─▶ SocketScope ─▶ TcpSocket::connect ─▶ Fabric ─┬▶ NetworkNamespace's listener (memory)
//! (one per container)                                   ├▶ ServiceRouter ─▶ endpoints in turn
//!                                                       ├▶ StreamHandler (memory)
//! NodePort, Ingress ─▶ Fabric::deliver ─▶ listener      ├▶ RemoteNodes (later)
//! probes, proxies   ─▶ Fabric::dial                     └▶ EgressPolicy ─▶ host socket
//! ```
//!
//! A connection is a pair of bounded byte queues in memory or a host socket; both are one
//! [`TcpStream`]. Memory connections obey tokio's paused clock.
//!
//! Deliberately absent: Kubernetes kinds (callers bring a [`ServiceRouter`], a [`Resolver`] and a
//! [`ConnectionPolicy`]), raw sockets, ICMP, multicast, and any listening socket of the host.

mod account;
mod egress;
mod error;
mod fabric;
mod flows;
mod host;
mod listener;
mod names;
mod namespace;
mod node_udp;
mod pipe;
mod ports;
mod route;
mod service_flows;
mod socket;
mod stream;
mod udp;
mod wakers;

#[cfg(test)]
mod tests;

pub use account::{Limits, Traffic};
pub use egress::{EgressPolicy, HostAddresses, ProbedHostAddresses};
pub use error::{NetError, ResolveError};
pub use fabric::{Fabric, FabricConfig};
pub use flows::{ACCEPT_WAITS, Connections, SocketState, SocketStatus};
pub use listener::TcpListener;
pub use names::{DnsConfig, NamespaceView, Resolver};
pub use namespace::{NamespaceConfig, NetworkNamespace, PortInUse, SocketPermit, SocketScope};
pub use node_udp::NodeUdp;
pub use route::{
    ConnectionPolicy, DatagramHandler, Protocol, RemoteNodes, Route, ServiceRouter, StreamHandler,
    Verdict,
};
pub use service_flows::{
    FlowLog, FlowOutcome, FlowRecord, RefusedFlow, ServiceFlows, ServiceTraffic,
};
pub use socket::TcpSocket;
pub use stream::{Path, ReadHalf, TcpStream, WriteHalf};
pub use udp::{Datagram, DatagramReply, MAX_DATAGRAM, UdpSocket};

//! Services: cluster addresses, names and node ports over the pod network.
//!
//! Sits between the cluster's objects and the [`Fabric`](coracle_network::Fabric). It reads
//! Services and EndpointSlices through the shared caches of [`coracle_client`], keeps one index of
//! them, and answers from it the two questions that the network asks: where does this address
//! lead, and which addresses has this name.
//!
//! ```text
//!   Services, EndpointSlices ──informers──▶ Index ◀──asks── Router     ◀── Fabric (connect)
//!                            (at once,       ▲  ▲──asks──── Names      ◀── Fabric (lookup)
//!                             no debounce)   └──follows──── node ports ──▶ Fabric::deliver
//! ```
//!
//! A change of an endpoint costs its own Service, and whoever asks next sees it. A connection gets
//! several endpoints in the order to be tried, so that one that died a moment ago costs a retry
//! inside the node instead of an error in the client.
//!
//! Deliberately absent: it writes no objects but Events (EndpointSlices are a controller's work),
//! copies no bytes (a node port's connection is handed to the pod), and knows no pods. To come,
//! each beside what stands: a DNS server over the wire (UDP and TCP, with SRV, PTR and the
//! difference between NXDOMAIN and NODATA) on top of `names`, LoadBalancer addresses and their
//! status beside `node_ports`, Ingress as a second kind of host listener, and NetworkPolicy as the
//! [`ConnectionPolicy`](coracle_network::ConnectionPolicy) of the fabric.

mod affinity;
#[cfg(test)]
mod fixtures;
mod index;
mod names;
mod node_ports;
mod router;
mod services;
mod upstream;

pub use services::{DialError, Services, ServicesConfig};

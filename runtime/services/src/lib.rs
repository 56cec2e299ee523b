//! Services: cluster addresses, names and node ports over the pod network.
//!
//! Sits between the cluster's objects and the [`Fabric`](coracle_network::Fabric). It reads
//! Services and EndpointSlices through the shared caches of [`coracle_client`], keeps one index of
//! them, and answers from it the two questions that the network asks: where does this address
//! lead, and which addresses has this name.
//!
//! ```text
//!   Services, slices, ──informers──▶ Index ◀──asks── Router  ◀── Fabric (connect)
//!   Namespaces, Node   (at once,      ▲  ▲──asks──── zone    ◀── lookups in process, DNS messages
//!                      no debounce)   └──follows──── exposed ──▶ Fabric::deliver
//! ```
//!
//! A change of an endpoint costs its own Service, and whoever asks next sees it. A connection gets
//! several endpoints in the order to be tried, so that one that died a moment ago costs a retry
//! inside the node instead of an error in the client.
//!
//! Deliberately absent: it writes no objects but Events and the addresses of load balancers, which
//! are this host's (EndpointSlices are a controller's work),
//! copies no bytes of connections (those from outside are handed to the pod), and knows of pods only the ports of the host
//! that they want.
//! What DNS looks like on the wire, and who else is asked, is [`coracle_dns`]'s business. To come:
//! Ingress as a second kind of host listener, and NetworkPolicy as the
//! [`ConnectionPolicy`](coracle_network::ConnectionPolicy) of the fabric.

mod access;
mod affinity;
mod balancers;
mod exposed;
#[cfg(test)]
mod fixtures;
mod index;
mod metrics;
mod names;
mod router;
mod services;
mod shown;
mod upstream;

pub use access::{ACCESS_LOG_ANNOTATION, AccessLog, AccessSink};
pub use services::{DialError, OpenPort, Services, ServicesConfig};

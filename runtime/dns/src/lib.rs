//! A DNS server over whatever knows the names: the wire, the forwarding and the cache.
//!
//! Stands between those who ask (guests over the pod network, programs of the host, lookups in
//! process) and two kinds of answers: a [`Zone`] that answers from memory, and name servers
//! elsewhere for all other names.
//!
//! ```text
//!   datagram, stream ──▶ Server::now ──▶ Zone::lookup ─── has the answer ──▶ reply
//!                             │              │ elsewhere
//!                             │            Cache ──────── has the answer ──▶ reply
//!                             │              │ miss
//!                        Server::later ──▶ Forwarder ──▶ stub domain's, or the host's name servers
//! ```
//!
//! What can be answered from memory is answered where it arrived, without a task. Everything that
//! waits is bounded: questions in flight, bytes in the cache, connections of a listener. Bytes from
//! anybody may be anything: what is no question gets FORMERR or silence, never a panic.
//!
//! Deliberately absent: Kubernetes (the zone is a trait), the pod network (its sockets call
//! [`Server::now`], or [`serve_stream`] on any byte stream), DNSSEC validation (records pass through), and
//! zone transfers. The message format is `hickory-proto`'s, and stays within one module; what nearly everybody asks is read and
//! answered by hand in another.

mod cache;
mod datagrams;
mod forward;
mod listen;
mod message;
mod metrics;
mod plain;
mod processors;
mod server;
#[cfg(test)]
mod tests;
mod upstreams;
mod zone;

pub use forward::{ForwardError, Forwarder};
pub use listen::{HostListeners, serve_stream, serve_stream_for};
pub use message::{LookupReply, address_query, read_addresses};
pub use metrics::Metrics;
pub use server::{Asker, LookupError, Now, Pending, Server, Via};
pub use upstreams::{DNS_PORT, Servers, UpstreamConfig};
pub use zone::{Data, Found, Kind, Lookup, Zone};

//! The sockets of guests: `wasi:sockets` 0.2 and 0.3 for components, file descriptors for WASI 0.1 modules,
//! all over the pod's `NetworkNamespace`.
//!
//! Nothing here knows a socket of the host. What a guest may have is decided by the
//! [`SocketScope`](coracle_network::SocketScope) of its container: limits, policies and names
//! included.

mod options;
pub(crate) mod p1;
pub(crate) mod p2;
#[cfg(feature = "p3")]
pub(crate) mod p3;

use std::net::{Ipv4Addr, SocketAddr};
use std::task::{Context, Waker};

/// For asking without waiting. Tasks that wait are woken by what they polled themselves.
pub(crate) fn without_waiting() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Whether a component's socket may be bound to the address. Only IPv4 sockets are made, so an IPv6 address is never of
/// the right family.
fn is_bindable(address: &SocketAddr) -> bool {
    let one = !address.ip().is_multicast() && address.ip() != Ipv4Addr::BROADCAST;
    address.is_ipv4() && one
}

/// Whether a component may want to reach the address: it is whole, and of the right family.
fn is_reachable(address: &SocketAddr) -> bool {
    address.is_ipv4() && !address.ip().is_unspecified() && address.port() != 0
}

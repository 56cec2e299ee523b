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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Waker};

/// For asking without waiting. Tasks that wait are woken by what they polled themselves.
pub(crate) fn without_waiting() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The family of a guest's socket. Sockets of IPv6 know IPv6 alone, and exist in pods that have an address of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// That of an address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    /// All addresses of the family, and no port.
    pub(crate) fn anywhere(self) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            Self::V6 => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        }
    }

    fn has(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self == Self::V4,
            // IPv4 in IPv6's clothes is neither.
            IpAddr::V6(v6) => self == Self::V6 && v6.to_ipv4_mapped().is_none(),
        }
    }

    /// Whether a socket may be bound to the address.
    fn is_bindable(self, address: &SocketAddr) -> bool {
        self.has(address.ip()) && is_one(address)
    }

    /// Whether a socket may want to connect to the address: it is whole, of the right family, and one machine's.
    fn is_connectable(self, address: &SocketAddr) -> bool {
        self.is_reachable(address) && is_one(address)
    }

    /// Whether a socket may want to send to the address: it is whole, and of the right family.
    fn is_reachable(self, address: &SocketAddr) -> bool {
        self.has(address.ip()) && !address.ip().is_unspecified() && address.port() != 0
    }
}

fn is_one(address: &SocketAddr) -> bool {
    !address.ip().is_multicast() && address.ip() != Ipv4Addr::BROADCAST
}

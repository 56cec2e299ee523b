//! The sockets of guests: `wasi:sockets` 0.2 for components, file descriptors for WASI 0.1 modules,
//! both over the pod's `NetworkNamespace`.
//!
//! Nothing here knows a socket of the host. What a guest may have is decided by the
//! [`SocketScope`](coracle_network::SocketScope) of its container: limits, policies and names
//! included.

pub(crate) mod p1;
pub(crate) mod p2;
#[cfg(feature = "p3")]
pub(crate) mod p3;

use std::task::{Context, Waker};

/// For asking without waiting. Tasks that wait are woken by what they polled themselves.
pub(crate) fn without_waiting() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

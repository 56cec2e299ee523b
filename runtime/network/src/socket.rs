//! A TCP socket before it listens or is connected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::account::SocketSlot;
use crate::error::NetError;
use crate::listener::TcpListener;
use crate::namespace::{BoundPort, SocketScope};
use crate::stream::TcpStream;

/// A socket that is free or bound. It becomes a [`TcpListener`] or a [`TcpStream`].
pub struct TcpSocket {
    scope: SocketScope,
    slot: SocketSlot,
    port: Option<BoundPort>,
}

impl TcpSocket {
    pub(crate) fn new(scope: SocketScope, slot: SocketSlot) -> Self {
        Self {
            scope,
            slot,
            port: None,
        }
    }

    /// Takes a local address: unspecified, loopback or the pod's own; port 0 takes the next free
    /// ephemeral port.
    pub fn bind(&mut self, address: SocketAddr) -> Result<(), NetError> {
        if self.port.is_some() {
            return Err(NetError::InvalidState("the socket is bound already"));
        }
        self.port = Some(self.scope.namespace().bind_tcp(address)?);
        Ok(())
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.port.as_ref().map(BoundPort::address)
    }

    /// Starts to listen; at most `backlog` connections wait to be accepted.
    pub fn listen(self, backlog: usize) -> Result<TcpListener, NetError> {
        let port = self
            .port
            .ok_or(NetError::InvalidState("the socket is not bound"))?;
        self.scope.listen(port, self.slot, backlog)
    }

    /// Connects; Services are resolved here, endpoint after endpoint is tried until one does not
    /// refuse. Dropping the future gives everything back.
    pub async fn connect(mut self, to: SocketAddr) -> Result<TcpStream, NetError> {
        let to = canonical(to);
        if to.port() == 0 || to.ip().is_unspecified() {
            return Err(NetError::InvalidArgument(
                "the remote address is incomplete",
            ));
        }
        if self.port.is_none() {
            let any = match to.is_ipv6() && self.scope.namespace().has_ipv6() {
                true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            };
            self.bind(SocketAddr::new(any, 0))?;
        }
        let port = self.port.take().expect("bound just now");
        let namespace = self.scope.namespace();
        let fabric = namespace.fabric()?;
        fabric
            .connect(&namespace.caller(), self.slot, Some(port), to)
            .await
    }
}

/// IPv4-mapped addresses are IPv4 addresses.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

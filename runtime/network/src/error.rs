//! What can go wrong on the pod network, in the words of a socket API.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// A failed socket operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Another socket of the pod holds the address, whichever container it belongs to.
    #[error("address {0} is in use")]
    AddressInUse(SocketAddr),
    /// The address is not one of the pod's.
    #[error("address {0} does not belong to this pod")]
    AddressNotBindable(SocketAddr),
    /// Nobody listens there, or a Service has no endpoint.
    #[error("{0} refused the connection")]
    ConnectionRefused(SocketAddr),
    /// The peer dropped the connection with data unread.
    #[error("connection reset by peer")]
    ConnectionReset,
    /// The peer, or this end, closed the direction that was written to.
    #[error("the connection is closed for writing")]
    BrokenPipe,
    /// Nobody holds the address.
    #[error("{0} is unreachable")]
    HostUnreachable(SocketAddr),
    /// The peer did not answer in time.
    #[error("connecting to {0} timed out")]
    TimedOut(SocketAddr),
    /// A policy forbids it; `reason` says which.
    #[error("{address} is closed to this pod: {reason}")]
    Denied {
        /// The address that was dialled, after resolution.
        address: IpAddr,
        /// Why.
        reason: String,
    },
    /// The pod has as many sockets as it may have.
    #[error("the pod has reached its limit of {0} sockets")]
    SocketLimit(usize),
    /// No ephemeral port is left.
    #[error("no ephemeral port is free")]
    PortsExhausted,
    /// The arguments make no sense.
    #[error("{0}")]
    InvalidArgument(&'static str),
    /// The socket is not in a state for this.
    #[error("{0}")]
    InvalidState(&'static str),
    /// The message does not fit into one datagram.
    #[error("a datagram of {0} bytes is too large")]
    DatagramTooLarge(usize),
    /// The namespace, or the fabric, has been closed.
    #[error("the network namespace is closed")]
    Closed,
    /// A socket of the host failed.
    #[error("{message}")]
    Host {
        /// The kind of the system's error.
        kind: io::ErrorKind,
        /// Its text.
        message: String,
    },
}

impl NetError {
    /// Translates an error of a host socket that was used for `address`.
    pub(crate) fn from_host(error: &io::Error, address: SocketAddr) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::ConnectionRefused(address),
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
                Self::HostUnreachable(address)
            }
            Kind::TimedOut => Self::TimedOut(address),
            _ => Self::from(error),
        }
    }
}

impl From<&io::Error> for NetError {
    fn from(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionReset | Kind::ConnectionAborted => Self::ConnectionReset,
            Kind::BrokenPipe | Kind::NotConnected => Self::BrokenPipe,
            kind => Self::Host {
                kind,
                message: error.to_string(),
            },
        }
    }
}

impl From<NetError> for io::Error {
    fn from(error: NetError) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            NetError::AddressInUse(_) | NetError::PortsExhausted => Kind::AddrInUse,
            NetError::AddressNotBindable(_) => Kind::AddrNotAvailable,
            NetError::ConnectionRefused(_) => Kind::ConnectionRefused,
            NetError::ConnectionReset => Kind::ConnectionReset,
            NetError::BrokenPipe => Kind::BrokenPipe,
            NetError::HostUnreachable(_) => Kind::HostUnreachable,
            NetError::TimedOut(_) => Kind::TimedOut,
            NetError::Denied { .. } => Kind::PermissionDenied,
            NetError::SocketLimit(_) => Kind::QuotaExceeded,
            NetError::InvalidArgument(_) | NetError::DatagramTooLarge(_) => Kind::InvalidInput,
            NetError::InvalidState(_) => Kind::InvalidInput,
            NetError::Closed => Kind::NotConnected,
            NetError::Host { kind, .. } => *kind,
        };
        Self::new(kind, error)
    }
}

/// A name that could not be turned into addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no such name, or it has no address.
    #[error("name {0} was not found")]
    NotFound(String),
    /// It may work later.
    #[error("name {0} cannot be resolved for the moment")]
    Again(String),
    /// The name servers failed for good.
    #[error("name {0} cannot be resolved")]
    Failed(String),
    /// Not something that could be a name.
    #[error("{0:?} is not a host name")]
    InvalidName(String),
}

//! Addresses and errors between the network and `wasi:sockets` 0.3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use coracle_network::{NetError, SocketScope};

use super::bindings::wasi::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use super::{SocketError, SocketResult};
use crate::sockets::Family;

/// The code by which a guest knows an error.
pub(super) fn error_code(error: &NetError) -> ErrorCode {
    use std::io::ErrorKind as Kind;
    match error {
        NetError::AddressInUse(_) | NetError::PortsExhausted => ErrorCode::AddressInUse,
        NetError::AddressNotBindable(_) => ErrorCode::AddressNotBindable,
        NetError::ConnectionRefused(_) => ErrorCode::ConnectionRefused,
        NetError::ConnectionReset => ErrorCode::ConnectionReset,
        NetError::BrokenPipe => ErrorCode::ConnectionBroken,
        NetError::Closed => ErrorCode::ConnectionAborted,
        NetError::HostUnreachable(_) => ErrorCode::RemoteUnreachable,
        NetError::TimedOut(_) => ErrorCode::Timeout,
        NetError::Denied { .. } => ErrorCode::AccessDenied,
        // 0.3 has no code for the limit of sockets.
        NetError::SocketLimit(_) => ErrorCode::OutOfMemory,
        NetError::InvalidArgument(_) => ErrorCode::InvalidArgument,
        NetError::InvalidState(_) => ErrorCode::InvalidState,
        NetError::DatagramTooLarge(_) => ErrorCode::DatagramTooLarge,
        NetError::Host {
            kind: Kind::PermissionDenied,
            ..
        } => ErrorCode::AccessDenied,
        NetError::Host {
            kind: Kind::OutOfMemory,
            ..
        } => ErrorCode::OutOfMemory,
        NetError::Host { .. } => ErrorCode::Other(Some(error.to_string())),
    }
}

pub(super) fn failed(error: NetError) -> SocketError {
    error_code(&error).into()
}

/// The family that a guest wants, if its pod has it.
pub(super) fn check_family(scope: &SocketScope, family: IpAddressFamily) -> SocketResult<Family> {
    match family {
        IpAddressFamily::Ipv4 => Ok(Family::V4),
        IpAddressFamily::Ipv6 if scope.namespace().has_ipv6() => Ok(Family::V6),
        IpAddressFamily::Ipv6 => Err(ErrorCode::NotSupported.into()),
    }
}

impl From<Family> for IpAddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ipv4,
            Family::V6 => Self::Ipv6,
        }
    }
}

/// An address to bind to.
pub(super) fn local(address: IpSocketAddress, family: Family) -> SocketResult<SocketAddr> {
    let address = Some(from_wasi(address)).filter(|address| family.is_bindable(address));
    address.ok_or(ErrorCode::InvalidArgument.into())
}

/// An address that a guest wants to connect to.
pub(super) fn connectable(address: IpSocketAddress, family: Family) -> SocketResult<SocketAddr> {
    let address = Some(from_wasi(address)).filter(|address| family.is_connectable(address));
    address.ok_or(ErrorCode::InvalidArgument.into())
}

/// An address that a guest wants to send to.
pub(super) fn remote(address: IpSocketAddress, family: Family) -> SocketResult<SocketAddr> {
    let address = Some(from_wasi(address)).filter(|address| family.is_reachable(address));
    address.ok_or(ErrorCode::InvalidArgument.into())
}

/// Where a socket is bound that its guest did not bind: anywhere, on any port.
pub(super) fn anywhere(family: Family) -> SocketAddr {
    let any = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(any, 0)
}

fn from_wasi(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(v4) => {
            let (a, b, c, d) = v4.address;
            SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), v4.port)
        }
        IpSocketAddress::Ipv6(v6) => {
            let (a, b, c, d, e, f, g, h) = v6.address;
            let ip = Ipv6Addr::new(a, b, c, d, e, f, g, h);
            SocketAddrV6::new(ip, v6.port, v6.flow_info, v6.scope_id).into()
        }
    }
}

pub(super) fn to_wasi(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(v4) => IpSocketAddress::Ipv4(Ipv4SocketAddress {
            port: v4.port(),
            address: v4.ip().octets().into(),
        }),
        SocketAddr::V6(v6) => IpSocketAddress::Ipv6(Ipv6SocketAddress {
            port: v6.port(),
            flow_info: v6.flowinfo(),
            scope_id: v6.scope_id(),
            address: v6.ip().segments().into(),
        }),
    }
}

pub(super) fn ip_to_wasi(address: IpAddr) -> IpAddress {
    match address {
        IpAddr::V4(v4) => IpAddress::Ipv4(v4.octets().into()),
        IpAddr::V6(v6) => IpAddress::Ipv6(v6.segments().into()),
    }
}

/// Options that are kept may not be zero.
pub(super) fn not_zero<N: PartialEq + Default>(value: N) -> SocketResult<N> {
    match value == N::default() {
        true => Err(ErrorCode::InvalidArgument.into()),
        false => Ok(value),
    }
}

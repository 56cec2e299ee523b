//! `wasi:sockets` 0.2 on the pod network.
//!
//! wasmtime-wasi has no seam for another network, so the interfaces are bound anew from the same
//! WIT; streams, pollables and clocks remain wasmtime-wasi's, so that guests can mix them. IPv6
//! sockets are `not-supported` in pods that have no IPv6 address.

mod lookup;
mod streams;
mod tcp;
mod udp;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use coracle_network::{NetError, SocketScope};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::TrappableError;

use super::Family;
use bindings::wasi::sockets::network::{
    self, ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use bindings::wasi::sockets::{
    instance_network, ip_name_lookup, tcp as tcp_host, tcp_create_socket, udp as udp_host,
    udp_create_socket,
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "coracle:sandbox/pod-sockets",
        imports: { default: trappable },
        with: {
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:sockets/network.network": crate::sockets::p2::Network,
            "wasi:sockets/tcp.tcp-socket": crate::sockets::p2::tcp::TcpSocket,
            "wasi:sockets/udp.udp-socket": crate::sockets::p2::udp::UdpSocket,
            "wasi:sockets/udp.incoming-datagram-stream": crate::sockets::p2::udp::Incoming,
            "wasi:sockets/udp.outgoing-datagram-stream": crate::sockets::p2::udp::Outgoing,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": crate::sockets::p2::lookup::Addresses,
        },
        require_store_data_send: true,
        trappable_error_type: {
            "wasi:sockets/network.error-code" => crate::sockets::p2::SocketError,
        },
    });
}

/// State of a store whose guest has sockets.
pub(crate) trait SocketHost: Send {
    /// What the socket interfaces need of it.
    fn sockets(&mut self) -> SocketsView<'_>;
}

/// The parts of a store's state that the socket interfaces work on.
pub(crate) struct SocketsView<'a> {
    /// The container's door to the network.
    pub(crate) scope: &'a SocketScope,
    /// Holds the sockets, beside everything else that the guest has.
    pub(crate) table: &'a mut ResourceTable,
}

/// An error code for the guest, or a trap.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub type SocketError = TrappableError<ErrorCode>;
type SocketResult<T> = Result<T, SocketError>;

/// The `network` resource: a capability without content, since a guest has but one network.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Network;

struct Sockets;

impl HasData for Sockets {
    type Data<'a> = SocketsView<'a>;
}

/// Adds `wasi:sockets`, and nothing else.
pub(crate) fn add_to_linker<T: SocketHost + 'static>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    let options = network::LinkOptions::default();
    network::add_to_linker::<T, Sockets>(linker, &options, T::sockets)?;
    instance_network::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    ip_name_lookup::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    tcp_host::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    tcp_create_socket::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    udp_host::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    udp_create_socket::add_to_linker::<T, Sockets>(linker, T::sockets)
}

impl network::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime_wasi::p2::IoError>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self
            .table
            .get(&error)?
            .downcast_ref::<NetError>()
            .map(error_code))
    }
}

impl network::HostNetwork for SocketsView<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl instance_network::Host for SocketsView<'_> {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        Ok(self.table.push(Network)?)
    }
}

impl SocketsView<'_> {
    fn get<T: 'static>(&mut self, resource: &Resource<T>) -> SocketResult<&mut T> {
        self.table.get_mut(resource).map_err(SocketError::trap)
    }

    fn push<T: Send + 'static>(&mut self, value: T) -> SocketResult<Resource<T>> {
        self.table.push(value).map_err(SocketError::trap)
    }

    fn push_child<T: Send + 'static, U: 'static>(
        &mut self,
        value: T,
        parent: &Resource<U>,
    ) -> SocketResult<Resource<T>> {
        self.table
            .push_child(value, parent)
            .map_err(SocketError::trap)
    }
}

/// The code by which a guest knows an error.
fn error_code(error: &NetError) -> ErrorCode {
    use std::io::ErrorKind as Kind;
    match error {
        NetError::AddressInUse(_) | NetError::PortsExhausted => ErrorCode::AddressInUse,
        NetError::AddressNotBindable(_) => ErrorCode::AddressNotBindable,
        NetError::ConnectionRefused(_) => ErrorCode::ConnectionRefused,
        NetError::ConnectionReset => ErrorCode::ConnectionReset,
        NetError::BrokenPipe | NetError::Closed => ErrorCode::ConnectionAborted,
        NetError::HostUnreachable(_) => ErrorCode::RemoteUnreachable,
        NetError::TimedOut(_) => ErrorCode::Timeout,
        NetError::Denied { .. } => ErrorCode::AccessDenied,
        NetError::SocketLimit(_) => ErrorCode::NewSocketLimit,
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
        NetError::Host { .. } => ErrorCode::Unknown,
    }
}

fn failed(error: NetError) -> SocketError {
    error_code(&error).into()
}

/// An address to bind to.
fn local(address: IpSocketAddress, family: Family) -> SocketResult<SocketAddr> {
    let address = Some(from_wasi(address)).filter(|address| family.is_bindable(address));
    address.ok_or(ErrorCode::InvalidArgument.into())
}

/// An address that a guest wants to connect to.
fn connectable(address: IpSocketAddress, family: Family) -> SocketResult<SocketAddr> {
    let address = Some(from_wasi(address)).filter(|address| family.is_connectable(address));
    address.ok_or(ErrorCode::InvalidArgument.into())
}

/// An address that a guest wants to send to.
fn remote(address: IpSocketAddress, family: Family) -> SocketResult<SocketAddr> {
    let address = Some(from_wasi(address)).filter(|address| family.is_reachable(address));
    address.ok_or(ErrorCode::InvalidArgument.into())
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

fn to_wasi(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress {
                port: v4.port(),
                address: (a, b, c, d),
            })
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                scope_id: v6.scope_id(),
                address: (a, b, c, d, e, f, g, h),
            })
        }
    }
}

/// The family that a guest wants, if its pod has it.
fn check_family(scope: &SocketScope, family: IpAddressFamily) -> SocketResult<Family> {
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

#[cfg(test)]
mod tests;

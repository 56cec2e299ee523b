//! `wasi:sockets` 0.3 on the pod network.
//!
//! As for 0.2, wasmtime-wasi has no seam for another network, so the interfaces are bound anew from
//! the same WIT. Connections are streams of the component model here: what a guest sends is consumed,
//! and what it receives is produced, in pieces that fit into the queues of the network. IPv4 only:
//! IPv6 sockets are `not-supported` in pods that have no IPv6 address.

mod convert;
mod lookup;
mod streams;
mod tcp;
mod udp;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::TrappableError;

use super::p2::{SocketHost, SocketsView};
use bindings::wasi::sockets::ip_name_lookup;
use bindings::wasi::sockets::types::{self, ErrorCode};

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/p3",
        world: "coracle:sandbox/pod-sockets",
        imports: {
            "wasi:sockets/types.[method]tcp-socket.listen": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.send": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.receive": store | trappable,
            default: trappable,
        },
        with: {
            "wasi:sockets/types.tcp-socket": crate::sockets::p3::tcp::TcpSocket,
            "wasi:sockets/types.udp-socket": crate::sockets::p3::udp::UdpSocket,
        },
        require_store_data_send: true,
        trappable_error_type: {
            "wasi:sockets/types.error-code" => crate::sockets::p3::SocketError,
        },
    });
}

/// An error code for the guest, or a trap.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub type SocketError = TrappableError<ErrorCode>;
type SocketResult<T> = Result<T, SocketError>;

struct Sockets;

impl HasData for Sockets {
    type Data<'a> = SocketsView<'a>;
}

/// Adds `wasi:sockets` 0.3, and nothing else.
pub(crate) fn add_to_linker<T: SocketHost + 'static>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    types::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    ip_name_lookup::add_to_linker::<T, Sockets>(linker, T::sockets)
}

impl types::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl SocketsView<'_> {
    fn socket<T: 'static>(&mut self, resource: &Resource<T>) -> SocketResult<&mut T> {
        self.table.get_mut(resource).map_err(SocketError::trap)
    }

    fn add<T: Send + 'static>(&mut self, value: T) -> SocketResult<Resource<T>> {
        self.table.push(value).map_err(SocketError::trap)
    }
}

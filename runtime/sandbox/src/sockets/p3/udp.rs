//! `udp-socket` of `wasi:sockets/types` 0.3.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use coracle_network::SocketPermit;
use wasmtime::component::{Accessor, Resource};

use super::bindings::wasi::sockets::types::{
    ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress,
};
use super::convert::{anywhere, check_family, failed, local, not_zero, remote, to_wasi};
use super::{SocketResult, Sockets, SocketsView};
use crate::sockets::Family;
use crate::sockets::options::{UdpOptions, buffer_size};
use crate::sockets::p2::SocketHost;

/// The `udp-socket` resource.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct UdpSocket {
    family: Family,
    state: State,
    peer: Option<SocketAddr>,
    options: UdpOptions,
}

enum State {
    Unbound(SocketPermit),
    Bound(coracle_network::UdpSocket),
    /// A bind failed, and so did taking a place for the next one.
    Closed,
}

impl UdpSocket {
    fn bound(&self) -> SocketResult<&coracle_network::UdpSocket> {
        match &self.state {
            State::Bound(socket) => Ok(socket),
            State::Unbound(_) | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }

    /// Where a message goes that names `to`. A connected socket sends to its peer alone.
    fn destination(&self, to: Option<SocketAddr>) -> SocketResult<SocketAddr> {
        match (self.peer, to) {
            (Some(peer), None) => Ok(peer),
            (Some(peer), Some(to)) if peer == to => Ok(peer),
            (None, Some(to)) => Ok(to),
            _ => Err(ErrorCode::InvalidArgument.into()),
        }
    }
}

impl SocketsView<'_> {
    fn bind_udp(&mut self, this: &Resource<UdpSocket>, address: SocketAddr) -> SocketResult<()> {
        let scope = self.scope.clone();
        let socket = self.socket(this)?;
        match std::mem::replace(&mut socket.state, State::Closed) {
            State::Unbound(permit) => match scope.bind_udp_with(permit, address) {
                Ok(bound) => {
                    socket.state = State::Bound(bound);
                    Ok(())
                }
                Err(error) => {
                    // The place was given back with the attempt; take it again for the next.
                    socket.state = State::Unbound(scope.permit().map_err(failed)?);
                    Err(failed(error))
                }
            },
            other => {
                socket.state = other;
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    fn bind_udp_anywhere(&mut self, this: &Resource<UdpSocket>) -> SocketResult<()> {
        let socket = self.socket(this)?;
        let anywhere = anywhere(socket.family);
        match socket.state {
            State::Unbound(_) => self.bind_udp(this, anywhere),
            State::Bound(_) | State::Closed => Ok(()),
        }
    }
}

impl<T: SocketHost + 'static> HostUdpSocketWithStore<T> for Sockets {
    async fn send(
        store: &Accessor<T, Self>,
        this: Resource<UdpSocket>,
        data: Vec<u8>,
        to: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        store.with(|mut view| {
            let mut view = view.get();
            let socket = view.socket(&this)?;
            let to = to.map(|to| remote(to, socket.family)).transpose()?;
            let to = socket.destination(to)?;
            view.bind_udp_anywhere(&this)?;
            let socket = view.socket(&this)?;
            let (connected, bound) = (socket.peer.is_some(), socket.bound()?);
            let data = Bytes::from(data);
            let sent = match connected {
                true => bound.send_connected(data, to),
                false => bound.send_to(data, to),
            };
            sent.map_err(failed)
        })
    }

    async fn receive(
        store: &Accessor<T, Self>,
        this: Resource<UdpSocket>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let (socket, peer) = store.with(|mut view| {
            let mut view = view.get();
            let socket = view.socket(&this)?;
            SocketResult::Ok((socket.bound()?.clone(), socket.peer))
        })?;
        loop {
            let message = match peer {
                Some(_) => poll_fn(|cx| socket.poll_recv_connected(cx)).await,
                None => Ok(socket.recv().await),
            };
            let message = message.map_err(failed)?;
            // What others send to a connected socket is thrown away.
            if peer.is_none_or(|peer| peer == message.from) {
                return Ok((message.data.to_vec(), to_wasi(message.from)));
            }
        }
    }
}

impl HostUdpSocket for SocketsView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let family = check_family(self.scope, family)?;
        let permit = self.scope.permit().map_err(failed)?;
        self.add(UdpSocket {
            family,
            state: State::Unbound(permit),
            peer: None,
            options: UdpOptions::default(),
        })
    }

    fn bind(&mut self, this: Resource<UdpSocket>, address: IpSocketAddress) -> SocketResult<()> {
        let address = local(address, self.socket(&this)?.family)?;
        self.bind_udp(&this, address)
    }

    fn connect(&mut self, this: Resource<UdpSocket>, address: IpSocketAddress) -> SocketResult<()> {
        let address = remote(address, self.socket(&this)?.family)?;
        self.bind_udp_anywhere(&this)?;
        let socket = self.socket(&this)?;
        socket.bound()?;
        socket.peer = Some(address);
        Ok(())
    }

    fn disconnect(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        let peer = self.socket(&this)?.peer.take();
        peer.map(drop).ok_or(ErrorCode::InvalidState.into())
    }

    fn get_local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(to_wasi(self.socket(&this)?.bound()?.local_addr()))
    }

    fn get_remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let peer = self.socket(&this)?.peer;
        Ok(to_wasi(peer.ok_or(ErrorCode::InvalidState)?))
    }

    fn get_address_family(
        &mut self,
        this: Resource<UdpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn get_unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(self.socket(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        self.socket(&this)?.options.hop_limit = not_zero(value)?;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.socket(&this)?.options.receive_buffer = buffer_size(not_zero(value)?);
        Ok(())
    }

    fn get_send_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        self.socket(&this)?.options.send_buffer = buffer_size(not_zero(value)?);
        Ok(())
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

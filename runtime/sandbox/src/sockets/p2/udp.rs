//! `wasi:sockets/udp`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_network::{Datagram, NetError, SocketPermit};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable};

use super::bindings::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::bindings::wasi::sockets::{udp, udp_create_socket};
use super::{
    Network, SocketError, SocketResult, SocketsView, check_family, failed, local, remote, to_wasi,
};
use crate::sockets::options::{UdpOptions, buffer_size};
use crate::sockets::{Family, without_waiting};

/// Messages that one call takes or brings at most.
const BATCH: usize = 16;

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
    Binding(coracle_network::UdpSocket),
    Bound(coracle_network::UdpSocket),
    Closed,
}

/// The `incoming-datagram-stream` resource.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Incoming {
    socket: coracle_network::UdpSocket,
    peer: Option<SocketAddr>,
    /// Taken from the socket to know for certain that the peer sent one, or refused one.
    next: Option<Result<Datagram, NetError>>,
}

/// The `outgoing-datagram-stream` resource.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Outgoing {
    socket: coracle_network::UdpSocket,
    peer: Option<SocketAddr>,
    /// Messages that `send` may bring, as `check-send` said.
    permit: usize,
}

impl Incoming {
    /// Ready once there is a message of the right sender, or its refusal; others are thrown away,
    /// as a connected socket does.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.next.is_none() {
            let Some(peer) = self.peer else {
                let message = std::task::ready!(self.socket.poll_recv(cx));
                self.next = Some(Ok(message));
                break;
            };
            let message = std::task::ready!(self.socket.poll_recv_connected(cx));
            if message.as_ref().is_ok_and(|message| message.from != peer) {
                continue;
            }
            self.next = Some(message);
        }
        Poll::Ready(())
    }
}

#[async_trait::async_trait]
impl Pollable for UdpSocket {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_next(cx)).await;
    }
}

#[async_trait::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {}
}

impl udp_create_socket::Host for SocketsView<'_> {
    fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let family = check_family(self.scope, family)?;
        let permit = self.scope.permit().map_err(failed)?;
        self.push(UdpSocket {
            family,
            state: State::Unbound(permit),
            peer: None,
            options: UdpOptions::default(),
        })
    }
}

impl udp::Host for SocketsView<'_> {}

impl udp::HostUdpSocket for SocketsView<'_> {
    fn start_bind(
        &mut self,
        this: Resource<UdpSocket>,
        _network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let scope = self.scope.clone();
        let socket = self.get(&this)?;
        let address = local(address, socket.family)?;
        match std::mem::replace(&mut socket.state, State::Closed) {
            State::Unbound(permit) => {
                match scope.bind_udp_with(permit, address) {
                    Ok(bound) => socket.state = State::Binding(bound),
                    Err(error) => {
                        // The place was given back with the attempt; take it again for the next.
                        socket.state = State::Unbound(scope.permit().map_err(failed)?);
                        return Err(failed(error));
                    }
                }
                Ok(())
            }
            other => {
                let busy = matches!(other, State::Binding(_));
                socket.state = other;
                Err(if busy {
                    ErrorCode::ConcurrencyConflict
                } else {
                    ErrorCode::InvalidState
                }
                .into())
            }
        }
    }

    fn finish_bind(&mut self, this: Resource<UdpSocket>) -> SocketResult<()> {
        let socket = self.get(&this)?;
        match std::mem::replace(&mut socket.state, State::Closed) {
            State::Binding(bound) => {
                socket.state = State::Bound(bound);
                Ok(())
            }
            other => {
                socket.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        peer: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<Incoming>, Resource<Outgoing>)> {
        let socket = self.get(&this)?;
        let family = socket.family;
        let peer = peer.map(|peer| remote(peer, family)).transpose()?;
        let State::Bound(bound) = &socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        let bound = bound.clone();
        socket.peer = peer;
        let incoming = Incoming {
            socket: bound.clone(),
            peer,
            next: None,
        };
        let outgoing = Outgoing {
            socket: bound,
            peer,
            permit: 0,
        };
        Ok((
            self.push_child(incoming, &this)?,
            self.push_child(outgoing, &this)?,
        ))
    }

    fn local_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        match &self.get(&this)?.state {
            State::Bound(bound) => Ok(to_wasi(bound.local_addr())),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn remote_address(&mut self, this: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(to_wasi(
            self.get(&this)?.peer.ok_or(ErrorCode::InvalidState)?,
        ))
    }

    fn address_family(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn unicast_hop_limit(&mut self, this: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(self.get(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.get(&this)?.options.hop_limit = value;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.get(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.get(&this)?.options.receive_buffer = buffer_size(value);
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.get(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.get(&this)?.options.send_buffer = buffer_size(value);
        Ok(())
    }

    fn subscribe(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        wasmtime_wasi::p2::subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl udp::HostIncomingDatagramStream for SocketsView<'_> {
    fn receive(
        &mut self,
        this: Resource<Incoming>,
        max_results: u64,
    ) -> SocketResult<Vec<udp::IncomingDatagram>> {
        let stream = self.get(&this)?;
        let max = usize::try_from(max_results)
            .unwrap_or(usize::MAX)
            .min(BATCH);
        let mut messages = Vec::new();
        while messages.len() < max && stream.poll_next(&mut without_waiting()).is_ready() {
            let message = match stream.next.take().expect("ready means there is one") {
                Ok(message) => message,
                Err(error) if messages.is_empty() => return Err(failed(error)),
                // What was received counts; the guest meets the error with its next call.
                Err(error) => {
                    stream.next = Some(Err(error));
                    break;
                }
            };
            let data = message.data.to_vec();
            messages.push(udp::IncomingDatagram {
                data,
                remote_address: to_wasi(message.from),
            });
        }
        Ok(messages)
    }

    fn subscribe(&mut self, this: Resource<Incoming>) -> wasmtime::Result<Resource<DynPollable>> {
        wasmtime_wasi::p2::subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<Incoming>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl udp::HostOutgoingDatagramStream for SocketsView<'_> {
    fn check_send(&mut self, this: Resource<Outgoing>) -> SocketResult<u64> {
        let stream = self.get(&this)?;
        stream.permit = BATCH;
        Ok(BATCH as u64)
    }

    fn send(
        &mut self,
        this: Resource<Outgoing>,
        datagrams: Vec<udp::OutgoingDatagram>,
    ) -> SocketResult<u64> {
        let stream = self.get(&this)?;
        if datagrams.len() > stream.permit {
            return Err(SocketError::trap(wasmtime::Error::msg(
                "send brought more datagrams than check-send permitted",
            )));
        }
        stream.permit -= datagrams.len();
        let mut sent = 0;
        for datagram in datagrams {
            match send_one(stream, datagram) {
                Ok(()) => sent += 1,
                // What was sent counts; the guest meets the error with its next call.
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<Outgoing>) -> wasmtime::Result<Resource<DynPollable>> {
        wasmtime_wasi::p2::subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<Outgoing>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

fn send_one(stream: &Outgoing, datagram: udp::OutgoingDatagram) -> SocketResult<()> {
    let family = Family::of(stream.socket.local_addr());
    let named = datagram.remote_address;
    let named = named.map(|to| remote(to, family)).transpose()?;
    let to = match (stream.peer, named) {
        (Some(peer), None) => peer,
        (Some(peer), Some(named)) if peer == named => peer,
        (None, Some(named)) => named,
        _ => return Err(ErrorCode::InvalidArgument.into()),
    };
    let (socket, data) = (&stream.socket, Bytes::from(datagram.data));
    let sent = match stream.peer {
        Some(peer) => socket.send_connected(data, peer),
        None => socket.send_to(data, to),
    };
    sent.map_err(failed)
}

//! A UDP socket of a module: opened, then bound, and perhaps connected.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_network::{Datagram, NetError, SocketPermit, SocketScope, UdpSocket};

use super::errno::Errno;
use crate::sockets::Family;

/// A descriptor's UDP socket.
pub(super) struct Udp {
    state: State,
    family: Family,
    peer: Option<SocketAddr>,
    /// A message that was looked at and is still to be received.
    ahead: Option<Datagram>,
}

enum State {
    Unbound(SocketPermit),
    Bound(UdpSocket),
    /// A bind failed, and so did taking a place for the next one.
    Closed,
}

impl Udp {
    pub(super) fn unbound(scope: &SocketScope, family: Family) -> Result<Self, NetError> {
        Ok(Self {
            family,
            state: State::Unbound(scope.permit()?),
            peer: None,
            ahead: None,
        })
    }

    pub(super) fn bind(&mut self, scope: &SocketScope, address: SocketAddr) -> Result<(), Errno> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Unbound(permit) => match scope.bind_udp_with(permit, address) {
                Ok(socket) => {
                    self.state = State::Bound(socket);
                    Ok(())
                }
                Err(error) => {
                    // The place was given back with the attempt; take it again for the next.
                    self.state = State::Unbound(scope.permit()?);
                    Err(error.into())
                }
            },
            other => {
                self.state = other;
                Err(Errno::INVAL)
            }
        }
    }

    /// From now on it hears `peer` alone.
    pub(super) fn connect(&mut self, scope: &SocketScope, peer: SocketAddr) -> Result<(), Errno> {
        if peer.port() == 0 || peer.ip().is_unspecified() {
            return Err(Errno::INVAL);
        }
        self.bound(scope)?;
        self.peer = Some(peer);
        Ok(())
    }

    /// Sends to the peer.
    pub(super) fn send(&self, data: Bytes) -> Result<(), Errno> {
        match (&self.state, self.peer) {
            (State::Bound(socket), Some(peer)) => Ok(socket.send_connected(data, peer)?),
            _ => Err(Errno::DESTADDRREQ),
        }
    }

    pub(super) fn send_to(
        &mut self,
        scope: &SocketScope,
        data: Bytes,
        to: SocketAddr,
    ) -> Result<(), Errno> {
        let connected = self.peer == Some(to);
        let socket = self.bound(scope)?;
        Ok(if connected {
            socket.send_connected(data, to)
        } else {
            socket.send_to(data, to)
        }?)
    }

    /// The next message, or the peer's refusal. Nothing ever comes to a socket that is not bound.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Datagram, Errno>> {
        if let Some(message) = self.ahead.take() {
            return Poll::Ready(Ok(message));
        }
        let State::Bound(socket) = &self.state else {
            return Poll::Ready(Err(Errno::INVAL));
        };
        let Some(peer) = self.peer else {
            return socket.poll_recv(cx).map(Ok);
        };
        loop {
            match std::task::ready!(socket.poll_recv_connected(cx)) {
                Ok(message) if message.from != peer => {}
                result => return Poll::Ready(result.map_err(Errno::from)),
            }
        }
    }

    pub(super) fn put_back(&mut self, message: Datagram) {
        self.ahead = Some(message);
    }

    /// Whether a message was looked at already.
    pub(super) fn has_next(&self) -> bool {
        self.ahead.is_some()
    }

    /// The socket and whom it hears, if it is bound.
    pub(super) fn watched(&self) -> Option<(UdpSocket, Option<SocketAddr>)> {
        match &self.state {
            State::Bound(socket) => Some((socket.clone(), self.peer)),
            State::Unbound(_) | State::Closed => None,
        }
    }

    pub(super) fn take_error(&self) -> Option<Errno> {
        match &self.state {
            State::Bound(socket) => socket.take_error().map(Errno::from),
            State::Unbound(_) | State::Closed => None,
        }
    }

    pub(super) fn local(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Bound(socket) => Some(socket.local_addr()),
            State::Unbound(_) | State::Closed => None,
        }
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The bound socket; anywhere, if the guest did not say where.
    fn bound(&mut self, scope: &SocketScope) -> Result<&UdpSocket, Errno> {
        if matches!(self.state, State::Unbound(_)) {
            self.bind(scope, self.family.anywhere())?;
        }
        match &self.state {
            State::Bound(socket) => Ok(socket),
            State::Unbound(_) | State::Closed => Err(Errno::INVAL),
        }
    }
}

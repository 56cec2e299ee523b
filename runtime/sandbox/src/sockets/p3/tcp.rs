//! `tcp-socket` of `wasi:sockets/types` 0.3.
//!
//! ```text
//! unbound ─bind─▶ bound ─listen─▶ listening (listen binds by itself)
//!    └─connect (also from bound)─▶ connecting ─▶ connected ─send, receive once each
//!                                      └ failed ▶ closed
//! ```

use std::iter;
use std::sync::Arc;

use coracle_network::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureReader, Resource, StreamReader};

use super::bindings::wasi::sockets::types::{
    Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress,
};
use super::convert::{anywhere, check_family, connectable, failed, local, not_zero, to_wasi};
use super::streams::{Accepting, Receiving, Sending};
use super::{SocketError, SocketResult, Sockets, SocketsView};
use crate::sockets::Family;
use crate::sockets::options::{TcpOptions, buffer_size, probe_count, probe_time};
use crate::sockets::p2::SocketHost;

const DEFAULT_BACKLOG: usize = 128;

/// The `tcp-socket` resource.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct TcpSocket {
    family: Family,
    state: State,
    backlog: usize,
    options: TcpOptions,
}

enum State {
    Unbound(coracle_network::TcpSocket),
    Bound(coracle_network::TcpSocket),
    /// Shared with the stream of its connections.
    Listening(Arc<TcpListener>),
    Connecting,
    Connected(Connected),
    Closed,
}

struct Connected {
    stream: TcpStream,
    sends: bool,
    receives: bool,
}

impl TcpSocket {
    fn new(family: Family, state: State, options: TcpOptions) -> Self {
        Self {
            family,
            state,
            backlog: DEFAULT_BACKLOG,
            options,
        }
    }

    pub(super) fn connected(stream: TcpStream, options: TcpOptions) -> Self {
        let family = Family::of(stream.local_addr());
        let connected = Connected {
            stream,
            sends: false,
            receives: false,
        };
        Self::new(family, State::Connected(connected), options)
    }

    /// Takes the socket out that can still become a listener or a connection, and leaves `next`.
    fn take_free(&mut self, next: State) -> SocketResult<coracle_network::TcpSocket> {
        match std::mem::replace(&mut self.state, next) {
            State::Unbound(inner) | State::Bound(inner) => Ok(inner),
            other => {
                self.state = other;
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    fn listen(&mut self) -> SocketResult<Accepting> {
        let mut inner = self.take_free(State::Closed)?;
        if inner.local_addr().is_none() {
            inner.bind(anywhere(self.family)).map_err(failed)?;
        }
        let listener = Arc::new(inner.listen(self.backlog).map_err(failed)?);
        self.state = State::Listening(listener.clone());
        Ok(Accepting {
            listener,
            options: self.options,
        })
    }

    /// The connection, if `used` says that this direction of it was not given out before.
    fn direction(&mut self, used: fn(&mut Connected) -> &mut bool) -> Result<TcpStream, ErrorCode> {
        let State::Connected(connected) = &mut self.state else {
            return Err(ErrorCode::InvalidState);
        };
        match std::mem::replace(used(connected), true) {
            false => Ok(connected.stream.clone()),
            true => Err(ErrorCode::InvalidState),
        }
    }
}

impl<T: SocketHost + 'static> HostTcpSocketWithStore<T> for Sockets {
    async fn connect(
        store: &Accessor<T, Self>,
        this: Resource<TcpSocket>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let (inner, address) = store.with(|mut view| {
            let mut view = view.get();
            let socket = view.socket(&this)?;
            let address = connectable(address, socket.family)?;
            let inner = socket.take_free(State::Connecting)?;
            SocketResult::Ok((inner, address))
        })?;
        let result = inner.connect(address).await;
        store.with(|mut view| {
            let mut view = view.get();
            let socket = view.socket(&this)?;
            match result {
                Ok(stream) => {
                    socket.state = TcpSocket::connected(stream, socket.options).state;
                    Ok(())
                }
                Err(error) => {
                    socket.state = State::Closed;
                    Err(failed(error))
                }
            }
        })
    }

    fn listen(
        mut store: Access<'_, T, Self>,
        this: Resource<TcpSocket>,
    ) -> SocketResult<StreamReader<Resource<TcpSocket>>> {
        let accepting = store.get().socket(&this)?.listen()?;
        StreamReader::new(&mut store, accepting).map_err(SocketError::trap)
    }

    fn send(
        mut store: Access<'_, T, Self>,
        this: Resource<TcpSocket>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
        let socket = store.get().table.get_mut(&this)?;
        match socket.direction(|connected| &mut connected.sends) {
            Ok(connection) => {
                let (outcome, told) = oneshot::channel();
                data.pipe(&mut store, Sending::new(connection, outcome))?;
                FutureReader::new(&mut store, told)
            }
            Err(code) => {
                data.close(&mut store)?;
                FutureReader::new(&mut store, async move { wasmtime::error::Ok(Err(code)) })
            }
        }
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        this: Resource<TcpSocket>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)> {
        let socket = store.get().table.get_mut(&this)?;
        match socket.direction(|connected| &mut connected.receives) {
            Ok(connection) => {
                let (outcome, told) = oneshot::channel();
                let bytes = StreamReader::new(&mut store, Receiving::new(connection, outcome))?;
                Ok((bytes, FutureReader::new(&mut store, told)?))
            }
            Err(code) => Ok((
                StreamReader::new(&mut store, iter::empty())?,
                FutureReader::new(&mut store, async move { wasmtime::error::Ok(Err(code)) })?,
            )),
        }
    }
}

impl HostTcpSocket for SocketsView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let family = check_family(self.scope, family)?;
        let socket = self.scope.tcp_socket().map_err(failed)?;
        self.add(TcpSocket::new(
            family,
            State::Unbound(socket),
            TcpOptions::default(),
        ))
    }

    fn bind(&mut self, this: Resource<TcpSocket>, address: IpSocketAddress) -> SocketResult<()> {
        let socket = self.socket(&this)?;
        let address = local(address, socket.family)?;
        match std::mem::replace(&mut socket.state, State::Closed) {
            State::Unbound(mut inner) => match inner.bind(address) {
                Ok(()) => {
                    socket.state = State::Bound(inner);
                    Ok(())
                }
                Err(error) => {
                    socket.state = State::Unbound(inner);
                    Err(failed(error))
                }
            },
            other => {
                socket.state = other;
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    fn get_local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let address = match &self.socket(&this)?.state {
            State::Bound(inner) => inner.local_addr(),
            State::Listening(listener) => Some(listener.local_addr()),
            State::Connected(connected) => Some(connected.stream.local_addr()),
            State::Unbound(_) | State::Connecting | State::Closed => None,
        };
        Ok(to_wasi(address.ok_or(ErrorCode::InvalidState)?))
    }

    fn get_remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        match &self.socket(&this)?.state {
            State::Connected(connected) => Ok(to_wasi(connected.stream.peer_addr())),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn get_is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get(&this)?.state, State::Listening(_)))
    }

    fn get_address_family(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn set_listen_backlog_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let socket = self.socket(&this)?;
        let value = not_zero(value)?;
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        match &socket.state {
            State::Unbound(_) | State::Bound(_) => socket.backlog = value,
            State::Listening(listener) => listener.set_backlog(value),
            _ => return Err(ErrorCode::InvalidState.into()),
        }
        Ok(())
    }

    fn get_keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.socket(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        this: Resource<TcpSocket>,
        value: bool,
    ) -> SocketResult<()> {
        self.socket(&this)?.options.keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<Duration> {
        Ok(self.socket(&this)?.options.idle_time)
    }

    fn set_keep_alive_idle_time(
        &mut self,
        this: Resource<TcpSocket>,
        value: Duration,
    ) -> SocketResult<()> {
        self.socket(&this)?.options.idle_time = probe_time(not_zero(value)?);
        Ok(())
    }

    fn get_keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<Duration> {
        Ok(self.socket(&this)?.options.interval)
    }

    fn set_keep_alive_interval(
        &mut self,
        this: Resource<TcpSocket>,
        value: Duration,
    ) -> SocketResult<()> {
        self.socket(&this)?.options.interval = probe_time(not_zero(value)?);
        Ok(())
    }

    fn get_keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.socket(&this)?.options.count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.socket(&this)?.options.count = probe_count(not_zero(value)?);
        Ok(())
    }

    fn get_hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.socket(&this)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.socket(&this)?.options.hop_limit = not_zero(value)?;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.socket(&this)?.options.receive_buffer = buffer_size(not_zero(value)?);
        Ok(())
    }

    fn get_send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.socket(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.socket(&this)?.options.send_buffer = buffer_size(not_zero(value)?);
        Ok(())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

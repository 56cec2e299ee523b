//! `wasi:sockets/tcp`.
//!
//! ```text
//! unbound ─start-bind─▶ binding ─finish-bind─▶ bound ─start-listen─▶ starting ─finish─▶ listening
//!    └───────start-connect (also from bound)──▶ connecting ─finish-connect─▶ connected
//!                                                    └ failed ▶ closed
//! ```

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use coracle_network::{NetError, TcpListener, TcpStream};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Pollable};

use super::bindings::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::bindings::wasi::sockets::{tcp, tcp_create_socket};
use super::streams::streams;
use super::{
    Network, SocketResult, SocketsView, check_family, connectable, failed, local, to_wasi,
};
use crate::sockets::options::{TcpOptions, buffer_size, probe_count, probe_time};
use crate::sockets::{Family, without_waiting};

const DEFAULT_BACKLOG: usize = 128;

/// The `tcp-socket` resource.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct TcpSocket {
    family: Family,
    state: State,
    backlog: usize,
    options: TcpOptions,
}

type Connect = Pin<Box<dyn Future<Output = Result<TcpStream, NetError>> + Send>>;

enum State {
    Unbound(coracle_network::TcpSocket),
    Binding(coracle_network::TcpSocket),
    Bound(coracle_network::TcpSocket),
    Starting(TcpListener),
    Listening(TcpListener),
    Connecting(Connect),
    /// Done, but the guest has not finished it.
    Decided(Result<TcpStream, NetError>),
    Connected(TcpStream),
    Closed,
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

    /// Takes the state out when `expected` says it is the right one.
    fn take(&mut self, expected: fn(&State) -> bool, otherwise: ErrorCode) -> SocketResult<State> {
        if !expected(&self.state) {
            let busy = matches!(
                self.state,
                State::Binding(_) | State::Starting(_) | State::Connecting(_) | State::Decided(_)
            );
            let conflict = busy && matches!(otherwise, ErrorCode::InvalidState);
            return Err(if conflict {
                ErrorCode::ConcurrencyConflict
            } else {
                otherwise
            }
            .into());
        }
        Ok(std::mem::replace(&mut self.state, State::Closed))
    }
}

#[async_trait::async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        match &mut self.state {
            State::Listening(listener) => poll_fn(|cx| listener.poll_acceptable(cx)).await,
            State::Connecting(connect) => {
                let result = connect.await;
                self.state = State::Decided(result);
            }
            _ => {}
        }
    }
}

impl tcp_create_socket::Host for SocketsView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let family = check_family(self.scope, family)?;
        let socket = self.scope.tcp_socket().map_err(failed)?;
        self.push(TcpSocket::new(
            family,
            State::Unbound(socket),
            TcpOptions::default(),
        ))
    }
}

impl tcp::Host for SocketsView<'_> {}

impl tcp::HostTcpSocket for SocketsView<'_> {
    fn start_bind(
        &mut self,
        this: Resource<TcpSocket>,
        _network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let socket = self.get(&this)?;
        let address = local(address, socket.family)?;
        let free = |state: &State| matches!(state, State::Unbound(_));
        let State::Unbound(mut inner) = socket.take(free, ErrorCode::InvalidState)? else {
            unreachable!("checked by take")
        };
        match inner.bind(address) {
            Ok(()) => {
                socket.state = State::Binding(inner);
                Ok(())
            }
            Err(error) => {
                socket.state = State::Unbound(inner);
                Err(failed(error))
            }
        }
    }

    fn finish_bind(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.get(&this)?;
        let binding = |state: &State| matches!(state, State::Binding(_));
        let State::Binding(inner) = socket.take(binding, ErrorCode::NotInProgress)? else {
            unreachable!("checked by take")
        };
        socket.state = State::Bound(inner);
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Resource<TcpSocket>,
        _network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        let socket = self.get(&this)?;
        let address = connectable(address, socket.family)?;
        let free = |state: &State| matches!(state, State::Unbound(_) | State::Bound(_));
        let (State::Unbound(inner) | State::Bound(inner)) =
            socket.take(free, ErrorCode::InvalidState)?
        else {
            unreachable!("checked by take")
        };
        let mut connect: Connect = Box::pin(inner.connect(address));
        // Inside the cluster this decides at once.
        socket.state = match connect.as_mut().poll(&mut without_waiting()) {
            Poll::Ready(result) => State::Decided(result),
            Poll::Pending => State::Connecting(connect),
        };
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.get(&this)?;
        let begun = |state: &State| matches!(state, State::Connecting(_) | State::Decided(_));
        let result = match socket.take(begun, ErrorCode::NotInProgress)? {
            State::Connecting(mut connect) => match connect.as_mut().poll(&mut without_waiting()) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    socket.state = State::Connecting(connect);
                    return Err(ErrorCode::WouldBlock.into());
                }
            },
            State::Decided(result) => result,
            _ => unreachable!("checked by take"),
        };
        let connection = result.map_err(failed)?;
        let (input, output) = streams(&connection);
        socket.state = State::Connected(connection);
        Ok((
            self.push_child(input, &this)?,
            self.push_child(output, &this)?,
        ))
    }

    fn start_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.get(&this)?;
        let bound = |state: &State| matches!(state, State::Bound(_));
        let State::Bound(inner) = socket.take(bound, ErrorCode::InvalidState)? else {
            unreachable!("checked by take")
        };
        socket.state = State::Starting(inner.listen(socket.backlog).map_err(failed)?);
        Ok(())
    }

    fn finish_listen(&mut self, this: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.get(&this)?;
        let starting = |state: &State| matches!(state, State::Starting(_));
        let State::Starting(listener) = socket.take(starting, ErrorCode::NotInProgress)? else {
            unreachable!("checked by take")
        };
        socket.state = State::Listening(listener);
        Ok(())
    }

    fn accept(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(
        Resource<TcpSocket>,
        Resource<DynInputStream>,
        Resource<DynOutputStream>,
    )> {
        let socket = self.get(&this)?;
        let State::Listening(listener) = &socket.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        let connection = match listener.poll_accept(&mut without_waiting()) {
            Poll::Ready(result) => result.map_err(failed)?,
            Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
        };
        let (input, output) = streams(&connection);
        // Accepted sockets inherit the listener's options.
        let accepted = TcpSocket::new(socket.family, State::Connected(connection), socket.options);
        let accepted = self.push(accepted)?;
        let input = self.push_child(input, &accepted)?;
        let output = self.push_child(output, &accepted)?;
        Ok((accepted, input, output))
    }

    fn local_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let address = match &self.get(&this)?.state {
            State::Binding(inner) | State::Bound(inner) => inner.local_addr(),
            State::Starting(listener) | State::Listening(listener) => Some(listener.local_addr()),
            State::Connected(connection) => Some(connection.local_addr()),
            _ => None,
        };
        Ok(to_wasi(address.ok_or(ErrorCode::InvalidState)?))
    }

    fn remote_address(&mut self, this: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        match &self.get(&this)?.state {
            State::Connected(connection) => Ok(to_wasi(connection.peer_addr())),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        let state = &self.table.get(&this)?.state;
        Ok(matches!(state, State::Starting(_) | State::Listening(_)))
    }

    fn address_family(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&this)?.family.into())
    }

    fn set_listen_backlog_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        let socket = self.get(&this)?;
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let value = usize::try_from(value).unwrap_or(usize::MAX);
        match &socket.state {
            State::Unbound(_) | State::Binding(_) | State::Bound(_) => socket.backlog = value,
            State::Starting(listener) | State::Listening(listener) => listener.set_backlog(value),
            _ => return Err(ErrorCode::InvalidState.into()),
        }
        Ok(())
    }

    fn keep_alive_enabled(&mut self, this: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.get(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        this: Resource<TcpSocket>,
        value: bool,
    ) -> SocketResult<()> {
        self.get(&this)?.options.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.get(&this)?.options.idle_time)
    }

    fn set_keep_alive_idle_time(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.get(&this)?.options.idle_time = probe_time(not_zero(value)?);
        Ok(())
    }

    fn keep_alive_interval(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.get(&this)?.options.interval)
    }

    fn set_keep_alive_interval(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.get(&this)?.options.interval = probe_time(not_zero(value)?);
        Ok(())
    }

    fn keep_alive_count(&mut self, this: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.get(&this)?.options.count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.get(&this)?.options.count = probe_count(not_zero(value)?);
        Ok(())
    }

    fn hop_limit(&mut self, this: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.get(&this)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.get(&this)?.options.hop_limit = not_zero(value)?;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.get(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        self.get(&this)?.options.receive_buffer = buffer_size(not_zero(value)?);
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.get(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.get(&this)?.options.send_buffer = buffer_size(not_zero(value)?);
        Ok(())
    }

    fn subscribe(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        wasmtime_wasi::p2::subscribe(self.table, this)
    }

    fn shutdown(&mut self, this: Resource<TcpSocket>, how: tcp::ShutdownType) -> SocketResult<()> {
        let State::Connected(connection) = &self.get(&this)?.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if !matches!(how, tcp::ShutdownType::Receive) {
            connection.shutdown_write();
        }
        if !matches!(how, tcp::ShutdownType::Send) {
            connection.shutdown_read();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

fn not_zero<N: PartialEq + Default>(value: N) -> SocketResult<N> {
    if value == N::default() {
        Err(ErrorCode::InvalidArgument.into())
    } else {
        Ok(value)
    }
}

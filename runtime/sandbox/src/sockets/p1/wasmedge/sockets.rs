//! Opening, binding, listening, connecting, and who is who.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use coracle_network::{NetError, TcpStream};
use futures::FutureExt;

use super::super::errno::Errno;
use super::super::fds::{Entry, FdTable, Kind, Socket, Udp};
use super::super::memory::Memory;
use super::address::{Address, INET4, INET6, UNSPECIFIED};
use crate::sockets::{Family, without_waiting};

/// Kinds of sockets.
pub(super) const ANY: u32 = 0;
pub(super) const DATAGRAM: u32 = 1;
pub(super) const STREAM: u32 = 2;

/// What the first generation calls the kinds of addresses.
const IPV4: u32 = 4;
const IPV6: u32 = 6;

/// Which end of a connection.
#[derive(Clone, Copy)]
pub(super) enum End {
    Local,
    Peer,
}

/// `sock_open`.
pub(super) fn open(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    family: u32,
    kind: u32,
    out: u32,
) -> Result<(), Errno> {
    memory.get_mut(out, 4)?;
    let family = match family {
        UNSPECIFIED | INET4 => Family::V4,
        INET6 if fds.scope().namespace().has_ipv6() => Family::V6,
        _ => return Err(Errno::AFNOSUPPORT),
    };
    if !fds.has_room() {
        return Err(Errno::MFILE);
    }
    let kind = match kind {
        ANY | STREAM => Kind::Tcp(Some(fds.scope().tcp_socket()?)),
        DATAGRAM => Kind::Udp(Udp::unbound(fds.scope(), family)?),
        _ => return Err(Errno::PROTOTYPE),
    };
    let fd = fds.insert(Entry::Socket(Socket::new(kind, family, false)))?;
    memory.write(out, &fd.to_le_bytes())
}

/// `sock_bind`.
pub(super) fn bind(
    memory: &Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    address: u32,
    port: u32,
) -> Result<(), Errno> {
    let address = Address::at(memory, address)?.read(memory, port)?;
    let scope = fds.scope().clone();
    let socket = fds.socket(fd)?;
    of_family(socket, address)?;
    match &mut socket.kind {
        Kind::Tcp(Some(free)) if free.local_addr().is_none() => Ok(free.bind(address)?),
        Kind::Udp(udp) => udp.bind(&scope, address),
        _ => Err(Errno::INVAL),
    }
}

/// `sock_listen`. Listening again changes how many may wait.
pub(super) fn listen(fds: &mut FdTable, fd: u32, backlog: u32) -> Result<(), Errno> {
    let backlog = backlog as usize;
    let socket = fds.socket(fd)?;
    match &mut socket.kind {
        Kind::Tcp(free) => {
            let mut free = free.take().ok_or(Errno::INVAL)?;
            if free.local_addr().is_none() {
                free.bind(socket.family.anywhere())?;
            }
            let listener = Arc::new(free.listen(backlog)?);
            socket.kind = Kind::Listener {
                listener,
                inherited: false,
            };
            Ok(())
        }
        Kind::Listener { listener, .. } => {
            listener.set_backlog(backlog);
            Ok(())
        }
        Kind::Udp(_) => Err(Errno::NOTSUP),
        Kind::Stream(_) | Kind::Connecting(_) => Err(Errno::INVAL),
    }
}

/// `sock_connect`. What a non-blocking socket cannot decide at once is `INPROGRESS`: it is writable
/// once it is decided, and `SO_ERROR` says how.
pub(super) async fn connect(
    memory: &Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    address: u32,
    port: u32,
) -> Result<(), Errno> {
    let to = Address::at(memory, address)?.read(memory, port)?;
    let scope = fds.scope().clone();
    let socket = fds.socket(fd)?;
    of_family(socket, to)?;
    let free = match &mut socket.kind {
        Kind::Udp(udp) => return udp.connect(&scope, to),
        Kind::Tcp(free) => free.take(),
        Kind::Connecting(_) => return Err(Errno::ALREADY),
        Kind::Stream(_) | Kind::Listener { .. } => return Err(Errno::ISCONN),
    };
    // After a connect that failed it is a new one.
    let free = match free {
        Some(free) => free,
        None => scope.tcp_socket()?,
    };
    let connect: Pin<Box<dyn Future<Output = Result<TcpStream, NetError>> + Send>> =
        Box::pin(free.connect(to));
    let mut connect = connect.shared();
    let now = Pin::new(&mut connect).poll(&mut without_waiting());
    let result = match now {
        Poll::Ready(result) => result,
        Poll::Pending if socket.nonblocking => {
            socket.kind = Kind::Connecting(connect);
            return Err(Errno::INPROGRESS);
        }
        Poll::Pending => connect.await,
    };
    let stream = result?;
    fds.socket(fd)?.kind = Kind::Stream(stream);
    Ok(())
}

/// `sock_getlocaladdr` and `sock_getpeeraddr`: writes the address, its kind if there is a place for
/// that, and the port.
pub(super) fn address_of(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    end: End,
    (address, kind, port): (u32, Option<u32>, u32),
) -> Result<(), Errno> {
    let socket = fds.socket(fd)?;
    let found = match end {
        End::Local => local(socket),
        End::Peer => peer(socket).ok_or(Errno::NOTCONN)?,
    };
    let place = Address::at(memory, address)?;
    memory.get_mut(port, 4)?;
    place.write(memory, found.ip())?;
    if let Some(kind) = kind {
        let is = if found.is_ipv4() { IPV4 } else { IPV6 };
        memory.write(kind, &is.to_le_bytes())?;
    }
    memory.write(port, &u32::from(found.port()).to_le_bytes())
}

/// Who is at the other end.
pub(super) fn peer(socket: &Socket) -> Option<SocketAddr> {
    match &socket.kind {
        Kind::Stream(stream) => Some(stream.peer_addr()),
        Kind::Udp(udp) => udp.peer(),
        Kind::Tcp(_) | Kind::Connecting(_) | Kind::Listener { .. } => None,
    }
}

/// Where it is bound; as on a BSD socket, `0.0.0.0:0` or `[::]:0` says nowhere.
fn local(socket: &Socket) -> SocketAddr {
    let bound = match &socket.kind {
        Kind::Tcp(free) => free.as_ref().and_then(|free| free.local_addr()),
        Kind::Connecting(_) => None,
        Kind::Listener { listener, .. } => Some(listener.local_addr()),
        Kind::Stream(stream) => Some(stream.local_addr()),
        Kind::Udp(udp) => udp.local(),
    };
    bound.unwrap_or_else(|| socket.family.anywhere())
}

/// A socket knows the addresses of its own family alone.
pub(super) fn of_family(socket: &Socket, address: SocketAddr) -> Result<(), Errno> {
    match Family::of(address) == socket.family {
        true => Ok(()),
        false => Err(Errno::AFNOSUPPORT),
    }
}

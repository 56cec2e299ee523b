//! Datagrams, with and without a peer.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use coracle_network::{Datagram, MAX_DATAGRAM};

use super::super::errno::Errno;
use super::super::fds::{FdTable, Kind, Udp};
use super::super::io::{self, RECV_PEEK, RECV_WAITALL};
use super::super::memory::{Buffer, Memory};
use super::address::Address;
use super::sockets::{of_family, peer};
use crate::sockets::without_waiting;

/// `roflags`: the message was longer than the buffers.
const TRUNCATED: u16 = 1;

/// Where the guest wants to be told who sent a message.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) address: u32,
    /// Absent in the first generation.
    pub(super) port: Option<u32>,
}

fn udp(fds: &mut FdTable, fd: u32) -> Result<&mut Udp, Errno> {
    match &mut fds.socket(fd)?.kind {
        Kind::Udp(udp) => Ok(udp),
        _ => Err(Errno::NOTSOCK),
    }
}

/// Sends the buffers as one message to the peer.
pub(in super::super) fn send(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    buffers: (u32, u32),
    out: u32,
) -> Result<(), Errno> {
    let data = gather(memory, buffers)?;
    memory.get_mut(out, 4)?;
    let length = data.len() as u32;
    udp(fds, fd)?.send(data)?;
    memory.write(out, &length.to_le_bytes())
}

/// `sock_send_to`. On a connection, the address is nobody's business but the connection's.
pub(super) async fn send_to(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    buffers: (u32, u32),
    (address, port): (u32, u32),
    out: u32,
) -> Result<(), Errno> {
    let to = Address::at(memory, address)?.read(memory, port)?;
    let scope = fds.scope().clone();
    let socket = fds.socket(fd)?;
    of_family(socket, to)?;
    match &mut socket.kind {
        Kind::Udp(udp) => {
            let data = gather(memory, buffers)?;
            memory.get_mut(out, 4)?;
            let length = data.len() as u32;
            udp.send_to(&scope, data, to)?;
            memory.write(out, &length.to_le_bytes())
        }
        Kind::Stream(_) => io::send(memory, fds, fd, buffers, out).await,
        _ => Err(Errno::NOTCONN),
    }
}

/// Puts a message into the buffers; what does not fit is lost, and told so. Writes the number of
/// bytes to the first and the flags to the second of `outs`.
pub(in super::super) async fn receive(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    buffers: (u32, u32),
    flags: u32,
    outs: (u32, Option<u32>),
) -> Result<(), Errno> {
    take(memory, fds, fd, buffers, flags, outs).await.map(drop)
}

/// `sock_recv_from`.
pub(super) async fn receive_from(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    buffers: (u32, u32),
    sender: Sender,
    flags: u32,
    (out, told): (u32, u32),
) -> Result<(), Errno> {
    let place = Address::at(memory, sender.address)?;
    if let Some(port) = sender.port {
        memory.get_mut(port, 4)?;
    }
    let from = match &fds.socket(fd)?.kind {
        Kind::Udp(_) => {
            take(memory, fds, fd, buffers, flags, (out, Some(told)))
                .await?
                .from
        }
        _ => {
            io::receive_told(memory, fds, fd, buffers, flags, (out, told)).await?;
            peer(fds.socket(fd)?).ok_or(Errno::NOTCONN)?
        }
    };
    place.write(memory, from.ip())?;
    match sender.port {
        Some(port) => memory.write(port, &u32::from(from.port()).to_le_bytes()),
        None => Ok(()),
    }
}

async fn take(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    (buffers, count): (u32, u32),
    flags: u32,
    (out, told): (u32, Option<u32>),
) -> Result<Datagram, Errno> {
    if flags & !(RECV_PEEK | RECV_WAITALL) != 0 {
        return Err(Errno::INVAL);
    }
    let buffers = memory.buffers(buffers, count)?;
    memory.get_mut(out, 4)?;
    let socket = fds.socket(fd)?;
    let (nonblocking, patience) = (socket.nonblocking, socket.options.receive_timeout);
    let udp = udp(fds, fd)?;
    let now = udp.poll_next(&mut without_waiting());
    let message = match now {
        Poll::Ready(message) => message?,
        Poll::Pending if nonblocking => return Err(Errno::AGAIN),
        Poll::Pending => {
            let next = poll_fn(|cx: &mut Context<'_>| udp.poll_next(cx));
            io::within(patience, next).await??
        }
    };
    if flags & RECV_PEEK != 0 {
        udp.put_back(message.clone());
    }
    let taken = scatter(memory, &buffers, &message.data)?;
    if let Some(told) = told {
        let cut = taken < message.data.len();
        let flags = if cut { TRUNCATED } else { 0 };
        memory.write(told, &flags.to_le_bytes())?;
    }
    memory.write(out, &(taken as u32).to_le_bytes())?;
    Ok(message)
}

/// The buffers as one message, if it can be one.
fn gather(memory: &Memory<'_>, (buffers, count): (u32, u32)) -> Result<Bytes, Errno> {
    let mut data = BytesMut::new();
    for buffer in memory.buffers(buffers, count)? {
        if data.len() + buffer.length as usize > MAX_DATAGRAM {
            return Err(Errno::MSGSIZE);
        }
        data.extend_from_slice(memory.get(buffer.pointer, buffer.length)?);
    }
    Ok(data.freeze())
}

/// Fills the buffers one after the other; says how much there was room for.
fn scatter(memory: &mut Memory<'_>, buffers: &[Buffer], data: &[u8]) -> Result<usize, Errno> {
    let mut done = 0;
    for buffer in buffers {
        let rest = &data[done..];
        let part = &rest[..rest.len().min(buffer.length as usize)];
        memory.write(buffer.pointer, part)?;
        done += part.len();
    }
    Ok(done)
}

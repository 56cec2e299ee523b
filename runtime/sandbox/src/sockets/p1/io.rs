//! Reading, writing, accepting and shutting down.

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use coracle_network::TcpStream;

use super::errno::Errno;
use super::fds::{Entry, FdTable, Kind, Socket};
use super::memory::{Buffer, Memory};
use super::wasmedge;
use crate::sockets::{Family, without_waiting};

/// `fdflags`: reads and writes never wait.
pub(super) const NONBLOCK: u32 = 4;
pub(super) const RECV_PEEK: u32 = 1;
pub(super) const RECV_WAITALL: u32 = 2;
const SHUT_READ: u32 = 1;
const SHUT_WRITE: u32 = 2;
/// `filetype` of sockets.
const SOCKET_DATAGRAM: u8 = 5;
const SOCKET_STREAM: u8 = 6;

/// Waits as long as the guest has patience, which is for ever unless it said otherwise.
pub(super) async fn within<F: Future>(
    patience: Option<Duration>,
    future: F,
) -> Result<F::Output, Errno> {
    match patience {
        None => Ok(future.await),
        Some(patience) => tokio::time::timeout(patience, future)
            .await
            .map_err(|_| Errno::AGAIN),
    }
}

/// `sock_recv`, which beside the number of bytes tells flags: of a message, whether it was cut.
pub(super) async fn receive_told(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    buffers: (u32, u32),
    flags: u32,
    (out, told): (u32, u32),
) -> Result<(), Errno> {
    memory.write(told, &[0, 0])?;
    if fds.is_datagram(fd) {
        let outs = (out, Some(told));
        return wasmedge::receive(memory, fds, fd, buffers, flags, outs).await;
    }
    receive(memory, fds, fd, buffers, flags, out).await
}

/// `fd_read` and `sock_recv`: fills the buffers with what there is, waiting for the first byte if
/// the socket may. Writes the number of bytes to `out`.
pub(super) async fn receive(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    (buffers, count): (u32, u32),
    flags: u32,
    out: u32,
) -> Result<(), Errno> {
    if flags & !(RECV_PEEK | RECV_WAITALL) != 0 {
        return Err(Errno::INVAL);
    }
    let socket = fds.socket(fd)?;
    let stream = match &socket.kind {
        Kind::Stream(stream) => stream.clone(),
        Kind::Udp(_) => {
            let buffers = (buffers, count);
            return wasmedge::receive(memory, fds, fd, buffers, flags, (out, None)).await;
        }
        _ => return Err(Errno::NOTCONN),
    };
    let buffers = memory.buffers(buffers, count)?;
    memory.get_mut(out, 4)?;
    let mut source = Source {
        stream,
        ahead: std::mem::take(&mut socket.peeked),
        nonblocking: socket.nonblocking,
        patience: socket.options.receive_timeout,
        whole: flags & RECV_WAITALL != 0,
    };
    let result = if flags & RECV_PEEK != 0 {
        source.peek(memory, &buffers).await
    } else {
        source.read(memory, &buffers).await
    };
    if !source.ahead.is_empty() {
        socket.peeked = source.ahead;
    }
    memory.write(out, &result?.to_le_bytes())
}

/// Where received bytes come from.
struct Source {
    stream: TcpStream,
    ahead: Bytes,
    nonblocking: bool,
    patience: Option<Duration>,
    /// Wait until all buffers are full.
    whole: bool,
}

impl Source {
    async fn read(&mut self, memory: &mut Memory<'_>, buffers: &[Buffer]) -> Result<u32, Errno> {
        let mut done = 0;
        for buffer in buffers {
            let mut offset = 0;
            while offset < buffer.length {
                let may_wait = done == 0 || self.whole;
                let bytes = match self.next(buffer.length - offset, may_wait).await {
                    Ok(bytes) => bytes,
                    Err(_) if done > 0 => return Ok(done),
                    Err(error) => return Err(error),
                };
                if bytes.is_empty() {
                    return Ok(done);
                }
                memory.write(buffer.pointer + offset, &bytes)?;
                // Never more than was asked for, which is a u32.
                let length = bytes.len() as u32;
                offset += length;
                done += length;
            }
        }
        Ok(done)
    }

    /// Copies what is there without taking it.
    async fn peek(&mut self, memory: &mut Memory<'_>, buffers: &[Buffer]) -> Result<u32, Errno> {
        if self.ahead.is_empty() {
            let wanted = buffers
                .iter()
                .map(|buffer| buffer.length)
                .max()
                .unwrap_or(0);
            if wanted == 0 {
                return Ok(0);
            }
            self.ahead = self.next(wanted, true).await?;
        }
        let mut done = 0;
        for buffer in buffers {
            let rest = &self.ahead[done..];
            let part = &rest[..rest.len().min(buffer.length as usize)];
            memory.write(buffer.pointer, part)?;
            done += part.len();
        }
        Ok(done as u32)
    }

    /// The next bytes, at most `max`; none at the end. Without waiting, nothing yet is `AGAIN`.
    async fn next(&mut self, max: u32, may_wait: bool) -> Result<Bytes, Errno> {
        let max = max as usize;
        if !self.ahead.is_empty() {
            return Ok(self.ahead.split_to(self.ahead.len().min(max)));
        }
        let now = self.stream.poll_read_bytes(&mut without_waiting(), max);
        match now {
            Poll::Ready(result) => Ok(result?),
            Poll::Pending if self.nonblocking || !may_wait => Err(Errno::AGAIN),
            Poll::Pending => Ok(within(self.patience, self.stream.read_bytes(max)).await??),
        }
    }
}

/// `fd_write` and `sock_send`: sends all buffers, or as much as goes without waiting. Writes the
/// number of bytes to `out`.
pub(super) async fn send(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    (buffers, count): (u32, u32),
    out: u32,
) -> Result<(), Errno> {
    let socket = fds.socket(fd)?;
    let stream = match &socket.kind {
        Kind::Stream(stream) => stream,
        Kind::Udp(_) => return wasmedge::send(memory, fds, fd, (buffers, count), out),
        _ => return Err(Errno::NOTCONN),
    };
    let waits = (socket.nonblocking, socket.options.send_timeout);
    let buffers = memory.buffers(buffers, count)?;
    memory.get_mut(out, 4)?;
    let mut done = 0u32;
    for buffer in buffers {
        let mut rest = buffer;
        while rest.length > 0 {
            let taken = match push(memory, stream, rest, waits).await {
                Ok(taken) => taken,
                Err(_) if done > 0 => return memory.write(out, &done.to_le_bytes()),
                Err(error) => return Err(error),
            };
            rest.pointer += taken;
            rest.length -= taken;
            done = done.saturating_add(taken);
        }
    }
    memory.write(out, &done.to_le_bytes())
}

/// Sends the first part of `buffer` that there is room for.
async fn push(
    memory: &Memory<'_>,
    stream: &TcpStream,
    buffer: Buffer,
    (nonblocking, patience): (bool, Option<Duration>),
) -> Result<u32, Errno> {
    let now = stream.poll_writable(&mut without_waiting());
    let room = match now {
        Poll::Ready(room) => room,
        Poll::Pending if nonblocking => return Err(Errno::AGAIN),
        Poll::Pending => within(patience, poll_fn(|cx| stream.poll_writable(cx))).await?,
    };
    let room = room.map_err(|error| stream.take_error().unwrap_or(error))?;
    let bytes = memory.get(buffer.pointer, buffer.length)?;
    let part = Bytes::copy_from_slice(&bytes[..bytes.len().min(room)]);
    // Never more than the buffer's length, which is a u32.
    Ok(stream.push(part)? as u32)
}

/// `sock_accept`.
pub(super) async fn accept(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    flags: u32,
    out: u32,
) -> Result<(), Errno> {
    if flags & !NONBLOCK != 0 {
        return Err(Errno::INVAL);
    }
    memory.get_mut(out, 4)?;
    let socket = fds.socket(fd)?;
    let Kind::Listener { listener, .. } = &socket.kind else {
        return Err(Errno::INVAL);
    };
    let (listener, nonblocking) = (listener.clone(), socket.nonblocking);
    if !fds.has_room() {
        return Err(Errno::MFILE);
    }
    let now = listener.poll_accept(&mut without_waiting());
    let connection = match now {
        Poll::Ready(connection) => connection?,
        Poll::Pending if nonblocking => return Err(Errno::AGAIN),
        Poll::Pending => listener.accept().await?,
    };
    let family = Family::of(connection.local_addr());
    let socket = Socket::new(Kind::Stream(connection), family, flags & NONBLOCK != 0);
    let fd = fds.insert(Entry::Socket(socket))?;
    memory.write(out, &fd.to_le_bytes())
}

/// `sock_shutdown`.
pub(super) fn shutdown(fds: &mut FdTable, fd: u32, how: u32) -> Result<(), Errno> {
    if how == 0 || how & !(SHUT_READ | SHUT_WRITE) != 0 {
        return Err(Errno::INVAL);
    }
    let socket = fds.socket(fd)?;
    let stream = match &socket.kind {
        Kind::Stream(stream) => stream,
        Kind::Udp(udp) => return udp.peer().map(drop).ok_or(Errno::NOTCONN),
        _ => return Err(Errno::NOTCONN),
    };
    if how & SHUT_WRITE != 0 {
        stream.shutdown_write();
    }
    if how & SHUT_READ != 0 {
        stream.shutdown_read();
        socket.peeked = Bytes::new();
    }
    Ok(())
}

/// `fd_fdstat_get`: a socket with all rights.
pub(super) fn fdstat(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    out: u32,
) -> Result<(), Errno> {
    let flags = if fds.socket(fd)?.nonblocking {
        NONBLOCK as u16
    } else {
        0
    };
    let mut stat = [0u8; 24];
    stat[0] = file_type(fds, fd);
    stat[2..4].copy_from_slice(&flags.to_le_bytes());
    stat[8..].fill(0xff);
    memory.write(out, &stat)
}

/// `fd_fdstat_set_flags`: only whether calls wait means something.
pub(super) fn set_flags(fds: &mut FdTable, fd: u32, flags: u32) -> Result<(), Errno> {
    fds.socket(fd)?.nonblocking = flags & NONBLOCK != 0;
    Ok(())
}

/// `fd_filestat_get`: a socket of no device and no size.
pub(super) fn filestat(
    memory: &mut Memory<'_>,
    fds: &FdTable,
    fd: u32,
    out: u32,
) -> Result<(), Errno> {
    let mut stat = [0u8; 64];
    stat[16] = file_type(fds, fd);
    memory.write(out, &stat)
}

fn file_type(fds: &FdTable, fd: u32) -> u8 {
    match fds.is_datagram(fd) {
        true => SOCKET_DATAGRAM,
        false => SOCKET_STREAM,
    }
}

/// `fd_prestat_get`. wasi-libc stops its scan of preopened folders at `BADF` and aborts at other
/// errors; a listener among them must therefore look like a preopen of an unknown kind.
pub(super) fn prestat(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    out: u32,
) -> Result<(), Errno> {
    match fds.socket(fd)?.kind {
        Kind::Listener {
            inherited: true, ..
        } => memory.write(out, &[1, 0, 0, 0, 0, 0, 0, 0]),
        _ => Err(Errno::BADF),
    }
}

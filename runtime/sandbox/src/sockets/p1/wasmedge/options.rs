//! `sock_getsockopt` and `sock_setsockopt`.
//!
//! Numbers are of 32 bits, times of two times 64: seconds and microseconds. What means nothing in
//! memory is kept and read back.

use std::time::Duration;

use super::super::errno::Errno;
use super::super::fds::{FdTable, Kind, Socket};
use super::super::memory::Memory;
use super::sockets::{DATAGRAM, STREAM};
use crate::sockets::options::{TcpOptions, buffer_size};

/// The only level: the socket itself.
const SOCKET: u32 = 0;

const REUSE_ADDRESS: u32 = 0;
const TYPE: u32 = 1;
const ERROR: u32 = 2;
const DONT_ROUTE: u32 = 3;
const BROADCAST: u32 = 4;
const SEND_BUFFER: u32 = 5;
const RECEIVE_BUFFER: u32 = 6;
const KEEP_ALIVE: u32 = 7;
const OUT_OF_BAND_INLINE: u32 = 8;
const LINGER: u32 = 9;
const RECEIVE_LOW_WATER: u32 = 10;
const RECEIVE_TIMEOUT: u32 = 11;
const SEND_TIMEOUT: u32 = 12;
const LISTENS: u32 = 13;

/// A time of `struct timeval`.
const TIME: u32 = 16;
const MICROS: u64 = 1_000_000;

/// What a guest has set of a socket.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct Options {
    tcp: TcpOptions,
    reuse_address: bool,
    broadcast: bool,
    linger: [u32; 2],
    /// How long a receive waits that may wait.
    pub(in super::super) receive_timeout: Option<Duration>,
    /// How long a send waits that may wait.
    pub(in super::super) send_timeout: Option<Duration>,
}

/// `sock_getsockopt`: `size` says how much room there is, and then how much was used.
pub(super) fn get(
    memory: &mut Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    (level, name): (u32, u32),
    (value, size): (u32, u32),
) -> Result<(), Errno> {
    let socket = fds.socket(fd)?;
    if level != SOCKET {
        return Err(Errno::NOPROTOOPT);
    }
    let room = memory.read_u32(size)?;
    memory.get_mut(value, room)?;
    let number = |n: u32| n.to_le_bytes().to_vec();
    let options = &socket.options;
    let bytes = match name {
        REUSE_ADDRESS => number(options.reuse_address.into()),
        TYPE => number(match socket.kind {
            Kind::Udp(_) => DATAGRAM,
            _ => STREAM,
        }),
        ERROR => number(take_error(socket).map_or(0, |error| u32::from(error.0))),
        BROADCAST => number(options.broadcast.into()),
        SEND_BUFFER => number(options.tcp.send_buffer as u32),
        RECEIVE_BUFFER => number(options.tcp.receive_buffer as u32),
        KEEP_ALIVE => number(options.tcp.keep_alive.into()),
        DONT_ROUTE | OUT_OF_BAND_INLINE => number(0),
        LINGER => options.linger.map(u32::to_le_bytes).concat(),
        RECEIVE_LOW_WATER => number(1),
        RECEIVE_TIMEOUT => time(options.receive_timeout),
        SEND_TIMEOUT => time(options.send_timeout),
        LISTENS => number(matches!(socket.kind, Kind::Listener { .. }).into()),
        _ => return Err(Errno::NOPROTOOPT),
    };
    if (room as usize) < bytes.len() {
        return Err(Errno::INVAL);
    }
    memory.write(value, &bytes)?;
    memory.write(size, &(bytes.len() as u32).to_le_bytes())
}

/// `sock_setsockopt`.
pub(super) fn set(
    memory: &Memory<'_>,
    fds: &mut FdTable,
    fd: u32,
    (level, name): (u32, u32),
    (value, size): (u32, u32),
) -> Result<(), Errno> {
    let socket = fds.socket(fd)?;
    if level != SOCKET {
        return Err(Errno::NOPROTOOPT);
    }
    let options = &mut socket.options;
    let number = || match size {
        0..4 => Err(Errno::INVAL),
        _ => memory.read_u32(value),
    };
    match name {
        REUSE_ADDRESS => options.reuse_address = number()? != 0,
        BROADCAST => options.broadcast = number()? != 0,
        KEEP_ALIVE => options.tcp.keep_alive = number()? != 0,
        SEND_BUFFER => options.tcp.send_buffer = buffer_size(number()?.into()),
        RECEIVE_BUFFER => options.tcp.receive_buffer = buffer_size(number()?.into()),
        LINGER => {
            let bytes = memory.get(value, 8.min(size))?;
            if bytes.len() < 8 {
                return Err(Errno::INVAL);
            }
            options.linger = [memory.read_u32(value)?, memory.read_u32(value + 4)?];
        }
        DONT_ROUTE | OUT_OF_BAND_INLINE | RECEIVE_LOW_WATER => {
            number()?;
        }
        RECEIVE_TIMEOUT => options.receive_timeout = read_time(memory, value, size)?,
        SEND_TIMEOUT => options.send_timeout = read_time(memory, value, size)?,
        _ => return Err(Errno::NOPROTOOPT),
    }
    Ok(())
}

/// What went wrong and nobody was told of: of a connect, a connection, a datagram.
fn take_error(socket: &mut Socket) -> Option<Errno> {
    socket.error.take().or_else(|| match &socket.kind {
        Kind::Stream(stream) => stream.take_error().map(Errno::from),
        Kind::Udp(udp) => udp.take_error(),
        Kind::Tcp(_) | Kind::Connecting(_) | Kind::Listener { .. } => None,
    })
}

fn time(time: Option<Duration>) -> Vec<u8> {
    let time = time.unwrap_or_default();
    let halves = [time.as_secs(), time.subsec_micros().into()];
    halves.map(u64::to_le_bytes).concat()
}

/// 0 is for ever.
fn read_time(memory: &Memory<'_>, value: u32, size: u32) -> Result<Option<Duration>, Errno> {
    if size < TIME {
        return Err(Errno::INVAL);
    }
    let bytes = memory.get(value, TIME)?;
    let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    let (seconds, micros) = (half(&bytes[..8]), half(&bytes[8..]));
    if micros >= MICROS || i64::try_from(seconds).is_err() {
        return Err(Errno::DOM);
    }
    let time = Duration::from_secs(seconds) + Duration::from_micros(micros);
    Ok((!time.is_zero()).then_some(time))
}

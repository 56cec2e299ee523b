//! `poll_oneoff` over sockets, clocks, files and standard streams at once.
//!
//! wasmtime-wasi waits for everything but sockets. So its subscriptions are copied out, with its
//! own numbers for the descriptors, and its `poll_oneoff` runs on the copy beside the sockets;
//! whatever is ready when the first is ready makes up the answer.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use coracle_network::{TcpListener, TcpStream, UdpSocket};
use parking_lot::Mutex;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1 as base};
use wiggle::GuestMemory;

use super::errno::Errno;
use super::fds::{Connecting, Entry, FdTable, Kind};
use super::memory::Memory;

const SUBSCRIPTION: u32 = 48;
const EVENT: u32 = 32;
/// Subscriptions that one call may bring.
const MAX_SUBSCRIPTIONS: u32 = 16 * 1024;

const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;

/// Where the guest's arrays are.
pub(super) struct Arrays {
    pub(super) subscriptions: u32,
    pub(super) events: u32,
    pub(super) count: u32,
    pub(super) out: u32,
}

/// A subscription that is answered here.
struct Watch {
    user_data: [u8; 8],
    tag: u8,
    on: On,
}

enum On {
    Readable(TcpStream),
    Writable(TcpStream),
    Acceptable(Arc<TcpListener>),
    /// A connect is decided, one way or the other.
    Connected(Mutex<Connecting>),
    /// A message waits, of this peer if there is one.
    Received(UdpSocket, Option<SocketAddr>),
    /// Ready at once, with this answer.
    Decided(Errno),
    /// A listener never becomes writable.
    Never,
}

impl Watch {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<[u8; EVENT as usize]> {
        let (error, bytes) = match &self.on {
            On::Readable(stream) => {
                std::task::ready!(stream.poll_readable(cx));
                (Errno::SUCCESS, 1)
            }
            On::Writable(stream) => {
                // An error is ready too: the next write tells it.
                let room = std::task::ready!(stream.poll_writable(cx));
                (Errno::SUCCESS, room.unwrap_or(1))
            }
            On::Acceptable(listener) => {
                std::task::ready!(listener.poll_acceptable(cx));
                (Errno::SUCCESS, 1)
            }
            On::Connected(connecting) => {
                let mut connecting = connecting.lock();
                // Its error is told by `SO_ERROR`.
                let _ = std::task::ready!(Pin::new(&mut *connecting).poll(cx));
                (Errno::SUCCESS, 1)
            }
            On::Received(socket, peer) => {
                std::task::ready!(match peer {
                    Some(peer) => socket.poll_readable_connected(cx, *peer),
                    None => socket.poll_readable(cx),
                });
                (Errno::SUCCESS, 1)
            }
            On::Decided(error) => (*error, 1),
            On::Never => return Poll::Pending,
        };
        let mut event = [0; EVENT as usize];
        event[..8].copy_from_slice(&self.user_data);
        event[8..10].copy_from_slice(&error.0.to_le_bytes());
        event[10] = self.tag;
        event[16..24].copy_from_slice(&(bytes as u64).to_le_bytes());
        Poll::Ready(event)
    }
}

/// Waits until at least one subscription is ready.
pub(super) async fn poll(
    memory: &mut Memory<'_>,
    wasi: &mut WasiP1Ctx,
    fds: &FdTable,
    arrays: Arrays,
) -> wasmtime::Result<i32> {
    let (watches, foreign) = match sort(memory, fds, &arrays) {
        Ok(sorted) => sorted,
        Err(error) => return Ok(error.code()),
    };
    let (own, theirs) = wait(&watches, foreign, wasi).await?;
    let theirs = match theirs {
        Theirs::Events(events) => events,
        // Only if nothing of ours is ready, or a broken descriptor would hide working sockets.
        Theirs::Error(error) if own.is_empty() => return Ok(error),
        Theirs::Error(_) => Vec::new(),
    };
    let mut events = own.concat();
    events.extend_from_slice(&theirs);
    let count = events.len() as u32 / EVENT;
    let written = memory
        .write(arrays.events, &events)
        .and_then(|()| memory.write(arrays.out, &count.to_le_bytes()));
    Ok(super::errno::code(written))
}

/// Separates what is answered here from what wasmtime-wasi answers.
fn sort(
    memory: &mut Memory<'_>,
    fds: &FdTable,
    arrays: &Arrays,
) -> Result<(Vec<Watch>, Vec<u8>), Errno> {
    if arrays.count == 0 || arrays.count > MAX_SUBSCRIPTIONS {
        return Err(Errno::INVAL);
    }
    memory.get_mut(arrays.events, arrays.count * EVENT)?;
    memory.get_mut(arrays.out, 4)?;
    let subscriptions = memory.get(arrays.subscriptions, arrays.count * SUBSCRIPTION)?;
    let (mut watches, mut foreign) = (Vec::new(), Vec::new());
    for subscription in subscriptions.chunks_exact(SUBSCRIPTION as usize) {
        let tag = subscription[8];
        if tag == CLOCK {
            foreign.extend_from_slice(subscription);
            continue;
        }
        if tag != FD_READ && tag != FD_WRITE {
            return Err(Errno::INVAL);
        }
        let fd = u32::from_le_bytes(subscription[16..20].try_into().expect("4 bytes"));
        let on = match fds.get(fd) {
            Some(Entry::Wasi(number)) => {
                let start = foreign.len();
                foreign.extend_from_slice(subscription);
                foreign[start + 16..start + 20].copy_from_slice(&number.to_le_bytes());
                continue;
            }
            Some(Entry::Socket(socket)) => match (&socket.kind, tag) {
                (Kind::Stream(_), FD_READ) if !socket.peeked.is_empty() => {
                    On::Decided(Errno::SUCCESS)
                }
                (Kind::Stream(stream), FD_READ) => On::Readable(stream.clone()),
                (Kind::Stream(stream), _) => On::Writable(stream.clone()),
                (Kind::Listener { listener, .. }, FD_READ) => On::Acceptable(listener.clone()),
                (Kind::Listener { .. }, _) => On::Never,
                (Kind::Connecting(connecting), _) => On::Connected(Mutex::new(connecting.clone())),
                (Kind::Udp(udp), FD_READ) if !udp.has_next() => match udp.watched() {
                    Some((socket, peer)) => On::Received(socket, peer),
                    None => On::Never,
                },
                // As Linux has it: a call would say at once what is wrong.
                (Kind::Udp(_) | Kind::Tcp(_), _) => On::Decided(Errno::SUCCESS),
            },
            None => On::Decided(Errno::BADF),
        };
        let user_data = subscription[..8].try_into().expect("8 bytes");
        watches.push(Watch { user_data, tag, on });
    }
    Ok((watches, foreign))
}

/// What wasmtime-wasi said.
enum Theirs {
    Events(Vec<u8>),
    Error(i32),
}

type Own = Vec<[u8; EVENT as usize]>;

async fn wait(
    watches: &[Watch],
    foreign: Vec<u8>,
    wasi: &mut WasiP1Ctx,
) -> wasmtime::Result<(Own, Theirs)> {
    let ready = |cx: &mut Context<'_>| -> Own {
        let events = watches.iter().filter_map(|watch| match watch.poll(cx) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        });
        events.collect()
    };
    if foreign.is_empty() {
        let own = poll_fn(|cx| {
            let own = ready(cx);
            if own.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(own)
            }
        });
        return Ok((own.await, Theirs::Events(Vec::new())));
    }
    // Laid out as the guest's memory would be: subscriptions, events, count.
    let count = foreign.len() as u32 / SUBSCRIPTION;
    let (events, out) = (count * SUBSCRIPTION, count * (SUBSCRIPTION + EVENT));
    let mut scratch = foreign;
    scratch.resize(out as usize + 4, 0);
    let (own, done) = {
        let mut memory = GuestMemory::Unshared(&mut scratch);
        let waiting = base::poll_oneoff(
            wasi,
            &mut memory,
            0,
            events.cast_signed(),
            count.cast_signed(),
            out.cast_signed(),
        );
        let mut waiting = pin!(waiting);
        poll_fn(|cx| {
            let own = ready(cx);
            match waiting.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready((own, Some(done))),
                Poll::Pending if own.is_empty() => Poll::Pending,
                Poll::Pending => Poll::Ready((own, None)),
            }
        })
        .await
    };
    let theirs = match done.transpose()? {
        None => Theirs::Events(Vec::new()),
        Some(0) => {
            let scratch = Memory(&mut scratch);
            let count = scratch.read_u32(out).unwrap_or(0);
            let bytes = scratch.get(events, count * EVENT).unwrap_or_default();
            Theirs::Events(bytes.to_vec())
        }
        Some(error) => Theirs::Error(error),
    };
    Ok((own, theirs))
}

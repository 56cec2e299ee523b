//! What a guest's file descriptors mean.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use coracle_network::{NetError, SocketScope, TcpListener, TcpSocket, TcpStream};
use futures::future::Shared;
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1 as base};
use wiggle::GuestMemory;

use super::Listeners;
use super::errno::Errno;
use super::wasmedge::Options;
use crate::handles::{handle_limit, may_hold};
use crate::sockets::{Family, without_waiting};

pub(super) use super::udp::Udp;

/// The first descriptor that is not a standard stream.
const FIRST: u32 = 3;

/// A guest's descriptors: 0 to 2 are the standard streams, then come the listeners, then the
/// preopened folders; further ones get the lowest free number, as POSIX says.
pub(crate) struct FdTable {
    entries: BTreeMap<u32, Entry>,
    /// Where sockets are opened.
    scope: SocketScope,
    /// No number below is free.
    lowest: u32,
    /// The memory of the store's one instance, once a call has looked it up by its name.
    pub(super) memory: Option<wasmtime::Memory>,
}

/// What stands behind a descriptor.
#[allow(
    clippy::large_enum_variant,
    reason = "a module has few descriptors, and what is larger is a socket"
)]
pub(super) enum Entry {
    /// wasmtime-wasi's descriptor of this number.
    Wasi(u32),
    Socket(Socket),
}

/// A socket of the guest.
pub(super) struct Socket {
    pub(super) kind: Kind,
    /// Of what it may be bound and connected to; one that was handed over may serve both.
    pub(super) family: Family,
    pub(super) nonblocking: bool,
    /// Bytes that were looked at with `RECV_PEEK` and are still to be read.
    pub(super) peeked: Bytes,
    /// Of a connect that was not waited for; `SO_ERROR` tells it once.
    pub(super) error: Option<Errno>,
    pub(super) options: Options,
}

/// A connect that is under way, for all who wait for it.
pub(super) type Connecting =
    Shared<Pin<Box<dyn Future<Output = Result<TcpStream, NetError>> + Send>>>;

pub(super) enum Kind {
    Listener {
        listener: Arc<TcpListener>,
        /// Handed over at the start: the guest's scan of preopened descriptors must step over it.
        inherited: bool,
    },
    Stream(TcpStream),
    /// Opened, perhaps bound. `None` once a connect has failed.
    Tcp(Option<TcpSocket>),
    Connecting(Connecting),
    Udp(Udp),
}

impl Socket {
    pub(super) fn new(kind: Kind, family: Family, nonblocking: bool) -> Self {
        Self {
            kind,
            family,
            nonblocking,
            peeked: Bytes::new(),
            error: None,
            options: Options::default(),
        }
    }

    /// A connect that is decided by now makes a connection, or an error to be told.
    fn settle(&mut self) {
        let Kind::Connecting(connecting) = &mut self.kind else {
            return;
        };
        if let Poll::Ready(result) = Pin::new(connecting).poll(&mut without_waiting()) {
            self.kind = match result {
                Ok(stream) => Kind::Stream(stream),
                Err(error) => {
                    self.error = Some(error.into());
                    Kind::Tcp(None)
                }
            };
        }
    }
}

impl FdTable {
    /// The table of a guest that is about to start with `wasi`'s folders and with `listeners`.
    pub(crate) fn new(
        listeners: Listeners,
        nonblocking: bool,
        scope: SocketScope,
        wasi: &mut WasiP1Ctx,
    ) -> Self {
        let mut entries: BTreeMap<u32, Entry> =
            (0..FIRST).map(|fd| (fd, Entry::Wasi(fd))).collect();
        let mut next = FIRST;
        for (_, listener) in listeners.0 {
            let family = Family::of(listener.local_addr());
            let kind = Kind::Listener {
                listener: Arc::new(listener),
                inherited: true,
            };
            let socket = Socket::new(kind, family, nonblocking);
            entries.insert(next, Entry::Socket(socket));
            next += 1;
        }
        let mut preopen = FIRST;
        while is_preopen(wasi, preopen) {
            entries.insert(next, Entry::Wasi(preopen));
            next += 1;
            preopen += 1;
        }
        Self {
            entries,
            scope,
            lowest: next,
            memory: None,
        }
    }

    pub(super) fn get(&self, fd: u32) -> Option<&Entry> {
        self.entries.get(&fd)
    }

    /// wasmtime-wasi's number for `fd`; `otherwise` when it is a socket.
    pub(super) fn wasi(&self, fd: u32, otherwise: Errno) -> Result<u32, Errno> {
        match self.entries.get(&fd) {
            Some(Entry::Wasi(number)) => Ok(*number),
            Some(Entry::Socket(_)) => Err(otherwise),
            None => Err(Errno::BADF),
        }
    }

    pub(super) fn socket(&mut self, fd: u32) -> Result<&mut Socket, Errno> {
        match self.entries.get_mut(&fd) {
            Some(Entry::Socket(socket)) => {
                socket.settle();
                Ok(socket)
            }
            Some(Entry::Wasi(_)) => Err(Errno::NOTSOCK),
            None => Err(Errno::BADF),
        }
    }

    pub(super) fn is_socket(&self, fd: u32) -> bool {
        matches!(self.entries.get(&fd), Some(Entry::Socket(_)))
    }

    /// Whether it is a UDP socket.
    pub(super) fn is_datagram(&self, fd: u32) -> bool {
        let entry = self.entries.get(&fd);
        matches!(entry, Some(Entry::Socket(socket)) if matches!(socket.kind, Kind::Udp(_)))
    }

    /// Where sockets are opened.
    pub(super) fn scope(&self) -> &SocketScope {
        &self.scope
    }

    /// Whether there may be another file: there is room here, and the process has descriptors left.
    pub(super) fn may_open(&self) -> Result<(), Errno> {
        if !self.has_room() {
            return Err(Errno::MFILE);
        }
        match may_hold(self.entries.len()) {
            true => Ok(()),
            false => Err(Errno::NFILE),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < handle_limit()
    }

    /// Gives `entry` the lowest free number.
    pub(super) fn insert(&mut self, entry: Entry) -> Result<u32, Errno> {
        if !self.has_room() {
            return Err(Errno::MFILE);
        }
        let used = self.entries.range(self.lowest..).map(|(fd, _)| *fd);
        let fd = used
            .zip(self.lowest..)
            .find_map(|(used, expected)| (used != expected).then_some(expected))
            .unwrap_or_else(|| {
                self.entries
                    .keys()
                    .next_back()
                    .map_or(0, |last| last + 1)
                    .max(self.lowest)
            });
        self.entries.insert(fd, entry);
        self.lowest = fd + 1;
        Ok(fd)
    }

    pub(super) fn remove(&mut self, fd: u32) {
        if self.entries.remove(&fd).is_some() {
            self.lowest = self.lowest.min(fd);
        }
    }

    /// Gives what `from` means to `to`, whose old meaning the caller has closed.
    pub(super) fn move_to(&mut self, from: u32, to: u32) {
        if let Some(entry) = self.entries.remove(&from) {
            self.entries.insert(to, entry);
            self.lowest = self.lowest.min(from);
        }
    }
}

/// Whether wasmtime-wasi has a preopened folder of this number.
fn is_preopen(wasi: &mut WasiP1Ctx, fd: u32) -> bool {
    let mut scratch = [0; 8];
    let mut memory = GuestMemory::Unshared(&mut scratch);
    let result = base::fd_prestat_get(wasi, &mut memory, fd.cast_signed(), 0);
    matches!(result, Ok(0))
}

//! A connection as its holder sees it: bytes in both directions, wherever the other end is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::account::SocketSlot;
use crate::error::NetError;
use crate::flows::{OpenFlow, count};
use crate::host::HostSocket;
use crate::namespace::BoundPort;
use crate::pipe::Pipe;
use crate::service_flows::{Passage, Side, Through};

/// What carries the bytes.
pub(crate) enum Carrier {
    Memory {
        incoming: Arc<Pipe>,
        outgoing: Arc<Pipe>,
    },
    Host(HostSocket),
}

impl Carrier {
    /// The two ends of a connection in memory: of the one who connects and of the one who accepts.
    /// Each end's pod pays for what waits to be read there.
    pub(crate) fn pair(client: &SocketSlot, server: &SocketSlot) -> (Self, Self) {
        Self::pair_of(client.account.pod.clone(), server.account.pod.clone())
    }

    pub(crate) fn pair_of(
        client: Arc<crate::account::PodAccount>,
        server: Arc<crate::account::PodAccount>,
    ) -> (Self, Self) {
        let (to_client, to_server) = (Pipe::new(client), Pipe::new(server));
        (
            Self::Memory {
                incoming: to_client.clone(),
                outgoing: to_server.clone(),
            },
            Self::Memory {
                incoming: to_server,
                outgoing: to_client,
            },
        )
    }
}

/// Where a connection leads, for whoever keeps it to use it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Who opened it.
    pub from: SocketAddr,
    /// What was dialled.
    pub to: SocketAddr,
    /// Who took it: `to`, or an endpoint of the Service that has this address.
    pub endpoint: SocketAddr,
}

/// One end of an established TCP connection.
///
/// Clones are handles of the same end, as file descriptors made by `dup` are: the connection
/// closes when the last one is dropped, with a reset if bytes were left unread, else in order.
/// All methods may be used from several tasks; every waiting task is woken.
#[derive(Clone)]
pub struct TcpStream(Arc<End>);

struct End {
    carrier: Carrier,
    local: SocketAddr,
    peer: SocketAddr,
    /// Who took it, of one that this end opened.
    endpoint: SocketAddr,
    slot: SocketSlot,
    flow: OpenFlow,
    /// It was accepted, and no byte was read of it yet.
    silent: AtomicBool,
    /// This end has reset it.
    reset: AtomicBool,
    /// What a Service has to do with it.
    through: Through,
    /// The port of an outgoing connection, held as long as the connection.
    _port: Option<BoundPort>,
}

impl TcpStream {
    pub(crate) fn new(
        carrier: Carrier,
        local: SocketAddr,
        peer: SocketAddr,
        slot: SocketSlot,
        port: Option<BoundPort>,
    ) -> Self {
        Self::made(
            carrier,
            (local, peer, peer),
            slot,
            port,
            false,
            Through::None,
        )
    }

    /// The end of who connected, at `endpoint`; one that tells a Service of itself.
    pub(crate) fn opened(
        carrier: Carrier,
        path: Path,
        slot: SocketSlot,
        port: Option<BoundPort>,
        passage: Option<Passage>,
    ) -> Self {
        let through = passage.map_or(Through::None, |passage| Through::Passage(Box::new(passage)));
        let Path { from, to, endpoint } = path;
        Self::made(carrier, (from, to, endpoint), slot, port, false, through)
    }

    /// An end of the node's in between, which tells a Service of itself.
    pub(crate) fn passing(
        carrier: Carrier,
        (local, peer): (SocketAddr, SocketAddr),
        slot: SocketSlot,
        passage: Option<Passage>,
    ) -> Self {
        let path = Path {
            from: local,
            to: peer,
            endpoint: peer,
        };
        Self::opened(carrier, path, slot, None, passage)
    }

    /// The end of who accepts, counted as silent until a byte of it is read.
    pub(crate) fn accepted(
        carrier: Carrier,
        local: SocketAddr,
        peer: SocketAddr,
        slot: SocketSlot,
        through: Through,
    ) -> Self {
        slot.account.silent_begins();
        Self::made(carrier, (local, peer, peer), slot, None, true, through)
    }

    fn made(
        carrier: Carrier,
        (local, peer, endpoint): (SocketAddr, SocketAddr, SocketAddr),
        slot: SocketSlot,
        port: Option<BoundPort>,
        silent: bool,
        mut through: Through,
    ) -> Self {
        let flow = OpenFlow::new(slot.account.pod.clone(), &carrier, local, peer);
        if let Through::Passage(passage) = &mut through {
            passage.begins(flow.flow());
        }
        Self(Arc::new(End {
            flow,
            carrier,
            local,
            peer,
            endpoint,
            slot: slot.connected(),
            silent: AtomicBool::new(silent),
            reset: AtomicBool::new(false),
            through,
            _port: port,
        }))
    }

    /// What a Service has to do with it.
    pub(crate) fn through(&self) -> &Through {
        &self.0.through
    }

    /// The address of this end.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// The address of the other end: for the one who connected the address that was dialled (a
    /// Service's, if it was), for the one who accepted the real address of the peer.
    pub fn peer_addr(&self) -> SocketAddr {
        self.0.peer
    }

    /// Where it leads, of one that this end opened.
    pub fn path(&self) -> Path {
        Path {
            from: self.0.local,
            to: self.0.peer,
            endpoint: self.0.endpoint,
        }
    }

    /// The next bytes, at least 1 and at most `max` (which must not be 0); empty at the end.
    pub fn poll_read_bytes(
        &self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Bytes, NetError>> {
        let bytes = ready!(match &self.0.carrier {
            Carrier::Memory { incoming, .. } => incoming.poll_read(cx, max),
            Carrier::Host(socket) => socket.poll_read(cx, max),
        })?;
        self.count_in(bytes.len());
        Poll::Ready(Ok(bytes))
    }

    /// Waits for bytes; see [`poll_read_bytes`](Self::poll_read_bytes).
    pub async fn read_bytes(&self, max: usize) -> Result<Bytes, NetError> {
        std::future::poll_fn(|cx| self.poll_read_bytes(cx, max)).await
    }

    /// Ready when a read would not wait: bytes, the end or an error. Exact: never ready in vain.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0.carrier {
            Carrier::Memory { incoming, .. } => incoming.poll_readable(cx),
            Carrier::Host(socket) => socket.poll_readable(cx),
        }
    }

    /// Ready with the number of bytes, never 0, that [`push`](Self::push) will take whole; or with
    /// an error, of which [`take_error`](Self::take_error) may know better.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<Result<usize, NetError>> {
        match &self.0.carrier {
            Carrier::Memory { outgoing, .. } => outgoing.poll_writable(cx),
            Carrier::Host(socket) => socket.poll_writable(cx),
        }
    }

    /// Sends the first part of `bytes` that there is room for, without waiting, and says how long
    /// it was; 0 means full.
    pub fn push(&self, bytes: Bytes) -> Result<usize, NetError> {
        let sent = match &self.0.carrier {
            Carrier::Memory { outgoing, .. } => outgoing.push(bytes),
            Carrier::Host(socket) => socket.push(bytes),
        }
        .map_err(|error| self.told(error))?;
        self.count_out(sent);
        Ok(sent)
    }

    /// Sends all of `bytes`, waiting for room as often as needed.
    pub async fn write_bytes(&self, mut bytes: Bytes) -> Result<(), NetError> {
        while !bytes.is_empty() {
            std::future::poll_fn(|cx| self.poll_writable(cx))
                .await
                .map_err(|error| self.told(error))?;
            let sent = self.push(bytes.clone())?;
            bytes = bytes.split_off(sent);
        }
        Ok(())
    }

    /// Ends the outgoing direction; the peer reads what was sent, then the end.
    pub fn shutdown_write(&self) {
        match &self.0.carrier {
            Carrier::Memory { outgoing, .. } => outgoing.finish(),
            Carrier::Host(socket) => socket.finish(),
        }
    }

    /// Ends the incoming direction for this end only: reads give the end, and what the peer still
    /// sends is thrown away.
    pub fn shutdown_read(&self) {
        match &self.0.carrier {
            Carrier::Memory { incoming, .. } => incoming.shut_read(),
            Carrier::Host(socket) => socket.shut_read(),
        }
    }

    /// Ends both directions at once; the peer gets `ConnectionReset`.
    pub fn reset(&self) {
        count(&self.0.slot.account.pod.connections.reset);
        self.0.reset.store(true, Ordering::Relaxed);
        match &self.0.carrier {
            Carrier::Memory { incoming, outgoing } => {
                outgoing.reset();
                incoming.close_read();
            }
            Carrier::Host(socket) => socket.reset(),
        }
    }

    /// The peer's reset, if no read and no write has told of it yet: what `SO_ERROR` is elsewhere.
    /// Whichever asks first is told, once; then reads give the end and writes `BrokenPipe`.
    pub fn take_error(&self) -> Option<NetError> {
        let reset = match &self.0.carrier {
            Carrier::Memory { incoming, .. } => incoming.tell_reset(),
            Carrier::Host(socket) => socket.tell_reset(),
        };
        reset.then_some(NetError::ConnectionReset)
    }

    /// What a write that failed with `error` says.
    fn told(&self, error: NetError) -> NetError {
        match error {
            NetError::BrokenPipe => self.take_error().unwrap_or(error),
            error => error,
        }
    }

    /// The same connection, whose socket, if the host has one for it, is from now on watched by
    /// `runtime`: tasks there are woken without a detour. For a connection that was just accepted;
    /// one that has other handles stays as it is.
    pub fn driven_by(self, runtime: &tokio::runtime::Handle) -> Self {
        let mut this = self;
        if let Some(end) = Arc::get_mut(&mut this.0)
            && let Carrier::Host(socket) = &mut end.carrier
        {
            socket.drive_by(runtime);
        }
        this
    }

    /// Splits into a half that reads and one that writes. Dropping the writing half ends the
    /// outgoing direction; the connection closes when both have gone.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (ReadHalf(self.clone()), WriteHalf(self))
    }

    fn count_in(&self, bytes: usize) {
        if bytes > 0 {
            self.0.slot.account.moved_in(bytes);
            self.0.flow.received(bytes);
            // Looked at first: a swap at every read would cost more than the rest.
            if self.0.silent.load(Ordering::Relaxed) && self.0.silent.swap(false, Ordering::Relaxed)
            {
                self.0.slot.account.silent_ends();
            }
        }
    }

    fn count_out(&self, bytes: usize) {
        if bytes > 0 {
            self.0.slot.account.moved_out(bytes);
            self.0.flow.sent(bytes);
        }
    }

    fn poll_read_into(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(match &self.0.carrier {
            Carrier::Memory { incoming, .. } => incoming.poll_read_into(cx, buffer),
            Carrier::Host(socket) => socket.poll_read_into(cx, buffer),
        })?;
        self.count_in(buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }

    fn poll_write_from(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if let Carrier::Host(socket) = &self.0.carrier {
            let sent = ready!(socket.poll_write_from(cx, data))?;
            self.count_out(sent);
            return Poll::Ready(Ok(sent));
        }
        loop {
            let room = ready!(self.poll_writable(cx)).map_err(|error| self.told(error))?;
            let part = &data[..data.len().min(room)];
            let sent = self.push(Bytes::copy_from_slice(part))?;
            // 0 if another handle was quicker: wait again.
            if sent > 0 {
                return Poll::Ready(Ok(sent));
            }
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if *self.silent.get_mut() {
            self.slot.account.silent_ends();
        }
        let (unread, broken) = match &self.carrier {
            Carrier::Memory { incoming, outgoing } => {
                let broken = incoming.was_reset();
                let unread = incoming.close_read();
                if unread {
                    count(&self.slot.account.pod.connections.reset);
                    outgoing.reset();
                } else {
                    outgoing.finish();
                }
                (unread, broken)
            }
            // The system does the same when the descriptor closes.
            Carrier::Host(socket) => (socket.has_unread(), socket.is_broken()),
        };
        if let Through::Passage(passage) = &mut self.through {
            // Its own reset looks like a broken connection, too.
            let reset = match unread || *self.reset.get_mut() {
                true => Some(Side::Near),
                false => broken.then_some(Side::Far),
            };
            passage.ends(reset, self.slot.account.now());
        }
    }
}

impl std::fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpStream({} - {})", self.0.local, self.0.peer)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read_into(cx, buffer)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_from(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

/// The reading half of a connection.
#[derive(Debug)]
pub struct ReadHalf(TcpStream);

/// The writing half of a connection; dropping it ends the outgoing direction.
#[derive(Debug)]
pub struct WriteHalf(TcpStream);

impl ReadHalf {
    /// The connection that this is half of.
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }
}

impl WriteHalf {
    /// The connection that this is half of.
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.0.shutdown_write();
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read_into(cx, buffer)
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_from(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

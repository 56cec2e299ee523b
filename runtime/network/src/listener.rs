//! A listening socket and its queue of connections that wait to be accepted.
//!
//! ```text
//! open ──stop──▶ stopped   connects are refused; accept takes who waits already, then waits for
//!   │                      ever (a pod that terminates)
//!   └───close──▶ closed    connects are refused, who waits is reset; accept fails
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;

use crate::account::{Account, SocketSlot};
use crate::error::NetError;
use crate::namespace::BoundPort;
use crate::service_flows::Through;
use crate::stream::{Carrier, TcpStream};
use crate::wakers::Wakers;

/// The most connections that may wait to be accepted, whatever the guest asks for.
const MAX_BACKLOG: usize = 4096;

/// Why a connection could not be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nobody accepts here any more, or the pod has no socket left.
    Refused,
    /// As many connections wait as may; there may be room later.
    Full,
}

/// The part of a listener that connecting sockets find in the port table.
pub(crate) struct Backlog {
    pub(crate) account: Arc<Account>,
    limit: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// Since when it waits (as [`Account::now`]), and the connection.
    waiting: VecDeque<(Duration, TcpStream)>,
    mode: Mode,
    acceptors: Wakers,
    connectors: Wakers,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Open,
    Stopped,
    Closed,
}

impl Backlog {
    pub(crate) fn new(account: Arc<Account>, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            account,
            limit: AtomicUsize::new(limit.clamp(1, MAX_BACKLOG)),
            queue: Mutex::default(),
        })
    }

    /// Queues the accepting end of a connection. Gives the carrier back when it is refused.
    pub(crate) fn offer(
        &self,
        carrier: Carrier,
        local: SocketAddr,
        peer: SocketAddr,
        through: Through,
    ) -> Result<(), (Refusal, Carrier)> {
        let mut queue = self.queue.lock();
        if queue.mode != Mode::Open {
            return Err((Refusal::Refused, carrier));
        }
        if queue.waiting.len() >= self.limit() {
            return Err((Refusal::Full, carrier));
        }
        let Ok(slot) = self.account.take_slot() else {
            return Err((Refusal::Refused, carrier));
        };
        let stream = TcpStream::accepted(carrier, local, peer, slot, through);
        queue.waiting.push_back((self.account.now(), stream));
        let acceptors = queue.acceptors.take();
        drop(queue);
        acceptors.wake();
        Ok(())
    }

    /// Ready when another [`offer`](Self::offer) makes sense.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.mode != Mode::Open || queue.waiting.len() < self.limit() {
            return Poll::Ready(());
        }
        queue.connectors.park(cx.waker());
        Poll::Pending
    }

    fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Lets so many connections wait from now on. Those that wait already stay.
    fn set_limit(&self, limit: usize) {
        // Under the lock, so that a connect that finds no room is woken when there is some.
        let mut queue = self.queue.lock();
        self.limit
            .store(limit.clamp(1, MAX_BACKLOG), Ordering::Relaxed);
        let connectors = queue.connectors.take();
        drop(queue);
        connectors.wake();
    }

    /// How many connections wait, and how many may.
    pub(crate) fn fill(&self) -> (usize, usize) {
        (self.queue.lock().waiting.len(), self.limit())
    }

    /// Counts a connection that had waited since then.
    fn count_accepted(&self, since: Duration, stream: &TcpStream) {
        let waited = self.account.now().saturating_sub(since);
        self.account.pod.connections.accepted(waited);
        if let Some(service) = stream.through().service() {
            service.accepted(waited);
        }
    }

    /// Refuses further connections. Those that wait were promised an answer, and can be accepted.
    pub(crate) fn stop(&self) {
        let mut queue = self.queue.lock();
        if queue.mode == Mode::Open {
            queue.mode = Mode::Stopped;
        }
        let connectors = queue.connectors.take();
        drop(queue);
        connectors.wake();
    }

    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.mode = Mode::Closed;
        let waiting = std::mem::take(&mut queue.waiting);
        let (acceptors, connectors) = (queue.acceptors.take(), queue.connectors.take());
        drop(queue);
        for (_, stream) in waiting {
            stream.reset();
        }
        acceptors.wake();
        connectors.wake();
    }
}

/// A listening TCP socket. Dropping it frees its address and resets what waits to be accepted.
pub struct TcpListener {
    backlog: Arc<Backlog>,
    port: BoundPort,
    /// The same port of the other family; held, and never looked at.
    second: Option<BoundPort>,
    _slot: SocketSlot,
}

impl TcpListener {
    pub(crate) fn new(backlog: Arc<Backlog>, port: BoundPort, slot: SocketSlot) -> Self {
        Self {
            backlog,
            port,
            second: None,
            _slot: slot,
        }
    }

    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// The same, which holds another port that leads to it.
    pub(crate) fn also_at(mut self, port: BoundPort) -> Self {
        self.second = Some(port);
        self
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.port.address()
    }

    /// Lets at most `backlog` connections wait to be accepted from now on, as a second `listen`
    /// does on a BSD socket.
    pub fn set_backlog(&self, backlog: usize) {
        self.backlog.set_limit(backlog);
    }

    /// Takes the connection that has waited longest.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Result<TcpStream, NetError>> {
        let mut queue = self.backlog.queue.lock();
        if let Some((since, stream)) = queue.waiting.pop_front() {
            let connectors = queue.connectors.take();
            drop(queue);
            self.backlog.count_accepted(since, &stream);
            connectors.wake();
            return Poll::Ready(Ok(stream));
        }
        if queue.mode == Mode::Closed {
            return Poll::Ready(Err(NetError::Closed));
        }
        queue.acceptors.park(cx.waker());
        Poll::Pending
    }

    /// Ready when [`poll_accept`](Self::poll_accept) would be. Exact: never ready in vain.
    pub fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.backlog.queue.lock();
        if !queue.waiting.is_empty() || queue.mode == Mode::Closed {
            return Poll::Ready(());
        }
        queue.acceptors.park(cx.waker());
        Poll::Pending
    }

    /// The connection that has waited longest, if there is one now.
    pub fn waiting(&self) -> Option<TcpStream> {
        let mut queue = self.backlog.queue.lock();
        let (since, stream) = queue.waiting.pop_front()?;
        let connectors = queue.connectors.take();
        drop(queue);
        self.backlog.count_accepted(since, &stream);
        connectors.wake();
        Some(stream)
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> Result<TcpStream, NetError> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Stops accepting for good: waiting connections are reset, further ones refused.
    pub fn close(&self) {
        self.backlog.close();
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.backlog.close();
    }
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpListener({})", self.local_addr())
    }
}

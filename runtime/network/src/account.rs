//! Who pays for a socket: counters and limits of a pod and of each of its containers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use coracle_clock::Clock;

use crate::error::NetError;
use crate::flows::{ConnectionCounts, Connections, Flows};

/// What a pod may take of the node's memory by way of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sockets of all containers together, connections waiting to be accepted included.
    pub sockets: usize,
    /// Bytes that one direction of a connection holds before its writer has to wait.
    pub stream_buffer: usize,
    /// Bytes received but not read by all sockets of the pod. Past it, each connection still has
    /// [`Limits::MIN_STREAM_BUFFER`], so that nothing comes to a standstill.
    pub buffered_bytes: usize,
    /// Datagrams waiting on one UDP socket; more are lost.
    pub datagrams: usize,
}

impl Limits {
    /// `stream_buffer` unless something else is asked for.
    pub const STREAM_BUFFER: usize = 256 * 1024;
    /// The room that a connection keeps when its pod is past `buffered_bytes`.
    pub const MIN_STREAM_BUFFER: usize = 4096;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets: 4096,
            stream_buffer: Self::STREAM_BUFFER,
            buffered_bytes: 16 * 1024 * 1024,
            datagrams: 256,
        }
    }
}

/// Traffic of a pod since its namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that guests of the pod have read.
    pub received_bytes: u64,
    /// Bytes that guests of the pod have written.
    pub sent_bytes: u64,
    /// Datagrams lost because a queue was full.
    pub dropped_datagrams: u64,
    /// What became of its connections.
    pub connections: Connections,
}

/// The shared part: one per pod.
pub(crate) struct PodAccount {
    pub(crate) limits: Limits,
    sockets: AtomicUsize,
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    buffered: AtomicUsize,
    pub(crate) connections: ConnectionCounts,
    pub(crate) flows: Flows,
}

impl PodAccount {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            sockets: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            buffered: AtomicUsize::new(0),
            connections: ConnectionCounts::default(),
            flows: Flows::default(),
        })
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            received_bytes: self.received.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            dropped_datagrams: self.dropped.load(Ordering::Relaxed),
            connections: self.connections.read(),
        }
    }

    pub(crate) fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    pub(crate) fn buffered(&self) -> usize {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Room of one direction of a connection, as of now.
    pub(crate) fn stream_capacity(&self) -> usize {
        if self.buffered() < self.limits.buffered_bytes {
            self.limits.stream_buffer
        } else {
            Limits::MIN_STREAM_BUFFER.min(self.limits.stream_buffer)
        }
    }

    pub(crate) fn charge(&self, bytes: usize) {
        self.buffered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        self.buffered.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// One container's share of the pod's account.
pub(crate) struct Account {
    pub(crate) pod: Arc<PodAccount>,
    clock: Clock,
    /// How often bytes were moved. Asking for the time instead was a twentieth of a flood between two pods.
    moves: AtomicU64,
    connections: AtomicUsize,
    /// Accepted ones of which no byte was read yet.
    silent: AtomicUsize,
}

impl Account {
    pub(crate) fn new(pod: Arc<PodAccount>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            pod,
            moves: AtomicU64::new(0),
            clock,
            connections: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
        })
    }

    pub(crate) fn moved_in(&self, bytes: usize) {
        self.pod.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn moved_out(&self, bytes: usize) {
        self.pod.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// What the clock says, since some beginning.
    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// How often bytes were moved.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn silent_begins(&self) {
        self.silent.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn silent_ends(&self) {
        self.silent.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn silent(&self) -> usize {
        self.silent.load(Ordering::Relaxed)
    }

    /// Takes a place below the pod's socket limit.
    pub(crate) fn take_slot(self: &Arc<Self>) -> Result<SocketSlot, NetError> {
        let limit = self.pod.limits.sockets;
        self.pod
            .sockets
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < limit).then_some(n + 1)
            })
            .map_err(|_| NetError::SocketLimit(limit))?;
        Ok(SocketSlot {
            account: self.clone(),
            connected: false,
        })
    }
}

/// One socket below the limit; gives its place back when dropped.
pub(crate) struct SocketSlot {
    pub(crate) account: Arc<Account>,
    connected: bool,
}

impl SocketSlot {
    /// Counts the socket as an open connection from now on.
    pub(crate) fn connected(mut self) -> Self {
        if !self.connected {
            self.connected = true;
            self.account.connections.fetch_add(1, Ordering::Relaxed);
        }
        self
    }
}

impl Drop for SocketSlot {
    fn drop(&mut self) {
        if self.connected {
            self.account.connections.fetch_sub(1, Ordering::Relaxed);
        }
        self.account.pod.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

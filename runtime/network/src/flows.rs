//! What a pod's sockets do, as `ss` would show it: who is connected to whom, and what has been counted since the
//! namespace was made.
//!
//! Every connection has a [`Flow`], which is on its pod's list as long as the connection is open. Byte counters are
//! touched by whoever moves bytes; the list is locked when a connection opens and closes, and while somebody looks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;

use crate::account::PodAccount;
use crate::pipe::Pipe;
use crate::route::Protocol;
use crate::stream::Carrier;

/// One socket of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketStatus {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What it does.
    pub state: SocketState,
    /// Its address.
    pub local: SocketAddr,
    /// The other end of a connection: the address that was dialled (a Service's, if it was), or the peer's own.
    pub peer: Option<SocketAddr>,
    /// Bytes that the pod has read of it.
    pub received_bytes: u64,
    /// Bytes that the pod has written to it.
    pub sent_bytes: u64,
    /// Bytes that arrived and were not read; of a listener the connections that wait to be accepted.
    pub receive_queue: u64,
    /// Bytes that the peer has not read; of a listener the most connections that may wait.
    pub send_queue: u64,
}

/// What a socket does, in the words of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketState {
    /// Takes connections.
    Listening,
    /// Both directions are open.
    Established,
    /// The peer has ended its direction.
    CloseWait,
    /// This end has ended its direction.
    FinWait,
    /// Both directions have ended.
    Closing,
    /// It has an address and no peer: a UDP socket, or a TCP socket that neither listens nor is connected.
    Unconnected,
}

/// Upper bounds of the classes into which waits to be accepted are counted; longer ones are in a class of their own.
pub const ACCEPT_WAITS: [Duration; 5] = [
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
];

/// What became of a pod's connections since its namespace was made. UDP has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Opened by the pod.
    pub opened: u64,
    /// Accepted by the pod.
    pub accepted: u64,
    /// To the pod, refused by it: nobody listened, or the pod had no socket left.
    pub refused: u64,
    /// By the pod, and nobody took them: refused, unreachable, or not in time.
    pub failed: u64,
    /// By the pod, and forbidden: by a policy, or because the address is closed to pods.
    pub denied: u64,
    /// Ended by the pod with a reset: bytes were left unread, or it stopped listening before it accepted them.
    pub reset: u64,
    /// How long the accepted ones had waited: their number by the classes of [`ACCEPT_WAITS`], longer ones last.
    pub waits: [u64; ACCEPT_WAITS.len() + 1],
    /// The sum of their waits.
    pub waited: Duration,
}

/// Counts what becomes of a pod's connections.
#[derive(Default)]
pub(crate) struct ConnectionCounts {
    pub(crate) opened: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) reset: AtomicU64,
    waits: Waits,
}

/// Waits to be accepted, by the classes of [`ACCEPT_WAITS`].
#[derive(Default)]
pub(crate) struct Waits {
    classes: [AtomicU64; ACCEPT_WAITS.len() + 1],
    /// Nanoseconds.
    sum: AtomicU64,
}

impl Waits {
    pub(crate) fn add(&self, waited: Duration) {
        let class = ACCEPT_WAITS.iter().position(|bound| waited <= *bound);
        count(&self.classes[class.unwrap_or(ACCEPT_WAITS.len())]);
        let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The number of each class, and the sum of all waits.
    pub(crate) fn read(&self) -> ([u64; ACCEPT_WAITS.len() + 1], Duration) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = Duration::from_nanos(load(&self.sum));
        (self.classes.each_ref().map(load), sum)
    }
}

impl ConnectionCounts {
    /// A connection was accepted that had waited for `waited`.
    pub(crate) fn accepted(&self, waited: Duration) {
        self.waits.add(waited);
    }

    pub(crate) fn read(&self) -> Connections {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (waits, waited) = self.waits.read();
        Connections {
            opened: load(&self.opened),
            accepted: waits.iter().sum(),
            refused: load(&self.refused),
            failed: load(&self.failed),
            denied: load(&self.denied),
            reset: load(&self.reset),
            waits,
            waited,
        }
    }
}

/// One more of what `counter` counts.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The open connections of one pod.
#[derive(Default)]
pub(crate) struct Flows(Mutex<Slab<Arc<Flow>>>);

impl Flows {
    /// All of them, in no particular order.
    pub(crate) fn list(&self) -> Vec<SocketStatus> {
        let flows = self.0.lock();
        flows.iter().map(|(_, flow)| flow.status()).collect()
    }
}

/// One end of an open connection.
pub(crate) struct Flow {
    local: SocketAddr,
    peer: SocketAddr,
    /// Of a connection in memory: its incoming and its outgoing direction.
    pipes: Option<(Arc<Pipe>, Arc<Pipe>)>,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Flow {
    /// Bytes that this end has read and written.
    pub(crate) fn moved(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.received), load(&self.sent))
    }

    fn status(&self) -> SocketStatus {
        let (mut state, mut receive_queue, mut send_queue) = (SocketState::Established, 0, 0);
        if let Some((incoming, outgoing)) = &self.pipes {
            let ended;
            (receive_queue, ended) = incoming.progress();
            let finished;
            (send_queue, finished) = outgoing.progress();
            state = match (ended, finished) {
                (false, false) => SocketState::Established,
                (true, false) => SocketState::CloseWait,
                (false, true) => SocketState::FinWait,
                (true, true) => SocketState::Closing,
            };
        }
        SocketStatus {
            protocol: Protocol::Tcp,
            state,
            local: self.local,
            peer: Some(self.peer),
            received_bytes: self.received.load(Ordering::Relaxed),
            sent_bytes: self.sent.load(Ordering::Relaxed),
            receive_queue,
            send_queue,
        }
    }
}

/// A flow on its pod's list; it leaves the list when dropped.
pub(crate) struct OpenFlow {
    pod: Arc<PodAccount>,
    key: usize,
    flow: Arc<Flow>,
}

impl OpenFlow {
    pub(crate) fn new(
        pod: Arc<PodAccount>,
        carrier: &Carrier,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        let pipes = match carrier {
            Carrier::Memory { incoming, outgoing } => Some((incoming.clone(), outgoing.clone())),
            Carrier::Host(_) => None,
        };
        let flow = Arc::new(Flow {
            local,
            peer,
            pipes,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let key = pod.flows.0.lock().insert(flow.clone());
        Self { pod, key, flow }
    }

    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.flow
            .received
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.flow.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for OpenFlow {
    fn drop(&mut self) {
        let removed = self.pod.flows.0.lock().try_remove(self.key);
        // Its pipes are let go without the list's lock.
        drop(removed);
    }
}

//! What a pod's sockets do: the sockets of its namespace, as `ss` shows them, and what became of its connections.
//! CRI has no such call; the shapes are ours.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::SandboxId;

/// The network of a sandbox at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxNetwork {
    /// Which sandbox.
    pub id: SandboxId,
    /// Its addresses: one, or one of each family.
    pub addresses: Vec<IpAddr>,
    /// Bytes that its guests have read.
    pub received_bytes: u64,
    /// Bytes that its guests have written.
    pub sent_bytes: u64,
    /// Datagrams to it that were lost because a queue was full.
    pub dropped_datagrams: u64,
    /// What became of its connections.
    pub connections: ConnectionCounts,
    /// All its sockets: listeners first, then by protocol and address.
    pub sockets: Vec<SocketStatus>,
}

/// Connections of a sandbox since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Opened by it.
    pub opened: u64,
    /// Accepted by it.
    pub accepted: u64,
    /// To it, and refused by it: nobody listened, or it had no socket left.
    pub refused: u64,
    /// By it, and nobody took them: refused, unreachable, or not in time.
    pub failed: u64,
    /// By it, and forbidden.
    pub denied: u64,
    /// Ended by it with a reset.
    pub reset: u64,
    /// How many of the accepted had waited for at most so long, for rising bounds; longer ones are in no class.
    pub waits: Vec<(Duration, u64)>,
    /// The sum of their waits.
    pub waited: Duration,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketStatus {
    /// Whether it is one of UDP, not of TCP.
    pub udp: bool,
    /// What it does.
    pub state: SocketState,
    /// Its address.
    pub local: SocketAddr,
    /// The other end of a connection.
    pub peer: Option<SocketAddr>,
    /// Bytes that the pod has read of it.
    pub received_bytes: u64,
    /// Bytes that the pod has written to it.
    pub sent_bytes: u64,
    /// Bytes not read yet; of a listener the connections that wait to be accepted.
    pub receive_queue: u64,
    /// Bytes that the peer has not read; of a listener the most connections that may wait.
    pub send_queue: u64,
}

/// What a socket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Takes connections.
    Listening,
    /// Both directions are open.
    Established,
    /// The peer has ended its direction.
    CloseWait,
    /// The pod has ended its direction.
    FinWait,
    /// Both directions have ended.
    Closing,
    /// It has an address and no peer.
    Unconnected,
}

impl SocketState {
    /// The word that `ss` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listening => "LISTEN",
            Self::Established => "ESTAB",
            Self::CloseWait => "CLOSE-WAIT",
            Self::FinWait => "FIN-WAIT-2",
            Self::Closing => "LAST-ACK",
            Self::Unconnected => "UNCONN",
        }
    }
}

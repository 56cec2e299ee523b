//! A pod's sockets, in the shape that the kubelet reads.

use coracle_cri::{ConnectionCounts, PodSandboxNetwork, SocketState, SocketStatus};
use coracle_network::{ACCEPT_WAITS, Protocol};

use crate::pod::Pod;

/// What the pod's sockets do at this moment.
pub(crate) fn pod_network(pod: &Pod) -> PodSandboxNetwork {
    let traffic = pod.namespace.traffic();
    let connections = traffic.connections;
    PodSandboxNetwork {
        id: pod.config.id.clone(),
        addresses: pod.namespace.addresses().collect(),
        received_bytes: traffic.received_bytes,
        sent_bytes: traffic.sent_bytes,
        dropped_datagrams: traffic.dropped_datagrams,
        connections: ConnectionCounts {
            opened: connections.opened,
            accepted: connections.accepted,
            refused: connections.refused,
            failed: connections.failed,
            denied: connections.denied,
            reset: connections.reset,
            waits: ACCEPT_WAITS.into_iter().zip(connections.waits).collect(),
            waited: connections.waited,
        },
        sockets: pod
            .namespace
            .socket_table()
            .into_iter()
            .map(status)
            .collect(),
    }
}

fn status(socket: coracle_network::SocketStatus) -> SocketStatus {
    use coracle_network::SocketState as State;
    SocketStatus {
        udp: socket.protocol == Protocol::Udp,
        state: match socket.state {
            State::Listening => SocketState::Listening,
            State::Established => SocketState::Established,
            State::CloseWait => SocketState::CloseWait,
            State::FinWait => SocketState::FinWait,
            State::Closing => SocketState::Closing,
            State::Unconnected => SocketState::Unconnected,
        },
        local: socket.local,
        peer: socket.peer,
        received_bytes: socket.received_bytes,
        sent_bytes: socket.sent_bytes,
        receive_queue: socket.receive_queue,
        send_queue: socket.send_queue,
    }
}

//! Messages from outside: each client has a flow to one endpoint while it goes on.
//!
//! ```text
//!   client ──▶ door ──▶ flow (a port of the node in the pod network) ──▶ endpoint
//!   client ◀── door ◀── flow ◀──────────────────────────────────────── answers
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use coracle_network::{
    DatagramHandler, DatagramReply, Fabric, MAX_DATAGRAM, NodeUdp, ServiceFlows,
};
use tokio::net::UdpSocket;

use super::REST;
use crate::index::Exposure;
use crate::router::{Outside, Router};

/// Clients of one door that are remembered; past it, the one that was silent longest is forgotten.
const FLOWS: usize = 1024;
/// How long a flow lives after its last message: `nf_conntrack_udp_timeout_stream` of Linux.
const LIFE: Duration = Duration::from_secs(120);

/// A door for UDP.
pub(super) struct Flows {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) exposure: Exposure,
    pub(super) router: Arc<Router>,
    pub(super) fabric: Arc<Fabric>,
    pub(super) clock: Clock,
}

struct Flow {
    port: NodeUdp,
    endpoint: SocketAddr,
    last: Duration,
    /// Counts what is passed on.
    service: Option<Arc<ServiceFlows>>,
}

impl Flows {
    /// Passes messages on for ever.
    pub(super) async fn run(self) {
        let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let received = tokio::select! {
                received = self.socket.recv_from(&mut buffer) => received,
                () = self.clock.sleep(LIFE), if !flows.is_empty() => {
                    self.forget_silent(&mut flows);
                    continue;
                }
            };
            match received {
                Ok((length, peer)) => {
                    self.pass_on(&mut flows, peer, Bytes::copy_from_slice(&buffer[..length]));
                }
                Err(error) => {
                    // Such as an earlier answer's port that was unreachable.
                    tracing::debug!(exposure = ?self.exposure, %error, "cannot receive from outside");
                    self.clock.sleep(REST).await;
                }
            }
        }
    }

    fn pass_on(&self, flows: &mut HashMap<SocketAddr, Flow>, peer: SocketAddr, data: Bytes) {
        let now = self.clock.monotonic();
        let stays = |flow: &Flow| {
            now.saturating_sub(flow.last) < LIFE
                && self.router.still_serves(&self.exposure, flow.endpoint)
        };
        if !flows.get(&peer).is_some_and(stays) {
            flows.remove(&peer);
            if flows.len() >= FLOWS {
                self.make_room(flows);
            }
            let Some(flow) = self.open(peer, now) else {
                return; // nobody serves: lost, as with any UDP
            };
            flows.insert(peer, flow);
        }
        let Some(flow) = flows.get_mut(&peer) else {
            return;
        };
        flow.last = now;
        if let Some(service) = &flow.service {
            service.datagram_received(data.len());
        }
        if let Err(error) = flow.port.send_to(data, peer.ip(), flow.endpoint) {
            tracing::debug!(%peer, endpoint = %flow.endpoint, %error, "a message from outside was lost");
        }
    }

    fn open(&self, peer: SocketAddr, now: Duration) -> Option<Flow> {
        let Outside {
            endpoints, service, ..
        } = self.router.outside(peer.ip(), &self.exposure);
        let endpoint = *endpoints.first()?;
        let answers = Answers {
            socket: self.socket.clone(),
            peer,
            endpoint,
            service: service.clone(),
        };
        match self.fabric.bind_node_udp(Arc::new(answers), endpoint.ip()) {
            Ok(port) => Some(Flow {
                port,
                endpoint,
                last: now,
                service,
            }),
            Err(error) => {
                tracing::debug!(%peer, %error, "a message from outside was lost");
                None
            }
        }
    }

    fn forget_silent(&self, flows: &mut HashMap<SocketAddr, Flow>) {
        let now = self.clock.monotonic();
        flows.retain(|_, flow| now.saturating_sub(flow.last) < LIFE);
    }

    fn make_room(&self, flows: &mut HashMap<SocketAddr, Flow>) {
        self.forget_silent(flows);
        let longest = flows.iter().min_by_key(|(_, flow)| flow.last);
        if let Some(peer) = longest
            .map(|(peer, _)| *peer)
            .filter(|_| flows.len() >= FLOWS)
        {
            flows.remove(&peer);
        }
    }
}

/// The way of an endpoint's answers back to one client.
struct Answers {
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    endpoint: SocketAddr,
    service: Option<Arc<ServiceFlows>>,
}

impl DatagramHandler for Answers {
    fn handle(&self, data: Bytes, from: SocketAddr, _reply: DatagramReply) {
        if from != self.endpoint {
            return; // not whom the client talks to
        }
        if let Some(service) = &self.service {
            service.datagram_sent(data.len());
        }
        if let Err(error) = self.socket.try_send_to(&data, self.peer) {
            tracing::debug!(peer = %self.peer, %error, "an answer to the outside was lost");
        }
    }
}

//! UDP ports of the node inside the pod network, for messages that come from elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::NetError;
use crate::fabric::{Fabric, Target};
use crate::namespace::deliver_datagram;
use crate::route::{DatagramHandler, Protocol};

/// A port of the node that pods answer to; free again when dropped.
///
/// Pods see the node as the sender, as with a node port of Kubernetes: an answer to the real
/// sender's address, which may be a loopback of the host, would not find its way back.
pub struct NodeUdp {
    fabric: Arc<Fabric>,
    address: SocketAddr,
}

impl Fabric {
    /// Opens a port of the node's address, of the family of `towards`; `handler` takes what pods send to it.
    pub fn bind_node_udp(
        self: &Arc<Self>,
        handler: Arc<dyn DatagramHandler>,
        towards: IpAddr,
    ) -> Result<NodeUdp, NetError> {
        let address = self.claim_node_udp(handler, towards)?;
        Ok(NodeUdp {
            fabric: self.clone(),
            address,
        })
    }
}

impl NodeUdp {
    /// The address that pods see.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one message to an endpoint inside the cluster. `peer` is who it really comes from,
    /// for policies. As with any UDP, success does not mean arrival.
    pub fn send_to(&self, data: Bytes, peer: IpAddr, to: SocketAddr) -> Result<(), NetError> {
        let caller = self.fabric.node_caller();
        match self.fabric.target(&caller, to, Protocol::Udp)? {
            Target::Pod(namespace) => {
                self.fabric.may_accept(peer, to, Protocol::Udp)?;
                deliver_datagram(&namespace, self.address, to, data);
                Ok(())
            }
            Target::Handler(_) | Target::Datagrams(_) | Target::Remote(_) | Target::Outside => {
                Err(NetError::HostUnreachable(to))
            }
        }
    }
}

impl Drop for NodeUdp {
    fn drop(&mut self) {
        self.fabric.remove_datagram_handler(self.address);
    }
}

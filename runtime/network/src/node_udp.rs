//! UDP ports of the node inside the pod network, for messages that come from elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::NetError;
use crate::fabric::{Fabric, Target};
use crate::namespace::deliver_datagram;
use crate::route::{DatagramHandler, Protocol};
use crate::udp::{DatagramReply, Outside, Taker};

/// A port of the node that pods answer to; free again when dropped.
///
/// Pods see the node as the sender, as with a node port of Kubernetes: an answer to the real
/// sender's address, which may be a loopback of the host, would not find its way back.
pub struct NodeUdp {
    fabric: Arc<Fabric>,
    address: SocketAddr,
    handler: Arc<dyn DatagramHandler>,
    outside: Mutex<Outside>,
}

impl Fabric {
    /// Opens a port of the node's address, of the family of `towards`; `handler` takes what is sent to it.
    pub fn bind_node_udp(
        self: &Arc<Self>,
        handler: Arc<dyn DatagramHandler>,
        towards: IpAddr,
    ) -> Result<NodeUdp, NetError> {
        let address = self.claim_node_udp(handler.clone(), towards)?;
        Ok(NodeUdp {
            fabric: self.clone(),
            address,
            handler,
            outside: Mutex::default(),
        })
    }
}

impl NodeUdp {
    /// The address that pods see.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one message to an endpoint. `peer` is who it really comes from, for policies. As with any UDP, success does not
    /// mean arrival. To endpoints outside the cluster it goes from a socket of the host's, which needs a tokio runtime.
    pub fn send_to(&self, data: Bytes, peer: IpAddr, to: SocketAddr) -> Result<(), NetError> {
        let caller = self.fabric.node_caller();
        match self.fabric.target(&caller, to, Protocol::Udp)? {
            Target::Pod(namespace) => {
                self.fabric.may_accept(peer, to, Protocol::Udp)?;
                deliver_datagram(&namespace, self.address, to, data);
                Ok(())
            }
            Target::Datagrams(handler) => {
                handler.handle(data, self.address, DatagramReply::new(self.back(), to));
                Ok(())
            }
            Target::Outside => {
                let account = self.fabric.node_account();
                self.outside.lock().send(&data, to, &self.back(), account)
            }
            Target::Handler(_) | Target::Remote(_) => Err(NetError::HostUnreachable(to)),
        }
    }
}

impl NodeUdp {
    fn back(&self) -> Taker {
        Taker::Handler(Arc::downgrade(&self.handler))
    }
}

impl Drop for NodeUdp {
    fn drop(&mut self) {
        self.fabric.remove_datagram_handler(self.address);
    }
}

//! The DNS server inside the pod network: at port 53 of the node's addresses there, which are the endpoints of the Service
//! `kube-dns`.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use coracle_dns::{Asker, DNS_PORT, Now, Server, Via, serve_stream_for};
use coracle_network::{DatagramHandler, DatagramReply, Fabric, StreamHandler, TcpStream, Verdict};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Connections of guests at once; more are closed.
const CONNECTIONS: usize = 256;
/// Questions of guests that wait for other servers; more are lost, as datagrams may be.
const WAITING: usize = 1024;

/// Answers guests from now on. Must be called within a tokio runtime, which does the work.
pub(crate) fn attach(fabric: &Arc<Fabric>, server: Arc<Server>) {
    let handler = Arc::new(Handler {
        server,
        fabric: Arc::downgrade(fabric),
        runtime: Handle::current(),
        connections: Arc::new(Semaphore::new(CONNECTIONS)),
        waiting: Arc::new(Semaphore::new(WAITING)),
    });
    for address in fabric.node_addresses() {
        let address = SocketAddr::new(address, DNS_PORT);
        fabric.set_handler(address, handler.clone());
        fabric.set_datagram_handler(address, handler.clone());
    }
}

struct Handler {
    server: Arc<Server>,
    /// Whose policy says which names a pod may know.
    fabric: Weak<Fabric>,
    runtime: Handle,
    connections: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Handler {
    fn asker(&self, from: SocketAddr) -> Option<Arc<dyn Asker>> {
        Some(Arc::new(Pod {
            address: from.ip(),
            fabric: self.fabric.clone(),
        }))
    }
}

/// The pod that asks.
struct Pod {
    address: IpAddr,
    fabric: Weak<Fabric>,
}

impl Asker for Pod {
    fn may_ask(&self, name: &str) -> bool {
        let fabric = self.fabric.upgrade();
        fabric
            .is_none_or(|fabric| fabric.policy().on_question(self.address, name) == Verdict::Allow)
    }

    fn told(&self, name: &str, addresses: &[IpAddr]) {
        if let Some(fabric) = self.fabric.upgrade() {
            fabric.policy().on_answer(self.address, name, addresses);
        }
    }
}

fn via(from: SocketAddr, tcp: bool) -> Via {
    Via {
        tcp,
        v6: from.is_ipv6(),
        host: false,
    }
}

impl DatagramHandler for Handler {
    fn handle(&self, data: Bytes, from: SocketAddr, reply: DatagramReply) {
        let asker = self.asker(from);
        match self.server.now_for(&data, via(from, false), asker) {
            Now::Nothing => {}
            Now::Reply(bytes) => reply.send(bytes.into()),
            Now::Later(pending) => {
                let Ok(place) = self.waiting.clone().try_acquire_owned() else {
                    return;
                };
                let server = self.server.clone();
                self.runtime.spawn(async move {
                    let _place = place;
                    if let Some(bytes) = server.later(*pending).await {
                        reply.send(bytes.into());
                    }
                });
            }
        }
    }
}

impl StreamHandler for Handler {
    fn handle(&self, stream: TcpStream) {
        let Ok(place) = self.connections.clone().try_acquire_owned() else {
            return;
        };
        let server = self.server.clone();
        let asker = self.asker(stream.peer_addr());
        self.runtime.spawn(async move {
            let _place = place;
            let via = via(stream.peer_addr(), true);
            serve_stream_for(&server, stream, via, asker).await;
        });
    }
}

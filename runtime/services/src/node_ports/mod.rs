//! Node ports: listeners on the host whose connections pods take over.
//!
//! ```text
//!   index ──ports changed──▶ reconcile ──open, close──▶ listener ──accept──▶ Fabric::deliver
//!              ▲                 │ in use: Event, wait                           │
//!              └─────────────────┘                        the pod reads and writes the socket
//! ```
//!
//! A listener knows nothing but its port: whom a connection is for is asked when it arrives. So a
//! change of endpoints, or of the Service that holds the port, moves no listener.

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Context, EventKind, ObjectKey};
use coracle_network::Fabric;
use k8s_openapi::api::core::v1::Service;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use crate::index::Index;
use crate::router::Router;
use plan::{Failed, World, reconcile};

/// How many listeners there may be.
const LISTENERS: usize = 4096;
/// How many accepted connections of one port may wait to be taken by a pod; past it, they wait in
/// the host's backlog. Of one port, so that a Service whose pods are stuck holds up no other.
const ARRIVING: usize = 256;
/// How long a listener rests when the host has no more sockets to give.
const REST: Duration = Duration::from_millis(50);

/// The listeners that are open now, to be asked or waited for.
pub(crate) type OpenPorts = Arc<watch::Sender<Vec<SocketAddr>>>;

/// Opens and closes the host's listeners as Services come and go.
pub(crate) struct NodePorts {
    pub(crate) index: Arc<Index>,
    pub(crate) router: Arc<Router>,
    pub(crate) fabric: Arc<Fabric>,
    pub(crate) context: Context,
    pub(crate) hosts: Arc<[std::net::IpAddr]>,
    pub(crate) open: OpenPorts,
}

/// A listener's task, which ends with this.
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl NodePorts {
    /// Follows the index until the context's stop signal, then closes all listeners.
    pub(crate) async fn run(self) {
        let mut changed = self.index.follow_node_ports();
        let mut listeners: BTreeMap<SocketAddr, Listening> = BTreeMap::new();
        let mut failed: BTreeMap<SocketAddr, Failed> = BTreeMap::new();
        loop {
            changed.mark_unchanged();
            let wanted = self.index.ask(|tables| tables.tcp_node_ports());
            let now = self.context.clock().monotonic();
            let plan = reconcile(&World {
                wanted: &wanted,
                hosts: &self.hosts,
                open: listeners.keys().copied().collect(),
                failed: &failed,
                now,
                limit: LISTENERS,
            });
            for address in plan.forget {
                failed.remove(&address);
            }
            for address in plan.close {
                tracing::debug!(%address, "node port closed");
                listeners.remove(&address);
            }
            let mut next = plan.next;
            for (address, service) in plan.open {
                match TcpListener::bind(address).await {
                    Ok(listener) => {
                        tracing::debug!(%address, %service, "node port open");
                        failed.remove(&address);
                        let work = self.serve(listener, address.port());
                        let task = tokio::spawn(work).abort_handle();
                        listeners.insert(address, Listening(task));
                    }
                    Err(error) => {
                        self.report(&service, address, &error);
                        let failure = Failed::after(failed.get(&address), service, now);
                        next = Some(next.map_or(failure.due, |next| next.min(failure.due)));
                        failed.insert(address, failure);
                    }
                }
            }
            self.open.send_replace(listeners.keys().copied().collect());
            let retry = async {
                match next {
                    Some(due) => self.context.clock().sleep(due.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.context.stop().cancelled() => break,
                // The sender lives in the index, which lives in self.
                _ = changed.changed() => {}
                () = retry => {}
            }
        }
        self.open.send_replace(Vec::new());
    }

    /// Accepts connections of one listener for ever.
    fn serve(&self, listener: TcpListener, port: u16) -> impl Future<Output = ()> + Send + use<> {
        let (router, fabric) = (self.router.clone(), self.fabric.clone());
        let clock = self.context.clock().clone();
        let arriving = Arc::new(Semaphore::new(ARRIVING));
        async move {
            loop {
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::debug!(port, %error, "node port cannot accept");
                        clock.sleep(REST).await;
                        continue;
                    }
                };
                let Ok(place) = arriving.clone().acquire_owned().await else {
                    return; // never closed
                };
                let endpoints = router.node_port(peer.ip(), port);
                let fabric = fabric.clone();
                tokio::spawn(async move {
                    let _place = place;
                    deliver(&fabric, stream, peer, &endpoints).await;
                });
            }
        }
    }

    /// Tells the Service's owner what is in the way, and what to do.
    fn report(&self, key: &ObjectKey, address: SocketAddr, error: &io::Error) {
        let port = address.port();
        let message = if error.kind() == io::ErrorKind::AddrInUse {
            format!(
                "node port {port} of service {key} cannot be opened: another program listens on \
                 {address}; stop it, or give the Service another nodePort (it is tried again)"
            )
        } else {
            format!(
                "node port {port} of service {key} cannot be opened on {address}: {error} (it is \
                 tried again)"
            )
        };
        tracing::debug!(service = %key, %address, %error, "node port cannot be opened");
        if let Some(service) = self.context.lister::<Service>().get(key) {
            let recorder = self.context.recorder();
            recorder.event(
                service.as_ref(),
                EventKind::Warning,
                "NodePortUnavailable",
                message,
            );
        }
    }
}

/// Hands one accepted connection to a pod; nobody there resets it.
async fn deliver(fabric: &Fabric, stream: TcpStream, peer: SocketAddr, endpoints: &[SocketAddr]) {
    // Small answers should not wait for acknowledgements; a socket that just died refuses this.
    let _ = stream.set_nodelay(true);
    if let Err(error) = fabric.deliver(stream, peer, endpoints).await {
        tracing::debug!(%peer, %error, "nobody took a node port's connection");
    }
}

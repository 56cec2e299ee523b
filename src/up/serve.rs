//! The API on sockets of the host, and on the pod network.

use std::net::SocketAddr;
use std::sync::Arc;

use coracle_network::{Fabric, TcpStream};
use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;

/// Connections of the host at once; more wait to be accepted, and those that are open go on. None stays open without
/// requests for long, so whoever waits gets in.
const CONNECTIONS: usize = 10_000;
/// Connections of guests at once; more are closed.
const GUEST_CONNECTIONS: usize = 2_000;

/// The TLS configuration of connections that come from now on.
pub(super) struct Tls(RwLock<Arc<ServerConfig>>);

impl Tls {
    /// Begins with this one.
    pub(super) fn new(config: ServerConfig) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(config))))
    }

    /// Another one from now on; open connections keep theirs.
    pub(super) fn replace(&self, config: ServerConfig) {
        *self.0.write() = Arc::new(config);
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read())
    }
}

/// Serves the host's listener until the API server stops, which is after the cluster's parts.
pub(super) fn host(cluster: &Cluster, listener: TcpListener, tls: Arc<Tls>) {
    let (api, listener) = (cluster.api().clone(), Arc::new(listener));
    let accept = move || {
        let listener = Arc::clone(&listener);
        async move {
            let (stream, peer) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            Ok((stream, Some(peer.ip())))
        }
    };
    tokio::spawn(async move {
        api.serve_all(accept, || Some(tls.current()), CONNECTIONS)
            .await;
    });
}

/// Serves guests at the node's addresses in the pod network.
pub(super) fn fabric(cluster: &Cluster, fabric: &Fabric, port: u16, tls: Arc<Tls>) {
    let api = cluster.api().clone();
    let runtime = tokio::runtime::Handle::current();
    let permits = Arc::new(Semaphore::new(GUEST_CONNECTIONS));
    let handler = Arc::new(move |stream: TcpStream| {
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::debug!("too many connections of guests to the API");
            return;
        };
        let (api, tls) = (api.clone(), tls.current());
        runtime.spawn(async move {
            let _permit = permit;
            let from = stream.peer_addr().ip();
            if let Err(error) = api.serve(stream, Some(tls), Some(from)).await {
                tracing::debug!(target: "coracle::access", %error, "guest connection ended");
            }
        });
    });
    for address in fabric.node_addresses() {
        fabric.set_handler(SocketAddr::new(address, port), handler.clone());
    }
}

//! What holds of the whole: sockets of pods on one fabric.

mod fabric;
mod families;
mod faults;
mod flows;
mod host;
mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use coracle_clock::Clock;

use crate::*;

pub(super) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 240, 0, 1));

pub(super) fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

pub(super) fn config() -> FabricConfig {
    FabricConfig {
        pod_ranges: vec!["10.240.0.0/12".parse().unwrap()],
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        ..FabricConfig::new(NODE)
    }
}

pub(super) fn fabric() -> Arc<Fabric> {
    Fabric::new(config(), Clock::fake(1))
}

pub(super) fn pod_ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 240, 0, last).into()
}

pub(super) fn pod(fabric: &Arc<Fabric>, last: u8) -> Arc<NetworkNamespace> {
    let name = format!("pod-{last}");
    let config = NamespaceConfig::new(format!("default/{name}"), pod_ip(last), name);
    fabric.create_namespace(config).unwrap()
}

pub(super) fn pod_with(fabric: &Arc<Fabric>, last: u8, limits: Limits) -> Arc<NetworkNamespace> {
    let name = format!("pod-{last}");
    let config = NamespaceConfig::new(format!("default/{name}"), pod_ip(last), name);
    fabric
        .create_namespace(NamespaceConfig { limits, ..config })
        .unwrap()
}

pub(super) fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

pub(super) fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(pod_ip(last), port)
}

pub(super) fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 96, 0, 50).into(), port)
}

/// A connection between two new pods: the client's end and the server's end.
pub(super) async fn connected(fabric: &Arc<Fabric>) -> (TcpStream, TcpStream) {
    let (client, server) = (pod(fabric, 2), pod(fabric, 3));
    let listener = server.scope().listen_tcp(any(80), 8).unwrap();
    let near = client.scope().connect_tcp(at(3, 80)).await.unwrap();
    (near, listener.accept().await.unwrap())
}

pub(super) async fn read_all(stream: &TcpStream) -> Result<Vec<u8>, NetError> {
    let mut all = Vec::new();
    loop {
        let bytes = stream.read_bytes(64 * 1024).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

pub(super) fn is_pending<T>(poll: Poll<T>) -> bool {
    poll.is_pending()
}

//! Connects between the namespaces of two pods, without guests: what the fabric itself takes, beside the kernel's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use coracle_clock::Clock;
use coracle_network::{Fabric, FabricConfig, NamespaceConfig, SocketScope, TcpListener, TcpStream};

use super::{Net, by_turns};
use crate::figures::{Figure, Report};

/// Connections that are open at once.
const BATCH: u64 = 250;
pub(super) const PORT: u16 = 7000;

/// Opens connections here and there by turns: both ends are there when the clock stops.
pub(super) async fn measure(net: &Net, clock: &Clock, report: &mut Report) -> Result<()> {
    let pods = Pods::new(FabricConfig::new(NODE), clock)?;
    let kernel = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let loopback = kernel.local_addr()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..net.rounds {
        let inside = async || pods.open(pods.endpoint).await;
        ours.push(turn(net.connects, clock, Closing::Free, inside).await?);
        let open = async || {
            let near = std::net::TcpStream::connect(loopback)?;
            Ok((near, kernel.accept()?))
        };
        theirs.push(turn(net.connects, clock, Closing::Free, open).await?);
    }
    report.add(Figure::median("net.connect", "µs", &ours));
    report.add(Figure::median("net.connect_kernel", "µs", &theirs));
    let ratio = by_turns(&ours, &theirs);
    report.add(Figure::median("net.connect_by_kernel", "", &ratio).below(0.1));
    Ok(())
}

/// The node's own address.
pub(super) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 240, 0, 1));

/// Two pods, of which one connects and the other listens.
pub(super) struct Pods {
    pub(super) fabric: Arc<Fabric>,
    client: SocketScope,
    listener: TcpListener,
    /// Where it listens.
    pub(super) endpoint: SocketAddr,
}

impl Pods {
    pub(super) fn new(config: FabricConfig, clock: &Clock) -> Result<Self> {
        let fabric = Fabric::new(config, clock.clone());
        let pod = |name: &str, last| -> Result<SocketScope> {
            let address = Ipv4Addr::new(10, 240, 0, last).into();
            let config = NamespaceConfig::new(format!("default/{name}"), address, name);
            Ok(fabric.create_namespace(config)?.scope())
        };
        let (client, server) = (pod("client", 2)?, pod("server", 3)?);
        let endpoint = SocketAddr::new(server.namespace().address(), PORT);
        let listener = server.listen_tcp(endpoint, BATCH as usize)?;
        Ok(Self {
            fabric,
            client,
            listener,
            endpoint,
        })
    }

    /// Both ends of a new connection to that address, which leads to the one that listens.
    pub(super) async fn open(&self, to: SocketAddr) -> Result<(TcpStream, TcpStream)> {
        let near = self.client.tcp_socket()?.connect(to).await?;
        Ok((near, self.listener.accept().await?))
    }
}

/// Whether the time that it takes to close connections counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    Free,
    Measured,
}

/// Microseconds of one `open`.
pub(super) async fn turn<T>(
    connects: u64,
    clock: &Clock,
    closing: Closing,
    mut open: impl AsyncFnMut() -> Result<T>,
) -> Result<f64> {
    let mut took = 0.0;
    let mut left = connects;
    while left > 0 {
        let batch = left.min(BATCH);
        let mut kept = Vec::with_capacity(batch as usize);
        let start = clock.monotonic();
        for _ in 0..batch {
            kept.push(open().await?);
        }
        if closing == Closing::Measured {
            kept.clear();
        }
        took += clock.monotonic().saturating_sub(start).as_secs_f64() * 1e6;
        left -= batch;
    }
    Ok(took / connects as f64)
}

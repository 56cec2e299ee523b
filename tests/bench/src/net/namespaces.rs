//! Connects between the namespaces of two pods, without guests: what the fabric itself takes, beside the kernel's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use coracle_clock::Clock;
use coracle_network::{Fabric, FabricConfig, NamespaceConfig, TcpListener, TcpStream};

use super::{Net, by_turns};
use crate::figures::{Figure, Report};

/// Connections that are open at once.
pub(super) const BATCH: u64 = 250;
const PORT: u16 = 7000;

/// Opens connections here and there by turns: both ends are there when the clock stops.
pub(super) async fn measure(net: &Net, clock: &Clock, report: &mut Report) -> Result<()> {
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 240, 0, last));
    let fabric = Fabric::new(FabricConfig::new(address(1)), clock.clone());
    let pod = |name: &str, last| {
        let config = NamespaceConfig::new(format!("default/{name}"), address(last), name);
        fabric.create_namespace(config)
    };
    let (client, server) = (pod("client", 2)?.scope(), pod("server", 3)?.scope());
    let to = SocketAddr::new(address(3), PORT);
    let listener = server.listen_tcp(to, BATCH as usize)?;
    let kernel = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let loopback = kernel.local_addr()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..net.rounds {
        ours.push(
            turn(net.connects, clock, Closing::Free, async || {
                open(&client, to, &listener).await
            })
            .await?,
        );
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

pub(super) async fn open(
    client: &coracle_network::SocketScope,
    to: SocketAddr,
    listener: &TcpListener,
) -> Result<(TcpStream, TcpStream)> {
    let near = client.tcp_socket()?.connect(to).await?;
    Ok((near, listener.accept().await?))
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

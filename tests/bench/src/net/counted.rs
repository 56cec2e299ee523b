//! What it costs that connections to Services are counted: the same connect by turns to a Service that counts, to one that
//! does not, and to the pod behind them. Without guests and without the index of Services, so that little else is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use coracle_clock::Clock;
use coracle_network::{
    Fabric, FabricConfig, NamespaceConfig, Protocol, Route, ServiceFlows, ServiceRouter,
};

use super::namespaces::{BATCH, Closing, open, turn};
use super::{Net, by_turns};
use crate::figures::{Figure, Report};

const PORT: u16 = 7000;
const COUNTED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
const PLAIN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 2));

/// Two Services that lead to the same pod.
struct Services {
    flows: Arc<ServiceFlows>,
    endpoint: SocketAddr,
}

impl ServiceRouter for Services {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        match to.ip() {
            COUNTED | PLAIN => Route::Endpoints(vec![self.endpoint]),
            _ => Route::NotAService,
        }
    }

    fn route_counted(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> (Route, Option<Arc<ServiceFlows>>) {
        let counted = (to.ip() == COUNTED).then(|| self.flows.clone());
        (self.route(from, to, protocol), counted)
    }
}

/// Opens and closes connections to all three by turns.
pub(super) async fn measure(net: &Net, clock: &Clock, report: &mut Report) -> Result<()> {
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 240, 0, last));
    let mut config = FabricConfig::new(address(1));
    config.service_ranges = vec!["10.96.0.0/16".parse()?];
    let fabric = Fabric::new(config, clock.clone());
    let pod = |name: &str, last| {
        let config = NamespaceConfig::new(format!("default/{name}"), address(last), name);
        fabric.create_namespace(config)
    };
    let (client, server) = (pod("client", 2)?.scope(), pod("server", 3)?.scope());
    let endpoint = SocketAddr::new(address(3), PORT);
    let listener = server.listen_tcp(endpoint, BATCH as usize)?;
    let flows = Arc::<ServiceFlows>::default();
    fabric.set_router(Arc::new(Services {
        flows: flows.clone(),
        endpoint,
    }));
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..net.rounds {
        for (ip, times) in [COUNTED, PLAIN, address(3)].into_iter().zip(&mut times) {
            let to = SocketAddr::new(ip, PORT);
            let open = async || open(&client, to, &listener).await;
            times.push(turn(net.connects, clock, Closing::Measured, open).await?);
        }
    }
    let counted = flows.traffic().connections;
    anyhow::ensure!(
        counted == net.rounds * net.connects,
        "{counted} connections were counted of {} rounds of {}",
        net.rounds,
        net.connects
    );
    let [counted, plain, direct] = &times;
    report.add(Figure::median("net.service_connect", "µs", counted));
    let ratio = by_turns(counted, plain);
    report.add(Figure::median(
        "net.service_connect_by_uncounted",
        "",
        &ratio,
    ));
    let ratio = by_turns(counted, direct);
    report.add(Figure::median("net.service_connect_by_pod", "", &ratio));
    Ok(())
}

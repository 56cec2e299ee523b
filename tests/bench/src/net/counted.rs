//! What it costs that connections to Services are counted: the same connect by turns to a Service that counts, to one that
//! does not, and to the pod behind them. Without guests and without the index of Services, so that little else is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use coracle_clock::Clock;
use coracle_network::{FabricConfig, Protocol, Route, ServiceFlows, ServiceRouter};

use super::namespaces::{Closing, NODE, PORT, Pods, turn};
use super::{Net, by_turns};
use crate::figures::{Figure, Report};

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
    let mut config = FabricConfig::new(NODE);
    config.service_ranges = vec!["10.96.0.0/16".parse()?];
    let pods = Pods::new(config, clock)?;
    let flows = Arc::<ServiceFlows>::default();
    pods.fabric.set_router(Arc::new(Services {
        flows: flows.clone(),
        endpoint: pods.endpoint,
    }));
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..net.rounds {
        for (ip, times) in [COUNTED, PLAIN, pods.endpoint.ip()]
            .into_iter()
            .zip(&mut times)
        {
            let to = SocketAddr::new(ip, PORT);
            let open = async || pods.open(to).await;
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

//! Where connects to Services lead: the endpoints to try, in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_network::{Protocol, Route, ServiceFlows, ServiceRouter};

use crate::affinity::{Affinity, Client};
use crate::index::{Exposure, Found, Index};

/// How many endpoints one connection may try.
pub(crate) const CANDIDATES: usize = 16;

/// Answers the fabric from the index.
pub(crate) struct Router {
    index: Arc<Index>,
    clock: Clock,
    affinity: Affinity,
    /// The node in the pod network, where pods reach node ports.
    node: Vec<IpAddr>,
}

impl Router {
    pub(crate) fn new(index: Arc<Index>, clock: Clock, node: Vec<IpAddr>) -> Self {
        Self {
            index,
            clock,
            affinity: Affinity::default(),
            node,
        }
    }

    /// The endpoints for a client outside, in the order to be tried; none if nobody serves it.
    /// And who counts what becomes of it.
    pub(crate) fn endpoints_outside(
        &self,
        client: IpAddr,
        exposure: &Exposure,
    ) -> (Vec<SocketAddr>, Option<Arc<ServiceFlows>>) {
        if let Exposure::HostPort(..) = exposure {
            let pod = self.index.ask(|tables| tables.at_host_port(exposure));
            return (pod.into_iter().collect(), None);
        }
        let found = self
            .index
            .ask(|tables| tables.at_exposure(exposure).cloned());
        let Some(found) = found else {
            return (Vec::new(), None);
        };
        let endpoints = self.candidates(client, &found, found.port().external.any());
        (endpoints, Some(found.service.flows))
    }

    /// Whether `endpoint` is still one of those for clients outside.
    pub(crate) fn still_serves(&self, exposure: &Exposure, endpoint: SocketAddr) -> bool {
        self.index.ask(|tables| {
            if let Exposure::HostPort(..) = exposure {
                return tables.at_host_port(exposure) == Some(endpoint);
            }
            let found = tables.at_exposure(exposure);
            found.is_some_and(|found| found.port().external.any().binary_search(&endpoint).is_ok())
        })
    }

    /// Some of `endpoints`, in the order to be tried by `client`.
    pub(crate) fn candidates(
        &self,
        client: IpAddr,
        found: &Found,
        endpoints: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        if endpoints.is_empty() {
            return Vec::new();
        }
        let mut start = found.service.next_turn() % endpoints.len();
        if let Some(stay) = found.service.entry.affinity {
            let client = Client {
                address: client,
                service: found.service.entry.key.clone(),
                port: found.port().port,
                protocol: found.port().protocol,
            };
            let place = |endpoint: &SocketAddr| endpoints.binary_search(endpoint);
            let there = |held: SocketAddr| place(&held).is_ok();
            let now = self.clock.monotonic();
            let chosen = self
                .affinity
                .settle(client, now, stay, there, endpoints[start]);
            start = place(&chosen).unwrap_or(start);
        }
        from_start(endpoints, start)
    }
}

/// At most [`CANDIDATES`] of `endpoints`, beginning at `start` and going around.
fn from_start(endpoints: &[SocketAddr], start: usize) -> Vec<SocketAddr> {
    let (before, after) = endpoints.split_at(start);
    after
        .iter()
        .chain(before)
        .take(CANDIDATES)
        .copied()
        .collect()
}

impl ServiceRouter for Router {
    fn route(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Route {
        self.route_counted(from, to, protocol).0
    }

    fn route_counted(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> (Route, Option<Arc<ServiceFlows>>) {
        enum Answer {
            /// Who, and whether at a cluster address.
            Served(Found, bool),
            Refused(Arc<ServiceFlows>),
            /// A pod's port of the host.
            Pod(SocketAddr),
            Elsewhere,
        }
        let transport = protocol.into();
        let is_node = self.node.contains(&to.ip());
        let exposure = match is_node {
            true => Exposure::NodePort(to.port(), transport),
            false => Exposure::Outer(to, transport),
        };
        let of_pod = Exposure::HostPort(None, to.port(), transport);
        let answer = self.index.ask(|tables| {
            if let Some(found) = tables.at(to, protocol) {
                return Answer::Served(found.clone(), true);
            }
            match tables.at_exposure(&exposure) {
                Some(found) => Answer::Served(found.clone(), false),
                // As upstream's newer proxies: a Service's address refuses on its other ports.
                None if is_node => match tables.at_host_port(&of_pod) {
                    Some(pod) => Answer::Pod(pod),
                    None => Answer::Elsewhere,
                },
                None => match tables.service_at(to.ip()) {
                    Some(service) => Answer::Refused(service.flows.clone()),
                    None => Answer::Elsewhere,
                },
            }
        });
        match answer {
            Answer::Elsewhere => (Route::NotAService, None),
            Answer::Pod(pod) => (Route::Endpoints(vec![pod]), None),
            Answer::Refused(flows) => (Route::Refuse, Some(flows)),
            Answer::Served(found, at_cluster_address) => {
                // Pods that come by way of a node port or an outer address are inside all the same:
                // `externalTrafficPolicy` is not for them, as with upstream's proxies.
                let endpoints = if at_cluster_address {
                    found.port().internal.of_family(to.ip())
                } else {
                    found.port().endpoints.preferring(to.ip())
                };
                let route = match self.candidates(from, &found, endpoints) {
                    none if none.is_empty() => Route::Refuse,
                    some => Route::Endpoints(some),
                };
                (route, Some(found.service.flows))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    use coracle_client::Change;
    use serde_json::json;

    use crate::fixtures::{NODE, applied, at, cluster_ip, index, pod_ip, ready, service, vip};

    fn router(index: &Arc<Index>) -> Router {
        Router::new(index.clone(), Clock::fake(1), vec![NODE])
    }

    fn first(router: &Router, from: u8, to: SocketAddr) -> SocketAddr {
        match router.route(pod_ip(from), to, Protocol::Tcp) {
            Route::Endpoints(all) => all[0],
            other => panic!("{to}: {other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_lead_where_the_index_says() {
        let exposed = json!({
            "clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.7"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        });
        let services = [
            cluster_ip("web", 5),
            cluster_ip("empty", 6),
            service("exposed", exposed),
        ];
        let index = index(
            services,
            [ready("web", 8080, &[1]), ready("exposed", 81, &[2])],
        );
        let router = router(&index);
        let to = |last, port| Route::Endpoints(vec![at(last, port)]);
        let cases = [
            (vip(5, 80), Protocol::Tcp, to(1, 8080)),
            (vip(5, 80), Protocol::Udp, Route::Refuse),
            (vip(5, 81), Protocol::Tcp, Route::Refuse),
            (vip(6, 80), Protocol::Tcp, Route::Refuse),
            (vip(9, 80), Protocol::Tcp, Route::NotAService),
            (at(1, 8080), Protocol::Tcp, Route::NotAService),
            (SocketAddr::new(NODE, 30080), Protocol::Tcp, to(2, 81)),
            // An external address is the Service's from inside, too.
            ("192.0.2.7:80".parse().unwrap(), Protocol::Tcp, to(2, 81)),
            (
                "192.0.2.7:81".parse().unwrap(),
                Protocol::Tcp,
                Route::NotAService,
            ),
            (
                SocketAddr::new(NODE, 30081),
                Protocol::Tcp,
                Route::NotAService,
            ),
        ];
        for (address, protocol, expected) in cases {
            assert_eq!(
                router.route(pod_ip(9), address, protocol),
                expected,
                "{address}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_take_turns_and_the_others_follow() {
        let index = index([cluster_ip("web", 5)], [ready("web", 80, &[1, 2, 3])]);
        let router = router(&index);
        let mut orders = BTreeSet::new();
        for _ in 0..3 {
            match router.route(pod_ip(9), vip(5, 80), Protocol::Tcp) {
                Route::Endpoints(all) => orders.insert(all),
                other => panic!("{other:?}"),
            };
        }
        let expected =
            [[1, 2, 3], [2, 3, 1], [3, 1, 2]].map(|order| order.map(|last| at(last, 80)).to_vec());
        assert_eq!(orders, BTreeSet::from(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn the_turn_outlives_a_change_of_endpoints() {
        let index = index([cluster_ip("web", 5)], [ready("web", 80, &[1, 2])]);
        let router = router(&index);
        assert_eq!(first(&router, 9, vip(5, 80)), at(1, 80));
        index.slice_changed(&applied(ready("web", 80, &[1, 2, 3])));
        assert_eq!(first(&router, 9, vip(5, 80)), at(2, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_service_gives_a_bounded_number_of_candidates() {
        let mut slices = Vec::new();
        for number in 0..20u8 {
            let all: Vec<_> = (1..=250)
                .map(|last| json!({"addresses": [format!("10.240.{number}.{last}")]}))
                .collect();
            let ports = json!([{"name": "http", "port": 80}]);
            slices.push(crate::fixtures::slice(
                &number.to_string(),
                "web",
                ports,
                all.into(),
            ));
        }
        let index = index([cluster_ip("web", 5)], slices);
        let router = router(&index);
        let mut seen = BTreeSet::new();
        for _ in 0..5000 {
            match router.route(pod_ip(9), vip(5, 80), Protocol::Tcp) {
                Route::Endpoints(all) => {
                    assert_eq!(all.len(), CANDIDATES);
                    seen.insert(all[0]);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen.len(), 5000, "every endpoint has its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_endpoint_is_never_given_again() {
        let index = index([cluster_ip("web", 5)], [ready("web", 80, &[1, 2])]);
        let router = router(&index);
        index.slice_changed(&applied(ready("web", 80, &[2])));
        assert_eq!(first(&router, 9, vip(5, 80)), at(2, 80));
        index.slice_changed(&Change::Deleted(Arc::new(ready("web", 80, &[2]))));
        let refused = router.route(pod_ip(9), vip(5, 80), Protocol::Tcp);
        assert_eq!(refused, Route::Refuse);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_affinity_stays_until_it_was_away_too_long() {
        let spec = json!({
            "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        });
        let index = index([service("web", spec)], [ready("web", 80, &[1, 2, 3])]);
        let router = router(&index);
        let held = first(&router, 9, vip(5, 80));
        for _ in 0..4 {
            router.clock.sleep(Duration::from_secs(40)).await;
            assert_eq!(first(&router, 9, vip(5, 80)), held);
        }
        let others: BTreeSet<_> = (10..13)
            .map(|client| first(&router, client, vip(5, 80)))
            .collect();
        assert_eq!(others.len(), 3, "other clients take turns");
        router.clock.sleep(Duration::from_secs(61)).await;
        let after = first(&router, 9, vip(5, 80));
        assert_eq!(first(&router, 9, vip(5, 80)), after);
        assert_ne!(after, held, "the next turn was somebody else's");
    }

    #[tokio::test(start_paused = true)]
    async fn the_figures_of_a_service_outlive_its_changes_and_go_with_it() {
        let index = index([cluster_ip("web", 5)], [ready("web", 80, &[1])]);
        let router = router(&index);
        let flows = |to| router.route_counted(pod_ip(9), to, Protocol::Tcp).1;
        let before = flows(vip(5, 80)).expect("counted");
        index.slice_changed(&applied(ready("web", 80, &[1, 2])));
        index.service_changed(&applied(cluster_ip("web", 5)));
        let after = flows(vip(5, 80)).expect("counted");
        assert!(Arc::ptr_eq(&before, &after));
        let refused = flows(vip(5, 81)).expect("a port that it has not");
        assert!(Arc::ptr_eq(&before, &refused));
        before.datagram_received(3);
        let shown = || index.ask(|tables| crate::metrics::render(tables.traffic()));
        let line = "coracle_service_receive_bytes_total{namespace=\"default\",service=\"web\"} 3";
        assert!(shown().contains(line), "{}", shown());
        index.service_changed(&Change::Deleted(Arc::new(cluster_ip("web", 5))));
        assert!(!shown().contains("web"), "{}", shown());
        assert!(flows(vip(5, 80)).is_none());
        index.service_changed(&applied(cluster_ip("web", 5)));
        let again = flows(vip(5, 80)).expect("counted");
        assert!(!again.traffic().is_any(), "it is another one");
    }
}

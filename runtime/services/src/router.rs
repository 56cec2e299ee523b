//! Where connects to Services lead: the endpoints to try, in turn.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_network::{Protocol, Route, ServiceFlows, ServiceRouter};

use crate::affinity::{Affinity, Client};
use crate::index::{Exposure, Found, Index};

/// How many endpoints one connection may try.
pub(crate) const CANDIDATES: usize = 16;

/// Where a client outside is led.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// In the order to be tried; none if nobody serves it.
    pub(crate) endpoints: Vec<SocketAddr>,
    /// Who counts what becomes of it.
    pub(crate) service: Option<Arc<ServiceFlows>>,
    /// It may not come by this way.
    pub(crate) is_denied: bool,
}

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

    /// Where a client outside is led.
    pub(crate) fn outside(&self, client: IpAddr, exposure: &Exposure) -> Outside {
        if let Exposure::HostPort(..) = exposure {
            let pod = self.index.ask(|tables| tables.at_host_port(exposure));
            return Outside {
                endpoints: pod.into_iter().collect(),
                ..Outside::default()
            };
        }
        let found = self
            .index
            .ask(|tables| tables.at_exposure(exposure).cloned());
        let Some(found) = found else {
            return Outside::default();
        };
        let is_denied = is_denied(&found, exposure, client);
        let endpoints = match is_denied {
            true => Vec::new(),
            false => self.candidates(client, &found, found.port().external.any()),
        };
        Outside {
            endpoints,
            service: Some(found.service.flows),
            is_denied,
        }
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

    /// Whose `to` is for `from`.
    fn answer(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Answer {
        let transport = protocol.into();
        let is_node = self.node.contains(&to.ip());
        let exposure = match is_node {
            true => Exposure::NodePort(to.port(), transport),
            false => Exposure::Outer(to, transport),
        };
        let of_pod = Exposure::HostPort(None, to.port(), transport);
        self.index.ask(|tables| {
            if let Some(found) = tables.at(to, protocol) {
                return Answer::Served(found.clone(), true);
            }
            match tables.at_exposure(&exposure) {
                Some(found) if is_denied(found, &exposure, from) => Answer::Denied(found.clone()),
                Some(found) => Answer::Served(found.clone(), false),
                // As upstream's newer proxies: a Service's address refuses on its other ports.
                None if is_node => match tables.at_host_port(&of_pod) {
                    Some(pod) => Answer::Pod(pod),
                    None => Answer::Elsewhere,
                },
                None => match tables.service_at(to.ip()) {
                    Some(service) => Answer::NoPort(service.flows.clone()),
                    None => Answer::Elsewhere,
                },
            }
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

/// Whether the Service's load balancer does not let the client in.
fn is_denied(found: &Found, exposure: &Exposure, client: IpAddr) -> bool {
    match exposure {
        Exposure::Outer(address, _) => !found.service.entry.lets_in(address.ip(), client),
        _ => false,
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
        match self.answer(from, to, protocol) {
            Answer::Elsewhere => (Route::NotAService, None),
            Answer::Pod(pod) => (Route::Endpoints(vec![pod]), None),
            Answer::NoPort(flows) => (Route::NoPort, Some(flows)),
            Answer::Denied(found) => {
                let key = &found.service.entry.key;
                let reason =
                    format!("{from} is in none of the loadBalancerSourceRanges of service {key}");
                (Route::Deny { reason }, Some(found.service.flows))
            }
            Answer::Served(found, at_cluster_address) => {
                let endpoints = endpoints(&found, at_cluster_address, to.ip());
                let route = match self.candidates(from, &found, endpoints) {
                    none if none.is_empty() => Route::Refuse,
                    some => Route::Endpoints(some),
                };
                (route, Some(found.service.flows))
            }
        }
    }

    fn still_leads(
        &self,
        from: IpAddr,
        to: SocketAddr,
        endpoint: SocketAddr,
        protocol: Protocol,
    ) -> bool {
        match self.answer(from, to, protocol) {
            Answer::Elsewhere => to == endpoint,
            Answer::Pod(pod) => pod == endpoint,
            Answer::NoPort(_) | Answer::Denied(_) => false,
            Answer::Served(found, at_cluster_address) => {
                let all = endpoints(&found, at_cluster_address, to.ip());
                all.binary_search(&endpoint).is_ok()
            }
        }
    }
}

/// Whose an address is that a pod, or the node, dials.
enum Answer {
    /// Who, and whether at a cluster address.
    Served(Found, bool),
    /// Its address, with none of its ports.
    NoPort(Arc<ServiceFlows>),
    /// Its load balancer does not let it in.
    Denied(Found),
    /// A pod's port of the host.
    Pod(SocketAddr),
    Elsewhere,
}

/// Where such a caller is led. Pods that come by way of a node port or an outer address are inside all the same:
/// `externalTrafficPolicy` is not for them, as with upstream's proxies.
fn endpoints(found: &Found, at_cluster_address: bool, to: IpAddr) -> &[SocketAddr] {
    match at_cluster_address {
        true => found.port().internal.of_family(to),
        false => found.port().endpoints.preferring(to),
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
    async fn a_load_balancer_lets_in_whom_its_ranges_name() {
        let balanced = |ranges: serde_json::Value| {
            let mut service = service(
                "web",
                json!({
                    "type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.8"],
                    "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
                    "loadBalancerSourceRanges": ranges,
                }),
            );
            let ingress =
                json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "ipMode": "VIP"}]}});
            service.status = serde_json::from_value(ingress).expect("a status");
            service
        };
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (outer, external) = (address("192.0.2.7:80"), address("192.0.2.8:80"));
        let node_port = Exposure::NodePort(30080, crate::index::Transport::Tcp);
        let at_outer = |at| Exposure::Outer(at, crate::index::Transport::Tcp);
        let (near, far) = (
            address("198.51.100.9:1").ip(),
            address("203.0.113.9:1").ip(),
        );
        let index = index(
            [balanced(json!([" 198.51.100.0/24 ", "10.240.0.9/32"]))],
            [ready("web", 8080, &[1])],
        );
        let router = router(&index);
        let led = |client, exposure: &Exposure| {
            let outside = router.outside(client, exposure);
            assert_eq!(outside.is_denied, outside.endpoints.is_empty());
            !outside.is_denied
        };
        assert!(led(near, &at_outer(outer)) && !led(far, &at_outer(outer)));
        // Clients of IPv4 may look like ones of IPv6 to a listener of both.
        let mapped = "::ffff:198.51.100.9".parse().expect("an address");
        assert!(led(mapped, &at_outer(outer)));
        // The ranges are the balancer's: the other ways in are open to everybody.
        assert!(led(far, &at_outer(external)) && led(far, &node_port));
        // Pods are no exception.
        let route = |last| router.route(pod_ip(last), outer, Protocol::Tcp);
        assert_eq!(route(9), Route::Endpoints(vec![at(1, 8080)]));
        match route(8) {
            Route::Deny { reason } => assert!(reason.contains("default/web"), "{reason}"),
            other => panic!("{other:?}"),
        }
        // Ranges of the other family are about addresses of that; what is no range lets nobody in.
        index.service_changed(&applied(balanced(json!(["fd00::/8"]))));
        assert!(led(far, &at_outer(outer)));
        index.service_changed(&applied(balanced(json!(["all"]))));
        assert!(!led(far, &at_outer(outer)));
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
            (vip(5, 80), Protocol::Udp, Route::NoPort),
            (vip(5, 81), Protocol::Tcp, Route::NoPort),
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
    async fn what_was_led_somewhere_is_still_if_a_new_connect_could_be() {
        let exposed = json!({
            "clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        });
        let index = index(
            [cluster_ip("web", 5), service("exposed", exposed)],
            [ready("web", 8080, &[1]), ready("exposed", 81, &[2])],
        );
        let router = router(&index);
        let cases = [
            (vip(5, 80), at(1, 8080), true),
            (vip(5, 80), at(2, 8080), false),
            (vip(5, 80), at(1, 81), false),
            (vip(5, 81), at(1, 8080), false),
            (SocketAddr::new(NODE, 30080), at(2, 81), true),
            (SocketAddr::new(NODE, 30081), at(2, 81), false),
            (at(1, 8080), at(1, 8080), true),
        ];
        for (to, endpoint, expected) in cases {
            let still = router.still_leads(pod_ip(9), to, endpoint, Protocol::Tcp);
            assert_eq!(still, expected, "{to} {endpoint}");
        }
        index.slice_changed(&applied(ready("web", 8080, &[])));
        assert!(!router.still_leads(pod_ip(9), vip(5, 80), at(1, 8080), Protocol::Tcp));
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

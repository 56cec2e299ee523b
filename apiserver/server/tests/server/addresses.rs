//! Addresses of Services as objects.

use std::sync::Arc;

use coracle_clock::Clock;
use coracle_server::{ApiServer, Config};
use coracle_store::{MemoryStore, Store};
use serde_json::json;

use super::support::TestServer;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

fn service(name: &str, address: &str) -> serde_json::Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
}

#[tokio::test(start_paused = true)]
async fn an_address_comes_and_goes_with_its_service() {
    let server = TestServer::start().await;
    let made = server.post(SERVICES, service("s", "")).await.ok();
    let address = made["spec"]["clusterIP"].as_str().expect("one").to_owned();
    let claim = server.get(&format!("{ADDRESSES}/{address}")).await.ok();
    let parent = json!({"resource": "services", "namespace": "default", "name": "s"});
    assert_eq!(claim["spec"]["parentRef"], parent);
    let labels = &claim["metadata"]["labels"];
    assert_eq!(
        labels["ipaddress.kubernetes.io/managed-by"],
        "ipallocator.k8s.io"
    );

    let (code, _, message) = server
        .post(SERVICES, service("t", &address))
        .await
        .failure();
    assert_eq!(code, 422);
    assert!(
        message.contains("provided IP is already allocated"),
        "{message}"
    );
    // A refused Service leaves the claim of the other one alone.
    assert!(
        server
            .get(&format!("{ADDRESSES}/{address}"))
            .await
            .status
            .is_success()
    );

    server.delete(&format!("{SERVICES}/s")).await.ok();
    assert_eq!(
        server.get(&format!("{ADDRESSES}/{address}")).await.status,
        404
    );
    server.post(SERVICES, service("t", &address)).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_hand_made_claim_is_respected() {
    let server = TestServer::start().await;
    let claim = json!({
        "metadata": {"name": "10.96.0.77"},
        "spec": {"parentRef": {"group": "example.com", "resource": "routers", "name": "r"}},
    });
    server.post(ADDRESSES, claim).await.ok();
    let refused = server.post(SERVICES, service("s", "10.96.0.77")).await;
    assert_eq!(refused.status, 422);
}

#[tokio::test(start_paused = true)]
async fn further_ranges_offer_further_addresses() {
    let server = TestServer::start().await;
    let refused = server.post(SERVICES, service("s", "192.168.7.3")).await;
    assert_eq!(refused.status, 422);
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["192.168.7.0/29"]}});
    let mut range = server.post(RANGES, range).await.ok();
    let early = server.post(SERVICES, service("s", "192.168.7.3")).await;
    assert_eq!(early.status, 422, "nobody has said that it is ready");
    range["status"] = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }]});
    server
        .put(&format!("{RANGES}/more/status"), range)
        .await
        .ok();
    server
        .post(SERVICES, service("s", "192.168.7.3"))
        .await
        .ok();
    let edge = server.post(SERVICES, service("t", "192.168.7.7")).await;
    assert_eq!(edge.status, 422, "broadcast");
}

#[tokio::test(start_paused = true)]
async fn a_start_makes_claims_and_services_agree() {
    let store = Arc::new(MemoryStore::new(Clock::fake(1)));
    let start = async || {
        let api = ApiServer::start(Config::new(store.clone(), Clock::fake(2))).await;
        TestServer {
            api: api.expect("a sound store"),
        }
    };
    let server = start().await;
    server.api.bootstrap_namespaces().await.expect("made");
    server.post(SERVICES, service("s", "10.96.7.7")).await.ok();
    // What crashes leave: a Service whose claim is gone, and a claim whose Service was never written.
    let of_service = format!("{ADDRESSES}/10.96.7.7");
    server.delete(&of_service).await.ok();
    for (address, managed) in [("10.96.7.8", true), ("10.96.7.9", false)] {
        let parent = json!({"resource": "services", "namespace": "default", "name": "gone"});
        let mut claim = json!({"metadata": {"name": address}, "spec": {"parentRef": parent}});
        if managed {
            claim["metadata"]["labels"] =
                json!({"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
        }
        server.post(ADDRESSES, claim).await.ok();
    }

    let server = start().await;
    let claim = server.get(&of_service).await.ok();
    assert_eq!(claim["spec"]["parentRef"]["name"], "s");
    for (address, status) in [("10.96.7.8", 404), ("10.96.7.9", 200)] {
        let path = format!("{ADDRESSES}/{address}");
        assert_eq!(server.get(&path).await.status, status, "{address}");
    }

    let settled = store.current_revision();
    start().await;
    assert_eq!(store.current_revision(), settled, "nothing to repair");
}

#[tokio::test(start_paused = true)]
async fn the_kubernetes_service_follows_the_servers_port() {
    let server = TestServer::start().await;
    let address: std::net::IpAddr = "10.96.0.1".parse().expect("an address");
    let node = "10.240.0.1".parse().expect("an address");
    let made = |port: u16| {
        let made = server.api.bootstrap_kubernetes_service(address, node, port);
        async { made.await.expect("made") }
    };
    made(6443).await;
    let before = server.get(&format!("{SERVICES}/kubernetes")).await.ok();
    made(6443).await;
    let again = server.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(before, again, "nothing to correct");
    made(7443).await;
    let after = server.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(after["spec"]["ports"][0]["targetPort"], 7443);
    assert_eq!(after["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let endpoints = "/api/v1/namespaces/default/endpoints/kubernetes";
    let endpoints = server.get(endpoints).await.ok();
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], 7443);
}

#[tokio::test(start_paused = true)]
async fn the_kubernetes_service_is_of_the_first_family_for_ever() {
    let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
    let server = TestServer::start_with(|config| {
        config.service_ranges.addresses = "fd00:96::/112".parse().expect("a range");
        config.service_ranges.secondary = Some("10.96.0.0/16".parse().expect("a range"));
    })
    .await;
    let bootstrap = |address: &str, node: &str| {
        let made = server
            .api
            .bootstrap_kubernetes_service(ip(address), ip(node), 6443);
        async { made.await.map_err(|error| error.to_string()) }
    };
    bootstrap("fd00:96::1", "fd00:240::1").await.expect("made");
    let service = server.get(&format!("{SERVICES}/kubernetes")).await.ok();
    let six = ("SingleStack".to_owned(), 1, vec!["fd00:96::1".to_owned()]);
    assert_eq!(stack(&service), six);
    assert_eq!(service["spec"]["ipFamilies"][0], "IPv6");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = server.get(slice).await.ok();
    assert_eq!(slice["addressType"], "IPv6");
    assert_eq!(slice["endpoints"][0]["addresses"][0], "fd00:240::1");

    let error = bootstrap("10.96.0.1", "10.240.0.1").await;
    let error = error.expect_err("another family");
    assert!(
        error.contains("is at \"fd00:96::1\" and cannot move"),
        "{error}"
    );
    let unchanged = server.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(unchanged, service);
}

/// Policy, families and addresses of a Service, which is there.
fn stack(service: &serde_json::Value) -> (String, usize, Vec<String>) {
    let spec = &service["spec"];
    let list = |field: &str| -> Vec<String> {
        let items = spec[field].as_array().into_iter().flatten();
        items
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let policy = spec["ipFamilyPolicy"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (policy, list("ipFamilies").len(), list("clusterIPs"))
}

#[tokio::test(start_paused = true)]
async fn a_service_gets_a_second_family_and_gives_it_back() {
    let server = TestServer::start_with(|config| {
        config.service_ranges.secondary = Some("fd00:96::/112".parse().expect("a range"));
    })
    .await;
    server.api.bootstrap_service_range().await.expect("made");
    let range = server.get(&format!("{RANGES}/kubernetes")).await.ok();
    assert_eq!(
        range["spec"]["cidrs"],
        json!(["10.96.0.0/16", "fd00:96::/112"])
    );

    let own = format!("{SERVICES}/s");
    let made = server.post(SERVICES, service("s", "")).await.ok();
    let (policy, families, addresses) = stack(&made);
    assert_eq!(
        (policy.as_str(), families, addresses.len()),
        ("SingleStack", 1, 1)
    );
    let patch = json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}});
    let (_, families, both) = stack(&server.merge(&own, patch).await.ok());
    assert_eq!((families, both.len()), (2, 2));
    assert_eq!(both[0], addresses[0], "the first stays");
    assert!(both[1].starts_with("fd00:96::"), "{both:?}");
    let claim = format!("{ADDRESSES}/{}", both[1]);
    let held = server.get(&claim).await.ok();
    let label = &held["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"];
    assert_eq!(label, "IPv6");

    let fewer = json!({"spec": {"ipFamilyPolicy": "PreferDualStack", "clusterIPs": addresses}});
    let (code, _, message) = server.merge(&own, fewer).await.failure();
    let expected = "must be 'SingleStack' to release the secondary cluster IP";
    assert!(code == 422 && message.contains(expected), "{message}");
    let patch = json!({"spec": {"ipFamilyPolicy": "SingleStack"}});
    let (_, families, left) = stack(&server.merge(&own, patch).await.ok());
    assert_eq!((families, left), (1, addresses));
    assert_eq!(server.get(&claim).await.status, 404, "free again");

    let asked = json!({"metadata": {"name": "t"}, "spec": {
        "ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["fd00:96::7", "10.96.0.7"],
        "clusterIP": "fd00:96::7", "ports": [{"port": 80}],
    }});
    let made = server.post(SERVICES, asked.clone()).await.ok();
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
    let mut again = asked;
    again["metadata"]["name"] = "u".into();
    again["spec"]["clusterIPs"][0] = "fd00:96::8".into();
    again["spec"]["clusterIP"] = "fd00:96::8".into();
    let (code, _, message) = server.post(SERVICES, again).await.failure();
    let expected = "failed to allocate IP 10.96.0.7: provided IP is already allocated";
    assert!(code == 422 && message.contains(expected), "{message}");
    let other = format!("{ADDRESSES}/fd00:96::8");
    assert_eq!(server.get(&other).await.status, 404, "given back");
    server.delete(&format!("{SERVICES}/t")).await.ok();
    for address in ["fd00:96::7", "10.96.0.7"] {
        let path = format!("{ADDRESSES}/{address}");
        assert_eq!(server.get(&path).await.status, 404, "{address}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_of_local_traffic_has_a_port_for_its_checks() {
    let server =
        TestServer::start_with(|config| config.service_ranges.node_ports = 30_000..=30_003).await;
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let made = server
        .post(SERVICES, json!({"metadata": {"name": "s"}, "spec": spec}))
        .await
        .ok();
    let check = made["spec"]["healthCheckNodePort"].as_i64().expect("one");
    let node = made["spec"]["ports"][0]["nodePort"].as_i64().expect("one");
    assert!((30_000..=30_003).contains(&check) && check != node);
    let patch = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let changed = server.merge(&format!("{SERVICES}/s"), patch).await.ok();
    assert!(changed["spec"].get("healthCheckNodePort").is_none());
    // It is free again: three more fit, and a fifth does not.
    for name in ["a", "b", "c", "d"] {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        let made = server
            .post(SERVICES, json!({"metadata": {"name": name}, "spec": spec}))
            .await;
        if name == "d" {
            let expected = "Internal error occurred: failed to allocate a nodePort: range is full";
            let failure = (500, "InternalError".to_owned(), expected.to_owned());
            assert_eq!(made.failure(), failure);
        } else {
            made.ok();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_load_balancer_that_wants_no_more_node_ports_keeps_those_that_it_has() {
    let server = TestServer::start().await;
    let balancer = json!({
        "metadata": {"name": "x"},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "a", "port": 80}]},
    });
    let made = server.post(SERVICES, balancer).await.ok();
    let port = &made["spec"]["ports"][0]["nodePort"];
    assert!(port.is_number(), "{made}");
    let item = format!("{SERVICES}/x");
    let stop = json!({"spec": {"allocateLoadBalancerNodePorts": false}});
    let stopped = server.merge(&item, stop).await.ok();
    assert_eq!(&stopped["spec"]["ports"][0]["nodePort"], port);
    assert_eq!(stopped["spec"]["externalTrafficPolicy"], "Cluster");
    let more = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    let more = server.merge(&item, more).await.ok();
    let ports = &more["spec"]["ports"];
    assert_eq!(&ports[0]["nodePort"], port, "{more}");
    assert_eq!(ports[1].get("nodePort"), None, "{more}");
}

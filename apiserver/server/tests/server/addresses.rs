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

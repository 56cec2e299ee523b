//! Addresses of Services as objects.

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
    server.post(RANGES, range).await.ok();
    server
        .post(SERVICES, service("s", "192.168.7.3"))
        .await
        .ok();
    let edge = server.post(SERVICES, service("t", "192.168.7.7")).await;
    assert_eq!(edge.status, 422, "broadcast");
}

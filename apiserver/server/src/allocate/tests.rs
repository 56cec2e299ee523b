use super::*;
use coracle_api::Registry;

fn services() -> &'static Resource {
    Registry::builtin()
        .by_plural("", "v1", "services")
        .expect("services are served")
}

/// As the kind's strategy prepares it.
fn service(mut spec: Value) -> Object {
    if let Some(address) = spec.get("clusterIP").cloned() {
        spec["clusterIPs"] = json!([address]);
    }
    Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).expect("an object")
}

/// A server in memory, for its allocators.
struct Cluster(crate::ApiServer);

impl Cluster {
    async fn start() -> Self {
        let clock = Clock::fake(1);
        let store = Arc::new(coracle_store::MemoryStore::new(clock.clone()));
        let api = crate::ApiServer::start(crate::Config::new(store, clock)).await;
        Self(api.expect("an empty store"))
    }

    fn allocators(&self) -> &Allocators {
        &self.0.server().allocators
    }

    async fn reserve(&self, object: &mut Object, old: Option<&Object>) -> Result<Reservation> {
        let (server, allocators) = (self.0.server(), self.allocators());
        allocators.settle_families(server, services(), object, old, false)?;
        allocators
            .allocate(server, services(), object, old, false)
            .await
    }

    async fn allocate(&self, object: &mut Object, old: Option<&Object>) -> Result<()> {
        let server = self.0.server();
        self.reserve(object, old).await?.keep(server).await;
        Ok(())
    }

    /// The names of the addresses that are claimed.
    async fn claims(&self) -> Vec<String> {
        let server = self.0.server();
        let resource = server
            .registry
            .by_plural("networking.k8s.io", "v1", "ipaddresses");
        let progress = server.storage.catch_up().await;
        let cache = server
            .storage
            .cache(resource.expect("served"))
            .expect("stored");
        let entries = cache.list("", progress).entries;
        entries
            .iter()
            .map(|entry| entry.name().to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_service_gets_an_address_and_keeps_it() {
    let cluster = Cluster::start().await;
    let mut first = service(json!({"ports": [{"port": 80}]}));
    cluster.allocate(&mut first, None).await.expect("allocated");
    let address = first.at("spec.clusterIP").str().to_owned();
    assert!(address.starts_with("10.96."));
    assert_eq!(first.at("spec.clusterIPs").index(0).str(), address);
    let mut update = service(json!({"ports": [{"port": 81}]}));
    cluster
        .allocators()
        .carry_over(services(), &mut update, &first);
    cluster
        .allocate(&mut update, Some(&first))
        .await
        .expect("kept");
    assert_eq!(update.at("spec.clusterIP").str(), address);
}

#[tokio::test]
async fn taken_and_foreign_addresses_are_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let mut first = service(json!({"clusterIP": "10.96.77.20"}));
    cluster.allocate(&mut first, None).await.expect("allocated");
    let error = cluster
        .allocate(&mut service(json!({"clusterIP": "10.96.77.20"})), None)
        .await
        .expect_err("taken");
    assert_eq!(
        error.to_string(),
        r#"Service "x" is invalid: spec.clusterIPs: Invalid value: ["10.96.77.20"]: failed to allocate IP 10.96.77.20: provided IP is already allocated"#
    );
    let error = cluster
        .allocate(&mut service(json!({"clusterIP": "10.97.0.1"})), None)
        .await
        .expect_err("foreign");
    assert!(
        error
            .to_string()
            .ends_with("the provided network does not match the current range")
    );
    assert_eq!(cluster.claims().await, ["10.96.77.20"]);
    let server = cluster.0.server();
    cluster
        .allocators()
        .release(server, services(), &first)
        .await;
    assert!(cluster.claims().await.is_empty());
    cluster
        .allocate(&mut service(json!({"clusterIP": "10.96.77.20"})), None)
        .await
        .expect("free again");
}

#[tokio::test]
async fn a_write_that_fails_gives_back_what_it_took() {
    let cluster = Cluster::start().await;
    let wanted = || {
        service(
            json!({"clusterIP": "10.96.1.1", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30777}]}),
        )
    };
    let server = cluster.0.server();
    let reserved = cluster.reserve(&mut wanted(), None).await;
    reserved.expect("allocated").undo(server).await;
    let allocators = cluster.allocators();
    let mut tried = wanted();
    let settled = allocators.settle_families(server, services(), &mut tried, None, true);
    settled.expect("legal");
    let reserved = allocators.allocate(server, services(), &mut tried, None, true);
    drop(reserved.await.expect("a dry run"));
    assert!(cluster.claims().await.is_empty());
    cluster.allocate(&mut wanted(), None).await.expect("free");
}

#[tokio::test]
async fn node_ports_follow_the_type() {
    let cluster = Cluster::start().await;
    let mut open = service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}));
    cluster.allocate(&mut open, None).await.expect("allocated");
    let port = open
        .at("spec.ports")
        .index(0)
        .key("nodePort")
        .as_i64()
        .expect("a node port");
    assert!((30_000..=32_767).contains(&port));
    let mut closed = open.clone();
    closed.set("spec.type", "ClusterIP");
    cluster
        .allocate(&mut closed, Some(&open))
        .await
        .expect("allocated");
    assert!(!closed.at("spec.ports").index(0).key("nodePort").exists());
    let again = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    cluster
        .allocate(&mut service(again), None)
        .await
        .expect("free again");
}

#[tokio::test]
async fn one_port_serves_two_protocols_but_not_one_twice() {
    let cluster = Cluster::start().await;
    let ports = |second: &str| {
        json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 80, "nodePort": 30779, "protocol": "TCP"},
            {"name": "b", "port": 81, "nodePort": 30779, "protocol": second},
        ]})
    };
    let error = cluster
        .allocate(&mut service(ports("TCP")), None)
        .await
        .expect_err("twice");
    assert!(error.to_string().contains(
        "spec.ports[1].nodePort: Invalid value: 30779: provided port is already allocated"
    ));
    cluster
        .allocate(&mut service(ports("UDP")), None)
        .await
        .expect("two protocols");
}

#[tokio::test]
async fn headless_and_external_services_get_no_address() {
    let cluster = Cluster::start().await;
    let mut headless = service(json!({"clusterIP": "None", "selector": {"a": "b"}}));
    cluster
        .allocate(&mut headless, None)
        .await
        .expect("allowed");
    assert_eq!(headless.at("spec.clusterIPs").index(0).str(), "None");
    assert_eq!(headless.at("spec.ipFamilies").len(), 1);
    let mut external = service(json!({"type": "ExternalName", "externalName": "e.example.com"}));
    cluster
        .allocate(&mut external, None)
        .await
        .expect("allowed");
    assert!(!external.at("spec.clusterIP").exists() && !external.at("spec.ipFamilies").exists());
}

#[tokio::test]
async fn an_update_that_needs_no_address_any_more_frees_it() {
    let cluster = Cluster::start().await;
    let mut first = service(json!({"clusterIP": "10.96.1.1"}));
    cluster.allocate(&mut first, None).await.expect("allocated");
    let mut external = service(json!({"type": "ExternalName", "externalName": "e.example.com"}));
    cluster
        .allocate(&mut external, Some(&first))
        .await
        .expect("allowed");
    assert!(cluster.claims().await.is_empty());
}

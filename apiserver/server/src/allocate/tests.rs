use super::*;
use coracle_api::Registry;

fn services() -> &'static Resource {
    Registry::builtin()
        .by_plural("", "v1", "services")
        .expect("services are served")
}

fn service(spec: Value) -> Object {
    Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).expect("an object")
}

fn allocators() -> Allocators {
    Allocators::new(&ServiceRanges::default(), Clock::fake(1))
}

fn allocate(allocators: &Allocators, object: &mut Object, old: Option<&Object>) -> Result<()> {
    allocators
        .allocate(services(), object, old, false)
        .map(Reservation::keep)
}

#[tokio::test]
async fn a_service_gets_an_address_and_keeps_it() {
    let allocators = allocators();
    let mut first = service(json!({"ports": [{"port": 80}]}));
    allocate(&allocators, &mut first, None).expect("allocated");
    let address = first.at("spec.clusterIP").str().to_owned();
    assert!(address.starts_with("10.96."));
    assert_eq!(first.at("spec.clusterIPs").index(0).str(), address);
    let mut update = service(json!({"ports": [{"port": 81}]}));
    allocators.carry_over(services(), &mut update, &first);
    allocate(&allocators, &mut update, Some(&first)).expect("kept");
    assert_eq!(update.at("spec.clusterIP").str(), address);
}

#[tokio::test]
async fn taken_and_foreign_addresses_are_refused_in_upstreams_words() {
    let allocators = allocators();
    let mut first = service(json!({"clusterIP": "10.96.77.20"}));
    allocate(&allocators, &mut first, None).expect("allocated");
    let error = allocate(
        &allocators,
        &mut service(json!({"clusterIP": "10.96.77.20"})),
        None,
    )
    .expect_err("taken");
    assert_eq!(
        error.to_string(),
        r#"Service "x" is invalid: spec.clusterIPs: Invalid value: ["10.96.77.20"]: failed to allocate IP 10.96.77.20: provided IP is already allocated"#
    );
    let error = allocate(
        &allocators,
        &mut service(json!({"clusterIP": "10.97.0.1"})),
        None,
    )
    .expect_err("foreign");
    assert!(
        error
            .to_string()
            .ends_with("the provided network does not match the current range")
    );
    allocators.release(services(), &first);
    allocate(
        &allocators,
        &mut service(json!({"clusterIP": "10.96.77.20"})),
        None,
    )
    .expect("free again");
}

#[tokio::test]
async fn a_write_that_fails_gives_back_what_it_took() {
    let allocators = allocators();
    let wanted = || {
        service(
            json!({"clusterIP": "10.96.1.1", "type": "NodePort", "ports": [{"port": 80, "nodePort": 30777}]}),
        )
    };
    drop(
        allocators
            .allocate(services(), &mut wanted(), None, false)
            .expect("allocated"),
    );
    drop(
        allocators
            .allocate(services(), &mut wanted(), None, true)
            .expect("a dry run"),
    );
    allocate(&allocators, &mut wanted(), None).expect("free");
}

#[tokio::test]
async fn node_ports_follow_the_type() {
    let allocators = allocators();
    let mut open = service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}));
    allocate(&allocators, &mut open, None).expect("allocated");
    let port = open
        .at("spec.ports")
        .index(0)
        .key("nodePort")
        .as_i64()
        .expect("a node port");
    assert!((30_000..=32_767).contains(&port));
    let mut closed = open.clone();
    closed.set("spec.type", "ClusterIP");
    allocate(&allocators, &mut closed, Some(&open)).expect("allocated");
    assert!(!closed.at("spec.ports").index(0).key("nodePort").exists());
    let again = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    allocate(&allocators, &mut service(again), None).expect("free again");
}

#[tokio::test]
async fn one_port_serves_two_protocols_but_not_one_twice() {
    let allocators = allocators();
    let ports = |second: &str| {
        json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 80, "nodePort": 30779, "protocol": "TCP"},
            {"name": "b", "port": 81, "nodePort": 30779, "protocol": second},
        ]})
    };
    let error = allocate(&allocators, &mut service(ports("TCP")), None).expect_err("twice");
    assert!(error.to_string().contains(
        "spec.ports[1].nodePort: Invalid value: 30779: provided port is already allocated"
    ));
    allocate(&allocators, &mut service(ports("UDP")), None).expect("two protocols");
}

#[tokio::test]
async fn headless_and_external_services_get_no_address() {
    let allocators = allocators();
    let mut headless = service(json!({"clusterIP": "None", "selector": {"a": "b"}}));
    allocate(&allocators, &mut headless, None).expect("allowed");
    assert_eq!(headless.at("spec.clusterIPs").index(0).str(), "None");
    assert_eq!(headless.at("spec.ipFamilies").len(), 1);
    let mut external = service(json!({"type": "ExternalName", "externalName": "e.example.com"}));
    allocate(&allocators, &mut external, None).expect("allowed");
    assert!(!external.at("spec.clusterIP").exists() && !external.at("spec.ipFamilies").exists());
}

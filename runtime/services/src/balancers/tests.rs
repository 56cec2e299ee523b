//! Who gets which address, and what is said of ports that are taken.

use std::net::{Ipv4Addr, SocketAddr};

use coracle_clock::Clock;
use serde_json::{Value, json};

use super::reconcile::{Change, World, reconcile};
use super::*;
use crate::fixtures::key;
use crate::index::Transport;

fn ip(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

/// A load balancer that was made in this second of the day, with these ports.
fn balancer(name: &str, second: u8, ports: &[u16]) -> Value {
    let ports: Vec<_> = ports
        .iter()
        .map(|port| json!({"name": format!("p{port}"), "port": port}))
        .collect();
    json!({
        "metadata": {
            "namespace": "default", "name": name, "creationTimestamp": format!("2030-01-01T00:00:{second:02}Z"),
        },
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.5", "ports": ports},
    })
}

fn given(mut service: Value, address: &str) -> Value {
    let ports: Vec<_> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| json!({"port": port["port"], "protocol": "TCP"}))
        .collect();
    let ingress = json!([{"ip": address, "ipMode": "VIP", "ports": ports}]);
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    service
}

/// What is done for these, whose ports are closed to the named ones.
fn run(
    services: &[Value],
    pool: &[IpAddr],
    failed: &[(SocketAddr, &str, io::ErrorKind)],
) -> Vec<Change> {
    let door = |address| Door {
        address,
        transport: Transport::Tcp,
    };
    let failed = failed
        .iter()
        .map(|(address, name, kind)| ((door(*address), key(name)), *kind))
        .collect();
    let typed =
        |service: &Value| Arc::new(serde_json::from_value(service.clone()).expect("a service"));
    reconcile(&World {
        services: services.iter().map(typed).collect(),
        pool,
        failed: &failed,
        now: Clock::fake(1).now(),
    })
}

/// `name=address`, with `-` for none, in order of names.
fn shown(changes: &[Change]) -> Vec<String> {
    let text = |change: &Change| {
        let name = change.service.metadata.name.as_deref().unwrap_or_default();
        let address = change.patch["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        format!("{name}={}", address.unwrap_or("-"))
    };
    let mut all: Vec<_> = changes.iter().map(text).collect();
    all.sort();
    all
}

#[test]
fn addresses_are_shared_while_ports_differ_and_kept() {
    let pool = [ip(1), ip(2)];
    let services = [
        balancer("a", 1, &[80]),
        balancer("b", 2, &[443]),
        balancer("c", 3, &[80, 443]),
    ];
    let changes = run(&services, &pool, &[]);
    assert_eq!(
        shown(&changes),
        ["a=127.0.0.1", "b=127.0.0.1", "c=127.0.0.2"]
    );
    let settled: Vec<_> = [("127.0.0.1", 0), ("127.0.0.1", 1), ("127.0.0.2", 2)]
        .map(|(address, index)| given(services[index].clone(), address))
        .into();
    assert!(run(&settled, &pool, &[]).is_empty(), "a settled world");
    // An older one comes later: who has the address keeps it.
    let older = [settled.clone(), vec![balancer("old", 0, &[80])]].concat();
    let changes = run(&older, &pool, &[]);
    assert_eq!(shown(&changes), ["old=-"]);
    let problem = changes[0].problem.as_deref().expect("a problem");
    assert!(
        problem.contains("127.0.0.1:80 is service default/a's"),
        "{problem}"
    );
    let condition = &changes[0].patch["status"]["conditions"][0];
    assert_eq!(
        (condition["status"].as_str(), condition["reason"].as_str()),
        (Some("False"), Some("NoAddress"))
    );
    // Its turn comes when the other goes.
    let changes = run(&older[1..], &pool, &[]);
    assert_eq!(shown(&changes), ["old=127.0.0.1"]);
}

#[test]
fn an_address_may_be_asked_for_and_others_classes_are_not_ours() {
    let pool = [ip(1), ip(2)];
    let mut asks = balancer("asks", 1, &[80]);
    asks["spec"]["loadBalancerIP"] = json!("127.0.0.2");
    let mut elsewhere = balancer("elsewhere", 2, &[80]);
    elsewhere["spec"]["loadBalancerIP"] = json!("192.0.2.1");
    let mut other = balancer("other", 3, &[80]);
    other["spec"]["loadBalancerClass"] = json!("example.org/other");
    let mut ours = balancer("ours", 4, &[80]);
    ours["spec"]["loadBalancerClass"] = json!("coracle.dev/pool");
    let mut ending = balancer("ending", 5, &[81]);
    ending["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    let changes = run(&[asks, elsewhere, other, ours, ending], &pool, &[]);
    assert_eq!(
        shown(&changes),
        ["asks=127.0.0.2", "elsewhere=-", "ours=127.0.0.1"]
    );
    let problems: Vec<_> = changes
        .iter()
        .filter_map(|change| change.problem.clone())
        .collect();
    assert_eq!(
        problems,
        ["loadBalancerIP 192.0.2.1 is not in the pool of addresses (127.0.0.1 to 127.0.0.2)"]
    );
}

#[test]
fn who_is_no_load_balancer_any_more_gives_the_address_back() {
    let mut service = given(balancer("a", 1, &[80]), "127.0.0.1");
    service["spec"]["type"] = json!("ClusterIP");
    let changes = run(&[service], &[ip(1)], &[]);
    assert_eq!(shown(&changes), ["a=-"]);
    // An address that is not in the pool any more is replaced.
    let moved = run(
        &[given(balancer("a", 1, &[80]), "127.0.0.9")],
        &[ip(1)],
        &[],
    );
    assert_eq!(shown(&moved), ["a=127.0.0.1"]);
}

#[test]
fn a_port_in_use_is_a_condition_and_an_error_of_that_port_until_it_is_open() {
    let service = given(balancer("a", 1, &[80, 443]), "127.0.0.1");
    let port = SocketAddr::new(ip(1), 443);
    let taken = [(port, "a", io::ErrorKind::AddrInUse)];
    let changes = run(std::slice::from_ref(&service), &[ip(1)], &taken);
    let status = &changes[0].patch["status"];
    let ports = &status["loadBalancer"]["ingress"][0]["ports"];
    assert_eq!(ports[0].get("error"), None);
    assert_eq!(ports[1]["error"], "coracle.dev/PortInUse");
    let condition = &status["conditions"][0];
    assert_eq!(condition["type"], "coracle.dev/Reachable");
    assert_eq!(
        (condition["status"].as_str(), condition["reason"].as_str()),
        (Some("False"), Some("PortInUse"))
    );
    assert_eq!(changes[0].problem, None, "the door has told");
    let mut told = service;
    told["status"] = status.clone();
    assert!(
        run(std::slice::from_ref(&told), &[ip(1)], &taken).is_empty(),
        "a settled world"
    );
    let open = run(&[told], &[ip(1)], &[]);
    assert_eq!(open[0].patch["status"]["conditions"][0]["status"], "True");
    assert_eq!(
        open[0].patch["status"]["conditions"][0]["reason"],
        "Listening"
    );
}

#[test]
fn a_port_that_is_closed_to_others_is_no_problem_and_too_many_are_one() {
    let service = given(balancer("a", 1, &[80]), "127.0.0.1");
    let port = SocketAddr::new(ip(1), 80);
    let of_another = [(port, "z", io::ErrorKind::AddrInUse)];
    let changes = run(std::slice::from_ref(&service), &[ip(1)], &of_another);
    assert!(changes.is_empty(), "{changes:?}");
    let full = [(port, "a", io::ErrorKind::QuotaExceeded)];
    let changes = run(&[service], &[ip(1)], &full);
    let status = &changes[0].patch["status"];
    let ports = &status["loadBalancer"]["ingress"][0]["ports"];
    assert_eq!(ports[0]["error"], "coracle.dev/TooManyPorts");
    assert_eq!(status["conditions"][0]["reason"], "TooManyPorts");
}

#[test]
fn a_node_port_in_use_is_a_condition_of_its_service_until_it_is_open() {
    let mut service = balancer("a", 1, &[80]);
    service["spec"]["type"] = json!("NodePort");
    service["spec"]["ports"][0]["nodePort"] = json!(30_080);
    let in_use = |port, kind| [(SocketAddr::new(ip(1), port), "a", kind)];
    let taken = in_use(30_080, io::ErrorKind::AddrInUse);
    // Whether this node gives addresses or not.
    for pool in [&[ip(1)][..], &[]] {
        let changes = run(std::slice::from_ref(&service), pool, &taken);
        let mut told = service.clone();
        told["status"] = changes[0].patch["status"].clone();
        let condition = &told["status"]["conditions"][0];
        assert_eq!(condition["type"], "coracle.dev/Reachable");
        assert_eq!(
            (condition["status"].as_str(), condition["reason"].as_str()),
            (Some("False"), Some("PortInUse"))
        );
        assert_eq!(told["status"].get("loadBalancer"), None);
        let settled = run(std::slice::from_ref(&told), pool, &taken);
        assert!(settled.is_empty(), "{settled:?}");
        let open = run(&[told], pool, &[]);
        assert_eq!(open[0].patch["status"]["conditions"][0]["status"], "True");
    }
    // A pod of that name wants another port, and an external address is another machine's.
    let of_others = [
        in_use(8080, io::ErrorKind::AddrInUse),
        in_use(80, io::ErrorKind::AddrNotAvailable),
    ];
    let none = run(&[service], &[ip(1)], of_others.as_flattened());
    assert!(none.is_empty(), "{none:?}");
    // Without a pool load balancers are left alone.
    let given = given(balancer("a", 1, &[80]), "127.0.0.1");
    assert!(run(&[given], &[], &[]).is_empty());
}

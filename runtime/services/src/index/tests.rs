//! What Services mean, and that changes add up to the same as a fresh start.

use std::net::SocketAddr;

use coracle_network::Protocol;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{at, cluster_ip, index, key, pod_ip, ready, service, slice, vip};

fn http(port: u16) -> Value {
    json!([{"name": "http", "port": port, "protocol": "TCP"}])
}

fn endpoint(last: u8, conditions: Value) -> Value {
    json!({"addresses": [pod_ip(last)], "conditions": conditions})
}

/// The endpoints of the first port of a Service with the given slices.
fn endpoints(service: &Service, slices: &[EndpointSlice]) -> Vec<SocketAddr> {
    entry(service, slices, &Here::default()).ports[0]
        .endpoints
        .any()
        .to_vec()
}

#[test]
fn conditions_decide_who_serves() {
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let unknown = json!({});
    let starting = json!({"ready": false, "serving": false, "terminating": false});
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let ended = json!({"ready": false, "serving": false, "terminating": true});
    let cases = [
        (vec![&ready, &starting, &ending], vec![at(1, 80)]),
        (vec![&starting, &ending, &ended], vec![at(2, 80)]),
        (vec![&starting, &ended], vec![]),
        (vec![&unknown, &ready], vec![at(1, 80), at(2, 80)]),
        (vec![], vec![]),
    ];
    for (conditions, expected) in cases {
        let shown = format!("{conditions:?}");
        let all = conditions
            .into_iter()
            .zip(1..)
            .map(|(c, last)| endpoint(last, c.clone()));
        let slice = slice("s", "web", http(80), all.collect());
        assert_eq!(
            endpoints(&cluster_ip("web", 5), &[slice]),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn not_ready_addresses_are_published_on_request() {
    let spec = json!({
        "clusterIP": "None", "publishNotReadyAddresses": true,
        "ports": [{"name": "http", "port": 80}],
    });
    let slice = slice(
        "s",
        "web",
        http(80),
        json!([endpoint(1, json!({"ready": false}))]),
    );
    let entry = entry(&service("web", spec), [&slice], &Here::default());
    assert_eq!(entry.front, Front::Headless);
    assert_eq!(entry.addresses, [pod_ip(1)]);
    assert_eq!(entry.ports[0].endpoints.any(), [at(1, 80)]);
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let spec = json!({"clusterIP": "10.96.0.5", "ports": [
        {"name": "http", "port": 80, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "none", "port": 99, "protocol": "TCP"},
        {"name": "sctp", "port": 98, "protocol": "SCTP"},
    ]});
    let ports = json!([
        {"name": "dns-tcp", "port": 1053, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "http", "port": 8080},
        {"name": "none", "port": null},
    ]);
    let slice = slice("s", "web", ports, json!([endpoint(1, json!({}))]));
    let entry = entry(&service("web", spec), [&slice], &Here::default());
    let found: Vec<_> = entry
        .ports
        .iter()
        .map(|port| {
            (
                port.name.as_str(),
                port.protocol,
                port.endpoints.any().to_vec(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("http", Protocol::Tcp, vec![at(1, 8080)]),
            ("dns", Protocol::Udp, vec![at(1, 5353)]),
            ("dns-tcp", Protocol::Tcp, vec![at(1, 1053)]),
            ("none", Protocol::Tcp, vec![]),
        ]
    );
}

#[test]
fn slices_of_one_service_add_up_and_name_an_endpoint_once() {
    let mut second = ready("web", 80, &[2, 3]);
    second.metadata.name = Some("web-2".into());
    let slices = [ready("web", 80, &[3, 1]), second];
    let expected = [at(1, 80), at(2, 80), at(3, 80)];
    assert_eq!(endpoints(&cluster_ip("web", 5), &slices), expected);
}

#[test]
fn families_are_kept_apart() {
    let spec = json!({
        "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"],
        "ports": [{"name": "http", "port": 80}],
    });
    let mut v6 = slice("six", "web", http(80), json!([{"addresses": ["fd00::1"]}]));
    v6.address_type = "IPv6".into();
    let mut name = slice(
        "name",
        "web",
        http(80),
        json!([{"addresses": ["example.org"]}]),
    );
    name.address_type = "FQDN".into();
    let entry = entry(&service("web", spec), [&v6, &name], &Here::default());
    let endpoints = &entry.ports[0].endpoints;
    assert!(endpoints.of_family(pod_ip(1)).is_empty());
    assert_eq!(endpoints.of_family("fd00::9".parse().unwrap()).len(), 1);
}

#[test]
fn affinity_has_upstreams_default() {
    let seconds = |spec: Value| {
        entry(&service("web", spec), [], &Here::default())
            .affinity
            .map(|stay| stay.as_secs())
    };
    assert_eq!(seconds(json!({})), None);
    assert_eq!(seconds(json!({"sessionAffinity": "None"})), None);
    assert_eq!(
        seconds(json!({"sessionAffinity": "ClientIP"})),
        Some(10_800)
    );
    let config = json!({"clientIP": {"timeoutSeconds": 9}});
    let spec = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
    assert_eq!(seconds(spec), Some(9));
}

#[test]
fn nonsense_in_objects_is_passed_over() {
    let spec = json!({"clusterIP": "10.96.0.300", "clusterIPs": ["", "x"], "ports": [
        {"name": "big", "port": 70000}, {"name": "http", "port": 80, "nodePort": -1},
    ]});
    let odd = json!([{"addresses": []}, {"addresses": ["10.240.0.1.1"]}]);
    let slices = [
        slice("s", "web", http(0), odd.clone()),
        slice("t", "web", http(1), odd),
    ];
    let entry = entry(&service("web", spec), &slices, &Here::default());
    assert_eq!(entry.front, Front::ClusterIps(vec![]));
    assert_eq!(entry.ports.len(), 1);
    assert_eq!(entry.ports[0].node_port, None);
    assert!(entry.ports[0].endpoints.any().is_empty());
}

#[test]
fn a_slice_that_changes_hands_leaves_its_old_service() {
    let index = index(
        [cluster_ip("a", 1), cluster_ip("b", 2)],
        [ready("a", 80, &[1])],
    );
    let old = Arc::new(ready("a", 80, &[1]));
    let mut new = ready("b", 80, &[1]);
    new.metadata.name = old.metadata.name.clone();
    index.slice_changed(&Change::Applied {
        old: Some(old),
        new: Arc::new(new),
    });
    let served = |last| {
        index.ask(|t| {
            t.at(vip(last, 80), Protocol::Tcp)
                .unwrap()
                .port()
                .endpoints
                .any()
                .len()
        })
    };
    assert_eq!((served(1), served(2)), (0, 1));
}

#[test]
fn node_ports_tell_those_who_follow_them() {
    let index = index([cluster_ip("web", 5)], []);
    let mut follow = index.follow_exposures();
    let exposed = json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80, "nodePort": 30080}]});
    index.service_changed(&crate::fixtures::applied(service("web", exposed)));
    assert!(follow.has_changed().unwrap());
    follow.mark_unchanged();
    index.slice_changed(&crate::fixtures::applied(ready("web", 80, &[1])));
    assert!(!follow.has_changed().unwrap(), "endpoints move no listener");
    assert_eq!(
        index.ask(Tables::exposures),
        BTreeMap::from([(Exposure::NodePort(30080, Transport::Tcp), vec![key("web")])])
    );
    index.service_changed(&Change::Deleted(Arc::new(cluster_ip("web", 5))));
    assert!(follow.has_changed().unwrap());
    assert!(index.ask(Tables::exposures).is_empty());
}

/// Three endpoints, the last two of which run here, with the given conditions and hints.
fn placed(conditions: [Value; 3], hints: [Value; 3]) -> EndpointSlice {
    let nodes = ["there", "here", "here"];
    let all = conditions.into_iter().zip(hints).zip(nodes).zip(1u8..);
    let endpoint = |(((conditions, hints), node), last): (((Value, Value), &str), u8)| {
        json!({
            "addresses": [pod_ip(last)], "conditions": conditions, "hints": hints, "nodeName": node,
        })
    };
    slice("s", "web", http(80), all.map(endpoint).collect())
}

#[test]
fn policies_and_hints_choose_among_the_endpoints() {
    let here = Here {
        node: "here".into(),
        zone: Some("east".into()),
    };
    let yes = json!({"ready": true});
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let not = json!({"ready": false});
    let none = json!(null);
    let zone = |zone: &str| json!({"forZones": [{"name": zone}]});
    let node = |node: &str| json!({"forNodes": [{"name": node}]});
    let ready = || [yes.clone(), yes.clone(), yes.clone()];
    let unhinted = || [none.clone(), none.clone(), none.clone()];
    let local = json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    let inside = json!({"internalTrafficPolicy": "Local"});
    // Policies, endpoints' conditions and hints; whom the node, the inside and the outside reach.
    type Case<'a> = (
        &'a Value,
        [Value; 3],
        [Value; 3],
        &'a [u8],
        &'a [u8],
        &'a [u8],
    );
    let cases: [Case<'_>; 10] = [
        (
            &none,
            ready(),
            unhinted(),
            &[1, 2, 3],
            &[1, 2, 3],
            &[1, 2, 3],
        ),
        (
            &inside,
            ready(),
            unhinted(),
            &[1, 2, 3],
            &[2, 3],
            &[1, 2, 3],
        ),
        (&local, ready(), unhinted(), &[1, 2, 3], &[2, 3], &[2, 3]),
        // Who is ending serves here rather than nobody, although others are ready elsewhere.
        (
            &local,
            [yes.clone(), not.clone(), ending.clone()],
            unhinted(),
            &[1],
            &[3],
            &[3],
        ),
        (
            &local,
            [yes.clone(), not.clone(), not.clone()],
            unhinted(),
            &[1],
            &[],
            &[],
        ),
        (
            &none,
            ready(),
            [zone("east"), zone("west"), zone("west")],
            &[1],
            &[1],
            &[1],
        ),
        // Hints that not all have, or that name nobody near, are none.
        (
            &none,
            ready(),
            [zone("east"), none.clone(), zone("east")],
            &[1, 2, 3],
            &[1, 2, 3],
            &[1, 2, 3],
        ),
        (
            &none,
            ready(),
            [zone("west"), zone("west"), zone("west")],
            &[1, 2, 3],
            &[1, 2, 3],
            &[1, 2, 3],
        ),
        (
            &none,
            ready(),
            [node("there"), node("here"), node("there")],
            &[2],
            &[2],
            &[2],
        ),
        // Those that are not ready need none.
        (
            &none,
            [yes.clone(), yes.clone(), not.clone()],
            [zone("east"), zone("west"), none.clone()],
            &[1],
            &[1],
            &[1],
        ),
    ];
    for (number, (policies, conditions, hints, cluster, internal, external)) in
        cases.into_iter().enumerate()
    {
        let mut spec = json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]});
        for (key, value) in policies.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let entry = entry(&service("web", spec), [&placed(conditions, hints)], &here);
        let port = &entry.ports[0];
        let all = |lasts: &[u8]| lasts.iter().map(|last| at(*last, 80)).collect::<Vec<_>>();
        assert_eq!(port.endpoints.any(), all(cluster), "case {number}");
        assert_eq!(port.internal.any(), all(internal), "case {number}");
        assert_eq!(port.external.any(), all(external), "case {number}");
    }
}

#[test]
fn a_node_that_moves_has_other_endpoints_near() {
    let hints = ["east", "west", "west"].map(|zone| json!({"forZones": [{"name": zone}]}));
    let ready = [(); 3].map(|()| json!({"ready": true}));
    let index = index([cluster_ip("web", 5)], [placed(ready, hints)]);
    let near = || {
        index.ask(|tables| {
            let found = tables.at(vip(5, 80), Protocol::Tcp).expect("served");
            found.port().internal.any().to_vec()
        })
    };
    assert_eq!(near(), [at(1, 80), at(2, 80), at(3, 80)]);
    let node = |zone: &str| -> Node {
        let labels = json!({"topology.kubernetes.io/zone": zone});
        let node = json!({"metadata": {"name": "here", "labels": labels}});
        serde_json::from_value(node).expect("a node")
    };
    index.node_changed(&crate::fixtures::applied(node("west")));
    assert_eq!(near(), [at(2, 80), at(3, 80)]);
    index.node_changed(&crate::fixtures::applied(node("east")));
    assert_eq!(near(), [at(1, 80)]);
}

#[test]
fn outer_addresses_are_those_of_the_spec_and_of_the_load_balancer() {
    let outer = |type_: &str, ingress: Value| {
        let metadata = json!({"namespace": "default", "name": "web"});
        let spec = json!({
            "type": type_, "clusterIP": "10.96.0.5", "externalIPs": ["192.0.2.7", "nonsense"],
            "ports": [{"port": 80}],
        });
        let status = json!({"loadBalancer": {"ingress": ingress}});
        let service = json!({"metadata": metadata, "spec": spec, "status": status});
        let service: Service = serde_json::from_value(service).expect("a service");
        let entry = entry(&service, [], &Here::default());
        entry
            .outer
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let balanced = json!([{"ip": "127.0.0.1"}, {"ip": "192.0.2.8", "ipMode": "Proxy"}, {"hostname": "x.test"}]);
    assert_eq!(
        outer("LoadBalancer", balanced.clone()),
        ["127.0.0.1", "192.0.2.7"]
    );
    assert_eq!(outer("ClusterIP", balanced), ["192.0.2.7"]);
}

/// One thing that may happen to the cluster.
#[derive(Clone, Debug)]
enum Step {
    Service {
        name: u8,
        address: u8,
        node_port: Option<u16>,
        headless: bool,
    },
    NoService {
        name: u8,
    },
    Slice {
        name: u8,
        service: u8,
        endpoints: Vec<(u8, bool)>,
    },
    NoSlice {
        name: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (
            0..4u8,
            0..3u8,
            prop::option::of(30_000..30_003u16),
            any::<bool>()
        )
            .prop_map(|(name, address, node_port, headless)| Step::Service {
                name,
                address,
                node_port,
                headless
            }),
        (0..4u8).prop_map(|name| Step::NoService { name }),
        (
            0..5u8,
            0..4u8,
            prop::collection::vec((0..6u8, any::<bool>()), 0..4)
        )
            .prop_map(|(name, service, endpoints)| Step::Slice {
                name,
                service,
                endpoints
            }),
        (0..5u8).prop_map(|name| Step::NoSlice { name }),
    ]
}

fn put<K>(all: &mut BTreeMap<u8, Arc<K>>, name: u8, new: K) -> Change<K> {
    let new = Arc::new(new);
    let old = all.insert(name, new.clone());
    Change::Applied { old, new }
}

proptest! {
    #[test]
    fn changes_add_up_to_what_a_fresh_start_sees(steps in prop::collection::vec(step(), 0..40)) {
        let index = Index::default();
        let mut services: BTreeMap<u8, Arc<Service>> = BTreeMap::new();
        let mut slices: BTreeMap<u8, Arc<EndpointSlice>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Service { name, address, node_port, headless } => {
                    let ip = if headless { "None".to_owned() } else { format!("10.96.0.{address}") };
                    let ports = json!([{"name": "http", "port": 80, "nodePort": node_port}]);
                    let new = service(&format!("s{name}"), json!({"clusterIP": ip, "ports": ports}));
                    index.service_changed(&put(&mut services, name, new));
                }
                Step::NoService { name } => if let Some(old) = services.remove(&name) {
                    index.service_changed(&Change::Deleted(old));
                },
                Step::Slice { name, service, endpoints } => {
                    let all = endpoints.iter().map(|(last, ready)| endpoint(*last, json!({"ready": ready})));
                    let new = slice(&format!("e{name}"), &format!("s{service}"), http(80), all.collect());
                    index.slice_changed(&put(&mut slices, name, new));
                }
                Step::NoSlice { name } => if let Some(old) = slices.remove(&name) {
                    index.slice_changed(&Change::Deleted(old));
                },
            }
        }
        // Slices first, and the other way around: order must not matter.
        let fresh = Index::default();
        for slice in slices.into_values().rev() {
            fresh.slice_changed(&Change::Applied { old: None, new: slice });
        }
        for service in services.into_values().rev() {
            fresh.service_changed(&Change::Applied { old: None, new: service });
        }
        prop_assert_eq!(&*index.tables.read(), &*fresh.tables.read());
    }
}

#[test]
fn who_was_given_an_address_comes_before_who_names_it() {
    let naming = |name: &str| {
        let spec = json!({"clusterIP": "10.96.0.5", "externalIPs": ["127.0.0.1"], "ports": [{"port": 80}]});
        service(name, spec)
    };
    let given = |ingress: Value| {
        let spec =
            json!({"type": "LoadBalancer", "clusterIP": "10.96.0.6", "ports": [{"port": 80}]});
        let mut service = service("m", spec);
        let status = json!({"loadBalancer": {"ingress": ingress}});
        service.status = serde_json::from_value(status).expect("a status");
        service
    };
    let index = index(
        [
            naming("a"),
            given(json!([{"ip": "127.0.0.1"}])),
            naming("z"),
        ],
        [],
    );
    let place = Exposure::Outer(SocketAddr::from(([127, 0, 0, 1], 80)), Transport::Tcp);
    let wanting = || index.ask(|tables| tables.exposures().remove(&place));
    let holder = || {
        index.ask(|tables| {
            let found = tables.at_exposure(&place);
            found.map(|found| found.service.entry.key.clone())
        })
    };
    assert_eq!(wanting(), Some(vec![key("m"), key("a"), key("z")]));
    assert_eq!(holder(), Some(key("m")));
    // The same place in another order is a change.
    let mut both = given(json!([{"ip": "127.0.0.1"}]));
    let spec = both.spec.as_mut().expect("a spec");
    spec.external_ips = Some(vec!["127.0.0.1".to_owned()]);
    index.service_changed(&crate::fixtures::applied(both.clone()));
    let mut follow = index.follow_exposures();
    follow.mark_unchanged();
    both.status = None;
    index.service_changed(&crate::fixtures::applied(both));
    assert!(follow.has_changed().expect("the index lives"));
    assert_eq!(wanting(), Some(vec![key("a"), key("m"), key("z")]));
    assert_eq!(holder(), Some(key("a")));
}

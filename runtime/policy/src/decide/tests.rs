use super::*;
use serde_json::{Value, json};

use crate::facts::{NamespaceFacts, PodFacts};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

/// Pods `NAMESPACE/NAME` with the label `app: NAME`, at 10.240.0.N in their order; the port 80 of each is called `http`.
const PODS: [&str; 5] = [
    "default/web",
    "default/db",
    "default/other",
    "team/web",
    "team/tool",
];

fn facts(policies: &[Value]) -> Facts {
    let mut facts = Facts::default();
    for name in ["default", "team"] {
        let labels = json!({"kubernetes.io/metadata.name": name, "kind": name});
        let object = json!({"metadata": {"name": name, "labels": labels}});
        let namespace: Namespace = serde_json::from_value(object).expect("a namespace");
        facts.put_namespace(name.to_owned(), NamespaceFacts::of(&namespace.metadata));
    }
    for (index, pod) in PODS.iter().enumerate() {
        let (namespace, name) = pod.split_once('/').expect("both");
        let ports = json!([
            {"name": "http", "containerPort": 80},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]);
        let object = json!({
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "ports": ports}]},
            "status": {"podIP": address(index).to_string(), "phase": "Running"},
        });
        let object: Pod = serde_json::from_value(object).expect("a pod");
        facts.put_pod(ObjectKey::of(&object), PodFacts::of(&object));
    }
    for (index, spec) in policies.iter().enumerate() {
        let metadata = json!({"namespace": "default", "name": format!("p{index}")});
        let object = json!({"metadata": metadata, "spec": spec});
        let object: NetworkPolicy = serde_json::from_value(object).expect("a policy");
        facts.put_policy(Policy::of(&object));
    }
    facts
}

fn address(index: usize) -> IpAddr {
    IpAddr::from([10, 240, 0, u8::try_from(index).expect("few")])
}

fn end(facts: &Facts, name: &str) -> End {
    match PODS.iter().position(|pod| *pod == name) {
        Some(index) => End {
            address: address(index),
            pod: facts.by_address.get(&address(index)).cloned(),
        },
        None => End {
            address: name.parse().expect("an address"),
            pod: None,
        },
    }
}

/// Whether a connection is let through at both ends.
fn may(
    facts: &Facts,
    from: &str,
    to: &str,
    port: u16,
    protocol: Protocol,
) -> Result<(), Box<Denied>> {
    let question = Question {
        from: end(facts, from),
        to: end(facts, to),
        port,
        protocol,
    };
    decide(facts, Direction::Egress, &question)?;
    decide(facts, Direction::Ingress, &question)
}

/// A line such as `default/web > default/db TCP 80`.
fn line(facts: &Facts, line: &str) -> Result<(), Box<Denied>> {
    let words: Vec<&str> = line.split(' ').collect();
    let [from, ">", to, protocol, port] = words[..] else {
        panic!("{line}")
    };
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        other => panic!("{other}"),
    };
    may(facts, from, to, port.parse().expect("a port"), protocol)
}

fn check(policies: &[Value], allowed: &[&str], denied: &[&str]) {
    let facts = facts(policies);
    for text in allowed {
        assert_eq!(line(&facts, text), Ok(()), "{text} {policies:?}");
    }
    for text in denied {
        assert!(line(&facts, text).is_err(), "{text} {policies:?}");
    }
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

#[test]
fn without_policies_everything_may_be() {
    check(
        &[],
        &[
            "default/web > default/db TCP 80",
            "192.0.2.1 > team/web UDP 5",
        ],
        &[],
    );
}

/// The examples "Default policies" of the documentation.
#[test]
fn the_default_policies_of_the_documentation() {
    let deny_in = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let deny_out = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let deny_all = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let allow_in = json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]});
    let allow_out = json!({"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]});
    let into = "team/web > default/db TCP 80";
    let out = "default/db > team/web TCP 80";
    let within = "default/web > default/db TCP 80";
    let beside = "team/web > team/tool TCP 80";
    check(
        std::slice::from_ref(&deny_in),
        &[out, beside],
        &[into, within, "192.0.2.1 > default/db TCP 80"],
    );
    check(
        std::slice::from_ref(&deny_out),
        &[into, beside],
        &[out, within, "default/db > 192.0.2.1 UDP 53"],
    );
    check(&[deny_all], &[beside], &[into, out, within]);
    // What one of several lets through may be.
    check(&[deny_in, allow_in], &[into, out, within], &[]);
    check(&[deny_out, allow_out], &[into, out, within], &[]);
}

/// The form without `policyTypes`, which the API server fills in: Egress only with rules for it.
#[test]
fn the_types_follow_from_the_rules() {
    let into = "team/web > default/db TCP 80";
    let out = "default/db > team/web TCP 80";
    check(&[json!({"podSelector": {}})], &[out], &[into]);
    let both = json!({"podSelector": {}, "egress": [{"to": [{"podSelector": {}}]}]});
    check(&[both], &[], &[into, out]);
}

#[test]
fn peers_are_pods_of_namespaces_or_addresses() {
    let from = |peers: Value| json!({"podSelector": app("db"), "ingress": [{"from": peers}]});
    let team = json!({"matchLabels": {"kind": "team"}});
    let web = "default/web > default/db TCP 80";
    let other = "default/other > default/db TCP 80";
    let team_web = "team/web > default/db TCP 80";
    let team_tool = "team/tool > default/db TCP 80";
    // A pod selector alone means the policy's namespace.
    check(
        &[from(json!([{"podSelector": app("web")}]))],
        &[web],
        &[other, team_web],
    );
    check(
        &[from(json!([{"namespaceSelector": team}]))],
        &[team_web, team_tool],
        &[web, other],
    );
    // Both in one peer: those pods of those namespaces. In two: either.
    let both = json!([{"namespaceSelector": team, "podSelector": app("web")}]);
    check(&[from(both)], &[team_web], &[web, team_tool]);
    let either = json!([{"namespaceSelector": team}, {"podSelector": app("web")}]);
    check(&[from(either)], &[web, team_web, team_tool], &[other]);
    let everybody = json!([{"namespaceSelector": {}}]);
    check(
        &[from(everybody)],
        &[web, other, team_tool],
        &["192.0.2.1 > default/db TCP 80"],
    );
    let block = json!([{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]);
    check(
        &[from(block)],
        &[
            "192.0.2.1 > default/db TCP 80",
            "::ffff:192.0.2.1 > default/db TCP 80",
        ],
        &[
            "192.0.2.200 > default/db TCP 80",
            "198.51.100.1 > default/db TCP 80",
            web,
        ],
    );
    let expressions = json!([{"podSelector": {"matchExpressions": [
        {"key": "app", "operator": "NotIn", "values": ["other"]},
        {"key": "app", "operator": "Exists"},
    ]}}]);
    check(&[from(expressions)], &[web], &[other]);
    // A policy is about its pods alone.
    check(
        &[from(json!([{"podSelector": app("web")}]))],
        &["default/other > default/web TCP 1"],
        &[],
    );
}

#[test]
fn ports_are_numbers_ranges_or_names_of_the_pod_that_is_dialled() {
    let to = |ports: Value| json!({"podSelector": app("db"), "ingress": [{"ports": ports}]});
    let at = |protocol: &str, port: u16| format!("default/web > default/db {protocol} {port}");
    for (ports, allowed, denied) in [
        (
            json!([{"port": 80}]),
            vec![("TCP", 80)],
            vec![("TCP", 81), ("UDP", 80)],
        ),
        (
            json!([{"protocol": "UDP"}]),
            vec![("UDP", 1)],
            vec![("TCP", 1)],
        ),
        (
            json!([{"protocol": "UDP", "port": "dns"}]),
            vec![("UDP", 53)],
            vec![("TCP", 53)],
        ),
        (
            json!([{"port": "http"}]),
            vec![("TCP", 80)],
            vec![("TCP", 8080), ("UDP", 80)],
        ),
        (json!([{"port": "none"}]), vec![], vec![("TCP", 80)]),
        (
            json!([{"port": 100, "endPort": 200}, {"port": 300}]),
            vec![("TCP", 100), ("TCP", 200), ("TCP", 300)],
            vec![("TCP", 99), ("TCP", 201)],
        ),
        (
            json!([{"protocol": "SCTP", "port": 80}]),
            vec![],
            vec![("TCP", 80)],
        ),
        (json!([]), vec![("TCP", 1), ("UDP", 65535)], vec![]),
    ] {
        let facts = facts(&[to(ports.clone())]);
        for (protocol, port) in allowed {
            assert_eq!(line(&facts, &at(protocol, port)), Ok(()), "{ports} {port}");
        }
        for (protocol, port) in denied {
            assert!(
                line(&facts, &at(protocol, port)).is_err(),
                "{ports} {protocol} {port}"
            );
        }
    }
}

#[test]
fn egress_names_ports_of_the_other_pod_and_addresses_outside() {
    let to = json!([
        {"to": [{"podSelector": app("db")}], "ports": [{"port": "http"}]},
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}], "ports": [{"port": 443}]},
    ]);
    let policy = json!({"podSelector": app("web"), "policyTypes": ["Egress"], "egress": to});
    check(
        &[policy],
        &[
            "default/web > default/db TCP 80",
            "default/web > 192.0.2.1 TCP 443",
        ],
        &[
            "default/web > default/db TCP 81",
            "default/web > default/other TCP 80",
            "default/web > 192.0.2.1 TCP 80",
            "default/web > team/web TCP 443",
        ],
    );
}

#[test]
fn a_denial_says_which_rule_is_missing() {
    let in_80 = json!({"podSelector": app("db"), "ingress": [
        {"from": [{"podSelector": app("web")}], "ports": [{"port": 80}]},
    ]});
    let out = json!({"podSelector": app("other"), "policyTypes": ["Egress"]});
    let facts = facts(&[in_80, out]);
    for (text, wanted) in [
        (
            "default/web > default/db TCP 81",
            "ingress: TCP port 81 from pod default/web (10.240.0.0) is not let through by the network policies of \
             this pod: p0. Missing: the port in the ingress rule of p0 that has the peer",
        ),
        (
            "team/tool > default/db TCP 80",
            "ingress: TCP port 80 from pod team/tool (10.240.0.4) is not let through by the network policies of \
             this pod: p0. Missing: an ingress rule with a pod with the labels app=tool in namespace team in its `from`",
        ),
        (
            "default/other > 192.0.2.1 UDP 53",
            "egress: UDP port 53 of 192.0.2.1 is not let through by the network policies of this pod: p1. Missing: \
             an egress rule with an ipBlock with 192.0.2.1 in its `to`",
        ),
    ] {
        let denied = line(&facts, text).expect_err(text);
        assert_eq!(denied.to_string(), wanted);
    }
}

#[test]
fn a_pod_that_nobody_knows_yet_is_taken_for_one_that_policies_are_about() {
    let mut facts = facts(&[json!({"podSelector": app("db"), "policyTypes": ["Egress"]})]);
    let key = ObjectKey::new("default", "new");
    let question = |facts: &Facts| Question {
        from: End {
            address: address(200),
            pod: Some(key.clone()),
        },
        to: end(facts, "default/web"),
        port: 80,
        protocol: Protocol::Tcp,
    };
    assert!(decide(&facts, Direction::Egress, &question(&facts)).is_err());
    facts.put_pod(key.clone(), PodFacts::default());
    assert_eq!(decide(&facts, Direction::Egress, &question(&facts)), Ok(()));
    facts.take_policy(&ObjectKey::new("default", "p0"));
    facts.take_pod(&key);
    assert_eq!(decide(&facts, Direction::Egress, &question(&facts)), Ok(()));
}

#[test]
fn what_cannot_be_read_lets_nothing_through() {
    let from = |peer: Value| json!({"podSelector": app("db"), "ingress": [{"from": [peer]}]});
    let web = "default/web > default/db TCP 80";
    let wrong =
        json!({"matchExpressions": [{"key": "app", "operator": "Like", "values": ["web"]}]});
    check(&[from(json!({"podSelector": wrong}))], &[], &[web]);
    check(&[from(json!({}))], &[], &[web]);
    check(&[from(json!({"ipBlock": {"cidr": "all"}}))], &[], &[web]);
    // And is about everybody.
    check(
        &[json!({"podSelector": wrong, "policyTypes": ["Ingress"]})],
        &[],
        &[web],
    );
}

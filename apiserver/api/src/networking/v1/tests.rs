//! What is accepted and refused, side by side.

use serde_json::{Value, json};

use super::ingress::Ingress;
use super::ingress_class::IngressClass;
use super::ip_address::IPAddress;
use super::network_policy::NetworkPolicy;
use super::service_cidr::ServiceCIDR;
use crate::{FieldErrors, Object, Strategy};

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn findings(kind: &dyn Strategy, value: Value) -> Vec<String> {
    let mut new = object(value);
    kind.default(&mut new);
    let mut errors = FieldErrors::default();
    kind.validate(&new, &mut errors);
    kind.validate_create(&new, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn changes(kind: &dyn Strategy, new: Value, old: Value) -> Vec<String> {
    let mut errors = FieldErrors::default();
    kind.validate_update(&object(new), &object(old), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn ingresses() {
    let with_path = |kind: &str, path: &str, host: &str| {
        let service = json!({"name": "web", "port": {"number": 80}});
        let path = json!({"path": path, "pathType": kind, "backend": {"service": service}});
        json!({"spec": {"rules": [{"host": host, "http": {"paths": [path]}}]}})
    };
    assert_eq!(
        findings(&Ingress, with_path("Prefix", "/", "*.example.com")),
        Vec::<String>::new()
    );
    for refused in [
        json!({}),
        with_path("Prefix", "relative", ""),
        with_path("Exact", "/a//b", ""),
        with_path("Sometimes", "/", ""),
        with_path("Prefix", "/", "*example.com"),
        json!({"spec": {"defaultBackend": {"service": {"name": "web"}}}}),
        json!({"spec": {"defaultBackend": {"resource": {"kind": "K"}}}}),
    ] {
        assert_eq!(findings(&Ingress, refused.clone()).len(), 1, "{refused}");
    }
}

#[test]
fn ingress_classes() {
    let class = |controller: &str| json!({"spec": {"controller": controller}});
    assert!(findings(&IngressClass, class("example.com/c")).is_empty());
    for refused in ["", "c", "example.com/", "Example.com/c"] {
        assert_eq!(
            findings(&IngressClass, class(refused)).len(),
            1,
            "{refused}"
        );
    }
    assert_eq!(
        changes(&IngressClass, class("a.b/d"), class("a.b/c")),
        ["spec.controller: Invalid value: \"a.b/d\": field is immutable"]
    );
}

#[test]
fn network_policies() {
    let peer = |peer: Value| json!({"spec": {"ingress": [{"from": [peer]}]}});
    let block =
        |cidr: &str, except: &str| peer(json!({"ipBlock": {"cidr": cidr, "except": [except]}}));
    assert!(findings(&NetworkPolicy, json!({})).is_empty());
    assert!(findings(&NetworkPolicy, block("10.0.0.0/8", "10.1.0.0/16")).is_empty());
    for refused in [
        peer(json!({})),
        peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
        block("10.0.0.0/8", "11.0.0.0/16"),
        block("10.0.0.0/8", "10.0.0.0/8"),
        json!({"spec": {"policyTypes": ["Sideways"]}}),
        json!({"spec": {"egress": [{"ports": [{"port": "web", "endPort": 90}]}]}}),
    ] {
        assert_eq!(
            findings(&NetworkPolicy, refused.clone()).len(),
            1,
            "{refused}"
        );
    }
    let odd = block("nonsense", "10.0.0.0/8");
    assert!(changes(&NetworkPolicy, odd.clone(), odd).is_empty());
}

#[test]
fn addresses_and_ranges() {
    let parent = json!({"resource": "services", "namespace": "n", "name": "s"});
    assert!(findings(&IPAddress, json!({"spec": {"parentRef": parent}})).is_empty());
    assert_eq!(
        findings(&IPAddress, json!({"spec": {}})),
        ["spec.parentRef: Required value"]
    );
    let cidrs = |list: &[&str]| json!({"spec": {"cidrs": list}});
    assert!(findings(&ServiceCIDR, cidrs(&["10.0.0.0/16", "fd00::/64"])).is_empty());
    for refused in [
        cidrs(&[]),
        cidrs(&["10.0.0.1/16"]),
        cidrs(&["10.0.0.0/16", "10.1.0.0/16"]),
        cidrs(&["FD00::/64"]),
    ] {
        assert_eq!(
            findings(&ServiceCIDR, refused.clone()).len(),
            1,
            "{refused}"
        );
    }
    assert!(
        changes(
            &ServiceCIDR,
            cidrs(&["10.0.0.0/16", "fd00::/64"]),
            cidrs(&["10.0.0.0/16"])
        )
        .is_empty()
    );
}

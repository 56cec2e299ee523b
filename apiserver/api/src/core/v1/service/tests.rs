//! Services from small manifests, as they are filled in, judged and shown.

use serde_json::{Value, json};

use super::Service;
use crate::{FieldErrors, Object, Strategy};

fn service(spec: Value) -> Object {
    let mut object =
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).expect("an object");
    Service.default(&mut object);
    object
}

fn findings(spec: Value) -> Vec<String> {
    let mut object = service(spec);
    Service.prepare_for_create(&mut object);
    let mut errors = FieldErrors::default();
    Service.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_small_service_is_filled_in() {
    let object = service(json!({"ports": [{"port": 80}]}));
    assert_eq!(
        object.at("spec").value(),
        Some(&json!({
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "sessionAffinity": "None",
            "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
        }))
    );
}

#[test]
fn accepted_and_refused_side_by_side() {
    assert_eq!(
        findings(json!({"ports": [{"port": 80}]})),
        Vec::<String>::new()
    );
    assert_eq!(findings(json!({"clusterIP": "None"})), Vec::<String>::new());
    assert_eq!(
        findings(json!({"type": "ExternalName", "externalName": "a.example.com"})),
        Vec::<String>::new()
    );
    assert_eq!(findings(json!({})), ["spec.ports: Required value"]);
    assert_eq!(
        findings(json!({"ports": [{"port": 80}, {"port": 81}]})),
        [
            "spec.ports[0].name: Required value",
            "spec.ports[1].name: Required value"
        ]
    );
    assert_eq!(
        findings(json!({"ports": [{"port": 80, "nodePort": 30080}]})),
        ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
    );
    assert_eq!(
        findings(json!({"type": "ExternalName"})),
        ["spec.externalName: Required value"]
    );
    assert_eq!(
        findings(json!({"ports": [{"port": 80}], "clusterIP": "bad"})),
        [
            "spec.clusterIPs[0]: Invalid value: \"bad\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        ]
    );
}

#[test]
fn an_address_stays_when_an_update_leaves_it_out_and_may_not_change() {
    let mut old =
        service(json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.7", "type": "NodePort"}));
    Service.prepare_for_create(&mut old);
    old.get_mut("spec.ports").expect("ports")[0]["nodePort"] = json!(30_080);
    let mut new = service(json!({"ports": [{"port": 80}], "type": "NodePort"}));
    Service.prepare_for_update(&mut new, &old);
    assert_eq!(
        new.at("spec.clusterIPs").value(),
        Some(&json!(["10.96.0.7"]))
    );
    assert_eq!(
        new.at("spec.ports").index(0).key("nodePort").as_i64(),
        Some(30_080)
    );
    let mut moved = service(json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.8"}));
    Service.prepare_for_update(&mut moved, &old);
    let mut errors = FieldErrors::default();
    Service.validate_update(&moved, &old, &mut errors);
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"]
    );
}

#[test]
fn a_cluster_ip_service_gives_its_node_ports_back() {
    let old = service(json!({"ports": [{"port": 80, "nodePort": 30_080}], "type": "NodePort"}));
    let mut new = service(
        json!({"ports": [{"port": 80, "nodePort": 30_080}], "type": "ClusterIP", "externalTrafficPolicy": "Cluster"}),
    );
    Service.prepare_for_update(&mut new, &old);
    assert!(!new.at("spec.ports").index(0).key("nodePort").exists());
    assert!(!new.at("spec.externalTrafficPolicy").exists());
}

#[test]
fn ports_are_shown_with_their_node_ports() {
    let object = service(
        json!({"ports": [{"port": 80, "nodePort": 30_080}, {"port": 53, "protocol": "UDP"}]}),
    );
    let cells = Service.cells(&object, "2030-01-01T00:00:00Z".parse().expect("a time"));
    assert_eq!(cells[4], json!("80:30080/TCP,53/UDP"));
}

//! The small kinds: what is accepted, refused, changed and shown.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::config_map::ConfigMap;
use super::endpoints::Endpoints;
use super::event::Event;
use super::namespace::Namespace;
use super::node::Node;
use super::secret::Secret;
use crate::{FieldErrors, Object, Strategy};

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn now() -> Timestamp {
    "2030-01-01T00:01:00Z".parse().expect("a time")
}

fn texts(errors: &FieldErrors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn findings(kind: &dyn Strategy, value: Value) -> Vec<String> {
    let mut object = object(value);
    kind.default(&mut object);
    let mut errors = FieldErrors::default();
    kind.validate(&object, &mut errors);
    texts(&errors)
}

#[test]
fn keys_of_config_maps_are_file_names() {
    assert_eq!(
        findings(
            &ConfigMap,
            json!({"data": {"a.txt": "1"}, "binaryData": {"b": "AA=="}})
        ),
        Vec::<String>::new()
    );
    let found = findings(
        &ConfigMap,
        json!({"data": {"a": "1"}, "binaryData": {"a": "AA=="}}),
    );
    assert_eq!(
        found,
        ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
    );
    assert_eq!(findings(&ConfigMap, json!({"data": {"a b": ""}})).len(), 1);
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(
        findings(&ConfigMap, json!({"data": {"a": large}})),
        [": Too long: may not be more than 1048576 bytes"]
    );
}

#[test]
fn what_is_immutable_stays() {
    let old = object(json!({"data": {"a": "1"}, "immutable": true}));
    let change = |value: Value| {
        let mut errors = FieldErrors::default();
        ConfigMap.validate_update(&object(value), &old, &mut errors);
        texts(&errors)
    };
    assert_eq!(
        change(json!({"data": {"a": "1"}, "immutable": true})),
        Vec::<String>::new()
    );
    assert_eq!(
        change(json!({"data": {"a": "2"}, "immutable": true})),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert_eq!(
        change(json!({"data": {"a": "1"}})),
        ["immutable: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn texts_of_secrets_become_bytes() {
    let mut secret = object(json!({"stringData": {"a": "two"}, "data": {"a": "MQ=="}}));
    Secret.default(&mut secret);
    assert_eq!(secret.at("data").value(), Some(&json!({"a": "dHdv"})));
    assert!(!secret.at("stringData").exists());
    assert_eq!(secret.at("type").str(), "Opaque");
}

#[test]
fn typed_secrets_have_what_their_type_needs() {
    let found = findings(&Secret, json!({"type": "kubernetes.io/tls"}));
    assert_eq!(
        found,
        [
            "data[tls.crt]: Required value",
            "data[tls.key]: Required value"
        ]
    );
    let found = findings(
        &Secret,
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "x"}}),
    );
    assert_eq!(
        found,
        [
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking for \
          beginning of value"
        ]
    );
}

#[test]
fn namespaces_start_active_with_a_finalizer_and_their_name_as_a_label() {
    let mut namespace = object(json!({"metadata": {"name": "n"}}));
    Namespace.default(&mut namespace);
    Namespace.prepare_for_create(&mut namespace);
    assert_eq!(
        namespace.at("spec.finalizers").value(),
        Some(&json!(["kubernetes"]))
    );
    assert_eq!(namespace.at("status.phase").str(), "Active");
    assert_eq!(
        namespace
            .at("metadata.labels")
            .entry("kubernetes.io/metadata.name")
            .str(),
        "n"
    );
    let mut changed = object(json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}}));
    Namespace.prepare_for_update(&mut changed, &namespace);
    assert_eq!(
        changed.at("spec.finalizers").value(),
        Some(&json!(["kubernetes"]))
    );
}

#[test]
fn nodes_show_status_and_roles() {
    let node = object(json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }));
    let cells = Node.cells(&node, now());
    assert_eq!(
        cells[1..3],
        [
            json!("Ready,SchedulingDisabled"),
            json!("control-plane,worker")
        ]
    );
}

#[test]
fn events_show_what_happened_to_whom_and_how_often() {
    let event = object(json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "reason": "Pulled", "type": "Normal",
        "message": "  done\n", "source": {"component": "kubelet", "host": "n"}, "count": 2,
        "firstTimestamp": "2030-01-01T00:00:00Z", "lastTimestamp": "2030-01-01T00:00:55Z",
    }));
    assert_eq!(
        Event.cells(&event, now()),
        [
            "5s",
            "Normal",
            "Pulled",
            "pod/p",
            "",
            "kubelet, n",
            "done",
            "60s"
        ]
        .map(Value::from)
        .into_iter()
        .chain([json!(2), json!("e")])
        .collect::<Vec<_>>()
    );
}

#[test]
fn events_live_with_what_they_are_about() {
    let found = findings(
        &Event,
        json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
    );
    assert_eq!(
        found,
        ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
    );
}

#[test]
fn endpoints_show_three_addresses() {
    let addresses: Vec<Value> = (1..=5)
        .map(|n| json!({"ip": format!("10.0.0.{n}")}))
        .collect();
    let endpoints = object(
        json!({"metadata": {"name": "x"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]}),
    );
    assert_eq!(
        Endpoints.cells(&endpoints, now())[1],
        json!("10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...")
    );
}

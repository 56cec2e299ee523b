//! Tests of the transcoder against bodies that an upstream client sent, and an upstream server's answers to them.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A recorded body, and the object that a server made of it (defaults and allocated fields were already set).
fn fixtures() -> Vec<(Vec<u8>, Value)> {
    let texts = [
        (
            include_str!("../../tests/data/protobuf/deployment.b64"),
            include_str!("../../tests/data/protobuf/deployment.json"),
        ),
        (
            include_str!("../../tests/data/protobuf/endpointslice.b64"),
            include_str!("../../tests/data/protobuf/endpointslice.json"),
        ),
        (
            include_str!("../../tests/data/protobuf/pod.b64"),
            include_str!("../../tests/data/protobuf/pod.json"),
        ),
    ];
    let read = |(body, object): (&str, &str)| {
        let body = BASE64.decode(body.trim()).expect("recorded as base64");
        (
            body,
            serde_json::from_str(object).expect("recorded as JSON"),
        )
    };
    texts.into_iter().map(read).collect()
}

fn schema_of(envelope: &Envelope<'_>) -> SchemaRef {
    let (group, version) = envelope
        .api_version
        .rsplit_once('/')
        .unwrap_or(("", &envelope.api_version));
    SchemaRef::for_kind(group, version, &envelope.kind).expect("a built-in kind")
}

/// An object without what only the recording server knew.
fn comparable(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| {
            matches!(
                key.as_str(),
                "name" | "namespace" | "labels" | "annotations"
            )
        });
    }
    object
}

#[test]
fn recorded_bodies_decode_to_what_upstream_answered() {
    for (body, expected) in fixtures() {
        let envelope = Envelope::open(&body).expect("an envelope");
        let object = envelope
            .decode(&schema_of(&envelope))
            .expect("a message of that kind");
        assert_eq!(comparable(object), comparable(expected));
    }
}

#[test]
fn encoding_gives_the_bytes_that_upstream_wrote() {
    for (body, _) in fixtures() {
        let envelope = Envelope::open(&body).expect("an envelope");
        let schema = schema_of(&envelope);
        let object = envelope.decode(&schema).expect("a message of that kind");
        assert!(encode(&object, &schema) == body, "{}", envelope.kind);
    }
}

#[test]
fn special_types_survive_the_round_trip() {
    let object = json!({
        "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": {"user": "u", "extra": {"a": ["x", ""], "b": ["y"]}},
        "status": {"allowed": false}
    });
    round_trip("authorization.k8s.io", "v1", "SubjectAccessReview", object);
    let object = json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": "x", "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 0, "acquireTime": "2026-01-02T03:04:05.000006Z"}
    });
    round_trip("coordination.k8s.io", "v1", "Lease", object);
    let object = json!({
        "kind": "DeleteOptions", "apiVersion": "v1",
        "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground", "dryRun": ["All"]
    });
    round_trip("", "v1", "DeleteOptions", object);
    let object = json!({
        "kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"},
        "immutable": false, "data": {"a": "AAEC", "b": ""}, "type": "Opaque"
    });
    round_trip("", "v1", "Secret", object);
    let object = json!({
        "kind": "ControllerRevision", "apiVersion": "apps/v1", "metadata": {"name": "x"},
        "data": {"any": [1, null, {"x": 1.5}]}, "revision": -1
    });
    round_trip("apps", "v1", "ControllerRevision", object);
    let object = json!({
        "kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"resourceVersion": "5", "remainingItemCount": 0},
        "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "data": {"k": "é"}}]
    });
    round_trip("", "v1", "ConfigMapList", object);
}

#[test]
fn documents_of_discovery_are_the_bytes_that_their_messages_say() {
    let resource = json!({
        "name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"]
    });
    let schema = SchemaRef::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.APIResource");
    assert_eq!(
        encode_raw(&resource, &schema.expect("a known type")),
        b"\x0a\x08bindings\x10\x01\x1a\x07Binding\x22\x08\x0a\x06create\x32\x07binding\x42\x00\x4a\x00\x52\x00"
    );
    let subresource = json!({
        "subresource": "scale", "verbs": ["get", "update"],
        "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    });
    let schema = SchemaRef::builtin("io.k8s.api.apidiscovery.v2.APISubresourceDiscovery");
    assert_eq!(
        encode_raw(&subresource, &schema.expect("a known type")),
        b"\x0a\x05scale\x12\x18\x0a\x0bautoscaling\x12\x02v1\x1a\x05Scale\x22\x03get\x22\x06update"
    );
}

fn round_trip(group: &str, version: &str, kind: &str, object: Value) {
    let schema = SchemaRef::for_kind(group, version, kind).expect(kind);
    let body = encode(&object, &schema);
    let envelope = Envelope::open(&body).expect("an envelope");
    assert_eq!(
        (envelope.kind.as_str(), schema_of(&envelope)),
        (kind, schema.clone())
    );
    assert_eq!(envelope.decode(&schema), Ok(object));
}

#[test]
fn bodies_that_are_no_protobuf_are_refused_in_upstreams_words() {
    assert_eq!(
        Envelope::open(b"").expect_err("empty").to_string(),
        "empty data"
    );
    assert_eq!(
        Envelope::open(b"{}").expect_err("JSON").to_string(),
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    );
    let (body, _) = fixtures().remove(0);
    let cut = Envelope::open(&body[..body.len() / 2]).expect_err("half a body");
    assert_eq!(cut.to_string(), "unexpected EOF");
}

fn config_map(raw: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = Envelope {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        raw,
    };
    envelope.decode(&SchemaRef::for_kind("", "v1", "ConfigMap").expect("a built-in kind"))
}

#[test]
fn malformed_messages_are_errors() {
    let cases: [(&[u8], ProtobufError); 5] = [
        (&[0x0a, 0x05, 0x01], ProtobufError::Truncated),
        (&[0x00, 0x00], ProtobufError::Malformed("illegal tag 0")),
        (
            &[0x0b],
            ProtobufError::Malformed("groups are not supported"),
        ),
        (
            &[
                0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            ],
            ProtobufError::Malformed("integer overflow"),
        ),
        (
            &[0x08, 0x01],
            ProtobufError::WireType {
                field: "metadata".into(),
                wire: 0,
            },
        ),
    ];
    for (raw, expected) in cases {
        assert_eq!(config_map(raw), Err(expected), "{raw:?}");
    }
    let unknown = config_map(&[0x9a, 0x06, 0x01, 0x00]).expect("unknown fields are skipped");
    assert_eq!(
        unknown,
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {}})
    );
}

#[test]
fn bottomless_messages_are_refused() {
    // Only JSON schemas nest without end.
    let schema = SchemaRef::builtin(
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps",
    )
    .expect("a built-in definition");
    let number = schema.field("not").expect("a field").numbers()[0];
    let mut raw = Vec::new();
    for _ in 0..200 {
        let mut outer = Vec::new();
        wire::write_bytes(&mut outer, number, &raw);
        raw = outer;
    }
    let envelope = Envelope {
        api_version: String::new(),
        kind: String::new(),
        raw: &raw,
    };
    assert_eq!(
        envelope.decode(&schema),
        Err(ProtobufError::Malformed("messages nest too deeply"))
    );
}

#[test]
fn bottomless_embedded_objects_are_refused() {
    let schema = SchemaRef::for_kind("apps", "v1", "ControllerRevision").expect("a built-in kind");
    let data = schema.field("data").expect("a field").numbers()[0];
    let mut body = envelope("apps/v1", "ControllerRevision", &[]);
    let levels = 4_000;
    for _ in 0..levels {
        let (mut extension, mut raw) = (Vec::new(), Vec::new());
        wire::write_bytes(&mut extension, 1, &body);
        wire::write_bytes(&mut raw, data, &extension);
        body = envelope("apps/v1", "ControllerRevision", &raw);
    }
    let envelope = Envelope::open(&body).expect("an envelope");
    assert_eq!(
        envelope.decode(&schema),
        Err(ProtobufError::Malformed("messages nest too deeply"))
    );
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = config_map(&bytes);
        let _ = Envelope::open(&bytes);
    }

    #[test]
    fn damaged_bodies_are_decoded_or_refused(which in 0_usize..3, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (mut body, _) = fixtures().remove(which);
        let schema = schema_of(&Envelope::open(&body).expect("an envelope"));
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(object) = Envelope::open(&body).and_then(|envelope| envelope.decode(&schema)) {
            let again = encode(&object, &schema);
            let envelope = Envelope::open(&again).expect("what was encoded opens");
            prop_assert_eq!(envelope.decode(&schema), Ok(object));
        }
    }

    #[test]
    fn config_maps_survive_the_round_trip(
        data in prop::collection::btree_map("[a-z]{0,4}", "\\PC{0,12}", 1..5),
        binary in prop::collection::btree_map("[a-z]{0,4}", prop::collection::vec(any::<u8>(), 0..9), 1..4),
        immutable in any::<bool>(),
    ) {
        let binary: std::collections::BTreeMap<_, _> =
            binary.into_iter().map(|(key, bytes)| (key, BASE64.encode(bytes))).collect();
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"},
            "immutable": immutable, "data": data, "binaryData": binary
        });
        round_trip("", "v1", "ConfigMap", object);
    }
}

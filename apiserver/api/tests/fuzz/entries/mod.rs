//! What is fuzzed: one function for each target, which takes any bytes and panics where an invariant doesn't hold.
//!
//! The tests beside this folder drive them on stable Rust, the targets in `fuzz/` with coverage; an input means the
//! same to both. Inputs of several parts have one part a line, for JSON on one line has no raw newline in it.

mod apply;
mod documents;
mod fields;
mod patches;
mod protobuf;
mod quantity;
mod selectors;

pub(crate) use apply::apply;
pub(crate) use documents::{json, yaml};
pub(crate) use fields::fields_v1;
pub(crate) use patches::{json_patch, merge_patch, strategic_patch};
pub(crate) use protobuf::protobuf;
pub(crate) use quantity::quantity;
pub(crate) use selectors::{field_selector, label_selector};

use coracle_api::schema::{SchemaRef, parse_json};
use serde_json::{Value, json};

/// A target's name, which is that of its corpus too, and its function.
pub(crate) type Entry = (&'static str, fn(&[u8]));

/// All targets.
pub(crate) const ENTRIES: [Entry; 11] = [
    ("apply", apply),
    ("field_selector", field_selector),
    ("fields_v1", fields_v1),
    ("json", json),
    ("json_patch", json_patch),
    ("label_selector", label_selector),
    ("merge_patch", merge_patch),
    ("protobuf", protobuf),
    ("quantity", quantity),
    ("strategic_patch", strategic_patch),
    ("yaml", yaml),
];

/// The two parts of an input; the second is empty when there is one line.
fn two_lines(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

/// An object as text, else a small Deployment, and its kind's schema.
fn object(text: &[u8]) -> (Value, SchemaRef) {
    let given = parse_json(text).ok().filter(Value::is_object);
    let object = given.unwrap_or_else(|| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "x", "labels": {"a": "1"}, "finalizers": ["example.com/a"]},
            "spec": {"replicas": 1, "template": {"spec": {
                "containers": [{"name": "a", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}],
            }}},
        })
    });
    let schema = schema_of(&object).unwrap_or_else(SchemaRef::any);
    (object, schema)
}

/// The schema of the kind that an object says it is.
fn schema_of(object: &Value) -> Option<SchemaRef> {
    let (group, version) = group_version(object["apiVersion"].as_str()?);
    SchemaRef::for_kind(group, version, object["kind"].as_str()?)
}

fn group_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// How many values an object is made of: what a walk over it costs.
fn nodes(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(nodes).sum::<usize>(),
        _ => 1,
    }
}

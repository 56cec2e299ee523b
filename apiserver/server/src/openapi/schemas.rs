//! The definitions of a document: the schema table in OpenAPI's words.

use std::collections::BTreeMap;

use coracle_api::Resource;
use coracle_api::schema::{FieldSchema, ListType, MapType, SchemaKind, SchemaRef};
use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::paths::{Kind, list_name, reference};

/// The definition of a patch: any object.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// All definitions that the kinds and their lists need.
pub(super) fn of(kinds: &[Kind], resources: &[&Resource], texts: &Descriptions) -> Value {
    let mut made = BTreeMap::new();
    for (group, version, kind) in kinds {
        if let Some(schema) = SchemaRef::for_kind(group, version, kind) {
            definition(&schema, texts, &mut made);
        }
    }
    for resource in resources {
        let kind = (resource.group, resource.version, resource.kind);
        if let Some(schema) = list_name(kind).and_then(|name| SchemaRef::builtin(&name)) {
            definition(&schema, texts, &mut made);
        }
    }
    if resources
        .iter()
        .any(|resource| resource.verbs.contains(&"watch"))
    {
        add("WatchEvent", texts, &mut made);
    }
    add("APIResourceList", texts, &mut made);
    made.insert(PATCH.to_owned(), json!({"description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.", "type": "object"}));
    Value::Object(made.into_iter().collect())
}

/// Definitions of these alone, and of all that they contain.
pub(super) fn of_definitions(wanted: &[SchemaRef], texts: &Descriptions) -> Value {
    let mut made = BTreeMap::new();
    for schema in wanted {
        definition(schema, texts, &mut made);
    }
    Value::Object(made.into_iter().collect())
}

fn add(name: &str, texts: &Descriptions, made: &mut BTreeMap<String, Value>) {
    let name = format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}");
    if let Some(schema) = SchemaRef::builtin(&name) {
        definition(&schema, texts, made);
    }
}

/// A struct's definition and, before it returns, those of all that it contains.
fn definition(schema: &SchemaRef, texts: &Descriptions, made: &mut BTreeMap<String, Value>) {
    let Some(name) = schema.definition_name().map(str::to_owned) else {
        return;
    };
    if made.contains_key(&name) {
        return;
    }
    // Reserves the name: definitions refer to themselves.
    made.insert(name.clone(), Value::Null);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in schema.fields() {
        properties.insert(
            field.name().to_owned(),
            property(&field, texts.field(&name, field.name()), texts, made),
        );
        if field.required() {
            required.push(field.name().to_owned());
        }
    }
    let mut entry = Map::new();
    if let Some(text) = texts.definition(&name) {
        entry.insert("description".to_owned(), text.into());
    }
    entry.insert("type".to_owned(), "object".into());
    if !required.is_empty() {
        entry.insert("required".to_owned(), json!(required));
    }
    if !properties.is_empty() {
        entry.insert("properties".to_owned(), Value::Object(properties));
    }
    if !schema.kinds().is_empty() {
        let kinds: Vec<Value> = schema
            .kinds()
            .iter()
            .map(|kind| json!({"group": kind.group, "kind": kind.kind, "version": kind.version}))
            .collect();
        entry.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
    }
    if schema.map_type() == MapType::Atomic {
        entry.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    made.insert(name, Value::Object(entry));
}

fn property(
    field: &FieldSchema,
    text: Option<&str>,
    texts: &Descriptions,
    made: &mut BTreeMap<String, Value>,
) -> Value {
    let schema = field.schema();
    let mut entry = Map::new();
    if let Some(text) = text {
        entry.insert("description".to_owned(), text.into());
    }
    let body = value(&schema, texts, made);
    match body.get("$ref") {
        // Nothing may stand beside a reference.
        Some(_) if text.is_some() || schema.kind() == SchemaKind::Struct => {
            entry.insert("allOf".to_owned(), json!([body]));
        }
        _ => entry.extend(body),
    }
    if let Some(default) = schema.default() {
        entry.insert("default".to_owned(), default.clone());
    } else if field.is_value() && (field.is_always_written() || schema.kind() == SchemaKind::Struct)
    {
        entry.extend(zero(&schema));
    }
    facts(&schema, &mut entry);
    Value::Object(entry)
}

/// What Go has where nothing was said, which upstream publishes as a default.
fn zero(schema: &SchemaRef) -> Option<(String, Value)> {
    let zero = match schema.kind() {
        SchemaKind::Struct => json!({}),
        SchemaKind::String => json!(""),
        SchemaKind::Bool => json!(false),
        SchemaKind::Int32 | SchemaKind::Int64 | SchemaKind::Double => json!(0),
        _ => return None,
    };
    Some(("default".to_owned(), zero))
}

/// How lists and maps are owned and merged.
fn facts(schema: &SchemaRef, entry: &mut Map<String, Value>) {
    match (schema.kind(), schema.list_type()) {
        (SchemaKind::List, ListType::Set) => {
            entry.insert("x-kubernetes-list-type".to_owned(), "set".into());
        }
        (SchemaKind::List, ListType::Map) => {
            entry.insert(
                "x-kubernetes-list-map-keys".to_owned(),
                json!(schema.list_keys()),
            );
            entry.insert("x-kubernetes-list-type".to_owned(), "map".into());
        }
        (SchemaKind::List, ListType::Atomic) => {
            entry.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
        }
        (SchemaKind::Map, _) if schema.map_type() == MapType::Atomic => {
            entry.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        _ => {}
    }
    if let Some(key) = schema.merge_key() {
        entry.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
    }
    let strategy = schema.patch_strategy();
    let words: Vec<&str> = [
        (strategy.merge, "merge"),
        (strategy.replace, "replace"),
        (strategy.retain_keys, "retainKeys"),
    ]
    .into_iter()
    .filter_map(|(set, word)| set.then_some(word))
    .collect();
    if !words.is_empty() {
        entry.insert(
            "x-kubernetes-patch-strategy".to_owned(),
            words.join(",").into(),
        );
    }
}

/// The items of a list or the values of a map: never absent, so each has a default.
fn element(
    schema: &SchemaRef,
    texts: &Descriptions,
    made: &mut BTreeMap<String, Value>,
) -> Map<String, Value> {
    let body = value(schema, texts, made);
    let Some(default) = zero(schema) else {
        return body;
    };
    let mut entry = if body.contains_key("$ref") {
        Map::from_iter([("allOf".to_owned(), json!([body]))])
    } else {
        body
    };
    entry.extend([default]);
    entry
}

fn value(
    schema: &SchemaRef,
    texts: &Descriptions,
    made: &mut BTreeMap<String, Value>,
) -> Map<String, Value> {
    let plain = |kind: &str, format: Option<&str>| {
        let mut entry = Map::from_iter([("type".to_owned(), Value::from(kind))]);
        if let Some(format) = format {
            entry.insert("format".to_owned(), format.into());
        }
        entry
    };
    let mut named = |name: &str, body: Value| {
        made.entry(name.to_owned()).or_insert_with(|| {
            let mut body = body.as_object().cloned().unwrap_or_default();
            if let Some(text) = texts.definition(name) {
                body.insert("description".to_owned(), text.into());
            }
            Value::Object(body)
        });
        reference(name).as_object().cloned().unwrap_or_default()
    };
    match schema.kind() {
        SchemaKind::String => plain("string", None),
        SchemaKind::Bool => plain("boolean", None),
        SchemaKind::Int32 => plain("integer", Some("int32")),
        SchemaKind::Int64 => plain("integer", Some("int64")),
        SchemaKind::Double => plain("number", Some("double")),
        SchemaKind::Bytes => plain("string", Some("byte")),
        SchemaKind::Json => Map::new(),
        SchemaKind::Quantity => named(
            "io.k8s.apimachinery.pkg.api.resource.Quantity",
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ),
        SchemaKind::IntOrString => named(
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        SchemaKind::Time => named(
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
            json!({"type": "string", "format": "date-time"}),
        ),
        SchemaKind::MicroTime => named(
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
            json!({"type": "string", "format": "date-time"}),
        ),
        SchemaKind::Duration => named(
            "io.k8s.apimachinery.pkg.apis.meta.v1.Duration",
            json!({"type": "string"}),
        ),
        SchemaKind::RawExtension => named(
            "io.k8s.apimachinery.pkg.runtime.RawExtension",
            json!({"type": "object"}),
        ),
        SchemaKind::FieldsV1 => named(
            "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
            json!({"type": "object"}),
        ),
        SchemaKind::List | SchemaKind::Map => {
            let elem = schema
                .elem()
                .map_or_else(Map::new, |elem| element(&elem, texts, made));
            let (kind, below) = if schema.kind() == SchemaKind::List {
                ("array", "items")
            } else {
                ("object", "additionalProperties")
            };
            let mut entry = plain(kind, None);
            entry.insert(below.to_owned(), Value::Object(elem));
            entry
        }
        SchemaKind::Struct => {
            definition(schema, texts, made);
            let name = schema.definition_name().unwrap_or_default();
            reference(name).as_object().cloned().unwrap_or_default()
        }
    }
}

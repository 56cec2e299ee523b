//! JSON to messages.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value};

use super::{
    MAGIC,
    wire::{write_bytes, write_number, write_varint},
};
use crate::schema::{FieldSchema, SchemaKind, SchemaRef};

/// Encodes an object of that schema, in the envelope with its apiVersion and kind.
///
/// The object is taken to be as decoding leaves it; a value that doesn't fit its field is left out.
pub fn encode(object: &Value, schema: &SchemaRef) -> Vec<u8> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    envelope(
        text("apiVersion"),
        text("kind"),
        &encode_raw(object, schema),
    )
}

/// Encodes an object's message alone, which says nothing of its apiVersion and kind.
pub fn encode_raw(object: &Value, schema: &SchemaRef) -> Vec<u8> {
    let mut raw = Vec::new();
    if let Some(map) = object.as_object() {
        structure(&mut raw, map, schema, &[]);
    }
    raw
}

/// Puts a message into the envelope.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::with_capacity(api_version.len() + kind.len() + 4);
    write_bytes(&mut meta, 1, api_version.as_bytes());
    write_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 24);
    out.extend_from_slice(&MAGIC);
    write_bytes(&mut out, 1, &meta);
    write_bytes(&mut out, 2, raw);
    write_bytes(&mut out, 3, b"");
    write_bytes(&mut out, 4, b"");
    out
}

/// The message of a list, from that of its metadata (as JSON) and those of its items.
pub fn list_raw<'a>(metadata: &Value, items: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let schema = SchemaRef::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta");
    let mut out = Vec::new();
    let metadata = encode_raw(metadata, &schema.unwrap_or_else(SchemaRef::any));
    write_bytes(&mut out, 1, &metadata);
    for item in items {
        push_list_item(&mut out, item);
    }
    out
}

/// Adds an item's message to that of a list, which [`list_raw`] began.
pub fn push_list_item(list: &mut Vec<u8>, item: &[u8]) {
    write_bytes(list, 2, item);
}

/// The message of a `PartialObjectMetadata`, from the object's metadata.
pub fn partial_raw(metadata: &Value) -> Vec<u8> {
    let schema = SchemaRef::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let mut out = Vec::new();
    let metadata = encode_raw(metadata, &schema.unwrap_or_else(SchemaRef::any));
    write_bytes(&mut out, 1, &metadata);
    out
}

/// One event of a watch, as a frame: the length in four bytes, then a `WatchEvent` around the object's envelope.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    write_bytes(&mut extension, 1, object);
    let mut out = vec![0; 4];
    write_bytes(&mut out, 1, kind.as_bytes());
    write_bytes(&mut out, 2, &extension);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Writes the fields below `prefix` by number, those that Go holds by value even when they are empty.
fn structure(out: &mut Vec<u8>, map: &Map<String, Value>, schema: &SchemaRef, prefix: &[u32]) {
    let mut fields: Vec<FieldSchema> = schema
        .fields()
        .filter(|field| field.numbers().len() > prefix.len() && field.numbers().starts_with(prefix))
        .collect();
    let at = prefix.len();
    fields.sort_by_key(|field| field.numbers()[at]);
    let mut inside = 0;
    for field in &fields {
        let number = field.numbers()[at];
        if field.numbers().len() > at + 1 {
            if inside != number {
                inside = number;
                let mut path = prefix.to_vec();
                path.push(number);
                let mut message = Vec::new();
                structure(&mut message, map, schema, &path);
                write_bytes(out, number, &message);
            }
            continue;
        }
        match map.get(field.name()) {
            Some(value) if !value.is_null() => write(out, number, value, &field.schema()),
            _ if field.is_value() => zero(out, number, &field.schema()),
            _ => {}
        }
    }
}

fn zero(out: &mut Vec<u8>, number: u32, schema: &SchemaRef) {
    match schema.kind() {
        SchemaKind::String | SchemaKind::Time | SchemaKind::MicroTime => {
            write_bytes(out, number, b"")
        }
        SchemaKind::Bool | SchemaKind::Int32 | SchemaKind::Int64 => write_number(out, number, 0),
        SchemaKind::Double => write(out, number, &Value::from(0.0), schema),
        SchemaKind::Struct => write(out, number, &Value::Object(Map::new()), schema),
        SchemaKind::IntOrString => write(out, number, &Value::from(0), schema),
        SchemaKind::Quantity => write(out, number, &Value::from("0"), schema),
        SchemaKind::Duration => write(out, number, &Value::from("0s"), schema),
        _ => {}
    }
}

fn write(out: &mut Vec<u8>, number: u32, value: &Value, schema: &SchemaRef) {
    let mut message = Vec::new();
    match (schema.kind(), value) {
        (SchemaKind::List, Value::Array(items)) => {
            let elem = schema.elem().unwrap_or_else(SchemaRef::any);
            items
                .iter()
                .for_each(|item| write(out, number, item, &elem));
            return;
        }
        (SchemaKind::Map, Value::Object(map)) => {
            let elem = schema.elem().unwrap_or_else(SchemaRef::any);
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            for (key, value) in entries {
                let mut entry = Vec::new();
                write_bytes(&mut entry, 1, key.as_bytes());
                if elem.kind() == SchemaKind::List {
                    let mut items = Vec::new();
                    write(&mut items, 1, value, &elem);
                    write_bytes(&mut entry, 2, &items);
                } else {
                    write(&mut entry, 2, value, &elem);
                }
                write_bytes(out, number, &entry);
            }
            return;
        }
        (SchemaKind::Struct, Value::Object(map)) => structure(&mut message, map, schema, &[]),
        (SchemaKind::String, Value::String(text)) => message.extend_from_slice(text.as_bytes()),
        (SchemaKind::Bytes, Value::String(text)) => match BASE64.decode(text) {
            Ok(bytes) => message = bytes,
            Err(_) => return,
        },
        (SchemaKind::Bool, Value::Bool(value)) => {
            return write_number(out, number, u64::from(*value));
        }
        (SchemaKind::Int32 | SchemaKind::Int64, Value::Number(value)) => {
            return write_number(out, number, value.as_i64().unwrap_or_default() as u64);
        }
        (SchemaKind::Double, Value::Number(value)) => {
            write_varint(out, u64::from(number) << 3 | 1);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
            return;
        }
        (SchemaKind::Quantity, Value::String(text)) => {
            write_bytes(&mut message, 1, text.as_bytes())
        }
        (SchemaKind::IntOrString, Value::String(text)) => {
            write_number(&mut message, 1, 1);
            write_number(&mut message, 2, 0);
            write_bytes(&mut message, 3, text.as_bytes());
        }
        (SchemaKind::IntOrString, Value::Number(value)) => {
            write_number(&mut message, 1, 0);
            write_number(&mut message, 2, value.as_i64().unwrap_or_default() as u64);
            write_bytes(&mut message, 3, b"");
        }
        (SchemaKind::Time | SchemaKind::MicroTime, Value::String(text)) => {
            let Ok(time) = text.parse::<jiff::Timestamp>() else {
                return;
            };
            write_number(&mut message, 1, time.as_second() as u64);
            write_number(&mut message, 2, time.subsec_nanosecond() as u64);
        }
        (SchemaKind::Duration, Value::String(text)) => {
            let nanoseconds = crate::duration::parse(text).unwrap_or_default();
            write_number(&mut message, 1, nanoseconds as u64);
        }
        (SchemaKind::RawExtension | SchemaKind::FieldsV1 | SchemaKind::Json, value) => {
            write_bytes(&mut message, 1, value.to_string().as_bytes());
        }
        _ => return,
    }
    write_bytes(out, number, &message);
}

//! Messages to JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    Envelope, MAGIC, MAX_DEPTH, ProtobufError,
    wire::{Field, Reader, text},
};
use crate::schema::{FieldSchema, SchemaKind, SchemaRef, parse_json};

/// Adds the fields of a message at that depth to an object.
pub(super) fn message(
    bytes: &[u8],
    schema: &SchemaRef,
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    structure(bytes, schema, &[], into, depth)
}

/// Adds the fields below `prefix`: the numbers of the messages on the way that JSON doesn't show.
fn structure(
    bytes: &[u8],
    schema: &SchemaRef,
    prefix: &[u32],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Malformed("messages nest too deeply"));
    }
    let mut reader = Reader::new(bytes);
    while let Some((number, field)) = reader.field()? {
        let mut path = prefix.to_vec();
        path.push(number);
        let Some(known) = schema
            .fields()
            .find(|known| known.numbers().starts_with(&path))
        else {
            continue;
        };
        if known.numbers().len() > path.len() {
            structure(payload(field, &known)?, schema, &path, into, depth + 1)?;
        } else {
            let slot = into.entry(known.name()).or_insert(Value::Null);
            add(field, &known.schema(), &known, slot, depth)?;
        }
    }
    Ok(())
}

fn wrong(field: Field<'_>, known: &FieldSchema) -> ProtobufError {
    ProtobufError::WireType {
        field: known.name().to_owned(),
        wire: field.wire_type(),
    }
}

fn payload<'a>(field: Field<'a>, known: &FieldSchema) -> Result<&'a [u8], ProtobufError> {
    match field {
        Field::Bytes(bytes) => Ok(bytes),
        other => Err(wrong(other, known)),
    }
}

/// Adds one occurrence of a field: repeated ones grow, messages merge, all others are replaced.
fn add(
    field: Field<'_>,
    schema: &SchemaRef,
    known: &FieldSchema,
    slot: &mut Value,
    depth: usize,
) -> Result<(), ProtobufError> {
    match schema.kind() {
        SchemaKind::List => {
            let elem = schema.elem().unwrap_or_else(SchemaRef::any);
            if slot.is_null() {
                *slot = Value::Array(Vec::new());
            }
            let items = slot
                .as_array_mut()
                .ok_or(ProtobufError::Malformed("a list is no list"))?;
            if let Some(packed) = packed(field, &elem) {
                let mut reader = Reader::new(packed);
                while !reader.is_at_end() {
                    let item = match elem.kind() {
                        SchemaKind::Double => Field::Fixed64(u64::from_le_bytes(reader.array()?)),
                        _ => Field::Varint(reader.varint()?),
                    };
                    items.push(scalar(item, &elem, known, depth)?);
                }
                return Ok(());
            }
            let mut item = Value::Null;
            add(field, &elem, known, &mut item, depth)?;
            items.push(item);
        }
        SchemaKind::Map => {
            let elem = schema.elem().unwrap_or_else(SchemaRef::any);
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            let map = slot
                .as_object_mut()
                .ok_or(ProtobufError::Malformed("a map is no map"))?;
            let mut reader = Reader::new(payload(field, known)?);
            let (mut key, mut value) = (String::new(), Value::Null);
            while let Some((number, part)) = reader.field()? {
                match number {
                    1 => key = text(payload(part, known)?),
                    2 if elem.kind() == SchemaKind::List => {
                        // Protobuf has no maps of lists: a message with `items` stands between.
                        let mut items = Reader::new(payload(part, known)?);
                        while let Some((number, item)) = items.field()? {
                            if number == 1 {
                                add(item, &elem, known, &mut value, depth + 1)?;
                            }
                        }
                    }
                    2 => add(part, &elem, known, &mut value, depth + 1)?,
                    _ => {}
                }
            }
            if value.is_null() {
                value = empty(&elem);
            }
            map.insert(key, value);
        }
        SchemaKind::Struct => {
            if slot.is_null() {
                *slot = Value::Object(Map::new());
            }
            let map = slot
                .as_object_mut()
                .ok_or(ProtobufError::Malformed("a message is no message"))?;
            structure(payload(field, known)?, schema, &[], map, depth + 1)?;
        }
        _ => *slot = scalar(field, schema, known, depth)?,
    }
    Ok(())
}

/// What an absent map value stands for.
fn empty(schema: &SchemaRef) -> Value {
    match schema.kind() {
        SchemaKind::String => Value::from(""),
        SchemaKind::Struct => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// The bytes of a packed list of numbers.
fn packed<'a>(field: Field<'a>, elem: &SchemaRef) -> Option<&'a [u8]> {
    let numeric = matches!(
        elem.kind(),
        SchemaKind::Bool | SchemaKind::Int32 | SchemaKind::Int64 | SchemaKind::Double
    );
    match field {
        Field::Bytes(bytes) if numeric => Some(bytes),
        _ => None,
    }
}

fn scalar(
    field: Field<'_>,
    schema: &SchemaRef,
    known: &FieldSchema,
    depth: usize,
) -> Result<Value, ProtobufError> {
    Ok(match (schema.kind(), field) {
        (SchemaKind::String, Field::Bytes(bytes)) => Value::from(text(bytes)),
        (SchemaKind::Bytes, Field::Bytes(bytes)) => Value::from(BASE64.encode(bytes)),
        (SchemaKind::Bool, Field::Varint(value)) => Value::from(value != 0),
        (SchemaKind::Int32, Field::Varint(value)) => Value::from(value as i32),
        (SchemaKind::Int64, Field::Varint(value)) => Value::from(value as i64),
        (SchemaKind::Double, Field::Fixed64(bits)) => {
            serde_json::Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (SchemaKind::Quantity, Field::Bytes(bytes)) => match parts(bytes)?.1 {
            [Some(text), ..] if !text.is_empty() => Value::from(text.as_str()),
            _ => Value::from("0"),
        },
        (SchemaKind::IntOrString, Field::Bytes(bytes)) => {
            let (numbers, texts) = parts(bytes)?;
            match numbers[0] {
                Some(1) => Value::from(texts[2].as_deref().unwrap_or_default()),
                _ => Value::from(numbers[1].unwrap_or_default() as i32),
            }
        }
        (SchemaKind::Time | SchemaKind::MicroTime, Field::Bytes([])) => Value::Null,
        (SchemaKind::Time, Field::Bytes(bytes)) => {
            let (numbers, _) = parts(bytes)?;
            time(numbers[0].unwrap_or_default() as i64, 0)?
        }
        (SchemaKind::MicroTime, Field::Bytes(bytes)) => {
            let (numbers, _) = parts(bytes)?;
            time(
                numbers[0].unwrap_or_default() as i64,
                numbers[1].unwrap_or_default() as i32,
            )?
        }
        (SchemaKind::Duration, Field::Bytes(bytes)) => {
            let (numbers, _) = parts(bytes)?;
            Value::from(crate::duration::shown(numbers[0].unwrap_or_default() as i64))
        }
        (
            SchemaKind::RawExtension | SchemaKind::FieldsV1 | SchemaKind::Json,
            Field::Bytes(bytes),
        ) => {
            let mut reader = Reader::new(bytes);
            let mut raw: &[u8] = &[];
            while let Some((number, part)) = reader.field()? {
                match (number, part) {
                    (1, Field::Bytes(bytes)) => raw = bytes,
                    (1, other) => return Err(wrong(other, known)),
                    _ => {}
                }
            }
            embedded(raw, depth + 1)?
        }
        (_, other) => return Err(wrong(other, known)),
    })
}

/// The first numbers and texts of a small message, by field number.
type Parts = ([Option<u64>; 2], [Option<String>; 3]);

fn parts(bytes: &[u8]) -> Result<Parts, ProtobufError> {
    let (mut numbers, mut texts) = ([None; 2], [None, None, None]);
    let mut reader = Reader::new(bytes);
    while let Some((number, part)) = reader.field()? {
        let at = number as usize - 1;
        match part {
            Field::Varint(value) if at < numbers.len() => numbers[at] = Some(value),
            Field::Bytes(bytes) if at < texts.len() => texts[at] = Some(text(bytes)),
            _ => {}
        }
    }
    Ok((numbers, texts))
}

fn time(seconds: i64, nanoseconds: i32) -> Result<Value, ProtobufError> {
    match Timestamp::new(seconds, nanoseconds) {
        Ok(time) => Ok(Value::from(time.to_string())),
        Err(_) => Err(ProtobufError::Malformed("time out of range")),
    }
}

/// An embedded object: JSON, or an envelope of its own, which nests as deep as what is around it allows.
fn embedded(raw: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if raw.starts_with(&MAGIC) {
        let envelope = Envelope::open(raw)?;
        let (group, version) = envelope
            .api_version
            .rsplit_once('/')
            .unwrap_or(("", &envelope.api_version));
        let schema = SchemaRef::for_kind(group, version, &envelope.kind);
        let unknown = ProtobufError::Malformed("an embedded object of unknown kind");
        return envelope.decode_at(&schema.ok_or(unknown)?, depth);
    }
    parse_json(raw).map_err(|error| ProtobufError::Value(error.to_string()))
}

//! Kubernetes' protobuf form of objects, to and from the JSON form that everything else works on.
//!
//! ```text
//! "k8s\0" · Unknown { typeMeta { apiVersion, kind }, raw, … }
//!                                                    └─ the kind's message
//! ```
//!
//! Nothing is generated: messages are walked by the field numbers in the schema. Go's peculiarities are known here:
//! quantities, times and the like are messages, some messages don't show in JSON, and what Go holds by value is
//! written even when it is zero. Field numbers that 1.36 added after the protobuf sources were published are unknown,
//! and so skipped; `JSONSchemaProps` (CustomResourceDefinitions) can't be carried.

mod decode;
mod encode;
mod wire;

use serde_json::Value;

pub use encode::{
    encode, encode_raw, envelope, list_raw, partial_raw, push_list_item, watch_frame,
};

use crate::schema::{SchemaRef, decode_value};

/// What every protobuf body of Kubernetes begins with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// How deep messages may nest, those of embedded objects included.
const MAX_DEPTH: usize = 100;

/// Why bytes are no object; displayed in upstream's words where it has any.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// There are no bytes.
    #[error("empty data")]
    Empty,
    /// The bytes don't begin with [`MAGIC`].
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    /// The bytes end within a field.
    #[error("unexpected EOF")]
    Truncated,
    /// The bytes break the rules of the encoding.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// A field has another wire type than its schema says.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// The field's name in JSON.
        field: String,
        /// The wire type that was found.
        wire: u8,
    },
    /// A value can't be what its field needs.
    #[error("{0}")]
    Value(String),
}

/// The envelope around an object's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The object's apiVersion; may be empty.
    pub api_version: String,
    /// The object's kind; may be empty.
    pub kind: String,
    /// The message itself.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens a body's envelope without looking at the message.
    pub fn open(body: &'a [u8]) -> Result<Envelope<'a>, ProtobufError> {
        if body.is_empty() {
            return Err(ProtobufError::Empty);
        }
        let mut message =
            wire::Reader::new(body.strip_prefix(&MAGIC).ok_or(ProtobufError::NoMagic)?);
        let mut envelope = Envelope {
            api_version: String::new(),
            kind: String::new(),
            raw: &[],
        };
        while let Some((number, value)) = message.field()? {
            match (number, value) {
                (1, wire::Field::Bytes(bytes)) => {
                    let mut meta = wire::Reader::new(bytes);
                    while let Some((number, value)) = meta.field()? {
                        match (number, value) {
                            (1, wire::Field::Bytes(text)) => {
                                envelope.api_version = wire::text(text)
                            }
                            (2, wire::Field::Bytes(text)) => envelope.kind = wire::text(text),
                            _ => {}
                        }
                    }
                }
                (2, wire::Field::Bytes(bytes)) => envelope.raw = bytes,
                (3, wire::Field::Bytes(encoding)) if !encoding.is_empty() => {
                    return Err(ProtobufError::Malformed(
                        "content encodings are not supported",
                    ));
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// Decodes the message to the object's JSON form, which is as [`crate::schema::decode_json`] would have it.
    pub fn decode(&self, schema: &SchemaRef) -> Result<Value, ProtobufError> {
        self.decode_at(schema, 1)
    }

    fn decode_at(&self, schema: &SchemaRef, depth: usize) -> Result<Value, ProtobufError> {
        let mut map = serde_json::Map::new();
        if !self.kind.is_empty() && schema.field("kind").is_some() {
            map.insert("kind".into(), self.kind.as_str().into());
        }
        if !self.api_version.is_empty() && schema.field("apiVersion").is_some() {
            map.insert("apiVersion".into(), self.api_version.as_str().into());
        }
        decode::message(self.raw, schema, &mut map, depth)?;
        let decoded = decode_value(Value::Object(map), schema)
            .map_err(|error| ProtobufError::Value(error.to_string()))?;
        Ok(decoded.value)
    }
}

#[cfg(test)]
mod tests;

//! Patches of the three kinds that change an object directly: JSON patch, JSON merge patch, strategic merge patch.
//!
//! A patch is parsed once and may be applied again and again, since an update that lost a race is tried anew on the
//! newer object. The result is a plain value: [`crate::schema::decode_value`] then reads it as it would read a body.
//! Server-side apply is no such patch and not here.

mod json;
mod places;
mod strategic;

use serde_json::{Map, Value};

use crate::schema::{SchemaRef, StrictError, decode_json};

/// How many operations one JSON patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// How many bytes of JSON the `copy` operations of one JSON patch may add together.
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// How many values the operations of one JSON patch may move or look through together; upstream sets no such bound.
/// 10,000 operations on a list or a map of 10,000 elements stay within it.
const MAX_WORK: usize = 100_000_000;

/// The kinds of patch, one media type each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
}

/// A patch that can't be read or applied; displayed in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed: 400, `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// The patch has too many operations: 413, `RequestEntityTooLarge`.
    #[error(
        "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}"
    )]
    TooManyOperations(usize),
    /// An operation doesn't fit the object: 422, `Invalid`, without a word on why.
    #[error("the server rejected our request due to an error in our request")]
    Rejected,
    /// A directive is wrong in a way for which upstream has no reason: 500 without one.
    #[error("{0}")]
    Internal(String),
}

/// A parsed patch.
#[derive(Clone, Debug)]
pub struct Patch(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Json(json::JsonPatch),
    Merge(Map<String, Value>),
    /// A list to merge: it takes the object's place.
    List(Vec<Value>),
    Strategic(Map<String, Value>),
}

impl Patch {
    /// Reads a patch and reports its duplicate and unknown fields; those of a JSON patch are shown to users after
    /// the words `json patch`.
    pub fn parse(kind: PatchType, body: &[u8]) -> Result<(Patch, Vec<StrictError>), PatchError> {
        Self::read(kind, body, false)
    }

    /// Reads a patch whose duplicate and unknown fields nobody wants to hear of (`fieldValidation=Ignore`). Upstream then
    /// lets it be read by the library that applies it (`evanphx/json-patch`), which minds less and has other words.
    pub fn parse_leniently(kind: PatchType, body: &[u8]) -> Result<Patch, PatchError> {
        Self::read(kind, body, true).map(|(patch, _)| patch)
    }

    fn read(
        kind: PatchType,
        body: &[u8],
        lenient: bool,
    ) -> Result<(Patch, Vec<StrictError>), PatchError> {
        let bad = |message: String| match kind {
            PatchType::Merge if lenient => PatchError::BadRequest("Invalid JSON Patch".into()),
            PatchType::Json | PatchType::Merge if !lenient => {
                PatchError::BadRequest(format!("error decoding patch: {message}"))
            }
            _ => PatchError::BadRequest(message),
        };
        let decoded =
            decode_json(body, &SchemaRef::any()).map_err(|error| bad(error.to_string()))?;
        let mut strict = decoded.strict;
        let kind = match (kind, decoded.value) {
            (PatchType::Json, value) => {
                let patch = json::JsonPatch::from_value(value, &mut strict, lenient);
                Kind::Json(patch.map_err(|error| match error {
                    json::ParseError::Shape(message) => bad(message),
                    json::ParseError::TooMany(count) => PatchError::TooManyOperations(count),
                })?)
            }
            (PatchType::Merge, Value::Null) => {
                return Err(PatchError::BadRequest("Invalid JSON Patch".into()));
            }
            (PatchType::Merge, Value::Array(items)) if lenient => Kind::List(items),
            (PatchType::Merge, value) => Kind::Merge(object(value).map_err(bad)?),
            (PatchType::Strategic, value) => Kind::Strategic(object(value).map_err(bad)?),
        };
        Ok((Patch(kind), strict))
    }

    /// Applies the patch to an object of that schema; only strategic merge patches look at it.
    pub fn apply(&self, mut object: Value, schema: &SchemaRef) -> Result<Value, PatchError> {
        match &self.0 {
            Kind::Json(patch) => patch.apply(object).ok_or(PatchError::Rejected),
            Kind::Merge(patch) => {
                let mut merged = match &mut object {
                    Value::Object(map) => std::mem::take(map),
                    _ => Map::new(),
                };
                merge(&mut merged, patch);
                Ok(Value::Object(merged))
            }
            Kind::List(items) => Ok(items.iter().map(without_null_fields).collect()),
            Kind::Strategic(patch) => {
                let original = match object {
                    Value::Object(original) => original,
                    _ => Map::new(),
                };
                strategic::merge_map(original, patch.clone(), schema).map(Value::Object)
            }
        }
    }
}

fn object(value: Value) -> Result<Map<String, Value>, String> {
    let word = match value {
        Value::Object(map) => return Ok(map),
        Value::Null => return Ok(Map::new()),
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    Err(format!(
        "json: cannot unmarshal {word} into Go value of type map[string]interface {{}}"
    ))
}

/// Merges as RFC 7386 says: null removes, objects merge, everything else replaces. What comes anew has no nulls in its
/// maps, those in its lists included.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    // Taken out all together, for taking one out moves all that follow it.
    if patch.values().any(Value::is_null) {
        target.retain(|key, _| !patch.get(key).is_some_and(Value::is_null));
    }
    for (key, value) in patch {
        match (target.get_mut(key), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            _ => {
                target.insert(key.clone(), without_null_fields(value));
            }
        }
    }
}

fn without_null_fields(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            let kept = kept.map(|(key, value)| (key.clone(), without_null_fields(value)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => items.iter().map(without_null_fields).collect(),
        other => other.clone(),
    }
}

/// A value as Go's `%v` prints it, `map[a:1 b:[x y]]`: that is how upstream shows patches in its errors.
pub fn go_format(value: &Value) -> String {
    let mut text = String::new();
    write_go(&mut text, value);
    text
}

fn write_go(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::String(string) => text.push_str(string),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { " " } else { "" });
                write_go(text, item);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            text.push_str("map[");
            for (at, (key, value)) in entries.into_iter().enumerate() {
                text.push_str(if at > 0 { " " } else { "" });
                text.push_str(key);
                text.push(':');
                write_go(text, value);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;

//! Decoding: what comes out is what Go would write after reading the same bytes into the kind's struct.
//!
//! Unknown fields are dropped and reported, duplicates reported, null is the same as absent, zeros of fields that Go
//! holds by value go away where Go omits them and appear where it doesn't, quantities and times are written in their
//! canonical form, and fields stand in Go's order. Errors use upstream's words, since users read them.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as BASE64};
use serde_json::{Map, Value};

use super::{
    nesting::MAX_NESTING,
    scan::{self, Tree},
    table::{FieldSchema, SchemaKind, SchemaRef},
    time, unstructured, yaml,
};
use crate::quantity::Quantity;

/// Base64 as Go reads it: what is left of the last bits may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// How many unknown and duplicate fields are reported at most.
const MAX_STRICT_ERRORS: usize = 100;
/// How many bytes the places of empty lists and maps may take together. What is past them is shown as if it were absent.
const MAX_EMPTIES: usize = 1024 * 1024;

/// A decoded object and what strict decoding would have refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object as its struct would be written.
    pub value: Value,
    /// Unknown and duplicate fields, in the order in which they were met.
    pub strict: Vec<StrictError>,
    /// Lists and maps that were given, empty, and are not written: where, and `[]` or `{}`.
    pub empties: Vec<(String, Value)>,
}

impl Decoded {
    /// Upstream's words for all that strict decoding refuses; `None` if there is nothing.
    pub fn strict_message(&self) -> Option<String> {
        let words = |error: &StrictError| match error {
            StrictError::Yaml(line) => format!("yaml: unmarshal errors:\n  {line}"),
            other => other.to_string(),
        };
        let errors: Vec<_> = self.strict.iter().map(words).collect();
        (!errors.is_empty()).then(|| format!("strict decoding error: {}", errors.join(", ")))
    }
}

/// A field that strict decoding refuses; displayed as upstream warns of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrictError {
    /// The schema has no such field.
    UnknownField(String),
    /// The field came twice.
    DuplicateField(String),
    /// A duplicate key in YAML, in the words of the YAML reader.
    Yaml(String),
}

impl fmt::Display for StrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StrictError::UnknownField(path) => write!(f, "unknown field \"{path}\""),
            StrictError::DuplicateField(path) => write!(f, "duplicate field \"{path}\""),
            StrictError::Yaml(message) => f.write_str(message),
        }
    }
}

/// Why bytes are no object of the kind; displayed in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes aren't JSON.
    #[error("{0}")]
    Syntax(String),
    /// The bytes aren't YAML.
    #[error("{0}")]
    Yaml(String),
    /// A value has the wrong type.
    #[error("{0}")]
    Type(String),
}

/// Reads JSON of any shape: syntax errors in Go's words, the last of duplicate keys wins.
pub fn parse_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    let tree = scan::scan(bytes).map_err(DecodeError::Syntax)?;
    Ok(tree.into_value())
}

/// Decodes a JSON body by its schema.
pub fn decode_json(bytes: &[u8], schema: &SchemaRef) -> Result<Decoded, DecodeError> {
    let tree = scan::scan(bytes).map_err(DecodeError::Syntax)?;
    decode_tree(tree, schema, false)
}

/// Decodes a YAML body by its schema; duplicate keys are reported as in JSON.
pub fn decode_yaml(bytes: &[u8], schema: &SchemaRef) -> Result<Decoded, DecodeError> {
    let mut decoded = decode_tree(yaml::read(bytes).map_err(DecodeError::Yaml)?, schema, false)?;
    let is_duplicate = |error: &StrictError| matches!(error, StrictError::DuplicateField(_));
    let mut duplicates = decoded.strict.iter().filter(|error| is_duplicate(error));
    // Upstream's YAML reader tells lines where the JSON reader tells paths.
    if let (Some(StrictError::DuplicateField(path)), None) = (duplicates.next(), duplicates.next())
        && let Some(line) = yaml::duplicate_line(bytes)
    {
        let key = path.rsplit('.').next().unwrap_or(path);
        let told = format!("line {line}: key {key:?} already set in map");
        decoded.strict.retain(|error| !is_duplicate(error));
        decoded.strict.insert(0, StrictError::Yaml(told));
    }
    Ok(decoded)
}

/// Decodes a value again, for example after a patch: it may nest as deep as a body.
pub fn decode_value(value: Value, schema: &SchemaRef) -> Result<Decoded, DecodeError> {
    let tree = Tree::from_value(value, MAX_NESTING).map_err(DecodeError::Syntax)?;
    decode_tree(tree, schema, false)
}

/// Decodes a value as upstream does after a strategic merge patch: by the rules of its converter, not by those of JSON.
/// The owners of fields nest more than the fields, so there is no bound; a value that is merged of two nests no more than
/// these.
pub fn decode_unstructured(value: Value, schema: &SchemaRef) -> Result<Decoded, DecodeError> {
    let tree = Tree::from_value(value, usize::MAX).map_err(DecodeError::Syntax)?;
    decode_tree(tree, schema, true)
}

fn decode_tree(tree: Tree, schema: &SchemaRef, unstructured: bool) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder {
        unstructured,
        empties: Vec::new(),
        empties_left: MAX_EMPTIES,
        path: Vec::new(),
        mismatch: None,
        strict: Vec::new(),
    };
    let value = decoder.value(tree, schema).map_err(DecodeError::Type)?;
    match decoder.mismatch {
        Some(mismatch) => Err(DecodeError::Type(mismatch)),
        None => Ok(Decoded {
            value: value.unwrap_or_else(|| zero(schema)),
            strict: decoder.strict,
            empties: decoder.empties,
        }),
    }
}

/// What Go writes for an empty value of this type.
pub(crate) fn zero(schema: &SchemaRef) -> Value {
    match schema.kind() {
        SchemaKind::String | SchemaKind::Duration => Value::String(String::new()),
        SchemaKind::Bool => Value::Bool(false),
        SchemaKind::Int32 | SchemaKind::Int64 | SchemaKind::Double | SchemaKind::IntOrString => {
            Value::from(0)
        }
        SchemaKind::Quantity => Value::from("0"),
        SchemaKind::Struct => {
            let mut map = Map::new();
            for field in schema.fields() {
                if let Some(value) = when_absent(&field) {
                    map.insert(field.name().to_owned(), value);
                }
            }
            Value::Object(map)
        }
        _ => Value::Null,
    }
}

/// What Go writes for a field that nobody set.
fn when_absent(field: &FieldSchema) -> Option<Value> {
    match (field.is_always_written(), field.is_value()) {
        (false, _) => None,
        (true, true) => Some(zero(&field.schema())),
        (true, false) => Some(Value::Null),
    }
}

/// Whether Go's `omitempty` leaves this value out.
fn is_empty(value: &Value, field: &FieldSchema) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && field.schema().kind() == SchemaKind::Map,
        Value::String(text) => text.is_empty() && field.is_value(),
        Value::Bool(value) => !value && field.is_value(),
        Value::Number(number) => {
            number.as_f64() == Some(0.0)
                && field.is_value()
                && field.schema().kind() != SchemaKind::IntOrString
        }
        Value::Null => true,
    }
}

enum Step {
    Field(String),
    Embedded(String),
    Key(String),
    Index(usize),
}

/// The types of `apiextensions.k8s.io` that read themselves: a schema, or something else.
#[derive(Clone, Copy)]
enum Union {
    Json,
    SchemaOrArray,
    SchemaOrBool,
}

impl Union {
    fn of(owner: &SchemaRef, field: &str) -> Option<Self> {
        const PROPS: &str =
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let union = match field {
            "default" | "example" => Self::Json,
            "items" => Self::SchemaOrArray,
            "additionalItems" | "additionalProperties" => Self::SchemaOrBool,
            _ => return None,
        };
        (owner.definition_name() == Some(PROPS)).then_some(union)
    }
}

struct Decoder {
    /// Whether the rules are those of upstream's converter.
    unstructured: bool,
    empties: Vec<(String, Value)>,
    /// Bytes that are left for their places.
    empties_left: usize,
    /// Each step, and the struct that it leads into a field of.
    path: Vec<(Step, Option<SchemaRef>)>,
    /// The first value of a wrong type; decoding goes on after it, as in Go.
    mismatch: Option<String>,
    strict: Vec<StrictError>,
}

impl Decoder {
    /// `None` stands for null and for what has been reported; an error ends decoding at once.
    fn value(&mut self, tree: Tree, schema: &SchemaRef) -> Result<Option<Value>, String> {
        if tree == Tree::Null {
            return Ok(None);
        }
        let tree = match self.unstructured {
            true => unstructured::convert(tree, schema)?,
            false => tree,
        };
        Ok(match (schema.kind(), tree) {
            (SchemaKind::Struct, Tree::Map(entries)) => Some(self.structure(entries, schema)?),
            (SchemaKind::Map, Tree::Map(entries)) => Some(self.map(entries, schema)?),
            (SchemaKind::List, Tree::List(items)) => Some(self.list(items, schema)?),
            (SchemaKind::Json, tree) => {
                self.duplicates(&tree);
                Some(tree.into_value())
            }
            (SchemaKind::RawExtension | SchemaKind::FieldsV1, tree) => Some(tree.into_value()),
            (SchemaKind::String, Tree::String(text)) => Some(Value::String(text)),
            (SchemaKind::Bool, Tree::Bool(value)) => Some(Value::Bool(value)),
            (SchemaKind::Int32, Tree::Number(text)) => match text.parse::<i32>() {
                Ok(value) => Some(value.into()),
                Err(_) => self.mismatched(&format!("number {text}"), "int32"),
            },
            (SchemaKind::Int64, Tree::Number(text)) => match text.parse::<i64>() {
                Ok(value) => Some(value.into()),
                Err(_) => self.mismatched(&format!("number {text}"), "int64"),
            },
            (SchemaKind::Double, Tree::Number(text)) => match scan::number(&text) {
                Some(value) => Some(value.into()),
                None => self.mismatched(&format!("number {text}"), "float64"),
            },
            (SchemaKind::IntOrString, Tree::Number(text)) => match text.parse::<i32>() {
                Ok(value) => Some(value.into()),
                Err(_) => return Err(self.refused(&format!("number {text}"), "int32")),
            },
            (SchemaKind::IntOrString, Tree::String(text)) => Some(Value::String(text)),
            (SchemaKind::IntOrString, tree) => {
                return Err(self.refused(tree.go_word(), "int32"));
            }
            (SchemaKind::Quantity, Tree::String(text) | Tree::Number(text)) => {
                let resource_list = matches!(self.path.last(), Some((Step::Key(_), _)));
                let kept = Quantity::kept_form(text.trim(), resource_list);
                Some(Value::String(kept.map_err(|error| error.to_string())?))
            }
            (SchemaKind::Quantity, _) => {
                return Err(crate::quantity::ParseQuantityError::FORMAT.into());
            }
            (SchemaKind::Bytes, Tree::String(text)) => {
                let decoded = base64(&text).map_err(|why| match self.unstructured {
                    true => format!("error decoding from json: {why}"),
                    false => why,
                });
                Some(Value::String(decoded?))
            }
            (SchemaKind::Bytes, Tree::List(items)) => {
                Some(Value::String(self.numbered_bytes(items)))
            }
            (SchemaKind::Time, Tree::String(text)) => Some(Value::String(time::seconds(&text)?)),
            (SchemaKind::MicroTime, Tree::String(text)) => {
                Some(Value::String(time::micros(&text)?))
            }
            (SchemaKind::Duration, Tree::String(text)) => Some(Value::String(text)),
            (SchemaKind::Time | SchemaKind::MicroTime | SchemaKind::Duration, tree) => {
                return Err(self.refused(tree.go_word(), "string"));
            }
            (_, tree) => self.mismatched(tree.go_word(), &go_type(schema)),
        })
    }

    fn structure(
        &mut self,
        mut entries: Vec<(String, Tree)>,
        schema: &SchemaRef,
    ) -> Result<Value, String> {
        if self.unstructured {
            // Go goes through the fields of the struct.
            let index = |name: &str| schema.field(name).map(|field| field.index());
            entries.sort_by_cached_key(|(name, _)| index(name).unwrap_or(usize::MAX));
        }
        let mut found: Vec<Option<Value>> = vec![None; schema.fields().count()];
        let mut seen = vec![false; found.len()];
        let mut unknown = Vec::new();
        for (name, tree) in entries {
            let Some(field) = schema.field(&name) else {
                if schema.preserves_unknown() {
                    unknown.push((name, tree.into_value()));
                } else {
                    self.report(StrictError::UnknownField, &name);
                }
                continue;
            };
            if std::mem::replace(&mut seen[field.index()], true) {
                self.report(StrictError::DuplicateField, &name);
            }
            let before = self.path.len();
            for embedded in field
                .inside()
                .into_iter()
                .flat_map(|structs| structs.split('.'))
            {
                self.path.push((Step::Embedded(embedded.to_owned()), None));
            }
            let union = Union::of(schema, &name);
            self.path.push((Step::Field(name), Some(schema.clone())));
            found[field.index()] = match union {
                Some(union) => self.union(union, tree, schema)?,
                None => self.value(tree, &field.schema())?,
            };
            self.path.truncate(before);
        }
        let mut map = Map::with_capacity(found.len());
        for (field, value) in schema.fields().zip(found) {
            let value = match value {
                Some(value) if field.is_always_written() || !is_empty(&value, &field) => {
                    Some(value)
                }
                Some(value @ (Value::Array(_) | Value::Object(_))) => {
                    if self.empties_left > 0 {
                        let place = self.strict_path(Some(field.name()));
                        self.empties_left = self.empties_left.saturating_sub(place.len());
                        self.empties.push((place, value));
                    }
                    when_absent(&field)
                }
                _ => when_absent(&field),
            };
            if let Some(value) = value {
                map.insert(field.name().to_owned(), value);
            }
        }
        map.extend(unknown);
        Ok(Value::Object(map))
    }

    fn map(&mut self, entries: Vec<(String, Tree)>, schema: &SchemaRef) -> Result<Value, String> {
        let elem = schema.elem().unwrap_or_else(SchemaRef::any);
        let mut map = Map::with_capacity(entries.len());
        for (key, tree) in entries {
            if map.contains_key(&key) {
                self.report(StrictError::DuplicateField, &key);
            }
            self.path.push((Step::Key(key.clone()), None));
            let value = self.value(tree, &elem)?;
            self.path.pop();
            map.insert(key, value.unwrap_or_else(|| zero(&elem)));
        }
        Ok(Value::Object(map))
    }

    fn list(&mut self, items: Vec<Tree>, schema: &SchemaRef) -> Result<Value, String> {
        let elem = schema.elem().unwrap_or_else(SchemaRef::any);
        let mut list = Vec::with_capacity(items.len());
        for (index, tree) in items.into_iter().enumerate() {
            self.path.push((Step::Index(index), None));
            let value = self.value(tree, &elem)?;
            self.path.pop();
            list.push(value.unwrap_or_else(|| zero(&elem)));
        }
        Ok(Value::Array(list))
    }

    /// Bytes given as a list of numbers, which Go accepts too.
    fn numbered_bytes(&mut self, items: Vec<Tree>) -> String {
        let mut bytes = Vec::with_capacity(items.len());
        for item in items {
            let byte = match &item {
                Tree::Number(text) => text.parse::<u8>().map_err(|_| format!("number {text}")),
                Tree::Null => Ok(0),
                other => Err(other.go_word().to_owned()),
            };
            match byte {
                Ok(byte) => bytes.push(byte),
                Err(found) => {
                    self.mismatched(&found, "uint8");
                }
            }
        }
        BASE64.encode(bytes)
    }

    /// Reports duplicate keys below a place without schema.
    fn duplicates(&mut self, tree: &Tree) {
        match tree {
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push((Step::Index(index), None));
                    self.duplicates(item);
                    self.path.pop();
                }
            }
            Tree::Map(entries) => {
                let mut seen = std::collections::HashSet::with_capacity(entries.len());
                for (key, value) in entries {
                    if !seen.insert(key) {
                        self.report(StrictError::DuplicateField, key);
                    }
                    self.path.push((Step::Key(key.clone()), None));
                    self.duplicates(value);
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    /// Reports the field `name` here, once.
    fn report(&mut self, error: fn(String) -> StrictError, name: &str) {
        if self.strict.len() < MAX_STRICT_ERRORS {
            let error = error(self.strict_path(Some(name)));
            if !self.strict.contains(&error) {
                self.strict.push(error);
            }
        }
    }

    fn mismatched(&mut self, found: &str, wanted: &str) -> Option<Value> {
        if self.mismatch.is_none() {
            self.mismatch = Some(self.mismatch(found, wanted));
        }
        None
    }

    fn mismatch(&self, found: &str, wanted: &str) -> String {
        let owner = self
            .path
            .iter()
            .rev()
            .find_map(|(_, owner)| owner.as_ref()?.type_name());
        let into = match owner {
            Some(owner) => format!("struct field {owner}.{}", self.go_path()),
            None => "value".to_owned(),
        };
        format!("json: cannot unmarshal {found} into Go {into} of type {wanted}")
    }

    /// What ends decoding when a type with a reader of its own (times, numbers or strings) refuses a value. Go adds to
    /// such an error where it was; upstream's converter doesn't.
    fn refused(&self, found: &str, wanted: &str) -> String {
        match self.unstructured {
            true => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            false => self.mismatch(found, wanted),
        }
    }

    /// A schema inside a schema: its reader starts anew, knows nothing of strictness, and its errors are told as errors
    /// of the field that it stands in.
    fn union(
        &mut self,
        union: Union,
        tree: Tree,
        props: &SchemaRef,
    ) -> Result<Option<Value>, String> {
        Ok(match (union, tree) {
            (_, Tree::Null) => None,
            (Union::Json, tree) => Some(tree.into_value()),
            (_, tree @ Tree::Map(_)) => Some(self.anew(tree, props)?),
            (Union::SchemaOrArray, Tree::List(items)) => {
                let items = items.into_iter().map(|item| self.anew(item, props));
                Some(Value::Array(items.collect::<Result<_, _>>()?))
            }
            // Go reads nothing from any other value, and writes null.
            (Union::SchemaOrArray, _) => None,
            (Union::SchemaOrBool, Tree::Bool(value)) => Some(Value::Bool(value)),
            (Union::SchemaOrBool, _) => return Err("boolean or JSON schema expected".to_owned()),
        })
    }

    fn anew(&self, tree: Tree, schema: &SchemaRef) -> Result<Value, String> {
        let mut decoder = Decoder {
            unstructured: false,
            empties: Vec::new(),
            empties_left: 0,
            path: Vec::new(),
            mismatch: None,
            strict: Vec::new(),
        };
        let value = decoder.value(tree, schema);
        let why = match (value, decoder.mismatch) {
            (Err(why), _) | (Ok(_), Some(why)) => why,
            (Ok(value), None) => return Ok(value.unwrap_or_else(|| zero(schema))),
        };
        let told = why
            .strip_prefix("json: cannot unmarshal ")
            .and_then(|rest| rest.split_once(" into Go "))
            .and_then(|(found, rest)| Some((found, rest.rsplit_once(" of type ")?.1)));
        Err(match told {
            Some((found, wanted)) if !self.unstructured => self.mismatch(found, wanted),
            _ => why,
        })
    }

    /// The path as Go says it: fields and embedded structs, neither indices nor keys.
    fn go_path(&self) -> String {
        let names = self.path.iter().filter_map(|(step, _)| match step {
            Step::Field(name) | Step::Embedded(name) => Some(name.as_str()),
            Step::Key(_) | Step::Index(_) => None,
        });
        names.collect::<Vec<_>>().join(".")
    }

    /// The path as strict errors say it: `spec.containers[0].image`.
    fn strict_path(&self, last: Option<&str>) -> String {
        let mut path = String::new();
        for (step, _) in &self.path {
            match step {
                Step::Field(name) | Step::Key(name) => push_name(&mut path, name),
                Step::Index(index) => write!(path, "[{index}]").expect("writing to a string works"),
                Step::Embedded(_) => {}
            }
        }
        if let Some(name) = last {
            push_name(&mut path, name);
        }
        path
    }
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// The name of the Go type that holds values of this schema.
pub(super) fn go_type(schema: &SchemaRef) -> String {
    if let Some(name) = schema.go_name() {
        return name.to_owned();
    }
    let elem = || {
        schema
            .elem()
            .map_or_else(String::new, |elem| go_type(&elem))
    };
    match schema.kind() {
        SchemaKind::String => "string".into(),
        SchemaKind::Bool => "bool".into(),
        SchemaKind::Int32 => "int32".into(),
        SchemaKind::Int64 => "int64".into(),
        SchemaKind::Double => "float64".into(),
        SchemaKind::Bytes => "[]uint8".into(),
        SchemaKind::Quantity => "resource.Quantity".into(),
        SchemaKind::Json => "v1.JSON".into(),
        // The one list type with a name among those that requests bring.
        SchemaKind::List if elem() == "v1.ValidationRule" => "v1.ValidationRules".into(),
        SchemaKind::List => format!("[]{}", elem()),
        SchemaKind::Map
            if schema
                .elem()
                .is_some_and(|elem| elem.kind() == SchemaKind::Quantity) =>
        {
            "v1.ResourceList".into()
        }
        SchemaKind::Map => format!("map[string]{}", elem()),
        _ => {
            let mut parts = schema.definition_name().unwrap_or_default().rsplit('.');
            let name = parts.next().unwrap_or_default();
            format!("{}.{name}", parts.next().unwrap_or_default())
        }
    }
}

/// Bytes in canonical base64; Go ignores line breaks inside.
fn base64(text: &str) -> Result<String, String> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let bytes = LENIENT.decode(&text);
    bytes.map(|bytes| BASE64.encode(bytes)).map_err(|_| {
        let at = illegal_base64_at(text.as_bytes());
        format!("illegal base64 data at input byte {at}")
    })
}

/// Where Go's decoder, which takes four bytes at a time, stops: at the byte that is none of the alphabet's, or at the
/// end of what is whole.
fn illegal_base64_at(text: &[u8]) -> usize {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let Some(stop) = text.iter().position(|byte| !legal(byte)) else {
        // Go counts what it did not get as part of the last four.
        return text.len() / 4 * 4;
    };
    if text[stop] != b'=' {
        return stop;
    }
    // Padding may stand in the third and fourth place, and nothing after it.
    match (stop % 4, text.get(stop + 1)) {
        (0 | 1, _) => stop,
        (2, None) => text.len(),
        (2, Some(b'=')) => stop + 2,
        (2, Some(_)) => stop,
        _ => stop + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_go_reads_it() {
        assert_eq!(base64("AB==").as_deref(), Ok("AA=="));
        assert_eq!(base64("AA\nEC\r\n").as_deref(), Ok("AAEC"));
        let cases = [
            ("AAEC2", 4),
            ("AAECAAE", 4),
            ("*AAA", 0),
            ("AA*A", 2),
            ("A===", 1),
            ("AA=", 3),
            ("AA=A", 2),
            ("AA==AA", 4),
            ("AAA=A", 4),
        ];
        for (text, at) in cases {
            let why = format!("illegal base64 data at input byte {at}");
            assert_eq!(base64(text), Err(why), "{text}");
        }
    }
}

//! JSON patch as upstream applies it.
//!
//! It is not quite RFC 6902: indices may be negative (from the end) or have leading zeros, a `test` for null passes
//! where there is nothing, and a missing `value` is null. In a map, `replace` also adds, and `copy` of nothing gives
//! null. The whole document can be replaced or tested, but neither added, moved nor copied. That is why this isn't a
//! library's.

use serde_json::{Map, Value};

use super::{MAX_COPIED, MAX_OPERATIONS, MAX_WORK};
use crate::schema::StrictError;
use crate::schema::{MAX_NESTING, size};

/// A list of operations.
#[derive(Clone, Debug)]
pub(super) struct JsonPatch(Vec<Operation>);

#[derive(Clone, Debug)]
struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Option<Value>,
}

/// Why a value is no list of operations.
pub(super) enum ParseError {
    Shape(String),
    TooMany(usize),
}

impl JsonPatch {
    /// Reads operations; what an operation is called is checked only when it is applied, and so is everything that it
    /// says, if it is read `lenient`ly.
    pub(super) fn from_value(
        value: Value,
        strict: &mut Vec<StrictError>,
        lenient: bool,
    ) -> Result<Self, ParseError> {
        let (list, element) = match lenient {
            true => ("jsonpatch.Patch", "jsonpatch.Operation"),
            false => ("[]handlers.jsonPatchOp", "handlers.jsonPatchOp"),
        };
        let items = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            other => return Err(ParseError::Shape(unfit(&other, list))),
        };
        if items.len() > MAX_OPERATIONS {
            return Err(ParseError::TooMany(items.len()));
        }
        let mut operations = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let fields = match item {
                Value::Object(fields) => fields,
                Value::Null => Map::new(), // an operation that says nothing, which is refused later
                other => return Err(ParseError::Shape(unfit(&other, element))),
            };
            let mut operation = Operation {
                op: String::new(),
                path: None,
                from: None,
                value: None,
            };
            let mut op = None;
            for (name, value) in fields {
                let slot = match name.as_str() {
                    "op" => &mut op,
                    "path" => &mut operation.path,
                    "from" => &mut operation.from,
                    "value" => {
                        operation.value = Some(value);
                        continue;
                    }
                    _ => {
                        strict.push(StrictError::UnknownField(format!("[{index}].{name}")));
                        continue;
                    }
                };
                match value {
                    Value::String(text) => *slot = Some(text),
                    Value::Null => {}
                    _ if lenient => {}
                    other => {
                        let target = format!("struct field jsonPatchOp.{name} of type string");
                        let message =
                            format!("json: cannot unmarshal {} into Go {target}", word(&other));
                        return Err(ParseError::Shape(message));
                    }
                }
            }
            operation.op = op.unwrap_or_default();
            operations.push(operation);
        }
        Ok(JsonPatch(operations))
    }

    /// Applies all operations in turn; `None` as soon as one doesn't fit, makes the document too large or too deep, or
    /// when all of them together are too much work.
    pub(super) fn apply(&self, mut document: Value) -> Option<Value> {
        let (mut copied, mut work) = (0, Work(MAX_WORK));
        for operation in &self.0 {
            let Operation { op, value, .. } = operation;
            // An operation without a place is refused, as is one on a place that it needs and does not name.
            let path = operation.path.as_deref()?;
            let from = || operation.from.as_deref();
            let given = value.as_ref().unwrap_or(&Value::Null);
            match op.as_str() {
                "add" => add(&mut document, path, given.clone(), &mut work)?,
                "remove" => {
                    remove(&mut document, path, &mut work)?;
                }
                "replace" => {
                    fits(path, given, &mut work)?;
                    replace(&mut document, path, given.clone())?;
                }
                "move" => {
                    let from = from()?;
                    let moved = remove(&mut document, from, &mut work)?;
                    let deeper = path.matches('/').count() > from.matches('/').count();
                    if deeper {
                        fits(path, &moved, &mut work)?;
                    }
                    insert(&mut document, path, moved, &mut work)?;
                }
                "copy" => {
                    let found = copied_from(&mut document, from()?)?;
                    copied += size(&found, MAX_COPIED);
                    if copied > MAX_COPIED {
                        return None;
                    }
                    add(&mut document, path, found, &mut work)?;
                }
                "test" => {
                    if !test(&mut document, path, value.as_ref())? {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        Some(document)
    }
}

/// How much a patch may still make the server do, in values that are looked at or moved. Elements that are put at the
/// beginning of a long list move it each time, and what is moved deeper is looked through each time.
struct Work(usize);

impl Work {
    fn spend(&mut self, values: usize) -> Option<()> {
        self.0 = self.0.checked_sub(values)?;
        Some(())
    }
}

/// Whether the document still nests no deeper than it may with `value` at `path`.
fn fits(path: &str, value: &Value, work: &mut Work) -> Option<()> {
    let above = path.matches('/').count();
    let mut left = vec![(value, above)];
    while let Some((value, depth)) = left.pop() {
        work.spend(1)?;
        if depth > MAX_NESTING {
            return None;
        }
        match value {
            Value::Array(items) => left.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => left.extend(map.values().map(|item| (item, depth + 1))),
            _ => {}
        }
    }
    Some(())
}

fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn unfit(value: &Value, target: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go value of type {target}",
        word(value)
    )
}

/// A pointer's last part, after the container that it lies in.
fn container<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut parts: Vec<String> = path
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect();
    let last = parts.pop()?;
    let mut place = document;
    for part in parts {
        place = child(place, &part)?;
    }
    (place.is_object() || place.is_array()).then_some((place, last))
}

fn child<'a>(place: &'a mut Value, part: &str) -> Option<&'a mut Value> {
    match place {
        Value::Object(map) => map.get_mut(part),
        Value::Array(items) => {
            let index = index(part, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// Whether there is `value` at a place: nothing there is null, and no value expected is nothing there. `None` if the place
/// around it is missing, or it has no such index.
fn test(document: &mut Value, path: &str, value: Option<&Value>) -> Option<bool> {
    if path.is_empty() {
        return Some(value == Some(&*document));
    }
    let found = match container(document, path)? {
        (Value::Object(map), key) => map.get(&key).unwrap_or(&Value::Null),
        (place, key) => &*child(place, &key)?,
    };
    Some(found == value.unwrap_or(&Value::Null))
}

/// Puts a value in the place of another one, or of none in a map; the whole document can become a map or a list only.
fn replace(document: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *document = Some(value).filter(|value| value.is_object() || value.is_array())?;
        return Some(());
    }
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (place, key) => *child(place, &key)? = value,
    }
    Some(())
}

/// What is at a place; null where a map has nothing.
fn copied_from(document: &mut Value, from: &str) -> Option<Value> {
    match container(document, from)? {
        (Value::Object(map), key) => Some(map.get(&key).cloned().unwrap_or_default()),
        (place, key) => child(place, &key).cloned(),
    }
}

/// An index below `length`, counted from the end if negative.
fn index(part: &str, length: usize) -> Option<usize> {
    let number: i64 = part.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let index = if number < 0 { number + length } else { number };
    (0..length).contains(&index).then_some(index as usize)
}

fn add(document: &mut Value, path: &str, value: Value, work: &mut Work) -> Option<()> {
    fits(path, &value, work)?;
    insert(document, path, value, work)
}

fn insert(document: &mut Value, path: &str, value: Value, work: &mut Work) -> Option<()> {
    match container(document, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(items), key) if key == "-" => items.push(value),
        (Value::Array(items), key) => {
            let index = index(&key, items.len() + 1)?;
            work.spend(items.len() - index)?;
            items.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(document: &mut Value, path: &str, work: &mut Work) -> Option<Value> {
    match container(document, path)? {
        (Value::Object(map), key) => {
            work.spend(map.len())?;
            map.shift_remove(&key)
        }
        (Value::Array(items), key) => {
            let index = index(&key, items.len())?;
            work.spend(items.len() - index)?;
            Some(items.remove(index))
        }
        _ => None,
    }
}

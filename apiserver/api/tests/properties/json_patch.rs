//! JSON patch against a model that copies the document for each operation.

use coracle_api::patch::{Patch, PatchError, PatchType};
use coracle_api::schema::SchemaRef;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::objects::any_json;

/// All places of a document as pointers, the whole one first.
fn pointers(value: &Value) -> Vec<String> {
    let below: Vec<(String, &Value)> = match value {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(at, item)| (at.to_string(), item))
            .collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value))
            .collect(),
        _ => Vec::new(),
    };
    let mut all = vec![String::new()];
    for (step, value) in below {
        all.extend(pointers(value).iter().map(|rest| format!("/{step}{rest}")));
    }
    all
}

/// What a change makes of the value at a place: the changed container, or `None` if it doesn't fit.
type Change<'a> = &'a dyn Fn(&Value, &str) -> Option<Value>;

/// The document with the container of the last step changed.
fn edit(document: &Value, path: &[String], change: Change<'_>) -> Option<Value> {
    match path {
        [] => None,
        [last] => change(document, last),
        [first, rest @ ..] => {
            let mut document = document.clone();
            let below = match &mut document {
                Value::Object(map) => map.get_mut(first)?,
                Value::Array(items) => {
                    let at = place(first, items.len())?;
                    items.get_mut(at)?
                }
                _ => return None,
            };
            *below = edit(below, rest, change)?;
            Some(document)
        }
    }
}

/// An index as upstream reads it: negative ones count from the end.
fn place(step: &str, length: usize) -> Option<usize> {
    let at: i64 = step.parse().ok()?;
    let at = if at < 0 { at + length as i64 } else { at };
    (at >= 0 && at < length as i64).then_some(at as usize)
}

fn steps(pointer: &str) -> Vec<String> {
    let parts = pointer.split('/').skip(1);
    parts
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect()
}

fn get(document: &Value, path: &[String]) -> Option<Value> {
    path.iter()
        .try_fold(document.clone(), |value, step| match value {
            Value::Object(map) => map.get(step).cloned(),
            Value::Array(items) => items.get(place(step, items.len())?).cloned(),
            _ => None,
        })
}

/// What is at a place: null where a map has nothing, nothing for the whole document.
fn or_null(document: &Value, path: &[String]) -> Option<Value> {
    match get(document, &path[..path.len().checked_sub(1)?])? {
        Value::Object(map) => Some(map.get(path.last()?).cloned().unwrap_or_default()),
        Value::Array(_) => get(document, path),
        _ => None,
    }
}

fn add(document: &Value, path: &[String], value: &Value) -> Option<Value> {
    edit(document, path, &|container, step| match container.clone() {
        Value::Object(mut map) => {
            map.insert(step.to_owned(), value.clone());
            Some(map.into())
        }
        Value::Array(mut items) => {
            let end = items.len();
            items.insert(
                if step == "-" {
                    end
                } else {
                    place(step, end + 1)?
                },
                value.clone(),
            );
            Some(items.into())
        }
        _ => None,
    })
}

fn remove(document: &Value, path: &[String]) -> Option<Value> {
    edit(document, path, &|container, step| match container.clone() {
        Value::Object(mut map) => map.shift_remove(step).map(|_| map.into()),
        Value::Array(mut items) => {
            items.remove(place(step, items.len())?);
            Some(items.into())
        }
        _ => None,
    })
}

/// The document after one operation.
fn model(document: &Value, operation: &Value) -> Option<Value> {
    let path = steps(operation["path"].as_str()?);
    let from = steps(operation["from"].as_str().unwrap_or_default());
    let value = &operation["value"];
    match operation["op"].as_str()? {
        "add" => add(document, &path, value),
        "remove" => remove(document, &path),
        "replace" if path.is_empty() => {
            Some(value.clone()).filter(|value| value.is_object() || value.is_array())
        }
        "replace" => edit(document, &path, &|container, step| {
            let mut container = container.clone();
            match &mut container {
                Value::Array(items) => {
                    let at = place(step, items.len())?;
                    items[at] = value.clone();
                }
                Value::Object(map) => {
                    map.insert(step.to_owned(), value.clone());
                }
                _ => return None,
            }
            Some(container)
        }),
        "move" => add(&remove(document, &from)?, &path, &get(document, &from)?),
        "copy" => add(document, &path, &or_null(document, &from)?),
        "test" if path.is_empty() => (document == value).then(|| document.clone()),
        "test" => (or_null(document, &path)? == *value).then(|| document.clone()),
        _ => None,
    }
}

/// An operation before it is known which places there are.
type Draft = (&'static str, Index, Index, &'static str, Value);

fn draft() -> impl Strategy<Value = Draft> {
    let op = prop::sample::select(&["add", "add", "remove", "replace", "move", "copy", "test"][..]);
    // Mostly the place itself; else one beside it or none at all.
    let more = prop::sample::select(&["", "", "", "/a", "/-", "/0", "/-1", "/01", "/q/r"][..]);
    (op, any::<Index>(), any::<Index>(), more, any_json(true))
}

fn operation(document: &Value, (op, path, from, more, value): Draft) -> Value {
    let places = pointers(document);
    let path = format!("{}{more}", path.get(&places));
    let value = match op {
        // A test that could hold, or not.
        "test" if more.is_empty() => get(document, &steps(&path)).unwrap_or(value),
        _ => value,
    };
    json!({"op": op, "path": path, "from": from.get(&places), "value": value})
}

proptest! {
    #[test]
    fn operations_do_what_the_model_does(document in any_json(true), drafts in prop::collection::vec(draft(), 1..5)) {
        let mut expected = Some(document.clone());
        let mut operations = Vec::new();
        for draft in drafts {
            let operation = operation(expected.as_ref().unwrap_or(&document), draft);
            expected = expected.and_then(|document| model(&document, &operation));
            operations.push(operation);
        }
        let patch = Value::Array(operations);
        let (parsed, strict) = Patch::parse(PatchType::Json, patch.to_string().as_bytes()).expect("well-formed");
        prop_assert!(strict.is_empty());
        let before = document.clone();
        let result = parsed.apply(document.clone(), &SchemaRef::any());
        prop_assert_eq!(result, expected.ok_or(PatchError::Rejected), "{}", patch);
        prop_assert_eq!(document, before, "what was patched is another value");
    }
}

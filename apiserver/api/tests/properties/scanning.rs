//! Strategic merge patch by looking through lists from end to end: slow and plain, to compare the indexed one with.

use serde_json::{Map, Value};

use coracle_api::patch::PatchError;
use coracle_api::schema::SchemaRef;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";

/// Merges a patch into a map of that schema.
pub(crate) fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: &SchemaRef,
) -> Result<Map<String, Value>, PatchError> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.shift_remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => Err(bad_type(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        let (key, deleting) = match key.strip_prefix(DELETE_PRIMITIVES) {
            Some(list) => (list.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.shift_remove(&key);
            continue;
        }
        let below = schema.child(&key).unwrap_or_else(SchemaRef::any);
        let merged = match (original.get_mut(&key).map(Value::take), value) {
            (None, _) if deleting => continue,
            (None, value) => match without_directives(value) {
                Some(value) => value,
                None => continue,
            },
            (Some(Value::Object(old)), Value::Object(new)) => {
                if below.patch_strategy().replace {
                    Value::Object(new)
                } else {
                    Value::Object(merge_map(old, new, &below)?)
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(old, new, &below, deleting)?)
            }
            (Some(old), _) if deleting => old,
            (Some(_), value) => without_nulls(value),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    schema: &SchemaRef,
    deleting: bool,
) -> Result<Vec<Value>, PatchError> {
    if !schema.patch_strategy().merge {
        return Ok(patch);
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    check_elements(&original, &patch)?;
    if !original.iter().chain(&patch).any(Value::is_object) {
        if deleting {
            return Ok(original
                .into_iter()
                .filter(|item| !patch.contains(item))
                .collect());
        }
        let merged = deduplicated(original.iter().chain(&patch));
        let (ours, others) = merged.into_iter().partition(|item| patch.contains(item));
        return ordered(ours, others, &patch, &original, None);
    }
    let Some(key) = schema.merge_key() else {
        return Err(PatchError::Internal(
            "cannot merge lists without merge key for string".into(),
        ));
    };
    let (original, patch) = special_elements(original, patch, key)?;
    let before = original.clone();
    let elem = schema.elem().unwrap_or_else(SchemaRef::any);
    let mut merged = original;
    for item in &patch {
        let (fields, value) = keyed(item, key)?;
        let same = merged.iter().position(|old| old.get(key) == Some(value));
        match same {
            Some(index) => {
                let old = merged[index].as_object().cloned().unwrap_or_default();
                merged[index] = Value::Object(merge_map(old, fields.clone(), &elem)?);
            }
            None => merged.extend(without_directives(item.clone())),
        }
    }
    let (ours, others) = merged
        .into_iter()
        .partition(|item| position(&patch, item, Some(key)).is_some());
    ordered(ours, others, &patch, &before, Some(key))
}

/// Refuses lists of lists, and elements that are not all of one type.
fn check_elements(original: &[Value], patch: &[Value]) -> Result<(), PatchError> {
    let mut elements = original.iter().chain(patch);
    let Some(first) = elements.next() else {
        return Ok(());
    };
    if first.is_array() {
        return Err(PatchError::Rejected); // "lists of lists are not supported"
    }
    if elements.all(|element| go_type(element) == go_type(first)) {
        return Ok(());
    }
    let both = [original, patch].map(|items| Value::from(items.to_vec()));
    Err(PatchError::Internal(format!(
        "list element types are not identical: {}",
        go_format(&Value::from(both.to_vec()))
    )))
}

/// Carries out the elements that are directives; what is left of the patch merges element by element.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(fields) = item.as_object() else {
            continue; // all elements were found to be of one type
        };
        match fields.get(PATCH) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let (_, value) = keyed(&item, key)?;
                    original.retain(|old| old.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => {
                    return Err(PatchError::Internal(
                        "merging lists cannot yet be specified in the patch".into(),
                    ));
                }
                _ => return Err(bad_type(directive, fields)),
            },
        }
    }
    Ok(if replace {
        (plain, Vec::new())
    } else {
        (original, plain)
    })
}

fn keyed<'a>(
    item: &'a Value,
    key: &str,
) -> Result<(&'a Map<String, Value>, &'a Value), PatchError> {
    let found = item
        .as_object()
        .and_then(|fields| Some((fields, fields.get(key)?)));
    found.ok_or_else(|| {
        PatchError::Internal(format!(
            "map: {} does not contain declared merge key: {key}",
            go_format(item)
        ))
    })
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(keys) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || PatchError::BadRequest("invalid patch format of retainKeys".into());
    let keys = keys.as_array().ok_or_else(bad)?;
    let listed = |key: &str| keys.iter().any(|listed| listed == key);
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_PRIMITIVES) || key.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !listed(key) {
            return Err(bad());
        }
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// Merges the lists that come with an order, and takes them out of the patch.
fn set_orders(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: &SchemaRef,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let order = patch.shift_remove(&directive).unwrap_or_default();
        let order = list(order)?;
        let name = directive[SET_ORDER.len()..].to_owned();
        let before = original.get(&name).cloned().map(list).transpose()?;
        let new = match patch.get(&name) {
            Some(Value::Null) => continue, // the list goes away, whatever its order
            new => new.cloned().map(list).transpose()?,
        };
        if let Some(kind) = schema.type_name().filter(|_| schema.child(&name).is_none()) {
            return Err(PatchError::Internal(format!(
                "unable to find api field in struct {kind} for the json field {name:?}"
            )));
        }
        let below = schema.child(&name).unwrap_or_else(SchemaRef::any);
        let key = below.merge_key();
        check_order(new.as_deref().unwrap_or_default(), &order, key)?;
        let merged = match (before.clone(), new) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(new)) => new.into_iter().filter_map(without_directives).collect(),
            (Some(before), Some(new)) => merge_list(before, new, &below, false)?,
        };
        let (ours, others) = merged
            .into_iter()
            .partition(|item| position(&order, item, key).is_some());
        let sorted = ordered(ours, others, &order, &before.unwrap_or_default(), key)?;
        original.insert(name.clone(), Value::Array(sorted));
        patch.shift_remove(&name);
    }
    Ok(())
}

/// Checks that the elements of a patch come in the order that it sets.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut wanted = patch
        .iter()
        .filter(|item| {
            item.get(PATCH)
                .is_none_or(|directive| directive != "delete")
        })
        .peekable();
    for item in order {
        if wanted.peek().is_some_and(|next| same(next, item, key)) {
            wanted.next();
        }
    }
    match wanted.peek() {
        None => Ok(()),
        Some(_) => {
            let show = |items: &[Value]| go_format(&Value::Array(items.to_vec()));
            Err(PatchError::Internal(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                show(patch),
                show(order)
            )))
        }
    }
}

fn list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(PatchError::Internal(format!(
            "expected a []interface {{}}, but received a {}",
            go_type(&other)
        ))),
    }
}

/// The type that Go reads a value into.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "[]interface {}",
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn position(items: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    items.iter().position(|other| same(other, item, key))
}

/// Puts a merged list into order: `ours` as the patch has them, `others` as they were, the two interleaved so that
/// the former order holds where it can.
fn ordered(
    mut ours: Vec<Value>,
    mut others: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key {
        for item in order {
            keyed(item, key)?;
        }
    }
    ours.sort_by_key(|item| position(order, item, key).unwrap_or(usize::MAX));
    others.sort_by_key(|item| position(before, item, key).unwrap_or(usize::MAX));
    let mut merged = Vec::with_capacity(ours.len() + others.len());
    let mut others = others.into_iter().peekable();
    let mut ours = ours.into_iter().peekable();
    while let (Some(other), Some(our)) = (others.peek(), ours.peek()) {
        let places = (position(before, other, key), position(before, our, key));
        let other_first = matches!(places, (Some(other), Some(our)) if other < our);
        merged.extend(if other_first {
            others.next()
        } else {
            ours.next()
        });
    }
    merged.extend(ours);
    merged.extend(others);
    Ok(merged)
}

fn deduplicated<'a>(items: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut unique: Vec<Value> = Vec::new();
    for item in items {
        if !unique.contains(item) {
            unique.push(item.clone());
        }
    }
    unique
}

/// A value of the patch that becomes part of the object as it is: nulls and directives go, `None` if it deletes.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(mut map) => {
            if map
                .shift_remove(PATCH)
                .is_some_and(|directive| directive == "delete")
            {
                return None;
            }
            map.retain(|key, value| {
                let directive = key == RETAIN_KEYS
                    || key.starts_with(SET_ORDER)
                    || key.starts_with(DELETE_PRIMITIVES);
                !directive && !value.is_null()
            });
            let kept = map
                .into_iter()
                .filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().filter_map(without_directives).collect())
        }
        other => other,
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        other => other,
    }
}

fn bad_type(directive: &Value, map: &Map<String, Value>) -> PatchError {
    let map = go_format(&Value::Object(map.clone()));
    PatchError::Internal(format!(
        "unknown patch type: {} in map: {map}",
        go_format(directive)
    ))
}

/// A value as Go's `%v` prints it.
fn go_format(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(go_format).collect::<Vec<_>>().join(" ")
        ),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_format(value)))
                .collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

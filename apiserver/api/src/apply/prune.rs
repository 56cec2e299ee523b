//! Taking away what a manager applied before, applies no longer, and nobody else wants.

use serde_json::{Map, Value};

use super::element::Element;
use super::set::FieldSet;
use super::walk::{Shape, child, elem, field_set};
use crate::schema::SchemaRef;

/// `merged` without the fields of `last` that are not in `owned`, the union of what all managers own now.
pub(super) fn prune(
    merged: &Value,
    last: &FieldSet,
    owned: &FieldSet,
    schema: &SchemaRef,
) -> Result<Value, String> {
    if last.is_empty() {
        return Ok(merged.clone());
    }
    let named = |set: &FieldSet| set.with_named_fields(schema);
    let last = named(last);
    let all = named(&field_set(merged, schema)?);
    let pruned = remove(merged, &last, schema);
    // Back comes what is owned …
    let kept = named(&field_set(&pruned, schema)?).union(&named(owned));
    let pruned = remove(merged, &all.difference(&kept), schema);
    // … and what went only because something around it went.
    let left = named(&field_set(&pruned, schema)?);
    let gone = all.difference(&left).intersection(&last);
    Ok(remove(merged, &gone, schema))
}

/// `value` without the places that are in `set`; null when nothing is left.
fn remove(value: &Value, set: &FieldSet, schema: &SchemaRef) -> Value {
    if set.is_empty() {
        return value.clone();
    }
    match (Shape::of(schema, Some(value), None), value) {
        (Shape::List, Value::Array(items)) => {
            let elem = elem(schema);
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let node = Element::of_item(item, schema)
                    .ok()
                    .and_then(|step| set.get(&step));
                match node {
                    Some(node) if node.member => {}
                    Some(node) => kept.push(remove(item, &node.below, &elem)),
                    None => kept.push(item.clone()),
                }
            }
            if kept.is_empty() {
                Value::Null
            } else {
                kept.into()
            }
        }
        (Shape::Map, Value::Object(map)) => {
            let mut kept = Map::with_capacity(map.len());
            for (key, value) in map {
                let left = match set.get(&Element::field(key)) {
                    Some(node) if node.member => continue,
                    Some(node) => remove(value, &node.below, &child(schema, key)),
                    None => value.clone(),
                };
                kept.insert(key.clone(), left);
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        _ => value.clone(),
    }
}

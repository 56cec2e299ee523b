//! Merging an applied configuration into the live object.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::Element;
use super::walk::{Shape, child, elem, items, object};
use crate::schema::SchemaRef;

/// The live object with everything that the configuration states; what it doesn't state stays.
pub(super) fn merge(live: &Value, config: &Value, schema: &SchemaRef) -> Result<Value, String> {
    Ok(merge_values(Some(live), Some(config), schema)?.unwrap_or_default())
}

fn merge_values(
    live: Option<&Value>,
    config: Option<&Value>,
    schema: &SchemaRef,
) -> Result<Option<Value>, String> {
    let (Some(_), Some(_)) = (live, config) else {
        return Ok(config.or(live).cloned());
    };
    match Shape::of(schema, live, config) {
        Shape::List if !items(live).is_empty() || !items(config).is_empty() => {
            let list = merge_lists(items(live), items(config), schema)?;
            Ok((!list.is_empty()).then_some(Value::Array(list)))
        }
        Shape::Map if object(live).is_some() || object(config).is_some() => {
            let mut merged = Map::new();
            for (key, value) in object(live).into_iter().flatten() {
                let other = object(config).and_then(|config| config.get(key));
                if let Some(value) = merge_values(Some(value), other, &child(schema, key))? {
                    merged.insert(key.clone(), value);
                }
            }
            for (key, value) in object(config).into_iter().flatten() {
                if !object(live).is_some_and(|live| live.contains_key(key)) {
                    merged.insert(key.clone(), value.clone());
                }
            }
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
        _ => Ok(config.cloned()),
    }
}

/// The items of both lists: those of the configuration in its order, the others where they were.
fn merge_lists(live: &[Value], config: &[Value], schema: &SchemaRef) -> Result<Vec<Value>, String> {
    let steps = |list: &[Value]| -> Result<Vec<Element>, String> {
        list.iter()
            .map(|item| Element::of_item(item, schema))
            .collect()
    };
    let (left, right) = (steps(live)?, steps(config)?);
    // An item that the live list has twice is in neither case the one to merge with.
    let mut found: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (step, item) in left.iter().zip(live) {
        found
            .entry(step)
            .and_modify(|seen| *seen = None)
            .or_insert(Some(item));
    }
    let wanted: BTreeSet<&Element> = right.iter().collect();
    let mut shared = right
        .iter()
        .filter(|step| found.contains_key(step))
        .peekable();
    let mut merged_steps: BTreeSet<&Element> = BTreeSet::new();
    let elem = elem(schema);
    let mut merged = Vec::with_capacity(live.len() + config.len());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            let step = &left[l];
            if *step == right[r] {
                merged_steps.insert(step);
                let before = found.get(step).copied().flatten();
                merged.extend(merge_values(before, Some(&config[r]), &elem)?);
                (l, r) = (l + 1, r + 1);
                shared.next();
                continue;
            }
            if wanted.contains(step) && shared.peek().is_some_and(|next| *next != step) {
                // Its turn comes where the configuration has it.
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            let step = &left[l];
            if !wanted.contains(step) {
                merged.push(live[l].clone());
                l += 1;
                continue;
            }
            if merged_steps.contains(step) {
                l += 1;
            }
        }
        if r < right.len() {
            let step = &right[r];
            merged_steps.insert(step);
            let before = found.get(step).copied().flatten();
            merged.extend(merge_values(before, Some(&config[r]), &elem)?);
            r += 1;
            shared.next_if(|next| *next == step);
        }
    }
    Ok(merged)
}

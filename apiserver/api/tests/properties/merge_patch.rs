//! JSON merge patch against the procedure that RFC 7396 spells out.

use coracle_api::patch::{Patch, PatchType};
use coracle_api::schema::SchemaRef;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::objects::any_object;

fn apply(patch: &Value, object: &Value) -> Value {
    let (patch, _) = Patch::parse(PatchType::Merge, patch.to_string().as_bytes()).expect("a map");
    patch
        .apply(object.clone(), &SchemaRef::any())
        .expect("it applies")
}

/// `MergePatch(target, patch)` of the RFC, which upstream also does within new lists.
fn model(target: Value, patch: &Value) -> Value {
    let patch = match patch {
        Value::Object(patch) => patch,
        Value::Array(items) => return items.iter().map(|item| model(Value::Null, item)).collect(),
        other => return other.clone(),
    };
    let mut target = match target {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for (name, value) in patch {
        let before = target.shift_remove(name).unwrap_or_default();
        if !value.is_null() {
            target.insert(name.clone(), model(before, value));
        }
    }
    Value::Object(target)
}

/// The patch that makes `after` of `before`; there is one if `after` has no nulls.
fn diff(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return after.clone();
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut patch: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in new {
        match old.get(key) {
            Some(old) if old == value => {}
            old => {
                patch.insert(key.clone(), diff(old.unwrap_or(&Value::Null), value));
            }
        }
    }
    Value::Object(patch)
}

proptest! {
    #[test]
    fn merging_is_what_the_rfc_says(object in any_object(true), patch in any_object(true)) {
        let once = apply(&patch, &object);
        prop_assert_eq!(&once, &model(object, &patch));
        prop_assert_eq!(apply(&patch, &once), once);
    }

    #[test]
    fn a_difference_makes_one_of_the_other(before in any_object(false), after in any_object(false)) {
        prop_assert_eq!(apply(&diff(&before, &after), &before), after);
    }
}

//! The defaults that the schema table states, filled into a decoded object.

use coracle_api::Object;
use coracle_api::schema::{SchemaKind, SchemaRef};
use serde_json::Value;

/// Fills in what is absent and has a default; parents are made only where they have a default themselves.
pub(crate) fn apply(object: &mut Object, schema: &SchemaRef) {
    let mut root = Value::Object(std::mem::take(object.root_mut()));
    fill(&mut root, schema);
    if let Value::Object(map) = root {
        *object.root_mut() = map;
    }
}

fn fill(value: &mut Value, schema: &SchemaRef) {
    match (value, schema.kind()) {
        (Value::Object(map), SchemaKind::Struct) => {
            for field in schema.fields() {
                let schema = field.schema();
                let present = map.get(field.name()).is_some_and(|value| !value.is_null());
                if !present && let Some(default) = schema.default() {
                    map.insert(field.name().to_owned(), default.clone());
                }
                if let Some(value) = map.get_mut(field.name()) {
                    fill(value, &schema);
                }
            }
        }
        (Value::Object(map), SchemaKind::Map) => {
            if let Some(elem) = schema.elem() {
                map.values_mut().for_each(|value| fill(value, &elem));
            }
        }
        (Value::Array(items), SchemaKind::List) => {
            if let Some(elem) = schema.elem() {
                items.iter_mut().for_each(|item| fill(item, &elem));
            }
        }
        _ => {}
    }
}

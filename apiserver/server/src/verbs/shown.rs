//! A patched object as upstream's messages show it.
//!
//! Upstream patches bytes: what a patch reaches into is written anew with sorted keys, the rest stays as Go's structs
//! were written, in the order of their fields.

use coracle_api::schema::{MAX_NESTING, SchemaKind, SchemaRef, from_kept_json};
use serde_json::{Map, Value};

/// Writes `patched`, an object of that schema that the JSON or merge patch `body` made.
pub(super) fn patched(patched: &Value, schema: &SchemaRef, body: &[u8]) -> String {
    let reach = match from_kept_json(body) {
        Ok(Value::Array(operations)) => of_operations(&operations),
        Ok(patch) => patch,
        Err(_) => Value::Null,
    };
    ordered(patched, schema, Some(&reach)).to_string()
}

/// The places that operations reach into, in the form of a merge patch.
fn of_operations(operations: &[Value]) -> Value {
    let mut reach = Value::Object(Map::new());
    for operation in operations {
        for key in ["path", "from"] {
            let path = operation
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default();
            let mut at = &mut reach;
            // A `from` that its operation has no use for may be as long as the body.
            for part in path.split('/').skip(1).take(MAX_NESTING) {
                let part = part.replace("~1", "/").replace("~0", "~");
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                let Some(map) = at.as_object_mut() else { break };
                at = map.entry(part).or_insert(Value::Null);
            }
        }
    }
    reach
}

/// `reach` is what the patch has at this place, if it came so far.
fn ordered(value: &Value, schema: &SchemaRef, reach: Option<&Value>) -> Value {
    match value {
        Value::Object(map) => {
            let below = |key: &str| schema.child(key).unwrap_or_else(SchemaRef::any);
            let mut keys: Vec<&String> = map.keys().collect();
            let index = |key: &str| schema.field(key).map(|field| field.index());
            match (reach.and_then(Value::as_object), schema.kind()) {
                (None, SchemaKind::Struct) => {
                    keys.sort_by_key(|key| index(key).unwrap_or(usize::MAX))
                }
                _ => keys.sort(),
            }
            let entry = |key: &String| {
                let reach = reach.and_then(|reach| reach.get(key));
                (key.clone(), ordered(&map[key], &below(key), reach))
            };
            Value::Object(keys.into_iter().map(entry).collect())
        }
        Value::Array(items) => {
            let elem = schema.elem().unwrap_or_else(SchemaRef::any);
            let items = items.iter().enumerate().map(|(index, item)| {
                let reach = reach.and_then(|reach| reach.get(index.to_string()));
                ordered(item, &elem, reach)
            });
            items.collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_patch_reaches_into_is_sorted() {
        let schema = SchemaRef::for_kind("", "v1", "ConfigMap").expect("known");
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"resourceVersion": "1", "uid": "u", "namespace": "n", "name": "x"},
            "data": {"b": "1", "a": "2"},
        });
        let shown = |body: &str| patched(&object, &schema, body.as_bytes());
        assert_eq!(
            shown(r#"{"data":{"b":"1"}}"#),
            r#"{"apiVersion":"v1","data":{"a":"2","b":"1"},"kind":"ConfigMap","metadata":{"name":"x","namespace":"n","uid":"u","resourceVersion":"1"}}"#
        );
        let sorted = r#""metadata":{"name":"x","namespace":"n","resourceVersion":"1","uid":"u"}"#;
        assert!(shown(r#"{"metadata":{"labels":{"a":1}}}"#).contains(sorted));
        assert!(shown(r#"[{"op":"add","path":"/metadata/labels","value":1}]"#).contains(sorted));
    }
}

//! How upstream makes structs of values that a strategic merge patch has changed: not by JSON, hence by other rules and
//! in other words.

use super::decode::go_type;
use super::scan::Tree;
use super::table::{SchemaKind, SchemaRef};

/// `tree` as a value of that schema takes it: numbers fit themselves to their type, nothing else is converted.
///
/// The rules and texts follow `FromUnstructured` of `k8s.io/apimachinery/pkg/runtime`. Types that read JSON
/// themselves (times, quantities) are left to the decoder.
pub(super) fn convert(tree: Tree, schema: &SchemaRef) -> Result<Tree, String> {
    let unrecognized = |name: &str| Err(format!("unrecognized type: {name}"));
    match (schema.kind(), &tree) {
        (_, Tree::Null)
        | (SchemaKind::String, Tree::String(_))
        | (SchemaKind::Bool, Tree::Bool(_))
        | (SchemaKind::Double, Tree::Number(_))
        | (SchemaKind::Struct | SchemaKind::Map, Tree::Map(_))
        | (SchemaKind::List, Tree::List(_)) => Ok(tree),
        (SchemaKind::String, Tree::Number(text)) if text.parse::<i64>().is_ok() => {
            Err(format!("cannot convert int64 to {}", go_type(schema)))
        }
        (SchemaKind::String, _) => unrecognized("string"),
        (SchemaKind::Bool, _) => unrecognized("bool"),
        (SchemaKind::Int32, Tree::Number(text)) => {
            // Go's conversion keeps the lower half.
            integer(text, schema).map(|value| Tree::Number((value as i32).to_string()))
        }
        (SchemaKind::Int64, Tree::Number(text)) => {
            integer(text, schema).map(|value| Tree::Number(value.to_string()))
        }
        (SchemaKind::Int32, _) => unrecognized("int32"),
        (SchemaKind::Int64, _) => unrecognized("int64"),
        (SchemaKind::Double, _) => unrecognized("float64"),
        (SchemaKind::Struct, other) => Err(format!(
            "cannot restore struct from: {}",
            reflect_kind(other)
        )),
        (SchemaKind::Map, other) => Err(format!("cannot restore map from {}", reflect_kind(other))),
        (SchemaKind::List, other) => {
            Err(format!("cannot restore slice from {}", reflect_kind(other)))
        }
        _ => Ok(tree),
    }
}

fn integer(text: &str, schema: &SchemaRef) -> Result<i64, String> {
    if let Ok(value) = text.parse::<i64>() {
        return Ok(value);
    }
    match text.parse::<f64>() {
        Ok(value) if value.trunc() == value => Ok(value as i64),
        _ => Err(format!("cannot convert float64 to {}", go_type(schema))),
    }
}

/// The word that Go's reflection has for this kind of value.
fn reflect_kind(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "invalid",
        Tree::Bool(_) => "bool",
        Tree::Number(text) if text.parse::<i64>().is_ok() => "int64",
        Tree::Number(_) => "float64",
        Tree::String(_) => "string",
        Tree::List(_) => "slice",
        Tree::Map(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DecodeError, decode_unstructured};
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn types_are_refused_in_the_words_of_the_converter() {
        let schema = SchemaRef::for_kind("apps", "v1", "Deployment").expect("known");
        let spec = |spec: Value| decode_unstructured(json!({"spec": spec}), &schema);
        let cases = [
            (json!({"replicas": "3"}), "unrecognized type: int32"),
            (json!({"replicas": 1.5}), "cannot convert float64 to int32"),
            (json!({"paused": 1}), "unrecognized type: bool"),
            (json!([]), "cannot restore struct from: slice"),
            (
                json!({"selector": {"matchLabels": "a"}}),
                "cannot restore map from string",
            ),
            (
                json!({"selector": {"matchLabels": {"a": 1}}}),
                "cannot convert int64 to string",
            ),
            (
                json!({"selector": {"matchLabels": {"a": true}}}),
                "unrecognized type: string",
            ),
            (
                json!({"template": {"spec": {"containers": {}}}}),
                "cannot restore slice from map",
            ),
        ];
        for (given, why) in cases {
            let error = DecodeError::Type(why.to_owned());
            assert_eq!(spec(given.clone()), Err(error), "{given}");
        }
        let decoded = spec(json!({"replicas": 3.0})).expect("a whole number");
        assert_eq!(decoded.value["spec"]["replicas"], 3);
    }
}

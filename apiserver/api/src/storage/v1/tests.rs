//! What is accepted and refused, side by side.

use serde_json::{Value, json};

use super::storage_class::StorageClass;
use crate::{FieldErrors, Object, Strategy};

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn findings(kind: &dyn Strategy, value: Value) -> Vec<String> {
    let mut new = object(value);
    kind.default(&mut new);
    let mut errors = FieldErrors::default();
    kind.validate(&new, &mut errors);
    kind.validate_create(&new, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn changes(kind: &dyn Strategy, new: Value, old: Value) -> Vec<String> {
    let (mut new, mut old) = (object(new), object(old));
    kind.default(&mut new);
    kind.default(&mut old);
    let mut errors = FieldErrors::default();
    kind.validate_update(&new, &old, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn storage_classes() {
    let class = json!({"provisioner": "example.com/P", "parameters": {"a": "b"}});
    assert_eq!(findings(&StorageClass, class.clone()), Vec::<String>::new());
    let empty_term = json!({"provisioner": "p", "allowedTopologies": [{}]});
    let refused = [
        (json!({}), "provisioner: Required value"),
        (
            json!({"provisioner": "p", "parameters": {"": "x"}}),
            "parameters: Invalid value: \"\": field can not be empty.",
        ),
        (
            json!({"provisioner": "p", "reclaimPolicy": "Recycle"}),
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
        ),
        (
            empty_term,
            "allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\"",
        ),
    ];
    for (value, why) in refused {
        assert_eq!(findings(&StorageClass, value), [why]);
    }
    assert_eq!(
        changes(
            &StorageClass,
            json!({"provisioner": "q", "reclaimPolicy": "Retain"}),
            class
        ),
        [
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        ]
    );
}

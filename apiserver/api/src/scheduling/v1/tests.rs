//! What is accepted and refused, side by side.

use serde_json::{Value, json};

use super::priority_class::PriorityClass;
use crate::{FieldErrors, Object, Strategy};

fn findings(value: Value) -> Vec<String> {
    let new = Object::from_value(value).expect("an object");
    let mut errors = FieldErrors::default();
    PriorityClass.validate_create(&new, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn priority_classes() {
    for accepted in [
        json!({"metadata": {"name": "a"}, "value": 1_000_000_000}),
        json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}),
    ] {
        assert_eq!(findings(accepted), Vec::<String>::new());
    }
    for refused in [
        json!({"metadata": {"name": "a"}, "value": 1_000_000_001}),
        json!({"metadata": {"name": "a"}, "value": 1, "preemptionPolicy": "Sometimes"}),
        json!({"metadata": {"name": "a"}, "value": 1, "preemptionPolicy": ""}),
        json!({"metadata": {"name": "system-x"}, "value": 1}),
        json!({"metadata": {"name": "system-node-critical"}, "value": 1}),
    ] {
        assert_eq!(findings(refused.clone()).len(), 1, "{refused}");
    }
    assert!(
        PriorityClass
            .refuse_deletion("system-node-critical")
            .is_some()
    );
}

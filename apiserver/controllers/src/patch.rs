//! Merge patches that say only what differs.

use serde::Serialize;
use serde_json::{Map, Value};

/// The JSON merge patch that turns `old` into `new`; `None` if they are equal.
///
/// Fields that `new` leaves out become null, which a merge patch removes.
pub(crate) fn difference<T: Serialize>(old: &T, new: &T) -> Option<Value> {
    // Kubernetes' types are plain data: serialising them cannot fail.
    let old = serde_json::to_value(old).unwrap_or_default();
    let new = serde_json::to_value(new).unwrap_or_default();
    between(&old, &new)
}

fn between(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        let change = match old.get(key) {
            Some(before) => between(before, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_differs_is_said() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]});
        let new = json!({"a": 1, "b": {"c": 3}, "e": [1, 2]});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"b": {"c": 3, "d": null}, "e": [1, 2]}))
        );
        assert_eq!(difference(&old, &old), None);
    }
}

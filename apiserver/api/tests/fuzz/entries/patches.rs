use coracle_api::patch::{MAX_COPIED, Patch, PatchType};
use coracle_api::schema::parse_json;
use serde_json::Value;

use super::{nodes, object, two_lines};

/// A JSON patch applies or not, grows the object no further than it may, and does the same each time.
pub(crate) fn json_patch(input: &[u8]) {
    let (patch, target) = two_lines(input);
    let (object, schema) = object(target);
    let Ok((parsed, _)) = Patch::parse(PatchType::Json, patch) else {
        return;
    };
    let result = parsed.apply(object.clone(), &schema);
    assert_eq!(parsed.apply(object.clone(), &schema), result);
    if let Ok(result) = result {
        let given = nodes(&parse_json(patch).expect("it parsed before"));
        assert!(nodes(&result) <= nodes(&object) + given + MAX_COPIED);
    }
}

/// A merge patch always applies, a second time without effect, and leaves what it says where it says it.
pub(crate) fn merge_patch(input: &[u8]) {
    let (patch, target) = two_lines(input);
    let (object, schema) = object(target);
    let Ok((parsed, _)) = Patch::parse(PatchType::Merge, patch) else {
        return;
    };
    let result = parsed
        .apply(object.clone(), &schema)
        .expect("a merge patch applies");
    assert_eq!(parsed.apply(result.clone(), &schema).as_ref(), Ok(&result));
    let patch = parse_json(patch).expect("it parsed before");
    assert!(nodes(&result) <= nodes(&object) + nodes(&patch));
    assert_says(&result, &patch);
}

/// The object has every value of the merge patch, and nothing where the patch has null.
fn assert_says(object: &Value, patch: &Value) {
    for (key, value) in patch.as_object().into_iter().flatten() {
        let found = object.get(key);
        match value {
            Value::Null => assert_eq!(found, None, "{key}"),
            Value::Object(_) => assert_says(found.expect("an object"), value),
            // Without the nulls in its maps.
            Value::Array(_) => assert!(found.is_some_and(Value::is_array), "{key}"),
            other => assert_eq!(found, Some(other), "{key}"),
        }
    }
}

/// A strategic merge patch applies or not, and adds no more than it has.
pub(crate) fn strategic_patch(input: &[u8]) {
    let (patch, target) = two_lines(input);
    let (object, schema) = object(target);
    let Ok((parsed, _)) = Patch::parse(PatchType::Strategic, patch) else {
        return;
    };
    let result = parsed.apply(object.clone(), &schema);
    assert_eq!(parsed.apply(object.clone(), &schema), result);
    if let Ok(result) = result {
        let given = nodes(&parse_json(patch).expect("it parsed before"));
        assert!(nodes(&result) <= nodes(&object) + given);
    }
}

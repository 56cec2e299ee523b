//! The patch that `kubectl apply` would send: what the manifest says now, and without what an
//! earlier manifest said and this one no longer does.

use coracle_api::schema::{SchemaKind, SchemaRef, parse_json};
use serde_json::{Map, Value, json};

/// The annotation that keeps the manifest of the last apply.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manifest with its own text in the annotation, as it is created when nothing is there.
///
/// The text is kubectl's to the byte, so that a `kubectl apply` of the same manifest changes nothing.
pub(super) fn annotated(manifest: &Value) -> Value {
    let mut plain = manifest.clone();
    let annotations = plain
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.shift_remove(LAST_APPLIED);
    }
    // kubectl writes an empty map where the manifest has none, and ends the text with a newline.
    if plain["metadata"]["annotations"].is_null() {
        plain["metadata"]["annotations"] = json!({});
    }
    plain.sort_all_objects();
    let text = format!("{}\n", escape_html(&plain.to_string()));
    let mut object = manifest.clone();
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
    object["metadata"]["annotations"][LAST_APPLIED] = Value::from(text);
    object
}

/// Escapes in JSON text what Go's encoder escapes; these characters stand in strings only.
fn escape_html(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// A strategic merge patch for `live`. `schema` is the kind's.
pub(super) fn patch(manifest: &Value, live: &Value, schema: &SchemaRef) -> Value {
    let last_applied = live["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|text| parse_json(text.as_bytes()).ok())
        .unwrap_or(Value::Null);
    let mut patch = annotated(manifest);
    delete_removed(&last_applied, &mut patch, schema);
    patch
}

/// Adds to `patch` the removal of what `last` has and the patch has not. Both are the same place.
fn delete_removed(last: &Value, patch: &mut Value, schema: &SchemaRef) {
    let (Value::Object(last), Value::Object(patch)) = (last, patch) else {
        return;
    };
    for (key, last_value) in last {
        let field = schema.child(key);
        match patch.get_mut(key) {
            None => {
                if !last_value.is_null() {
                    patch.insert(key.clone(), Value::Null);
                }
            }
            Some(value) => match field {
                Some(field) if field.kind() == SchemaKind::List => {
                    delete_removed_items(key, last_value, patch, &field);
                }
                Some(field) => delete_removed(last_value, value, &field),
                None => delete_removed(last_value, value, &SchemaRef::any()),
            },
        }
    }
}

/// Lists that merge by a key lose the items that are gone; lists that are replaced need nothing.
fn delete_removed_items(
    key: &str,
    last: &Value,
    patch: &mut Map<String, Value>,
    schema: &SchemaRef,
) {
    let strategy = schema.patch_strategy();
    let Some(last_items) = last.as_array().filter(|_| strategy.merge) else {
        return;
    };
    let Some(merge_key) = schema.merge_key() else {
        let kept = patch[key].as_array().cloned().unwrap_or_default();
        let gone: Vec<Value> = last_items
            .iter()
            .filter(|item| !kept.contains(item))
            .cloned()
            .collect();
        if !gone.is_empty() {
            patch.insert(
                format!("$deleteFromPrimitiveList/{key}"),
                Value::Array(gone),
            );
        }
        return;
    };
    let elem = schema.elem().unwrap_or_else(SchemaRef::any);
    let Some(items) = patch.get_mut(key).and_then(Value::as_array_mut) else {
        return;
    };
    for last_item in last_items {
        let same = items
            .iter_mut()
            .find(|item| item[merge_key] == last_item[merge_key]);
        match same {
            Some(item) => delete_removed(last_item, item, &elem),
            None => items.push(json!({merge_key: last_item[merge_key], "$patch": "delete"})),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(containers: Value, more: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": more},
               "spec": {"template": {"spec": {"containers": containers}}}})
    }

    fn patch_of(before: &Value, after: &Value) -> Value {
        let schema = SchemaRef::for_kind("apps", "v1", "Deployment").expect("in the table");
        patch(after, &annotated(before), &schema)
    }

    #[test]
    fn the_annotation_is_the_text_that_kubectl_writes() {
        let manifest = json!({"kind": "ConfigMap", "apiVersion": "v1",
                              "metadata": {"namespace": "default", "name": "a"}, "data": {"a": "<b>"}});
        assert_eq!(
            annotated(&manifest)["metadata"]["annotations"][LAST_APPLIED],
            "{\"apiVersion\":\"v1\",\"data\":{\"a\":\"\\u003cb\\u003e\"},\"kind\":\"ConfigMap\",\
             \"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n"
        );
    }

    #[test]
    fn what_the_manifest_no_longer_says_is_removed() {
        let before = deployment(json!([{"name": "a"}]), json!({"x": "1", "y": "2"}));
        let after = deployment(json!([{"name": "a"}]), json!({"x": "1"}));
        let patch = patch_of(&before, &after);
        assert_eq!(patch["metadata"]["labels"], json!({"x": "1", "y": null}));
    }

    #[test]
    fn an_item_that_is_gone_is_deleted_by_its_key() {
        let before = deployment(
            json!([{"name": "a", "image": "i"}, {"name": "b"}]),
            json!({}),
        );
        let after = deployment(json!([{"name": "a"}]), json!({}));
        let containers = &patch_of(&before, &after)["spec"]["template"]["spec"]["containers"];
        assert_eq!(
            *containers,
            json!([{"name": "a", "image": null}, {"name": "b", "$patch": "delete"}])
        );
    }

    #[test]
    fn what_others_wrote_is_not_touched() {
        let manifest = deployment(json!([{"name": "a"}]), json!({}));
        let schema = SchemaRef::for_kind("apps", "v1", "Deployment").expect("in the table");
        let mut live = annotated(&manifest);
        live["spec"]["replicas"] = json!(5);
        assert!(
            patch(&manifest, &live, &schema)["spec"]
                .get("replicas")
                .is_none()
        );
    }
}

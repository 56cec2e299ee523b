//! What an update of a Pod's spec may change: `ValidatePodUpdate`.

use serde_json::{Map, Value};

use crate::field_errors::ErrorType;
use crate::schema::{internal_form, show_empties};
use crate::validation::diff;
use crate::{At, FieldErrors, Object};

const MAY_CHANGE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                          `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                          additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set \
                          to 1 if it was previously negative)";

/// Reports each change of a Pod's spec that is not allowed.
pub fn pod(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (new_spec, old_spec) = (new.at("spec"), old.at("spec"));
    let before = errors.len();
    for list in ["containers", "initContainers"] {
        let (now, was) = (new_spec.key(list), old_spec.key(list));
        if now.len() != was.len() {
            let detail = "pod updates may not add or remove containers";
            errors.forbidden(&now, detail);
        }
    }
    if errors.len() > before {
        return;
    }
    let (now, was) = (
        new_spec.key("activeDeadlineSeconds"),
        old_spec.key("activeDeadlineSeconds"),
    );
    match (now.as_i64(), was.as_i64()) {
        (None, Some(_)) => {
            errors.push(
                ErrorType::Invalid,
                now.path(),
                Some(Value::Null),
                "must not update from a positive integer to nil value",
            );
        }
        (Some(now_seconds), Some(was_seconds)) if now_seconds > was_seconds => {
            errors.invalid(
                &now,
                format!("must be less than or equal to previous value {was_seconds}"),
            );
        }
        _ => {}
    }
    tolerations(
        &new_spec.key("tolerations"),
        &old_spec.key("tolerations"),
        errors,
    );
    let gated = !old_spec.key("schedulingGates").is_empty();
    gates(
        &new_spec.key("schedulingGates"),
        &old_spec.key("schedulingGates"),
        errors,
    );
    if gated {
        node_selector(
            &new_spec.key("nodeSelector"),
            &old_spec.key("nodeSelector"),
            errors,
        );
        node_affinity(&new_spec, &old_spec, errors);
    }
    let (Some(now), Some(was)) = (new_spec.value(), old_spec.value()) else {
        return;
    };
    let definition = "io.k8s.api.core.v1.PodSpec";
    let mut settled = internal_form(definition, Some(&settled(now, was, gated)));
    let was = internal_form(definition, Some(was));
    if settled != was {
        show_empties(&mut settled, "spec", new.empties());
        let difference = diff::values(&was, &settled);
        errors.forbidden(&new_spec, format!("{MAY_CHANGE}\n{difference}"));
    }
}

/// The new spec with the old values of what may change.
fn settled(now: &Value, was: &Value, gated: bool) -> Value {
    let mut spec = now.as_object().cloned().unwrap_or_default();
    let put_back = |spec: &mut Map<String, Value>, field: &str| match was.get(field) {
        Some(value) => {
            spec.insert(field.to_owned(), value.clone());
        }
        None => {
            spec.shift_remove(field);
        }
    };
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put_back(&mut spec, field);
    }
    if gated {
        put_back(&mut spec, "nodeSelector");
        required_node_affinity(&mut spec, was);
    }
    let grace = |spec: &Value| spec["terminationGracePeriodSeconds"].as_i64();
    if grace(now) == Some(1) && grace(was).is_some_and(|seconds| seconds < 0) {
        put_back(&mut spec, "terminationGracePeriodSeconds");
    }
    for list in ["containers", "initContainers"] {
        let mut index = 0;
        crate::object::each_object(&mut spec, list, |container| {
            if let Some(image) = was[list][index].get("image") {
                container.insert("image".to_owned(), image.clone());
            }
            index += 1;
        });
    }
    Value::Object(spec)
}

/// Puts back which nodes a gated Pod needs; nothing else of its affinity.
fn required_node_affinity(spec: &mut Map<String, Value>, was: &Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let before = was["affinity"]["nodeAffinity"].get(REQUIRED);
    let had = |field: &str| was.pointer(field).is_some_and(Value::is_object);
    if before.is_none() && !spec.contains_key("affinity") {
        return;
    }
    let affinity = spec
        .entry("affinity")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(affinity) = affinity.as_object_mut() else {
        return;
    };
    let node = affinity
        .entry("nodeAffinity")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Some(node) = node.as_object_mut() {
        match before {
            Some(before) => node.insert(REQUIRED.to_owned(), before.clone()),
            None => node.shift_remove(REQUIRED),
        };
        if node.is_empty() && !had("/affinity/nodeAffinity") {
            affinity.shift_remove("nodeAffinity");
        }
    }
    if affinity.is_empty() && !had("/affinity") {
        spec.shift_remove("affinity");
    }
}

/// Tolerations may be added; of those that are there only the seconds may change.
fn tolerations(new: &At<'_>, old: &At<'_>, errors: &mut FieldErrors) {
    let without_seconds = |toleration: &At<'_>| {
        let mut map = toleration
            .value()
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        map.shift_remove("tolerationSeconds");
        map
    };
    let kept = old.items().all(|was| {
        new.items()
            .any(|now| without_seconds(&now) == without_seconds(&was))
    });
    if !kept {
        errors.forbidden(
            new,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn gates(new: &At<'_>, old: &At<'_>, errors: &mut FieldErrors) {
    for gate in new.items() {
        let name = gate.key("name");
        if !old.items().any(|was| was.key("name").str() == name.str()) {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.str()
            );
            errors.forbidden(&name, detail);
        }
    }
}

fn node_selector(new: &At<'_>, old: &At<'_>, errors: &mut FieldErrors) {
    for (key, was) in old.entries() {
        let now = new.entry(key);
        if now.as_str() != was.as_str() {
            errors.invalid(new, format!("only additions are allowed to spec.nodeSelector (key {key} was changed or removed)"));
        }
    }
}

/// While a pod is gated its node affinity may only become narrower.
fn node_affinity(new: &At<'_>, old: &At<'_>, errors: &mut FieldErrors) {
    let path =
        "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (now, was) = (new.at(path), old.at(path));
    if was.is_empty() {
        return;
    }
    if now.len() != was.len() {
        let definition = "io.k8s.api.core.v1.NodeSelectorTerm";
        let shown = now
            .items()
            .map(|term| internal_form(definition, term.value()));
        let shown = match now.exists() {
            true => shown.collect(),
            false => Value::Null,
        };
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid_as(&now, shown, detail);
    }
    for (now, was) in now.items().zip(was.items()) {
        let contains = |list: &str| {
            was.key(list)
                .items()
                .all(|was| now.key(list).items().any(|now| now.value() == was.value()))
        };
        if !contains("matchExpressions") || !contains("matchFields") {
            let shown = internal_form("io.k8s.api.core.v1.NodeSelectorTerm", now.value());
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid_as(&now, shown, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({"spec": {
            "restartPolicy": "Always", "containers": [{"name": "a", "image": "i:1"}], "tolerations": [{"key": "k"}],
        }});
        change(&mut value["spec"]);
        Object::from_value(value).expect("an object")
    }

    fn findings(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut errors = FieldErrors::default();
        pod(&object(change), &object(|_| {}), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn images_deadlines_and_more_tolerations_may_change() {
        assert_eq!(
            findings(|spec| spec["containers"][0]["image"] = json!("i:2")),
            Vec::<String>::new()
        );
        assert_eq!(
            findings(|spec| spec["activeDeadlineSeconds"] = json!(5)),
            Vec::<String>::new()
        );
        assert_eq!(
            findings(|spec| spec["tolerations"] = json!([{"key": "k"}, {"key": "l"}])),
            Vec::<String>::new()
        );
    }

    #[test]
    fn other_changes_are_refused_and_shown() {
        let found = findings(|spec| spec["restartPolicy"] = json!("Never"));
        let changed = "- \"RestartPolicy\": \"Always\",\n+ \"RestartPolicy\": \"Never\",\n";
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(&format!("spec: Forbidden: {MAY_CHANGE}\n@@ ")));
        assert!(found[0].contains(changed), "{}", found[0]);
        assert_eq!(
            findings(|spec| spec["tolerations"] = json!([])),
            [
                "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
            ]
        );
        assert_eq!(
            findings(|spec| spec["containers"] = json!([])),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
    }
}

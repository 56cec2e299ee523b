//! How a role or binding becomes what the default policy says, without taking away what somebody added.
//!
//! Rules: `k8s.io/component-helpers/auth/rbac/reconciliation`, as the API server's start uses it: rules and subjects are
//! added and never removed.

use coracle_api::{At, Object};
use serde_json::Value;

use super::Rule;
use super::covers::uncovered;
use super::defaults::AUTO_UPDATE;

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// Make it.
    Create,
    /// Put this in its place.
    Update(Object),
    /// A binding cannot change its role: delete it and make it again.
    Recreate,
}

/// Compares what is there with what should be.
pub fn reconcile(expected: &Object, existing: Option<&Object>) -> Step {
    let Some(existing) = existing else {
        return Step::Create;
    };
    let annotations = existing.at("metadata.annotations");
    if annotations.entry(AUTO_UPDATE).str() == "false" {
        return Step::Keep;
    }
    let role = expected.at("roleRef");
    if role.exists() && RoleName::of(&role) != RoleName::of(&existing.at("roleRef")) {
        return Step::Recreate;
    }
    let mut new = existing.clone();
    for field in ["metadata.labels", "metadata.annotations"] {
        // What somebody set stays; what is missing is put back.
        for (key, value) in expected.at(field).entries() {
            if !existing.at(field).entry(key).exists() {
                let value = value.value().cloned().unwrap_or_default();
                new.map_mut(field).insert(key.to_owned(), value);
            }
        }
    }
    if role.exists() {
        let missing = missing(
            &expected.at("subjects"),
            &existing.at("subjects"),
            same_subject,
        );
        extend(&mut new, "subjects", missing);
    } else {
        if !existing.at("aggregationRule").exists() {
            let read = |object: &Object| -> Vec<Rule> {
                let rules = object.at("rules");
                rules.items().map(|rule| Rule::read(&rule)).collect()
            };
            let rules = uncovered(&read(existing), &read(expected));
            let rules = rules.iter().map(Rule::to_value).collect();
            extend(&mut new, "rules", rules);
        }
        let selectors = "aggregationRule.clusterRoleSelectors";
        let same = |a: &At<'_>, b: &At<'_>| a.value() == b.value();
        let missing = missing(&expected.at(selectors), &existing.at(selectors), same);
        if !missing.is_empty() {
            new.map_mut("aggregationRule");
            extend(&mut new, selectors, missing);
        }
    }
    match new == *existing {
        true => Step::Keep,
        false => Step::Update(new),
    }
}

#[derive(PartialEq)]
struct RoleName<'a>(&'a str, &'a str);

impl<'a> RoleName<'a> {
    fn of(role: &At<'a>) -> Self {
        Self(role.key("kind").str(), role.key("name").str())
    }
}

fn missing(
    expected: &At<'_>,
    existing: &At<'_>,
    same: impl Fn(&At<'_>, &At<'_>) -> bool,
) -> Vec<Value> {
    let missing = expected
        .items()
        .filter(|item| !existing.items().any(|other| same(item, &other)));
    missing.filter_map(|item| item.value().cloned()).collect()
}

fn same_subject(a: &At<'_>, b: &At<'_>) -> bool {
    let fields = ["kind", "apiGroup", "namespace", "name"];
    fields
        .iter()
        .all(|field| a.key(field).str() == b.key(field).str())
}

fn extend(object: &mut Object, list: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    match object.get_mut(list) {
        Some(Value::Array(items)) => items.extend(more),
        _ => object.set(list, more),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn role(annotations: Value, rules: Value) -> Object {
        object(json!({"metadata": {"name": "r", "annotations": annotations}, "rules": rules}))
    }

    fn reads(verbs: &[&str]) -> Value {
        json!([{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}])
    }

    #[test]
    fn rules_are_added_and_never_taken_away() {
        let auto = json!({AUTO_UPDATE: "true"});
        let expected = role(auto.clone(), reads(&["get", "list"]));
        let more = role(auto.clone(), reads(&["get", "list", "delete"]));
        assert_eq!(reconcile(&expected, None), Step::Create);
        assert_eq!(reconcile(&expected, Some(&expected)), Step::Keep);
        assert_eq!(reconcile(&expected, Some(&more)), Step::Keep);
        let less = role(auto, reads(&["get", "delete"]));
        let Step::Update(updated) = reconcile(&expected, Some(&less)) else {
            panic!("a rule is missing");
        };
        let rules = updated.at("rules");
        assert_eq!(rules.len(), 2);
        assert_eq!(rules.index(1).value(), reads(&["list"]).get(0));
        assert_eq!(reconcile(&expected, Some(&updated)), Step::Keep);
    }

    #[test]
    fn what_somebody_protects_stays() {
        let expected = role(json!({AUTO_UPDATE: "true"}), reads(&["get"]));
        let mine = role(json!({AUTO_UPDATE: "false"}), json!([]));
        assert_eq!(reconcile(&expected, Some(&mine)), Step::Keep);
        let bare = role(json!({}), reads(&["get"]));
        assert_eq!(
            reconcile(&expected, Some(&bare)),
            Step::Update(expected.clone())
        );
    }

    #[test]
    fn aggregated_rules_are_not_ours_to_add() {
        let selectors = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "true"}}]});
        let aggregated = |rules: Value| {
            object(json!({"metadata": {"name": "r"}, "rules": rules, "aggregationRule": selectors}))
        };
        let (expected, filled) = (aggregated(Value::Null), aggregated(reads(&["get"])));
        assert_eq!(reconcile(&expected, Some(&filled)), Step::Keep);
        let plain = object(json!({"metadata": {"name": "r"}, "rules": reads(&["get"])}));
        assert_eq!(reconcile(&expected, Some(&plain)), Step::Update(filled));
    }

    #[test]
    fn bindings_get_their_subjects_and_their_role() {
        let binding = |role: &str, users: &[&str]| {
            let subjects: Vec<_> = users
                .iter()
                .map(|u| json!({"kind": "User", "name": u}))
                .collect();
            object(json!({
                "metadata": {"name": "b"}, "subjects": subjects, "roleRef": {"kind": "ClusterRole", "name": role},
            }))
        };
        let expected = binding("r", &["a", "b"]);
        assert_eq!(
            reconcile(&expected, Some(&binding("r", &["c", "a"]))),
            Step::Update(binding("r", &["c", "a", "b"]))
        );
        assert_eq!(
            reconcile(&expected, Some(&binding("r", &["b", "a"]))),
            Step::Keep
        );
        assert_eq!(
            reconcile(&expected, Some(&binding("x", &["a", "b"]))),
            Step::Recreate
        );
    }
}

//! The kinds of `rbac.authorization.k8s.io/v1`, and the rules that two or more of them share.

pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;

#[cfg(test)]
mod tests;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::field_errors::ErrorType;
use crate::kinds::age;
use crate::object::{default_text, each_object};
use crate::validation::names;
use crate::{At, FieldErrors, Object};

/// The group itself, which references to roles, users and groups name.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Reports what is wrong with the `rules` of a role.
fn rules(rules: &At<'_>, namespaced: bool, errors: &mut FieldErrors) {
    for rule in rules.items() {
        if rule.key("verbs").is_empty() {
            errors.required(&rule.key("verbs"), "verbs must contain at least one value");
        }
        let urls = rule.key("nonResourceURLs");
        let given = |field: &str| !rule.key(field).is_empty();
        if !urls.is_empty() {
            if namespaced {
                errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            if given("apiGroups") || given("resources") || given("resourceNames") {
                errors.invalid(
                    &urls,
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if !given("apiGroups") {
            errors.required(
                &rule.key("apiGroups"),
                "resource rules must supply at least one api group",
            );
        }
        if !given("resources") {
            errors.required(
                &rule.key("resources"),
                "resource rules must supply at least one resource",
            );
        }
    }
}

/// Fills in the groups that references leave out.
fn default_binding(object: &mut Object) {
    default_text(object.map_mut("roleRef"), "apiGroup", GROUP);
    each_object(object.root_mut(), "subjects", |subject| {
        if matches!(
            subject.get("kind").and_then(Value::as_str),
            Some("User" | "Group")
        ) {
            default_text(subject, "apiGroup", GROUP);
        }
    });
}

/// Reports what is wrong with a binding to a role of one of `kinds`.
fn binding(new: &Object, kinds: &[&str], namespaced: bool, errors: &mut FieldErrors) {
    let role = new.at("roleRef");
    errors.one_of(&role.key("apiGroup"), &[GROUP]);
    errors.one_of(&role.key("kind"), kinds);
    if role.key("name").is_empty() {
        errors.required(&role.key("name"), "");
    } else {
        errors.text(&role.key("name"), |name| names::path_segment(name, false));
    }
    for subject in new.at("subjects").items() {
        self::subject(&subject, namespaced, errors);
    }
}

fn subject(subject: &At<'_>, namespaced: bool, errors: &mut FieldErrors) {
    let (name, group) = (subject.key("name"), subject.key("apiGroup"));
    if name.is_empty() {
        errors.required(&name, "");
    }
    match subject.key("kind").str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.text(&name, names::dns1123_subdomain);
            }
            errors.one_of(&group, &[""]);
            if !namespaced && subject.key("namespace").is_empty() {
                errors.required(&subject.key("namespace"), "");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                let detail = format!("{} name cannot be empty", kind.to_lowercase());
                errors.push(ErrorType::Invalid, name.path(), Some("".into()), detail);
            }
            errors.one_of(&group, &[GROUP]);
        }
        _ => errors.not_supported(&subject.key("kind"), &["ServiceAccount", "User", "Group"]),
    }
}

/// A binding stays with its role; the finding shows the fields of Go's struct.
fn same_role(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let fields = |object: &Object| {
        ["apiGroup", "kind", "name"].map(|field| object.at("roleRef").key(field).str().to_owned())
    };
    let role = fields(new);
    if role != fields(old) {
        let [group, kind, name] = role;
        let shown = json!({"APIGroup": group, "Kind": kind, "Name": name});
        errors.push(
            ErrorType::Invalid,
            "roleRef",
            Some(shown),
            "cannot change roleRef",
        );
    }
}

/// The cells of a binding: its role, and with `-o wide` its subjects by kind.
fn binding_cells(object: &Object, now: Timestamp) -> Vec<Value> {
    let role = object.at("roleRef");
    let subjects = |kind: &str| {
        let subjects = object.at("subjects");
        let named = subjects.items().filter(|s| s.key("kind").str() == kind);
        let names: Vec<String> = named
            .map(|subject| match kind {
                "ServiceAccount" => format!(
                    "{}/{}",
                    subject.key("namespace").str(),
                    subject.key("name").str()
                ),
                _ => subject.key("name").str().to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        object.name().into(),
        format!("{}/{}", role.key("kind").str(), role.key("name").str()).into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

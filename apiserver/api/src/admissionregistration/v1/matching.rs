//! Which requests a webhook or a policy is about.

use serde_json::{Map, Value, json};

use crate::cel::{self, Environment, Type};
use crate::object::{default_text, default_value, each_object};
use crate::validation::names;
use crate::validation::selectors::label_selector;
use crate::{At, FieldErrors};

/// Ways of matching requests made through another version of the same resource.
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MOST_CONDITIONS: usize = 64;

/// Fills in the policy, the selectors and the rules' scopes of `matchConstraints` or `matchResources`.
pub(super) fn default_resources(resources: &mut Map<String, Value>) {
    default_value(resources, "matchPolicy", || json!("Equivalent"));
    default_selectors(resources);
    default_scopes(resources, "resourceRules");
    default_scopes(resources, "excludeResourceRules");
}

/// A selector that is absent selects everything.
pub(super) fn default_selectors(map: &mut Map<String, Value>) {
    default_value(map, "namespaceSelector", || json!({}));
    default_value(map, "objectSelector", || json!({}));
}

/// Rules are about every scope unless they say otherwise.
pub(super) fn default_scopes(map: &mut Map<String, Value>, field: &str) {
    each_object(map, field, |rule| {
        if rule.get("scope").is_none_or(Value::is_null) {
            default_text(rule, "scope", "*");
        }
    });
}

/// Reports what is wrong with `matchConstraints` or `matchResources`, if there are any.
pub(super) fn resources(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.exists() {
        return;
    }
    errors.one_of(&at.key("matchPolicy"), MATCH_POLICIES);
    label_selector(&at.key("namespaceSelector"), errors);
    label_selector(&at.key("objectSelector"), errors);
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in at.key(field).items() {
            let mut seen: Vec<&str> = Vec::new();
            for name in rule.key("resourceNames").items() {
                errors.text(&name, |name| names::path_segment(name, false));
                if seen.contains(&name.str()) {
                    errors.duplicate(&name);
                }
                seen.push(name.str());
            }
            self::rule(&rule, errors);
        }
    }
}

/// Reports what is wrong with a rule: operations on resources of groups and versions.
pub(super) fn rule(rule: &At<'_>, errors: &mut FieldErrors) {
    let operations = rule.key("operations");
    list(&operations, "operations", errors);
    for operation in operations.items() {
        errors.one_of(&operation, OPERATIONS);
    }
    list(&rule.key("apiGroups"), "API groups", errors);
    let versions = rule.key("apiVersions");
    list(&versions, "API versions", errors);
    for version in versions.items() {
        if version.is_empty() {
            errors.required(&version, "");
        }
    }
    resources_of_rule(&rule.key("resources"), errors);
    let scope = rule.key("scope");
    if scope.exists() {
        errors.one_of(&scope, SCOPES);
    }
}

/// A list has an item, and `*` stands alone in it.
fn list(at: &At<'_>, what: &str, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
    }
    if at.len() > 1 && at.items().any(|item| item.str() == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.invalid(at, detail);
    }
}

/// Resources are `pods`, `pods/status`, `pods/*`, `*/scale`, `*` or `*/*`; no item may be part of an earlier one.
fn resources_of_rule(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
    }
    let (mut all_below, mut all_with): (Vec<&str>, Vec<&str>) = Default::default();
    let (mut everything, mut all_plain, mut plain) = (false, false, false);
    for item in at.items() {
        let text = item.str();
        match text {
            "" => {
                errors.required(&item, "");
                continue;
            }
            "*/*" => everything = true,
            "*" => all_plain = true,
            _ => {}
        }
        let Some((resource, below)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if all_below.contains(&resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {text}");
            errors.invalid(&item, detail);
        }
        if all_with.contains(&below) {
            let detail = format!("if '*/{below}' is present, must not specify {text}");
            errors.invalid(&item, detail);
        }
        if below == "*" {
            all_below.push(resource);
        }
        if resource == "*" {
            all_with.push(below);
        }
    }
    if at.len() > 1 && everything {
        errors.invalid(at, "if '*/*' is present, must not specify other resources");
    }
    if all_plain && plain {
        errors.invalid(
            at,
            "if '*' is present, must not specify other resources without subresources",
        );
    }
}

/// Reports what is wrong with `matchConditions`; the expressions are only asked to be there.
pub(super) fn conditions(at: &At<'_>, environment: &Environment, errors: &mut FieldErrors) {
    if at.len() > MOST_CONDITIONS {
        errors.too_many(at, MOST_CONDITIONS);
    }
    let mut seen: Vec<&str> = Vec::new();
    for condition in at.items() {
        let (name, expression) = (condition.key("name"), condition.key("expression"));
        if expression.str().trim().is_empty() {
            errors.required(&expression, "");
        } else {
            result(&expression, environment, (&[Type::Bool], "bool"), errors);
        }
        if name.is_empty() {
            errors.required(&name, "");
            continue;
        }
        errors.text(&name, names::qualified_name);
        if seen.contains(&name.str()) {
            errors.duplicate(&name);
        }
        seen.push(name.str());
    }
}

/// Checks an expression that has to result in one of some types, which messages call by that name.
pub(super) fn result(
    at: &At<'_>,
    environment: &Environment,
    (accepted, name): (&[Type], &'static str),
    errors: &mut FieldErrors,
) {
    if let Err(error) = cel::check_result(at.str(), environment, accepted, name) {
        errors.invalid(at, error.to_string());
    }
}

//! What validating and mutating admission policies have in common.

use serde_json::{Value, json};

use super::matching;
use super::webhook::FAILURE_POLICIES;
use crate::cel::{self, Environment, ObjectType, Type};
use crate::field_errors::ErrorType;
use crate::object::default_value;
use crate::validation::names;
use crate::{At, FieldErrors, Object};

/// Fills in what a policy leaves out.
pub(super) fn default_policy(object: &mut Object) {
    let spec = object.map_mut("spec");
    default_value(spec, "failurePolicy", || json!("Fail"));
    if let Some(constraints) = spec
        .get_mut("matchConstraints")
        .and_then(Value::as_object_mut)
    {
        matching::default_resources(constraints);
    }
}

/// Reports what is wrong with the beginning of a policy's spec: failures, parameters, and what it is about.
pub(super) fn subject(spec: &At<'_>, errors: &mut FieldErrors) {
    errors.one_of(&spec.key("failurePolicy"), FAILURE_POLICIES);
    let param = spec.key("paramKind");
    if param.exists() {
        param_kind(&param, errors);
    }
    let constraints = spec.key("matchConstraints");
    if !constraints.exists() {
        errors.required(&constraints, "");
        return;
    }
    matching::resources(&constraints, errors);
    if constraints.key("resourceRules").is_empty() {
        errors.required(&constraints.key("resourceRules"), "");
    }
}

fn param_kind(at: &At<'_>, errors: &mut FieldErrors) {
    let (version, kind) = (at.key("apiVersion"), at.key("kind"));
    let parts: Vec<&str> = match version.str() {
        "/" => vec!["", ""],
        text => text.split('/').collect(),
    };
    let (group, name) = match parts[..] {
        [name] => ("", name),
        [group, name] => (group, name),
        _ => ("", "v0"),
    };
    let mut bad = |at: &At<'_>, value: &str, detail: String| {
        errors.push(ErrorType::Invalid, at.path(), Some(value.into()), detail);
    };
    if !version.is_empty() && parts.len() > 2 {
        let detail = format!("unexpected GroupVersion string: {}", version.str());
        bad(&version, version.str(), detail);
    } else if !version.is_empty() {
        let problems = names::dns1123_subdomain(group);
        if !group.is_empty() && !problems.is_empty() {
            bad(&version, group, problems.join(","));
        }
        let problems = names::dns1035_label(name);
        if name.is_empty() {
            bad(
                &version,
                version.str(),
                "version must be specified".to_owned(),
            );
        } else if !problems.is_empty() {
            bad(&version, name, problems.join(","));
        }
    }
    if version.is_empty() {
        errors.required(&version, "");
    }
    let problems = names::dns1035_label(&kind.str().to_lowercase());
    if kind.is_empty() {
        errors.required(&kind, "");
    } else if !problems.is_empty() {
        let detail = format!(
            "may have mixed case, but should otherwise match: {}",
            problems.join(",")
        );
        errors.invalid(&kind, detail);
    }
}

/// Whether a policy's expressions see parameters.
pub(super) fn has_params(spec: &At<'_>) -> bool {
    spec.key("paramKind").exists()
}

/// Reports variables without a name or an expression; answers with the type that has them as its fields, if there are
/// any. A variable sees those before it.
pub(super) fn variables(spec: &At<'_>, errors: &mut FieldErrors) -> Option<ObjectType> {
    let mut known: Vec<(&str, Type)> = Vec::new();
    let at = spec.key("variables");
    for variable in at.items() {
        let (name, expression) = (variable.key("name"), variable.key("expression"));
        if name.str().trim().is_empty() {
            errors.required(&name, "name is not specified");
        } else if !is_identifier(name.str()) {
            errors.invalid(&name, "must be a valid CEL identifier");
        }
        if expression.str().trim().is_empty() {
            errors.required(&expression, "expression is not specified");
            continue;
        }
        let environment = seen(spec, true, Some(of_variables(&known)));
        let found = cel::check(expression.str(), &environment).unwrap_or_else(|error| {
            errors.invalid(&expression, error.to_string());
            Type::Unknown
        });
        if let Some(name) = name.value().and_then(Value::as_str) {
            known.push((name, found));
        }
    }
    (!at.is_empty()).then(|| of_variables(&known))
}

fn of_variables(known: &[(&str, Type)]) -> ObjectType {
    ObjectType::new("kubernetes.variables", known.iter().cloned())
}

/// What the expressions of a policy see.
pub(super) fn seen(spec: &At<'_>, authorizer: bool, variables: Option<ObjectType>) -> Environment {
    let environment =
        Environment::admission(has_params(spec), authorizer).with("namespaceObject", Type::Unknown);
    match variables {
        Some(variables) => environment.with("variables", variables),
        None => environment,
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !crate::cel::RESERVED.contains(&name)
}

/// The column that says of which kind the parameters are.
pub(super) fn param_kind_text(object: &Object) -> Value {
    let param = object.at("spec.paramKind");
    if !param.exists() {
        return "<unset>".into();
    }
    format!(
        "{}/{}",
        param.key("apiVersion").str(),
        param.key("kind").str()
    )
    .into()
}

//! The kinds of `authorization.k8s.io/v1`. None is stored: they are questions that the server answers.

pub mod local_subject_access_review;
pub mod self_subject_access_review;
pub mod self_subject_rules_review;
pub mod subject_access_review;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::field_errors::ErrorType;
use crate::schema::internal_form;
use crate::{At, FieldErrors, Object};

/// The group.
pub const GROUP: &str = "authorization.k8s.io";

/// Reports a question that is not about exactly one thing.
fn attributes(spec: &At<'_>, errors: &mut FieldErrors) {
    let (resource, other) = (
        spec.key("resourceAttributes"),
        spec.key("nonResourceAttributes"),
    );
    if resource.exists() && other.exists() {
        let definition = "io.k8s.api.authorization.v1.NonResourceAttributes";
        let shown = internal_form(definition, other.value());
        let detail = "cannot be specified in combination with resourceAttributes";
        errors.push(ErrorType::Invalid, other.path(), Some(shown), detail);
    }
    if !resource.exists() && !other.exists() {
        errors.invalid(
            &resource,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
    }
}

/// Reports a question about nobody.
fn subject(spec: &At<'_>, errors: &mut FieldErrors) {
    let user = spec.key("user");
    if user.is_empty() && spec.key("groups").is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.push(ErrorType::Invalid, user.path(), Some("".into()), detail);
    }
}

/// Selectors of the attributes: raw, or as requirements.
fn selectors(spec: &At<'_>, errors: &mut FieldErrors) {
    for field in ["fieldSelector", "labelSelector"] {
        let selector = spec.key("resourceAttributes").key(field);
        if !selector.exists() {
            continue;
        }
        let (raw, requirements) = (selector.key("rawSelector"), selector.key("requirements"));
        if !raw.is_empty() && !requirements.is_empty() {
            errors.invalid(&raw, "may not specified at the same time as requirements");
        }
        if raw.is_empty() && requirements.is_empty() {
            let detail = format!(
                "when {} is specified, requirements or rawSelector is required",
                selector.path()
            );
            errors.required(&requirements, detail);
        }
        for requirement in requirements.items() {
            self::requirement(&requirement, errors);
        }
    }
}

fn requirement(requirement: &At<'_>, errors: &mut FieldErrors) {
    let (key, operator, values) = (
        requirement.key("key"),
        requirement.key("operator"),
        requirement.key("values"),
    );
    if key.is_empty() {
        errors.required(&key, "must be specified");
    }
    match operator.str() {
        "In" | "NotIn" if values.is_empty() => errors.required(
            &values,
            "must be specified when `operator` is 'In' or 'NotIn'",
        ),
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.forbidden(
            &values,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        "Exists" | "DoesNotExist" => {}
        _ => {
            let shown = Some(operator.str().into());
            let detail = "not a valid selector operator";
            errors.push(ErrorType::Invalid, operator.path(), shown, detail);
        }
    }
}

/// A question is no object: it has no metadata, but for the fields in `allowed`.
fn no_metadata(new: &Object, allowed: &[&str], detail: &str, errors: &mut FieldErrors) {
    let metadata = new.at("metadata");
    let given = metadata.value().and_then(Value::as_object);
    let said: Map<String, Value> = given
        .into_iter()
        .flatten()
        .filter(|(field, value)| *field != "managedFields" && !value.is_null())
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    if said.keys().any(|field| !allowed.contains(&field.as_str())) {
        let shown = Some(Value::Object(said));
        errors.push(ErrorType::Invalid, "metadata", shown, detail);
    }
}

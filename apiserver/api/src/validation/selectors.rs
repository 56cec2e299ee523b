//! Label selectors as objects carry them.

use serde_json::Value;

use super::{metadata, names};
use crate::field_errors::ErrorType;
use crate::{At, FieldErrors};

/// Reports what is wrong with a label selector (`matchLabels` and `matchExpressions`).
pub fn label_selector(at: &At<'_>, errors: &mut FieldErrors) {
    metadata::labels(&at.key("matchLabels"), errors);
    for requirement in at.key("matchExpressions").items() {
        let values = requirement.key("values");
        match requirement.key("operator").str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    &values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(
                    &values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Exists" | "DoesNotExist" => {}
            other => {
                let operator = requirement.key("operator");
                let value = Some(Value::from(other));
                errors.push(
                    ErrorType::Invalid,
                    operator.path(),
                    value,
                    "not a valid selector operator",
                );
            }
        }
        label_key(&requirement.key("key"), errors);
        for value in values.items() {
            for message in names::label_value(value.str()) {
                errors.push(
                    ErrorType::Invalid,
                    value.path(),
                    Some(Value::from(value.str())),
                    message,
                );
            }
        }
    }
}

/// Whether the selector makes sense, so that labels can be held against it; an absent one does.
pub fn is_valid(at: &At<'_>) -> bool {
    let mut errors = FieldErrors::default();
    label_selector(at, &mut errors);
    errors.is_empty()
}

/// Reports a text that is no label key.
pub fn label_key(at: &At<'_>, errors: &mut FieldErrors) {
    for message in names::qualified_name(at.str()) {
        errors.push(
            ErrorType::Invalid,
            at.path(),
            Some(Value::from(at.str())),
            message,
        );
    }
}

/// Whether the selector selects everything because it says nothing.
pub fn is_empty(selector: &At<'_>) -> bool {
    selector.key("matchLabels").len() + selector.key("matchExpressions").len() == 0
}

/// Whether a label selector selects an object with these labels; a selector that is absent selects nothing.
pub fn matches(selector: &At<'_>, labels: &At<'_>) -> bool {
    let label = |key: &str| {
        labels
            .value()
            .and_then(|map| map.get(key))
            .and_then(Value::as_str)
    };
    if !selector.exists() {
        return false;
    }
    let equal = selector
        .key("matchLabels")
        .entries()
        .all(|(key, value)| label(key) == value.as_str());
    equal
        && selector.key("matchExpressions").items().all(|requirement| {
            let present = label(requirement.key("key").str());
            let listed = || {
                requirement
                    .key("values")
                    .items()
                    .any(|value| value.as_str() == present)
            };
            match requirement.key("operator").str() {
                "In" => present.is_some() && listed(),
                "NotIn" => present.is_none() || !listed(),
                "Exists" => present.is_some(),
                "DoesNotExist" => present.is_none(),
                _ => false,
            }
        })
}

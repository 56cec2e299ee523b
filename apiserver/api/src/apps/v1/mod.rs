//! Version v1 of the group, and what its kinds share: a selector and a template of Pods.

use crate::core::v1::pod_spec::{defaults, template, validation};
use crate::field_errors::ErrorType;
use crate::validation::{numbers, selectors};
use crate::{At, FieldErrors, Object};

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

/// Fills in the spec of the template.
fn template_defaults(object: &mut Object) {
    defaults::pod_spec(object.map_mut("spec.template.spec"));
}

/// Reports what is wrong with the selector, with the template, and between them.
fn selector_and_template(spec: &At<'_>, errors: &mut FieldErrors) {
    let (selector, template) = (spec.key("selector"), spec.key("template"));
    let before = errors.len();
    if selector.exists() {
        selectors::label_selector(&selector, errors);
        if errors.len() > before {
            // A template can't be compared with a selector that makes no sense.
            return errors.invalid(&selector, "invalid label selector");
        }
        if selectors::is_empty(&selector) {
            errors.invalid(&selector, "empty selector is invalid for deployment");
        }
    } else {
        errors.required(&selector, "");
    }
    let labels = template.at("metadata.labels");
    let selects_all = selector.exists() && selectors::is_empty(&selector);
    if !selects_all && !selectors::matches(&selector, &labels) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    validation::template(&template, errors);
    let replicas = spec.key("replicas").as_i64().unwrap_or(0);
    template::shared_disks(&template, replicas, errors);
    template::always_running(&template, "ReplicaSet", errors);
}

/// Reports a number below zero, or a text that is no percentage.
fn number_or_percentage(at: &At<'_>, errors: &mut FieldErrors) {
    match at.as_str() {
        None => numbers::non_negative(at, errors),
        Some(_) if percentage(at).is_some() => {}
        Some(_) => errors.invalid(
            at,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
             used for validation is '[0-9]+%')",
        ),
    }
}

/// Reports a percentage over 100.
fn at_most_all(at: &At<'_>, errors: &mut FieldErrors) {
    if percentage(at).is_some_and(|percent| percent > 100) {
        errors.invalid(at, "must not be greater than 100%");
    }
}

/// The number of a number or percentage; zero for what is neither.
fn amount(at: &At<'_>) -> i64 {
    match at.as_str() {
        Some(text) => percentage(at).or_else(|| text.parse().ok()).unwrap_or(0),
        None => at.as_i64().unwrap_or(0),
    }
}

fn percentage(at: &At<'_>) -> Option<i64> {
    let digits = at.as_str()?.strip_suffix('%')?;
    let legal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    // More than fits is more than all.
    legal.then(|| digits.parse().unwrap_or(i64::MAX))
}

/// A number or percentage that is not accepted; an absent one is Go's zero.
fn amount_invalid(at: &At<'_>, detail: &str, errors: &mut FieldErrors) {
    let value = at.value().cloned().unwrap_or_else(|| 0.into());
    errors.push(ErrorType::Invalid, at.path(), Some(value), detail);
}

//! Conditions of a status, as `metav1.Condition` has them.

use std::collections::HashSet;

use serde_json::Value;

use super::{names, selectors};
use crate::field_errors::ErrorType;
use crate::{At, FieldErrors};

/// Most bytes of a reason and of a message.
const LONGEST_REASON: usize = 1024;
const LONGEST_MESSAGE: usize = 32 * 1024;

/// Reports what is wrong with a list of conditions.
pub fn conditions(at: &At<'_>, errors: &mut FieldErrors) {
    let mut types = HashSet::new();
    for condition in at.items() {
        let kind = condition.key("type");
        if !types.insert(kind.str().to_owned()) {
            let shown = Some(Value::from(kind.str()));
            errors.push(ErrorType::Duplicate, kind.path(), shown, "");
        }
        one(&condition, errors);
    }
}

fn one(at: &At<'_>, errors: &mut FieldErrors) {
    selectors::label_key(&at.key("type"), errors);
    errors.one_of(&at.key("status"), &["False", "True", "Unknown"]);
    let generation = at.key("observedGeneration");
    if generation.as_i64().is_some_and(|number| number < 0) {
        errors.invalid(&generation, "must be greater than or equal to zero");
    }
    if at.key("lastTransitionTime").is_empty() {
        errors.required(&at.key("lastTransitionTime"), "must be set");
    }
    let (reason, message) = (at.key("reason"), at.key("message"));
    if reason.is_empty() {
        errors.required(&reason, "must be set");
    } else {
        errors.text(&reason, names::condition_reason);
        if reason.str().len() > LONGEST_REASON {
            errors.too_long(&reason, LONGEST_REASON);
        }
    }
    if message.str().len() > LONGEST_MESSAGE {
        errors.too_long(&message, LONGEST_MESSAGE);
    }
}

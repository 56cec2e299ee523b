//! The kinds of `flowcontrol.apiserver.k8s.io/v1`, and what both have.

pub mod flow_schema;
pub mod priority_level_configuration;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::schema::{SchemaRef, go_form};
use crate::{At, FieldErrors, Object};

/// The group.
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// Reports conditions without a type, and types that occur twice.
fn conditions(object: &Object, errors: &mut FieldErrors) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in object.at("status.conditions").items() {
        let kind = condition.key("type");
        if seen.contains(&kind.str()) {
            errors.duplicate(&kind);
        }
        seen.push(kind.str());
        if kind.is_empty() {
            errors.required(&kind, "must not be empty");
        }
    }
}

/// The value here as upstream's findings show it.
fn shown(at: &At<'_>, definition: &str) -> Option<Value> {
    let schema = SchemaRef::builtin(&format!("io.k8s.api.flowcontrol.v1.{definition}"))?;
    at.value().map(|value| go_form(value, &schema))
}

/// Reports the spec of an object that upstream keeps as it is.
fn fixed(new: &Object, definition: &str, detail: String, errors: &mut FieldErrors) {
    let spec = new.at("spec");
    let value = shown(&spec, definition);
    errors.push(ErrorType::Invalid, "spec", value, detail);
}

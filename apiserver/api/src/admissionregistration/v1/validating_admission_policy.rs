//! ValidatingAdmissionPolicy: rules in CEL that a write must satisfy.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::matching;
use super::policy::{default_policy, has_params, param_kind_text, seen, subject, variables};
use crate::At;
use crate::cel::{Environment, Type};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::strategy::ALL_METADATA;
use crate::validation::{conditions, names};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of validating admission policies.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    short_names: &[],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ValidatingAdmissionPolicy,
};

/// ValidatingAdmissionPolicy: rules in CEL that a write must satisfy.
pub struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn default(&self, object: &mut Object) {
        default_policy(object);
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        subject(&spec, errors);
        let environment = Environment::admission(has_params(&spec), true);
        matching::conditions(&spec.key("matchConditions"), &environment, errors);
        let variables = variables(&spec, errors);
        let (validations, annotations) = (spec.key("validations"), spec.key("auditAnnotations"));
        if validations.is_empty() && annotations.is_empty() {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.required(&validations, detail);
            errors.required(&annotations, detail);
        }
        for validation in validations.items() {
            let environment = |authorizer| seen(&spec, authorizer, variables.clone());
            self::validation(&validation, environment, errors);
        }
        let environment = seen(&spec, true, variables);
        audit_annotations(new.name(), &annotations, &environment, errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        let status = new.at("status");
        for warning in status.at("typeChecking.expressionWarnings").items() {
            for field in ["warning", "fieldRef"] {
                if warning.key(field).str().trim().is_empty() {
                    errors.required(&warning.key(field), "");
                }
            }
        }
        conditions::conditions(&status.key("conditions"), errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("spec.validations").len().into(),
            param_kind_text(object),
            age(object, now),
        ]
    }
}

fn validation(
    validation: &At<'_>,
    environment: impl Fn(bool) -> Environment,
    errors: &mut FieldErrors,
) {
    let (expression, message) = (validation.key("expression"), validation.key("message"));
    if expression.str().trim().is_empty() {
        errors.required(&expression, "expression is not specified");
    } else {
        let bools = (&[Type::Bool][..], "bool");
        matching::result(&expression, &environment(true), bools, errors);
    }
    let computed = validation.key("messageExpression");
    if !computed.is_empty() && computed.str().trim().is_empty() {
        errors.invalid(&computed, "must be non-empty if specified");
    } else if !computed.is_empty() {
        let texts = (&[Type::String][..], "string");
        matching::result(&computed, &environment(false), texts, errors);
    }
    let trimmed = message.str().trim();
    if !message.is_empty() && trimmed.is_empty() {
        errors.invalid(&message, "message must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        errors.invalid(&message, "message must not contain line breaks");
    }
    let reason = validation.key("reason");
    if reason.exists() {
        errors.one_of(&reason, REASONS);
    }
}

/// What is noted in the audit log, under keys that begin with the policy's name.
fn audit_annotations(
    policy: &str,
    at: &At<'_>,
    environment: &Environment,
    errors: &mut FieldErrors,
) {
    if at.len() > MOST_ANNOTATIONS {
        let detail = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        errors.invalid(at, detail);
    }
    let mut seen: Vec<&str> = Vec::new();
    for annotation in at.items() {
        let (key, value) = (annotation.key("key"), annotation.key("valueExpression"));
        if policy.is_empty() {
            let shown = Some(key.str().into());
            let detail = "requires metadata.name be non-empty";
            errors.push(ErrorType::Invalid, key.path(), shown, detail);
        } else {
            let qualified = format!("{policy}/{}", key.str());
            for why in names::qualified_name(&qualified) {
                let shown = Some(qualified.as_str().into());
                errors.push(ErrorType::Invalid, key.path(), shown, why);
            }
        }
        let trimmed = value.str().trim();
        if trimmed.is_empty() {
            errors.required(&value, "valueExpression is not specified");
        } else if trimmed.len() > MOST_BYTES {
            let detail = format!("must not exceed {MOST_BYTES} bytes in length");
            errors.required(&value, detail);
        } else {
            let texts = (&[Type::String, Type::Null][..], "one of [string null_type]");
            matching::result(&value, environment, texts, errors);
        }
        if seen.contains(&key.str()) {
            errors.duplicate(&key);
        }
        seen.push(key.str());
    }
}

/// Reasons that a refusal may have.
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
/// Most audit annotations of a policy.
const MOST_ANNOTATIONS: usize = 20;
/// Longest expression of an audit annotation.
const MOST_BYTES: usize = 5 * 1024;

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Validations",
        "Validations indicates the number of validation rules defined in this configuration",
    ),
    Column::string(
        "ParamKind",
        "ParamKind specifies the kind of resources used to parameterize this policy",
    ),
    AGE,
];

//! What an update of a Job may change: `ValidateJobUpdate`.

use serde_json::{Map, Value};

use super::{CONTROLLER_UID, JOB_NAME, validation};
use crate::field_errors::ErrorType;
use crate::schema::internal_form;
use crate::{At, FieldErrors, Object};

/// Reports what is wrong with a Job that takes the place of `old`.
pub(super) fn job(new: &Object, old: &Object, errors: &mut FieldErrors) {
    // Jobs from before the labels had a prefix need not have them.
    let labels = old.at("spec.template.metadata.labels");
    let prefixed = labels.entry(JOB_NAME).exists() && labels.entry(CONTROLLER_UID).exists();
    validation::job(new, prefixed, errors);
    let (now, was) = (new.at("spec"), old.at("spec"));
    // Upstream looks at the spec of an update twice, and reports findings twice.
    validation::spec_with_selector(&now, errors);
    completions(&now, &was, errors);
    errors.immutable(&now.key("selector"), &was.key("selector"));
    template(&now.key("template"), old, errors);
    errors.immutable(&now.key("completionMode"), &was.key("completionMode"));
    as_go(&now, &was, "podFailurePolicy", "PodFailurePolicy", errors);
    for field in ["backoffLimitPerIndex", "managedBy"] {
        errors.immutable(&now.key(field), &was.key(field));
    }
    as_go(&now, &was, "successPolicy", "SuccessPolicy", errors);
}

/// An Indexed Job may grow and shrink, with its parallelism.
fn completions(now: &At<'_>, was: &At<'_>, errors: &mut FieldErrors) {
    let (at, before) = (now.key("completions"), was.key("completions"));
    if now.key("completionMode").str() != "Indexed" {
        return errors.immutable(&at, &before);
    }
    let changed = at.exists() && at.as_i64() != before.as_i64();
    if changed && at.as_i64() != now.key("parallelism").as_i64() {
        errors.invalid(&at, "can only be modified in tandem with spec.parallelism");
    }
}

/// Reports a changed struct, shown as Go holds it.
fn as_go(now: &At<'_>, was: &At<'_>, field: &str, definition: &str, errors: &mut FieldErrors) {
    let (at, before) = (now.key(field), was.key(field));
    if at.value() != before.value() {
        let definition = format!("io.k8s.api.batch.v1.{definition}");
        errors.push(
            ErrorType::Invalid,
            at.path(),
            Some(internal_form(&definition, at.value())),
            "field is immutable",
        );
    }
}

/// Of a Job that is suspended and has never run, Pods may still be placed elsewhere.
fn template(now: &At<'_>, old: &Object, errors: &mut FieldErrors) {
    let suspended = old.at("spec.suspend").is_true() && !old.at("status.startTime").exists();
    let was = old.at("spec.template");
    if !suspended {
        if now.value() != was.value() {
            errors.push(
                ErrorType::Invalid,
                now.path(),
                Some(internal_form(
                    "io.k8s.api.core.v1.PodTemplateSpec",
                    now.value(),
                )),
                "field is immutable",
            );
        }
        return;
    }
    let (spec, before) = (now.key("spec"), was.key("spec"));
    if placed_anywhere(spec.value()) != placed_anywhere(before.value()) {
        errors.push(
            ErrorType::Invalid,
            spec.path(),
            Some(internal_form("io.k8s.api.core.v1.PodSpec", spec.value())),
            "field is immutable",
        );
    }
}

/// A pod's spec without what says where it may run, and without its resources.
fn placed_anywhere(spec: Option<&Value>) -> Map<String, Value> {
    let mut spec = spec.and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        spec.shift_remove(field);
    }
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.shift_remove("nodeAffinity");
        if affinity.is_empty() {
            spec.shift_remove("affinity");
        }
    }
    for list in ["containers", "initContainers"] {
        crate::object::each_object(&mut spec, list, |container| {
            container.shift_remove("resources");
        });
    }
    spec
}

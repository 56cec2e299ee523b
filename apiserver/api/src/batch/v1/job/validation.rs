//! What is wrong with a Job by itself: `ValidateJob` of `pkg/apis/batch/validation`, in its order.

use serde_json::Value;

use super::{CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME, policies};
use crate::core::v1::pod_spec::validation;
use crate::field_errors::ErrorType;
use crate::validation::{names, numbers, selectors};
use crate::{At, FieldErrors, Object};

/// Most Pods at once, and most failed indexes, of an Indexed Job.
const MOST_INDEXED: i64 = 100_000;
/// The same for Jobs with more completions than that, if they count failures per index.
const MOST_OF_MANY: i64 = 10_000;

/// Reports what is wrong with a Job. `prefixed`: its Pods must carry the generated labels with a prefix too.
pub(super) fn job(new: &Object, prefixed: bool, errors: &mut FieldErrors) {
    generated_selector(new, prefixed, errors);
    spec_with_selector(&new.at("spec"), errors);
    let spec = new.at("spec");
    let completions = spec.key("completions").as_i64().unwrap_or(0);
    if spec.key("completionMode").str() == "Indexed" && completions > 0 {
        // The last Pod's host name.
        let host = format!("{}-{}", new.name(), completions - 1);
        if !names::dns1123_label(&host).is_empty() {
            errors.push(
                ErrorType::Invalid,
                "metadata.name",
                Some(new.name().into()),
                format!("will not able to create pod with invalid DNS label: {host}"),
            );
        }
    }
}

fn generated_selector(new: &Object, prefixed: bool, errors: &mut FieldErrors) {
    let selector = new.at("spec.selector");
    if new.at("spec.manualSelector").is_true() || !selector.exists() {
        return;
    }
    let (name, uid) = (new.name(), new.uid());
    if uid.is_empty() {
        errors.required(&new.at("metadata.uid"), "");
    }
    let labels = new.at("spec.template.metadata.labels");
    let mut expected = serde_json::Map::new();
    for (label, value, asked) in [
        (OLD_CONTROLLER_UID, uid, true),
        (OLD_JOB_NAME, name, true),
        (CONTROLLER_UID, uid, prefixed),
        (JOB_NAME, name, prefixed),
    ] {
        if asked {
            has_label(&labels, label, value, errors);
            expected.insert(label.to_owned(), value.into());
        }
    }
    let expected = Value::Object(expected);
    if selectors::is_valid(&selector) && !selectors::matches(&selector, &At::root(&expected, "")) {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

fn has_label(labels: &At<'_>, label: &str, value: &str, errors: &mut FieldErrors) {
    let entry = labels.entry(label);
    let detail = format!("must be '{value}'");
    match entry.as_str() {
        None => errors.required(&entry, detail),
        Some(actual) if actual != value => errors.push(
            ErrorType::Invalid,
            entry.path(),
            labels.value().cloned(),
            detail,
        ),
        Some(_) => {}
    }
}

/// Reports what is wrong with a Job's spec and its selector.
pub(super) fn spec_with_selector(spec: &At<'_>, errors: &mut FieldErrors) {
    job_spec(spec, errors);
    let selector = spec.key("selector");
    if selector.exists() {
        selectors::label_selector(&selector, errors);
    } else {
        errors.required(&selector, "");
    }
    let labels = spec.at("template.metadata.labels");
    if selectors::is_valid(&selector) && !selectors::matches(&selector, &labels) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
}

/// Reports what is wrong with the spec of a Job, or of a CronJob's template, but for the selector.
pub(crate) fn job_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        numbers::non_negative(&spec.key(field), errors);
    }
    if spec.key("maxFailedIndexes").exists() && !spec.key("backoffLimitPerIndex").exists() {
        errors.required(
            &spec.key("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        );
    }
    managed_by(&spec.key("managedBy"), errors);
    let mode = spec.key("completionMode");
    if mode.exists() {
        errors.one_of(&mode, &["NonIndexed", "Indexed"]);
    }
    match mode.as_str() {
        Some("Indexed") => indexed(spec, errors),
        None | Some("NonIndexed") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if spec.key(field).exists() {
                    errors.invalid(&spec.key(field), "requires indexed completion mode");
                }
            }
        }
        Some(_) => {}
    }
    policies::all(spec, errors);
    let template = spec.key("template");
    validation::template(&template, errors);
    restart_policy(spec, &template.at("spec.restartPolicy"), errors);
}

fn managed_by(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.exists() {
        return;
    }
    names::domain_prefixed_path(at, errors);
    if at.str().len() > 63 {
        errors.too_long(at, 63);
    }
}

fn indexed(spec: &At<'_>, errors: &mut FieldErrors) {
    let at = |field: &str| spec.key(field);
    let number = |field: &str| at(field).as_i64();
    if number("completions").is_none() {
        errors.required(&at("completions"), "when completion mode is Indexed");
    }
    if number("parallelism").is_some_and(|number| number > MOST_INDEXED) {
        errors.invalid(
            &at("parallelism"),
            format!("must be less than or equal to {MOST_INDEXED} when completion mode is Indexed"),
        );
    }
    let (failed, completions) = (number("maxFailedIndexes"), number("completions"));
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        errors.invalid(
            &at("maxFailedIndexes"),
            "must be less than or equal to completions",
        );
    }
    if failed.is_some_and(|failed| failed > MOST_INDEXED) {
        errors.invalid(
            &at("maxFailedIndexes"),
            format!("must be less than or equal to {MOST_INDEXED}"),
        );
    }
    let many = completions.is_some_and(|completions| completions > MOST_INDEXED);
    if !many || !at("backoffLimitPerIndex").exists() {
        return;
    }
    if failed.is_none() {
        errors.required(
            &at("maxFailedIndexes"),
            format!("must be specified when completions is above {MOST_INDEXED}"),
        );
    }
    for field in ["parallelism", "maxFailedIndexes"] {
        if number(field).is_some_and(|number| number > MOST_OF_MANY) {
            errors.invalid(
                &at(field),
                format!(
                    "must be less than or equal to {MOST_OF_MANY} when completions are above {MOST_INDEXED} and used \
                     with backoff limit per index"
                ),
            );
        }
    }
}

fn restart_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut FieldErrors) {
    match policy.str() {
        // `Always` is what an absent one was filled in with.
        "" | "Always" => errors.required(policy, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.key("podFailurePolicy").exists() => errors.invalid(
            policy,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        "OnFailure" | "Never" => {}
        _ => errors.not_supported(policy, &["OnFailure", "Never"]),
    }
}

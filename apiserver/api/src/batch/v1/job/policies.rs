//! The policies of a Job: which failures count, which successes are enough, when a Pod is replaced.

use std::collections::HashSet;

use serde_json::Value;

use super::indexes;
use crate::field_errors::ErrorType;
use crate::schema::internal_form;
use crate::validation::{names, numbers};
use crate::{At, FieldErrors};

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const MOST_RULES: usize = 20;
const MOST_VALUES: usize = 255;
const MOST_INDEXES_BYTES: usize = 64 * 1024;

/// Reports what is wrong with the policies of a Job's spec.
pub(super) fn all(spec: &At<'_>, errors: &mut FieldErrors) {
    let failure = spec.key("podFailurePolicy");
    if failure.exists() {
        let rules = failure.key("rules");
        if rules.len() > MOST_RULES {
            errors.too_many(&rules, MOST_RULES);
        }
        for rule in rules.items() {
            failure_rule(spec, &rule, errors);
        }
    }
    let success = spec.key("successPolicy");
    if success.exists() {
        if spec.key("completionMode").str() == "Indexed" {
            success_policy(spec, &success, errors);
        } else {
            errors.push(
                ErrorType::Invalid,
                success.path(),
                Some(internal_form(
                    "io.k8s.api.batch.v1.SuccessPolicy",
                    success.value(),
                )),
                "requires indexed completion mode",
            );
        }
    }
    let replacement = spec.key("podReplacementPolicy");
    if replacement.exists() {
        let supported: &[&str] = if failure.exists() {
            &["Failed"]
        } else {
            &["Failed", "TerminatingOrFailed"]
        };
        errors.one_of(&replacement, supported);
    }
}

fn failure_rule(spec: &At<'_>, rule: &At<'_>, errors: &mut FieldErrors) {
    let action = rule.key("action");
    match action.str() {
        "FailIndex" if !spec.key("backoffLimitPerIndex").exists() => {
            errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
        }
        "FailIndex" => {}
        _ => required_one_of(&action, ACTIONS, errors),
    }
    let (codes, conditions) = (rule.key("onExitCodes"), rule.key("onPodConditions"));
    if codes.exists() {
        exit_codes(spec, &codes, errors);
    }
    if conditions.len() > MOST_RULES {
        errors.too_many(&conditions, MOST_RULES);
    }
    for pattern in conditions.items() {
        errors.text(&pattern.key("type"), names::qualified_name);
        required_one_of(
            &pattern.key("status"),
            &["False", "True", "Unknown"],
            errors,
        );
    }
    let detail = match (codes.exists(), !conditions.is_empty()) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(ErrorType::Invalid, rule.path(), None, detail);
}

fn required_one_of(at: &At<'_>, supported: &[&str], errors: &mut FieldErrors) {
    if at.str().is_empty() {
        let list: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        errors.required(at, format!("valid values: [{}]", list.join(" ")));
    } else {
        errors.one_of(at, supported);
    }
}

fn exit_codes(spec: &At<'_>, codes: &At<'_>, errors: &mut FieldErrors) {
    required_one_of(&codes.key("operator"), &["In", "NotIn"], errors);
    let name = codes.key("containerName");
    let pod = spec.at("template.spec");
    let known = ["containers", "initContainers"].iter().any(|list| {
        pod.key(list)
            .items()
            .any(|container| container.key("name").str() == name.str())
    });
    if name.exists() && !known {
        errors.invalid(
            &name,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values = codes.key("values");
    if values.is_empty() {
        errors.invalid(&values, "at least one value is required");
    } else if values.len() > MOST_VALUES {
        errors.too_many(&values, MOST_VALUES);
    }
    let (mut ordered, mut taken, mut before) = (true, HashSet::new(), i64::MIN);
    for value in values.items() {
        // Go reads null as zero.
        let number = value.as_i64().unwrap_or(0);
        if number == 0 && codes.key("operator").str() == "In" {
            numbers::number_invalid(&value, "must not be 0 for the In operator", errors);
        }
        if !taken.insert(number) {
            errors.push(ErrorType::Duplicate, value.path(), Some(number.into()), "");
        }
        ordered &= before <= number;
        before = number;
    }
    if !ordered {
        let shown: Vec<Value> = values
            .items()
            .map(|value| value.as_i64().unwrap_or(0).into())
            .collect();
        errors.push(
            ErrorType::Invalid,
            values.path(),
            Some(shown.into()),
            "must be ordered",
        );
    }
}

fn success_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut FieldErrors) {
    let rules = policy.key("rules");
    if rules.is_empty() {
        errors.required(
            &rules,
            "at least one rules must be specified when the successPolicy is specified",
        );
    }
    if rules.len() > MOST_RULES {
        errors.too_many(&rules, MOST_RULES);
    }
    // Without completions, which is reported too, nothing can be said of the rules.
    let Some(completions) = spec.key("completions").as_i64() else {
        return;
    };
    for rule in rules.items() {
        let (count, named) = (rule.key("succeededCount"), rule.key("succeededIndexes"));
        if !count.exists() && !named.exists() {
            errors.required(
                &rule,
                "at least one of succeededCount or succeededIndexes must be specified",
            );
        }
        let mut total = 0;
        if named.exists() {
            if named.str().len() > MOST_INDEXES_BYTES {
                errors.too_long(&named, MOST_INDEXES_BYTES);
            }
            match indexes::count(named.str(), completions) {
                Ok(number) => total = number,
                Err(error) => {
                    errors.invalid(&named, format!("error parsing succeededIndexes: {error}"));
                }
            }
        }
        let Some(asked) = count.as_i64() else {
            continue;
        };
        numbers::non_negative(&count, errors);
        if asked > completions {
            errors.invalid(
                &count,
                format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                ),
            );
        }
        if named.exists() && asked > total {
            errors.invalid(
                &count,
                format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes \
                     field)"
                ),
            );
        }
    }
}

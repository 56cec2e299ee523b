//! Validation of what places a pod: affinity, tolerations, spread, gates.

use std::collections::HashSet;

use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::validation::{names, selectors};
use crate::{At, FieldErrors};

/// Reports what is wrong with node affinity, pod affinity and pod anti-affinity.
pub fn affinity(affinity: &At<'_>, errors: &mut FieldErrors) {
    let node = affinity.key("nodeAffinity");
    let required = node.key("requiredDuringSchedulingIgnoredDuringExecution");
    if required.exists() {
        node_selector(&required, errors);
    }
    for preferred in node
        .key("preferredDuringSchedulingIgnoredDuringExecution")
        .items()
    {
        weight(&preferred, errors);
        node_selector_term(&preferred.key("preference"), errors);
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let pod = affinity.key(field);
        for term in pod
            .key("requiredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            pod_term(&term, errors);
        }
        for preferred in pod
            .key("preferredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            weight(&preferred, errors);
            pod_term(&preferred.key("podAffinityTerm"), errors);
        }
    }
}

fn weight(preferred: &At<'_>, errors: &mut FieldErrors) {
    let weight = preferred.key("weight");
    let number = weight.as_i64().unwrap_or(0);
    if !(1..=100).contains(&number) {
        errors.push(
            ErrorType::Invalid,
            weight.path(),
            Some(Value::from(number)),
            "must be in the range 1-100",
        );
    }
}

/// Reports what is wrong with a selector of nodes.
pub fn node_selector(selector: &At<'_>, errors: &mut FieldErrors) {
    let terms = selector.key("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, errors);
    }
}

fn node_selector_term(term: &At<'_>, errors: &mut FieldErrors) {
    for requirement in term.key("matchExpressions").items() {
        let (operator, values) = (requirement.key("operator"), requirement.key("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(
                    &values,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(
                    &values,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if values.len() != 1 => {
                errors.required(
                    &values,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                let shown = Some(Value::from(other));
                errors.push(
                    ErrorType::Invalid,
                    operator.path(),
                    shown,
                    "not a valid selector operator",
                );
            }
        }
        selectors::label_key(&requirement.key("key"), errors);
    }
    for requirement in term.key("matchFields").items() {
        let (operator, values) = (requirement.key("operator"), requirement.key("values"));
        match operator.str() {
            "In" | "NotIn" if values.len() != 1 => {
                errors.required(&values, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
            }
            "In" | "NotIn" => {}
            other => {
                let shown = Some(Value::from(other));
                errors.push(
                    ErrorType::Invalid,
                    operator.path(),
                    shown,
                    "not a valid selector operator",
                );
            }
        }
        if requirement.key("key").str() == "metadata.name" {
            for value in values.items() {
                errors.text(&value, names::dns1123_subdomain);
            }
        } else {
            errors.invalid(&requirement.key("key"), "not a valid field selector key");
        }
    }
}

fn pod_term(term: &At<'_>, errors: &mut FieldErrors) {
    selectors::label_selector(&term.key("labelSelector"), errors);
    selectors::label_selector(&term.key("namespaceSelector"), errors);
    for namespace in term.key("namespaces").items() {
        errors.text(&namespace, names::dns1123_label);
    }
    let key = term.key("topologyKey");
    if key.str().is_empty() {
        errors.required(&key, "can not be empty");
    }
    selectors::label_key(&key, errors);
}

/// Reports what is wrong with tolerations.
pub fn tolerations(list: &At<'_>, errors: &mut FieldErrors) {
    for toleration in list.items() {
        let (key, operator, value) = (
            toleration.key("key"),
            toleration.key("operator"),
            toleration.key("value"),
        );
        if !key.str().is_empty() {
            errors.text(&key, names::qualified_name);
        }
        let show_operator = |detail: &str, errors: &mut FieldErrors| {
            errors.push(
                ErrorType::Invalid,
                operator.path(),
                Some(Value::from(operator.str())),
                detail,
            );
        };
        if key.str().is_empty() && operator.str() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            show_operator(detail, errors);
        }
        let effect = toleration.key("effect");
        if toleration.key("tolerationSeconds").exists() && effect.str() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(
                ErrorType::Invalid,
                effect.path(),
                Some(Value::from(effect.str())),
                detail,
            );
        }
        match operator.str() {
            "" | "Equal" => {
                // Upstream reports a bad value under the operator.
                for message in names::label_value(value.str()) {
                    errors.push(
                        ErrorType::Invalid,
                        operator.path(),
                        Some(Value::from(value.str())),
                        message,
                    );
                }
            }
            "Exists" if !value.str().is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(
                    ErrorType::Invalid,
                    operator.path(),
                    toleration.value().cloned(),
                    detail,
                );
            }
            "Exists" => {}
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.str().is_empty() {
            errors.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
    }
}

/// Reports what is wrong with topology spread constraints.
pub fn spread(constraints: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = HashSet::new();
    for constraint in constraints.items() {
        let skew = constraint.key("maxSkew");
        if skew.as_i64().unwrap_or(0) <= 0 {
            let shown = Some(Value::from(skew.as_i64().unwrap_or(0)));
            errors.push(
                ErrorType::Invalid,
                skew.path(),
                shown,
                "must be greater than zero",
            );
        }
        let key = constraint.key("topologyKey");
        if key.str().is_empty() {
            errors.required(&key, "can not be empty");
        } else {
            selectors::label_key(&key, errors);
        }
        let when = constraint.key("whenUnsatisfiable");
        let supported = errors.len();
        errors.one_of(&when, &["DoNotSchedule", "ScheduleAnyway"]);
        if errors.len() == supported && !taken.insert((key.str(), when.str())) {
            let pair = format!("{{{}, {}}}", key.str(), when.str());
            let path = format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path());
            errors.push(ErrorType::Duplicate, &path, Some(Value::from(pair)), "");
        }
        let domains = constraint.key("minDomains");
        if let Some(number) = domains.as_i64() {
            if number <= 0 {
                errors.invalid(&domains, "must be greater than zero");
            }
            if when.str() != "DoNotSchedule" {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    when.str()
                );
                errors.invalid(&domains, detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.key(policy);
            if policy.exists() {
                errors.one_of(&policy, &["Honor", "Ignore"]);
            }
        }
        selectors::label_selector(&constraint.key("labelSelector"), errors);
    }
}

/// Reports scheduling gates with bad or repeated names.
pub fn gates(list: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = HashSet::new();
    for gate in list.items() {
        let name = gate.key("name");
        errors.text(&name, names::qualified_name);
        if !taken.insert(name.str()) {
            errors.push(
                ErrorType::Duplicate,
                gate.path(),
                Some(Value::from(name.str())),
                "",
            );
        }
    }
}

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
        node_selector_term(&preferred.key("preference"), false, errors);
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
        node_selector_term(&term, true, errors);
    }
}

/// Reports what is wrong with a term; `strict` ones compare labels with what labels can be.
fn node_selector_term(term: &At<'_>, strict: bool, errors: &mut FieldErrors) {
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
        for value in values.items().filter(|_| strict) {
            errors.text(&value, names::label_value);
        }
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
    label_keys(term, errors);
    let key = term.key("topologyKey");
    if key.str().is_empty() {
        errors.required(&key, "can not be empty");
    }
    selectors::label_key(&key, errors);
}

/// Reports keys of labels whose values a pod looks for, or avoids, in others, and which mean nothing.
fn label_keys(term: &At<'_>, errors: &mut FieldErrors) {
    let (wanted, avoided) = (term.key("matchLabelKeys"), term.key("mismatchLabelKeys"));
    for keys in [&wanted, &avoided] {
        if !keys.is_empty() && !term.key("labelSelector").exists() {
            errors.forbidden(keys, NO_SELECTOR);
            continue;
        }
        for key in keys.items() {
            errors.text(&key, names::qualified_name);
        }
    }
    // Upstream counts in the term here, not in the keys.
    selected_twice(term, &wanted, term, errors);
    for key in wanted.items() {
        if avoided.items().any(|other| other.str() == key.str()) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.invalid(&key, detail);
        }
    }
}

const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";

/// Reports `keys` that the selector of `term` names by itself: of a new pod, it has an expression for each key already.
fn selected_twice(term: &At<'_>, keys: &At<'_>, reported: &At<'_>, errors: &mut FieldErrors) {
    let selector = term.key("labelSelector");
    let labels = selector.key("matchLabels");
    let mut seen: HashSet<&str> = labels.entries().map(|(key, _)| key).collect();
    for expression in selector.key("matchExpressions").items() {
        let key = expression.key("key");
        let text = key.value().and_then(Value::as_str).unwrap_or_default();
        // The last place counts, as in upstream's map.
        let named = keys
            .items()
            .enumerate()
            .filter(|(_, key)| key.str() == text);
        if let (true, Some((index, _))) = (!seen.insert(text), named.last()) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            let place = At::maybe(key.value(), format!("{}[{index}]", reported.path()));
            errors.invalid(&place, detail);
        }
    }
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
                let messages = names::label_value(value.str());
                if !messages.is_empty() {
                    errors.push(
                        ErrorType::Invalid,
                        operator.path(),
                        Some(Value::from(value.str())),
                        messages.join(";"),
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
    for (index, constraint) in constraints.items().enumerate() {
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
        errors.one_of(&when, &["DoNotSchedule", "ScheduleAnyway"]);
        let repeated = constraints.items().skip(index + 1).any(|other| {
            other.key("topologyKey").str() == key.str()
                && other.key("whenUnsatisfiable").str() == when.str()
        });
        if repeated {
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
        let keys = constraint.key("matchLabelKeys");
        if !keys.is_empty() && !constraint.key("labelSelector").exists() {
            errors.forbidden(&keys, NO_SELECTOR);
        }
        for key in keys.items() {
            errors.text(&key, names::qualified_name);
        }
        selected_twice(&constraint, &keys, &keys, errors);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(check: impl Fn(&At<'_>, &mut FieldErrors), value: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        check(&At::maybe(Some(&value), "t"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_of_labels_need_a_selector_that_does_not_name_them() {
        let merged = json!({"key": "a", "operator": "In", "values": ["1"]});
        let selector = |labels: Value| json!({"matchLabels": labels, "matchExpressions": [merged]});
        for (keys, avoided, selector, finding) in [
            (json!(["a"]), json!(["b"]), selector(json!({"x": "y"})), ""),
            (
                json!(["a"]),
                json!([]),
                json!(null),
                "t.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ),
            (
                json!([]),
                json!(["a"]),
                json!(null),
                "t.mismatchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            ),
            (
                json!(["b", "a"]),
                json!([]),
                selector(json!({"a": "1"})),
                "t[1]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector",
            ),
            (
                json!(["a"]),
                json!(["a"]),
                selector(json!({})),
                "t.matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys",
            ),
        ] {
            let term = json!({
                "topologyKey": "z", "matchLabelKeys": keys, "mismatchLabelKeys": avoided, "labelSelector": selector,
            });
            let found = found(pod_term, term.clone());
            assert_eq!(found.join("; "), finding, "{term}");
        }
    }

    #[test]
    fn a_spread_is_asked_for_once_and_by_keys_that_its_selector_does_not_name() {
        let spread_by = |key: &str, keys: Value, selector: Value| {
            json!({
                "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": keys,
                "labelSelector": selector,
            })
        };
        let named = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]});
        let constraints = json!([
            spread_by("z", json!(["a"]), named),
            spread_by("y", json!(["-"]), json!({})),
            spread_by("z", json!(["a"]), json!(null)),
        ]);
        let all = found(spread, constraints);
        assert_eq!(all.len(), 4, "{all:?}");
        for (finding, expected) in all.iter().zip([
            "t[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, DoNotSchedule}\"",
            "t[0].matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector",
            "t[1].matchLabelKeys[0]: Invalid value: \"-\": name part must consist of",
            "t[2].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
        ]) {
            assert!(finding.starts_with(expected), "{finding}");
        }
    }
}

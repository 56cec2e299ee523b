//! What the bindings of validating and mutating policies have in common.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::matching;
use crate::kinds::{AGE, Column, NAME, age};
use crate::validation::names;
use crate::validation::selectors::label_selector;
use crate::{At, FieldErrors, Object};

/// The columns of both.
pub(super) static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "PolicyName",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    Column::string(
        "ParamRef",
        "ParamRef indicates the param resource which sets the configuration param",
    ),
    AGE,
];

/// Fills in what `matchResources` leaves out, if it is there.
pub(super) fn default_binding(object: &mut Object) {
    let resources = object.get_mut("spec.matchResources");
    if let Some(resources) = resources.and_then(Value::as_object_mut) {
        matching::default_resources(resources);
    }
}

/// Reports what is wrong with the policy, the parameters and the resources of a binding.
pub(super) fn binding(spec: &At<'_>, errors: &mut FieldErrors) {
    let policy = spec.key("policyName");
    if policy.is_empty() {
        errors.required(&policy, "");
    } else {
        errors.text(&policy, names::dns1123_subdomain);
    }
    let param = spec.key("paramRef");
    if param.exists() {
        param_ref(&param, errors);
    }
    matching::resources(&spec.key("matchResources"), errors);
}

fn param_ref(at: &At<'_>, errors: &mut FieldErrors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (at.key("name"), at.key("selector"));
    let named = !name.is_empty();
    if named {
        errors.text(&name, |name| names::path_segment(name, false));
        if selector.exists() {
            errors.forbidden(&name, EXCLUSIVE);
        }
    }
    if selector.exists() {
        label_selector(&selector, errors);
        if named {
            errors.forbidden(&selector, EXCLUSIVE);
        }
    }
    if !named && !selector.exists() {
        errors.required(at, "one of name or selector must be specified");
    }
    let action = at.key("parameterNotFoundAction");
    if action.is_empty() {
        errors.required(&action, "");
    } else {
        errors.one_of(&action, &["Deny", "Allow"]);
    }
}

/// The cells under [`COLUMNS`].
pub(super) fn cells(object: &Object, now: Timestamp) -> Vec<Value> {
    let param = object.at("spec.paramRef");
    let (name, selector) = (param.key("name").str(), param.key("selector"));
    let shown = match (name, param.key("namespace").str()) {
        ("", _) if selector.exists() => go_selector(&selector),
        ("", _) => "<unset>".to_owned(),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    };
    vec![
        object.name().into(),
        object.at("spec.policyName").str().into(),
        shown.into(),
        age(object, now),
    ]
}

/// A selector as Go prints the struct.
fn go_selector(selector: &At<'_>) -> String {
    let mut labels: Vec<String> = selector
        .key("matchLabels")
        .entries()
        .map(|(key, value)| format!("{key}: {},", value.str()))
        .collect();
    labels.sort_unstable();
    let expressions: Vec<String> = selector
        .key("matchExpressions")
        .items()
        .map(|expression| {
            let values = expression.key("values");
            let values: Vec<&str> = values.items().filter_map(|value| value.as_str()).collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                expression.key("key").str(),
                expression.key("operator").str(),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.concat(),
        expressions.concat()
    )
}

//! PodDisruptionBudget: how many of some pods may be evicted at once.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::schema::{SchemaRef, go_form};
use crate::validation::{conditions, numbers, selectors};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of disruption budgets.
pub static RESOURCE: Resource = Resource {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: true,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &PodDisruptionBudget,
};

/// PodDisruptionBudget: how many of some pods may be evicted at once.
pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn validates_metadata(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, new: &mut Object) {
        let none = json!({
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        });
        new.set("status", none);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        let (least, most) = (spec.key("minAvailable"), spec.key("maxUnavailable"));
        if least.exists() && most.exists() {
            let schema = SchemaRef::for_kind("policy", "v1", "PodDisruptionBudget")
                .and_then(|kind| kind.child("spec"))
                .unwrap_or_else(SchemaRef::any);
            let shown = go_form(spec.value().unwrap_or(&Value::Null), &schema);
            let detail = "minAvailable and maxUnavailable cannot be both set";
            errors.invalid_as(&spec, shown, detail);
        }
        for amount in [least, most] {
            if amount.exists() {
                number_or_share(&amount, errors);
            }
        }
        selectors::label_selector(&spec.key("selector"), errors);
        let policy = spec.key("unhealthyPodEvictionPolicy");
        if policy.exists() {
            errors.one_of(&policy, &["AlwaysAllow", "IfHealthyBudget"]);
        }
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        let status = new.at("status");
        conditions::conditions(&status.key("conditions"), errors);
        for field in [
            "disruptionsAllowed",
            "currentHealthy",
            "desiredHealthy",
            "expectedPods",
        ] {
            numbers::non_negative(&status.key(field), errors);
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let amount = |field: &str| match object.at("spec").key(field).value() {
            None => Value::from("N/A"),
            Some(Value::String(text)) => Value::from(text.as_str()),
            Some(number) => Value::from(number.to_string()),
        };
        let allowed = object.at("status.disruptionsAllowed").as_i64();
        vec![
            object.name().into(),
            amount("minAvailable"),
            amount("maxUnavailable"),
            allowed.unwrap_or(0).into(),
            age(object, now),
        ]
    }
}

/// Reports a negative number, a text that is no percentage, and more than all.
fn number_or_share(at: &At<'_>, errors: &mut FieldErrors) {
    let Some(text) = at.as_str() else {
        return numbers::non_negative(at, errors);
    };
    let digits = text.strip_suffix('%').unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                      regex used for validation is '[0-9]+%')";
        errors.invalid(at, detail);
    } else if digits.parse::<u32>().is_ok_and(|percent| percent > 100) {
        errors.invalid(at, "must not be greater than 100%");
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Min Available",
        "The minimum number of pods that must be available.",
    ),
    Column::string(
        "Max Unavailable",
        "The maximum number of pods that may be unavailable.",
    ),
    Column::integer(
        "Allowed Disruptions",
        "Calculated number of pods that may be disrupted at this time.",
    ),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_amounts_is_stated() {
        let findings = |spec: Value| {
            let mut errors = FieldErrors::default();
            let budget = Object::from_value(json!({"spec": spec})).expect("an object");
            PodDisruptionBudget.validate(&budget, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for accepted in [
            json!({}),
            json!({"minAvailable": "50%"}),
            json!({"maxUnavailable": 1}),
        ] {
            assert_eq!(findings(accepted), Vec::<String>::new());
        }
        for refused in [
            json!({"minAvailable": -1}),
            json!({"minAvailable": "half"}),
            json!({"maxUnavailable": "101%"}),
            json!({"unhealthyPodEvictionPolicy": "Never"}),
        ] {
            assert_eq!(findings(refused.clone()).len(), 1, "{refused}");
        }
        assert_eq!(
            findings(json!({"minAvailable": 1, "maxUnavailable": "1%"})),
            [
                "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":null,\"MaxUnavailable\":\"1%\",\
                 \"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set"
            ]
        );
    }
}

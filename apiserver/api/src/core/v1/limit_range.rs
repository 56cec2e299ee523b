//! LimitRange: what the containers, Pods and claims of a namespace may ask for, and what they get by default.

use std::collections::{BTreeSet, HashSet};

use coracle_clock::Timestamp;
use serde_json::{Map, Value};

use super::persistent_volume_claim::{parsed, quantity_invalid, quantity_text};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::object::each_object;
use crate::quantity::Quantity;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of limitranges.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &LimitRange,
};

/// LimitRange: what the containers, Pods and claims of a namespace may ask for.
pub struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Object) {
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            each_object(spec, "limits", limit_defaults);
        }
    }

    fn prepare_for_create(&self, new: &mut Object) {
        // One without a name gets one; the uid, which is drawn before, read backwards is as unique.
        if new.name().is_empty() && new.at("metadata.generateName").is_empty() {
            let digits: String = new.uid().chars().filter(|c| *c != '-').rev().collect();
            let parts = [0..8, 8..12, 12..16, 16..20, 20..32]
                .map(|part| digits.get(part).unwrap_or_default());
            let name = parts.join("-");
            let metadata = new.metadata_mut();
            metadata.shift_remove("name");
            metadata.shift_insert(0, "name".to_owned(), name.into());
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let mut types = HashSet::new();
        for limit in new.at("spec.limits").items() {
            let kind = limit.key("type");
            limit_type(&kind, errors);
            if !types.insert(kind.str()) {
                let shown = Value::from(kind.str());
                errors.duplicate(&At::maybe(Some(&shown), kind.path()));
            }
            limits(&limit, errors);
        }
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.metadata("creationTimestamp").into(),
        ]
    }
}

/// A container's default is the most it may have, its default request the default or the least.
fn limit_defaults(limit: &mut Map<String, Value>) {
    if limit.get("type").and_then(Value::as_str) != Some("Container") {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let Some(source) = limit.get(from).and_then(Value::as_object).cloned() else {
            continue;
        };
        if source.is_empty() {
            continue;
        }
        let slot = limit.entry(to).or_insert(Value::Null);
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        if let Some(target) = slot.as_object_mut() {
            for (name, quantity) in source {
                target.entry(name).or_insert(quantity);
            }
        }
    }
}

fn limit_type(at: &At<'_>, errors: &mut FieldErrors) {
    let before = errors.len();
    errors.text(at, names::qualified_name);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&at.str());
    if errors.len() == before && !at.str().contains('/') && !standard {
        errors.invalid(at, "must be a standard limit type or fully qualified");
    }
}

const LISTS: [&str; 5] = [
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];

fn limits(limit: &At<'_>, errors: &mut FieldErrors) {
    let kind = limit.key("type").str();
    let mut keys = BTreeSet::new();
    for list in LISTS {
        let at = limit.key(list);
        if kind == "Pod" && list.starts_with("default") {
            if !at.is_empty() {
                errors.forbidden(&at, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if list == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            storage(limit, errors);
        }
        for (name, entry) in at.entries() {
            resource_name(kind, name, &entry, errors);
            keys.insert(name);
        }
    }
    for name in keys {
        compare(limit, name, errors);
    }
}

fn storage(limit: &At<'_>, errors: &mut FieldErrors) {
    let named = |list: &str| {
        let entries = limit.key(list);
        entries.entries().any(|(name, _)| name == "storage")
    };
    if !named("min") && !named("max") {
        errors.required(
            &limit.key("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
}

fn resource_name(kind: &str, name: &str, at: &At<'_>, errors: &mut FieldErrors) {
    let place = |detail: String, errors: &mut FieldErrors| {
        errors.push(
            ErrorType::Invalid,
            at.path(),
            Some(Value::from(name)),
            detail,
        );
    };
    let found = names::qualified_name(name);
    if !found.is_empty() {
        found.into_iter().for_each(|detail| place(detail, errors));
        return;
    }
    if name.contains('/') {
        return;
    }
    let container =
        ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if matches!(kind, "Pod" | "Container") {
        if !container {
            place(
                "must be a standard resource for containers".to_owned(),
                errors,
            );
        }
    } else if !container && !super::resource_quota::STANDARD.contains(&name) && name != "storage" {
        place(
            "must be a standard resource type or fully qualified".to_owned(),
            errors,
        );
    }
}

/// Reports limits of one resource that contradict each other.
fn compare(limit: &At<'_>, name: &str, errors: &mut FieldErrors) {
    let at = |list: &str| limit.key(list).entry(name);
    let of = |list: &str| {
        let present = limit
            .key(list)
            .value()
            .and_then(|map| map.get(name))
            .is_some();
        // A quantity that is null is Go's zero.
        present.then(|| parsed(&at(list)).unwrap_or_else(|| Quantity::from_value(0)))
    };
    let text = |quantity: &Quantity| quantity.to_string();
    let (max, min, ratio) = (of("max"), of("min"), of("maxLimitRequestRatio"));
    let pod = limit.key("type").str() == "Pod";
    let default = of("default").filter(|_| !pod);
    let request = of("defaultRequest").filter(|_| !pod);
    let mut check = |low: &Option<Quantity>,
                     high: &Option<Quantity>,
                     list: &str,
                     low_shown: bool,
                     words: (&str, &str)| {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let shown = if low_shown { low } else { high };
            errors.push(
                ErrorType::Invalid,
                at(list).path(),
                Some(text(shown).into()),
                format!(
                    "{} value {} is greater than {} value {}",
                    words.0,
                    text(low),
                    words.1,
                    text(high)
                ),
            );
        }
    };
    check(&min, &max, "min", true, ("min", "max"));
    check(
        &min,
        &request,
        "defaultRequest",
        false,
        ("min", "default request"),
    );
    check(
        &request,
        &max,
        "defaultRequest",
        true,
        ("default request", "max"),
    );
    check(
        &request,
        &default,
        "defaultRequest",
        true,
        ("default request", "default limit"),
    );
    check(&min, &default, "default", true, ("min", "default"));
    check(&default, &max, "default", false, ("default", "max"));
    if let Some(ratio) = ratio {
        let place = at("maxLimitRequestRatio");
        if ratio < Quantity::from_value(1) {
            quantity_invalid(
                &place,
                &format!("ratio {} is less than 1", text(&ratio)),
                errors,
            );
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            let most = max.milli_value() as f64 / min.milli_value() as f64;
            if ratio.milli_value() as f64 / 1000.0 > most {
                let detail = format!("ratio {} is greater than max/min = {most:.6}", text(&ratio));
                quantity_invalid(&place, &detail, errors);
            }
        }
    }
    let exact =
        name.starts_with("hugepages-") || (name.contains('/') && !name.contains("kubernetes.io/"));
    if let (true, Some(default), Some(request)) = (exact, &default, &request)
        && default != request
    {
        let detail = format!(
            "default value {} must equal to defaultRequest value {} in {name}",
            text(default),
            text(request)
        );
        errors.push(
            ErrorType::Invalid,
            at("defaultRequest").path(),
            Some(quantity_text(&at("defaultRequest")).into()),
            detail,
        );
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        ..AGE
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn range(limit: Value) -> Object {
        let object = json!({"metadata": {"name": "x"}, "spec": {"limits": [limit]}});
        let mut object = Object::from_value(object).expect("an object");
        LimitRange.default(&mut object);
        object
    }

    #[test]
    fn containers_get_the_most_they_may_have() {
        let object =
            range(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}));
        let limit = object.at("spec.limits").index(0);
        assert_eq!(limit.key("default").value(), Some(&json!({"cpu": "2"})));
        assert_eq!(
            limit.key("defaultRequest").value(),
            Some(&json!({"cpu": "2", "memory": "1Mi"}))
        );
    }

    #[test]
    fn accepted_and_refused_side_by_side() {
        let findings = |limit: Value| {
            let mut errors = FieldErrors::default();
            LimitRange.validate(&range(limit), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(
            findings(json!({"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "1"}})).is_empty()
        );
        assert_eq!(
            findings(json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
            ]
        );
        assert_eq!(
            findings(json!({"type": "Thing"})),
            [
                "spec.limits[0].type: Invalid value: \"Thing\": must be a standard limit type or fully qualified"
            ]
        );
    }
}

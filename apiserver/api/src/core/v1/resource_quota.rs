//! ResourceQuota: how much a namespace may use.

use std::collections::BTreeSet;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::persistent_volume_claim::{parsed, quantity_invalid, quantity_text};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::quantity::Quantity;
use crate::schema::internal_form;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of resourcequotas.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ResourceQuota,
};

/// The resources without a domain that a quota may name, besides huge pages.
pub const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Those that are counted.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];

/// Those that Pods have, but for their number.
const OF_PODS: &[&str] = &[
    "cpu",
    "memory",
    "limits.cpu",
    "limits.memory",
    "requests.cpu",
    "requests.memory",
];

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// ResourceQuota: how much a namespace may use.
pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        quantities(&spec.key("hard"), errors);
        scopes(&spec, errors);
        if spec.key("scopeSelector").exists() {
            scope_selector(&spec, errors);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let set = |object: &Object| {
            let scopes = object.at("spec.scopes");
            let texts: BTreeSet<String> = scopes.items().map(|s| s.str().to_owned()).collect();
            texts
        };
        if set(new) != set(old) {
            let shown: Vec<String> = set(new).into_iter().collect();
            errors.push(
                ErrorType::Invalid,
                "spec.scopes",
                Some(shown.into()),
                "field is immutable",
            );
        }
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        quantities(&new.at("status.hard"), errors);
        quantities(&new.at("status.used"), errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let (hard, used) = (object.at("status.hard"), object.at("status.used"));
        let mut names: Vec<&str> = hard.entries().map(|(name, _)| name).collect();
        names.sort_unstable();
        let column = |limits: bool| {
            let texts: Vec<String> = names
                .iter()
                .filter(|name| name.starts_with("limits") == limits)
                .map(|name| {
                    let used = used.entry(name);
                    let used = if used.exists() {
                        quantity_text(&used)
                    } else {
                        "0".to_owned()
                    };
                    format!("{name}: {used}/{}", quantity_text(&hard.entry(name)))
                })
                .collect();
            Value::from(texts.join(", "))
        };
        vec![
            object.name().into(),
            column(false),
            column(true),
            age(object, now),
        ]
    }
}

fn quantities(list: &At<'_>, errors: &mut FieldErrors) {
    for (name, at) in list.entries() {
        let found = names::qualified_name(name);
        let named = |detail: String, errors: &mut FieldErrors| {
            errors.push(
                ErrorType::Invalid,
                at.path(),
                Some(Value::from(name)),
                detail,
            );
        };
        if !found.is_empty() {
            found.into_iter().for_each(|detail| named(detail, errors));
        } else if !name.contains('/') && !is_standard(name) {
            named("must be a standard resource for quota".to_owned(), errors);
        }
        let Some(quantity) = parsed(&at) else {
            continue;
        };
        if quantity.is_negative() {
            quantity_invalid(&at, "must be greater than or equal to 0", errors);
        }
        let whole = Quantity::from_value(quantity.value()) == quantity;
        if (COUNTED.contains(&name) || name.starts_with("count/")) && !whole {
            quantity_invalid(&at, "must be an integer", errors);
        }
    }
}

fn is_standard(name: &str) -> bool {
    let huge = name.strip_prefix("requests.").unwrap_or(name);
    STANDARD.contains(&name) || huge.starts_with("hugepages-")
}

/// Whether a scope says something about a resource.
fn applies(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => name == "pods",
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => name == "pods" || OF_PODS.contains(&name),
        "VolumeAttributesClass" => name == "persistentvolumeclaims" || name == "requests.storage",
        _ => true,
    }
}

fn misapplied(spec: &At<'_>, scope: &str) -> usize {
    let hard = spec.key("hard");
    let names: BTreeSet<&str> = hard.entries().map(|(name, _)| name).collect();
    names
        .into_iter()
        .filter(|name| is_standard(name) && !applies(scope, name))
        .count()
}

fn conflict(scopes: &BTreeSet<&str>) -> usize {
    [
        ["BestEffort", "NotBestEffort"],
        ["Terminating", "NotTerminating"],
    ]
    .iter()
    .filter(|pair| pair.iter().all(|scope| scopes.contains(scope)))
    .count()
}

fn scopes(spec: &At<'_>, errors: &mut FieldErrors) {
    let list = spec.key("scopes");
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let scope = item.str();
        if !SCOPES.contains(&scope) {
            errors.invalid(&list, "unsupported scope");
        }
        for _ in 0..misapplied(spec, scope) {
            errors.invalid(&list, "unsupported scope applied to resource");
        }
        seen.insert(scope);
    }
    for _ in 0..conflict(&seen) {
        errors.invalid(&list, "conflicting scopes");
    }
}

fn scope_selector(spec: &At<'_>, errors: &mut FieldErrors) {
    let selector = spec.key("scopeSelector");
    let list = selector.key("matchExpressions");
    let mut seen = BTreeSet::new();
    for requirement in list.items() {
        // Upstream leaves the index out of these paths.
        let place = |field: &str| {
            At::maybe(
                requirement.key(field).value(),
                format!("{}.{field}", list.path()),
            )
        };
        let (scope, operator, values) = (place("scopeName"), place("operator"), place("values"));
        let named = |at: &At<'_>, detail: &str, errors: &mut FieldErrors| {
            errors.push(
                ErrorType::Invalid,
                at.path(),
                Some(Value::from(at.str())),
                detail,
            );
        };
        if !SCOPES.contains(&scope.str()) {
            named(&scope, "unsupported scope", errors);
        }
        for _ in 0..misapplied(spec, scope.str()) {
            errors.push(
                ErrorType::Invalid,
                list.path(),
                Some(internal_form(
                    "io.k8s.api.core.v1.ScopeSelector",
                    selector.value(),
                )),
                "unsupported scope applied to resource",
            );
        }
        let only_exists = !matches!(scope.str(), "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope.str());
        if only_exists && operator.str() != "Exists" {
            named(
                &operator,
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
                errors,
            );
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => errors.required(
                &values,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.invalid(
                &values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "Exists" | "DoesNotExist" => {}
            _ => named(&operator, "not a valid selector operator", errors),
        }
        seen.insert(scope.str());
    }
    for _ in 0..conflict(&seen) {
        let scopes = spec.key("scopes");
        errors.push(
            ErrorType::Invalid,
            list.path(),
            scopes.value().cloned().or(Some(Value::Null)),
            "conflicting scopes",
        );
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Request",
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    Column::string(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the \
         node.",
    ),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(spec: Value) -> Vec<String> {
        let object = Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec}));
        let mut errors = FieldErrors::default();
        ResourceQuota.validate(&object.expect("an object"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn accepted_and_refused_side_by_side() {
        for spec in [
            json!({"hard": {"pods": "3", "limits.cpu": "2", "count/jobs.batch": "1"}}),
            json!({"hard": {"pods": "3"}, "scopes": ["BestEffort"]}),
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]}}),
        ] {
            assert_eq!(findings(spec), Vec::<String>::new());
        }
        let refused = [
            (
                json!({"hard": {"pods": "-1"}}),
                "spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"hard": {"things": "1"}}),
                "spec.hard[things]: Invalid value: \"things\": must be a standard resource for quota",
            ),
            (
                json!({"scopes": ["BestEffort", "NotBestEffort"]}),
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ),
        ];
        for (spec, finding) in refused {
            assert_eq!(findings(spec), [finding]);
        }
    }
}

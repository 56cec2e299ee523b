//! FlowSchema: which requests belong to which priority level.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::{conditions, fixed, shown};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::object::default_int;
use crate::strategy::ALL_METADATA;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of flow schemas.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &FlowSchema,
};

/// FlowSchema: which requests belong to which priority level.
pub struct FlowSchema;

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Object) {
        default_int(object.map_mut("spec"), "matchingPrecedence", 1000);
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        spec(new.name(), &new.at("spec"), errors);
        if mandatory(new.name()).is_some_and(|spec| !same(&spec, new.at("spec").value())) {
            let detail = format!("spec of '{}' must equal the fixed value", new.name());
            fixed(new, "FlowSchemaSpec", detail, errors);
        }
        conditions(new, errors);
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        conditions(new, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let method = match spec.key("distinguisherMethod").value() {
            None => "<none>",
            Some(_) => spec.at("distinguisherMethod.type").str(),
        };
        let conditions = object.at("status.conditions");
        let dangling = conditions
            .items()
            .find(|c| c.key("type").str() == "Dangling");
        vec![
            object.name().into(),
            spec.at("priorityLevelConfiguration.name").str().into(),
            spec.key("matchingPrecedence").as_i64().unwrap_or(0).into(),
            method.into(),
            age(object, now),
            dangling
                .map_or("?", |condition| condition.key("status").str())
                .into(),
        ]
    }
}

fn spec(name: &str, spec: &At<'_>, errors: &mut FieldErrors) {
    let precedence = spec.key("matchingPrecedence");
    match precedence.as_i64().unwrap_or(0) {
        ..=0 => errors.invalid(&precedence, "must be a positive value"),
        1 if name != "exempt" => errors.invalid(
            &precedence,
            "only the schema named 'exempt' may have matchingPrecedence 1",
        ),
        10_001.. => errors.invalid(&precedence, "must not be greater than 10000"),
        _ => {}
    }
    let method = spec.key("distinguisherMethod");
    if method.exists() && !matches!(method.key("type").str(), "ByNamespace" | "ByUser") {
        // Upstream shows the whole method here.
        let place = method.key("type");
        let value = shown(&method, "FlowDistinguisherMethod");
        let detail = "supported values: \"ByNamespace\", \"ByUser\"";
        errors.push(ErrorType::NotSupported, place.path(), value, detail);
    }
    let level = spec.at("priorityLevelConfiguration.name");
    if level.is_empty() {
        errors.required(&level, "must reference a priority level");
    } else {
        errors.text(&level, names::dns1123_subdomain);
    }
    for rule in spec.key("rules").items() {
        self::rule(&rule, errors);
    }
}

fn rule(rule: &At<'_>, errors: &mut FieldErrors) {
    let subjects = rule.key("subjects");
    for subject in subjects.items() {
        self::subject(&subject, errors);
    }
    if subjects.is_empty() {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    let (resources, others) = (rule.key("resourceRules"), rule.key("nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        errors.required(
            rule,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    for rule in resources.items() {
        resource_rule(&rule, errors);
    }
    for rule in others.items() {
        non_resource_rule(&rule, errors);
    }
}

/// A subject says its name in the field of its kind, and in no other.
fn subject(subject: &At<'_>, errors: &mut FieldErrors) {
    const FIELDS: &[(&str, &str)] = &[
        ("serviceAccount", "ServiceAccount"),
        ("user", "User"),
        ("group", "Group"),
    ];
    let kind = subject.key("kind");
    let Some((field, _)) = FIELDS.iter().find(|(_, name)| *name == kind.str()) else {
        errors.not_supported(&kind, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let own = subject.key(field);
    let (name, namespace) = (own.key("name"), own.key("namespace"));
    if !own.exists() {
        let detail = format!("{field} is required when subject kind is '{}'", kind.str());
        errors.required(&own, detail);
    } else {
        let account = *field == "serviceAccount";
        if name.is_empty() {
            errors.required(&name, "");
        } else if account && name.str() != "*" {
            errors.text(&name, names::dns1123_subdomain);
        }
        if account && namespace.is_empty() {
            errors.required(&namespace, "must specify namespace for service account");
        } else if account {
            errors.text(&namespace, names::dns1123_label);
        }
    }
    for (other, name) in FIELDS.iter().filter(|(other, _)| other != field) {
        if subject.key(other).exists() {
            let detail = format!("{other} is forbidden when subject kind is not '{name}'");
            errors.forbidden(&subject.key(other), detail);
        }
    }
}

/// Whether `*` is among the texts here; reports it when it is not alone.
fn wildcard(at: &At<'_>, what: &str, errors: &mut FieldErrors) -> bool {
    let found = at.items().any(|item| item.str() == "*");
    if found && at.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.invalid(at, detail);
    }
    found
}

fn verbs(verbs: &At<'_>, errors: &mut FieldErrors) {
    if verbs.is_empty() {
        errors.required(verbs, "verbs must contain at least one value");
    } else if !wildcard(verbs, "verbs", errors)
        && !verbs.items().all(|verb| VERBS.contains(&verb.str()))
    {
        errors.not_supported(verbs, VERBS);
    }
}

fn resource_rule(rule: &At<'_>, errors: &mut FieldErrors) {
    verbs(&rule.key("verbs"), errors);
    for (field, one, many) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let list = rule.key(field);
        if list.is_empty() {
            errors.required(
                &list,
                format!("resource rules must supply at least one {one}"),
            );
        } else {
            wildcard(&list, many, errors);
        }
    }
    let namespaces = rule.key("namespaces");
    if namespaces.is_empty() && !rule.key("clusterScope").is_true() {
        errors.required(
            &namespaces,
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if !wildcard(&namespaces, "namespaces", errors) {
        for namespace in namespaces.items() {
            for why in names::dns1123_label(namespace.str()) {
                let detail =
                    format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                errors.invalid(&namespace, detail);
            }
        }
    }
}

fn non_resource_rule(rule: &At<'_>, errors: &mut FieldErrors) {
    verbs(&rule.key("verbs"), errors);
    let urls = rule.key("nonResourceURLs");
    if urls.is_empty() {
        errors.required(&urls, "nonResourceURLs must contain at least one value");
    } else if !wildcard(&urls, "non-resource URLs", errors) {
        for url in urls.items() {
            if let Some(why) = url_problem(url.str()) {
                errors.invalid(&url, why);
            }
        }
    }
}

fn url_problem(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || stars == 1 && !path.ends_with("/*") => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

/// The specs of the two schemas that are always there.
fn mandatory(name: &str) -> Option<Value> {
    let all = json!(["*"]);
    let rule = |groups: &[&str]| {
        let subjects = groups
            .iter()
            .map(|group| json!({"kind": "Group", "group": {"name": group}}))
            .collect::<Vec<_>>();
        json!({
            "subjects": subjects,
            "resourceRules": [
                {"verbs": all, "apiGroups": all, "resources": all, "clusterScope": true, "namespaces": all},
            ],
            "nonResourceRules": [{"verbs": all, "nonResourceURLs": all}],
        })
    };
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": 1,
            "rules": [rule(&["system:masters"])],
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"},
            "matchingPrecedence": 10000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [rule(&["system:unauthenticated", "system:authenticated"])],
        })),
        _ => None,
    }
}

/// Whether two specs say the same, whichever way absence is written.
fn same(wanted: &Value, given: Option<&Value>) -> bool {
    let at = |value: &Value| shown(&At::root(value, "spec"), "FlowSchemaSpec");
    given.is_some_and(|given| at(wanted) == at(given))
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "PriorityLevel",
        "`name` is the name of the priority level configuration being referenced Required.",
    ),
    Column::string(
        "MatchingPrecedence",
        "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen \
         FlowSchema is among those with the numerically lowest (which we take to be logically highest) \
         MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the \
         precedence is not specified, it will be set to 1000 as default.",
    ),
    Column::string(
        "DistinguisherMethod",
        "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this \
         schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
    ),
    AGE,
    Column::string(
        "MissingPL",
        "references a broken or non-existent PriorityLevelConfiguration",
    ),
];

//! MutatingAdmissionPolicy: changes in CEL that are made to what is written.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::matching;
use super::policy::{default_policy, has_params, param_kind_text, seen, subject, variables};
use crate::At;
use crate::cel::{Environment, Type};
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of mutating admission policies.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    short_names: &[],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &MutatingAdmissionPolicy,
};

/// MutatingAdmissionPolicy: changes in CEL that are made to what is written.
pub struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
    fn default(&self, object: &mut Object) {
        default_policy(object);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        subject(&spec, errors);
        let operations = spec.at("matchConstraints.resourceRules");
        for operation in operations
            .items()
            .flat_map(|rule| rule.key("operations").items().collect::<Vec<_>>())
        {
            // Upstream names no index here.
            let place = At::maybe(
                operation.value(),
                "spec.matchConstraints.resourceRules.operations",
            );
            errors.one_of(&place, &["*", "CONNECT", "CREATE", "UPDATE"]);
        }
        let environment = Environment::admission(has_params(&spec), true);
        matching::conditions(&spec.key("matchConditions"), &environment, errors);
        let variables = variables(&spec, errors);
        let environment = seen(&spec, true, variables)
            .with_struct("Object")
            .with_struct("JSONPatch");
        let mutations = spec.key("mutations");
        if mutations.is_empty() {
            errors.required(&mutations, "mutations must contain at least one item");
        }
        for mutation in mutations.items() {
            self::mutation(&mutation, &environment, errors);
        }
        let reinvocation = spec.key("reinvocationPolicy");
        if reinvocation.is_empty() {
            errors.required(&reinvocation, "");
        } else {
            errors.one_of(&reinvocation, &["IfNeeded", "Never"]);
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("spec.mutations").len().into(),
            param_kind_text(object),
            age(object, now),
        ]
    }
}

/// A mutation is a JSON patch or an applied configuration, and says which.
fn mutation(mutation: &At<'_>, environment: &Environment, errors: &mut FieldErrors) {
    let kind = mutation.key("patchType");
    let (own, other) = match kind.str() {
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "" => {
            errors.required(&kind, "");
            return;
        }
        _ => {
            errors.not_supported(&kind, &["ApplyConfiguration", "JSONPatch"]);
            return;
        }
    };
    let (own, other) = (mutation.key(own), mutation.key(other));
    if other.exists() {
        let detail = format!("must not be specified when patchType is {}", kind.str());
        errors.forbidden(&other, detail);
    }
    if !own.exists() {
        let detail = format!("must be specified when patchType is {}", kind.str());
        errors.required(&own, detail);
    } else if own.key("expression").str().trim().is_empty() {
        errors.required(&own.key("expression"), "expression is not specified");
    } else {
        let patches = Type::list(Type::Named("JSONPatch".to_owned()));
        let (accepted, name) = match kind.str() {
            "JSONPatch" => (patches, "list(JSONPatch)"),
            _ => (Type::Named("Object".to_owned()), "Object"),
        };
        let expression = own.key("expression");
        matching::result(&expression, environment, (&[accepted], name), errors);
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Mutations",
        "Mutation indicates the number of mutations rules defined in this configuration",
    ),
    Column::string(
        "ParamKind",
        "ParamKind specifies the kind of resources used to parameterize this policy",
    ),
    AGE,
];

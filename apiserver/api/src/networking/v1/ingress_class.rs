//! IngressClass: who serves an Ingress.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::segment;
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Most bytes of a controller's name.
const LONGEST_CONTROLLER: usize = 250;

/// What the pipeline knows of ingress classes.
pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &IngressClass,
};

/// IngressClass: who serves an Ingress.
pub struct IngressClass;

/// Whether Ingresses that name no class get this one.
pub fn is_default(class: &Object) -> bool {
    let annotations = class.at("metadata.annotations");
    annotations
        .entry("ingressclass.kubernetes.io/is-default-class")
        .str()
        == "true"
}

impl Strategy for IngressClass {
    fn default(&self, object: &mut Object) {
        if object.at("spec.parameters").exists() {
            object.set_default("spec.parameters.scope", "Cluster");
        }
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        let controller = new.at("spec.controller");
        if controller.is_empty() {
            errors.required(&controller, "");
        } else {
            if controller.str().len() > LONGEST_CONTROLLER {
                errors.too_long(&controller, LONGEST_CONTROLLER);
            }
            domain_prefixed_path(&controller, errors);
        }
        let parameters = new.at("spec.parameters");
        if parameters.exists() {
            reference(&parameters, errors);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.unchanged_texts(new, old, &["spec.controller"]);
        self.validate_create(new, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let parameters = object.at("spec.parameters");
        let mut text = "<none>".to_owned();
        if parameters.exists() {
            let (kind, name) = (parameters.key("kind").str(), parameters.key("name").str());
            text = match parameters.key("apiGroup").as_str() {
                Some(group) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            };
        }
        vec![
            object.name().into(),
            object.at("spec.controller").str().into(),
            text.into(),
            age(object, now),
        ]
    }
}

fn domain_prefixed_path(at: &At<'_>, errors: &mut FieldErrors) {
    let (domain, path) = match at.str().split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => (domain, path),
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            return errors.invalid(at, detail);
        }
    };
    for message in names::dns1123_subdomain(domain) {
        errors.invalid_as(at, domain.into(), message);
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(legal) {
        let detail =
            r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.invalid_as(at, path.into(), detail);
    }
}

/// Reports what is wrong with the reference to a class's parameters.
fn reference(at: &At<'_>, errors: &mut FieldErrors) {
    if at.key("apiGroup").exists() {
        errors.text(&at.key("apiGroup"), names::dns1123_subdomain);
    }
    segment(&at.key("kind"), errors);
    segment(&at.key("name"), errors);
    let (scope, namespace) = (at.key("scope"), at.key("namespace"));
    match scope.as_str() {
        None => errors.required(&scope, ""),
        Some("Namespace") if !namespace.exists() => {
            let detail = "`parameters.scope` is set to 'Namespace'";
            errors.push(ErrorType::Required, namespace.path(), None, detail);
        }
        Some("Namespace") => errors.text(&namespace, names::dns1123_label),
        Some("Cluster") if namespace.exists() => {
            errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
        }
        Some("Cluster") => {}
        Some(_) => errors.not_supported(&scope, &["Cluster", "Namespace"]),
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Controller",
        "Controller that is responsible for handling this class",
    ),
    Column::string(
        "Parameters",
        "A reference to a resource with additional parameters",
    ),
    AGE,
];

//! Ingress: HTTP from outside, by host and path.

use std::collections::BTreeSet;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::{FieldErrors, Object, Resource, Strategy};

mod validation;

/// How a class was named before there was a field for it.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Hosts that a row shows.
const SHOWN_HOSTS: usize = 3;

/// What the pipeline knows of ingresses.
pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Ingress,
};

/// Ingress: HTTP from outside, by host and path.
pub struct Ingress;

impl Strategy for Ingress {
    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({"loadBalancer": {}}));
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        validation::spec(&new.at("spec"), validation::Tolerance::default(), errors);
        let class = new.at("spec.ingressClassName");
        let older = new.at("metadata.annotations").entry(CLASS_ANNOTATION);
        if older.exists() && class.exists() && older.str() != class.str() {
            let field = format!("annotations.{CLASS_ANNOTATION}");
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(ErrorType::Invalid, &field, Some(older.str().into()), detail);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let tolerance = validation::Tolerance::of(&old.at("spec"));
        validation::spec(&new.at("spec"), tolerance, errors);
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        validation::status(new, old, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let annotation = new.at("metadata.annotations").entry(CLASS_ANNOTATION);
        let warning = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
        (old.is_none() && annotation.exists())
            .then(|| warning.to_owned())
            .into_iter()
            .collect()
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let class = spec.key("ingressClassName").as_str().unwrap_or("<none>");
        let ports = if spec.key("tls").is_empty() {
            "80"
        } else {
            "80, 443"
        };
        vec![
            object.name().into(),
            class.into(),
            hosts(object).into(),
            addresses(object).into(),
            ports.into(),
            age(object, now),
        ]
    }
}

fn hosts(ingress: &Object) -> String {
    let rules = ingress.at("spec.rules");
    let (mut shown, mut more) = (Vec::new(), false);
    for rule in rules.items() {
        more |= shown.len() == SHOWN_HOSTS;
        let host = rule.key("host").str().to_owned();
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => {
            let rest = rules.len() - SHOWN_HOSTS;
            format!("{} + {rest} more...", shown.join(","))
        }
    }
}

fn addresses(ingress: &Object) -> String {
    let points = ingress.at("status.loadBalancer.ingress");
    let addresses: BTreeSet<String> = points
        .items()
        .map(|point| match point.key("ip").str() {
            "" => point.key("hostname").str().to_owned(),
            ip => ip.to_owned(),
        })
        .filter(|text| !text.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Class",
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    Column::string(
        "Hosts",
        "Hosts that incoming requests are matched against before the ingress rule",
    ),
    Column::string(
        "Address",
        "Address is a list containing ingress points for the load-balancer",
    ),
    Column::string("Ports", "Ports of TLS configurations that open"),
    AGE,
];

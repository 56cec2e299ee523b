//! NetworkPolicy: who may talk to which pods, and to whom they may.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age, selector_text};
use crate::object::default_value;
use crate::validation::{address, numbers, selectors};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of network policies.
pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &NetworkPolicy,
};

/// NetworkPolicy: who may talk to which pods, and to whom they may.
pub struct NetworkPolicy;

/// The two directions of rules, and the peers of each.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Object) {
        let egress = !object.at("spec.egress").is_empty();
        let spec = object.map_mut("spec");
        for (direction, _) in DIRECTIONS {
            crate::object::each_object(spec, direction, |rule| {
                crate::object::each_object(rule, "ports", |port| {
                    default_value(port, "protocol", || "TCP".into());
                });
            });
        }
        let types = spec.get("policyTypes").and_then(Value::as_array);
        if types.is_none_or(Vec::is_empty) {
            let types = if egress {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            spec.insert("policyTypes".to_owned(), types);
        }
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        policy(&new.at("spec"), &[], errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        // A range that was there before stays acceptable wherever it is now.
        let mut known = Vec::new();
        for (direction, peers) in DIRECTIONS {
            for rule in old.at("spec").key(direction).items() {
                for peer in rule.key(peers).items() {
                    let block = peer.key("ipBlock");
                    known.push(block.key("cidr").str().to_owned());
                    known.extend(block.key("except").items().map(|at| at.str().to_owned()));
                }
            }
        }
        policy(&new.at("spec"), &known, errors);
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = |at: At<'_>| found.extend(address::range_warning(&at));
        for (direction, peers) in DIRECTIONS {
            for rule in new.at("spec").key(direction).items() {
                for peer in rule.key(peers).items() {
                    let block = peer.key("ipBlock");
                    look(block.key("cidr"));
                    block.key("except").items().for_each(&mut look);
                }
            }
        }
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            selector_text(&object.at("spec.podSelector")).into(),
            age(object, now),
        ]
    }
}

fn policy(spec: &At<'_>, known: &[String], errors: &mut FieldErrors) {
    selectors::label_selector(&spec.key("podSelector"), errors);
    for (direction, peers) in DIRECTIONS {
        for rule in spec.key(direction).items() {
            for at in rule.key("ports").items() {
                port(&at, errors);
            }
            for at in rule.key(peers).items() {
                peer(&at, known, errors);
            }
        }
    }
    let types = spec.key("policyTypes");
    if types.len() > 2 {
        return errors.invalid(&types, "may not specify more than two policyTypes");
    }
    for kind in types.items() {
        errors.one_of(&kind, &["Ingress", "Egress"]);
    }
}

fn port(at: &At<'_>, errors: &mut FieldErrors) {
    let (protocol, port, end) = (at.key("protocol"), at.key("port"), at.key("endPort"));
    if protocol.exists() {
        errors.one_of(&protocol, &["TCP", "UDP", "SCTP"]);
    }
    if !port.exists() {
        if end.exists() {
            errors.invalid(&end, "may not be specified when `port` is not specified");
        }
    } else if port.as_str().is_some() {
        if end.exists() {
            errors.invalid(&end, "may not be specified when `port` is non-numeric");
        }
        numbers::port_or_name(&port, errors);
    } else {
        numbers::port(&port, errors);
        if end.exists() {
            if end.as_i64() < port.as_i64() {
                // Upstream shows the other number.
                let shown = port.value().cloned().unwrap_or_default();
                errors.invalid_as(&end, shown, "must be greater than or equal to `port`");
            }
            numbers::port(&end, errors);
        }
    }
}

fn peer(at: &At<'_>, known: &[String], errors: &mut FieldErrors) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        let selector = at.key(field);
        if selector.exists() {
            count += 1;
            selectors::label_selector(&selector, errors);
        }
    }
    let block = at.key("ipBlock");
    if block.exists() {
        count += 1;
        ip_block(&block, known, errors);
    }
    if count == 0 {
        errors.required(at, "must specify a peer");
    } else if count > 1 && block.exists() {
        errors.forbidden(at, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(at: &At<'_>, known: &[String], errors: &mut FieldErrors) {
    let cidr = at.key("cidr");
    if cidr.is_empty() {
        return errors.required(&cidr, "");
    }
    let mut check = |at: &At<'_>| {
        if !known.iter().any(|text| text == at.str()) {
            address::cidr(at, errors);
        }
    };
    check(&cidr);
    let excepts = at.key("except");
    let Some(all) = address::parse_cidr(cidr.str()) else {
        return;
    };
    for except in excepts.items() {
        if !known.iter().any(|text| text == except.str()) {
            address::cidr(&except, errors);
        }
        let Some(part) = address::parse_cidr(except.str()) else {
            continue;
        };
        if !address::contains(all, part.0) || all.1 >= part.1 {
            errors.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Pod-Selector",
        "podSelector selects the pods to which this NetworkPolicy object applies. The array of rules is applied \
         to any pods selected by this field. An empty selector matches all pods in the policy's namespace. \
         Multiple network policies can select the same set of pods. In this case, the ingress rules for each \
         are combined additively. This field is optional. If it is not specified, it defaults to an empty \
         selector.",
    ),
    AGE,
];

//! Endpoints: the addresses behind a Service, in the form that preceded EndpointSlice.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::object::{default_text, each_object};
use crate::validation::{address, names, numbers};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Most addresses that the column shows.
const SHOWN: usize = 3;

/// What the pipeline knows of endpoints.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
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
    deprecation: Some(
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    ),
    strategy: &Endpoints,
};

/// Endpoints: the addresses behind a Service, in the form that preceded EndpointSlice.
pub struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Object) {
        each_object(object.root_mut(), "subsets", |subset| {
            each_object(subset, "ports", |port| {
                default_text(port, "protocol", "TCP")
            });
        });
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        for subset in new.at("subsets").items() {
            let (ready, waiting, ports) = (
                subset.key("addresses"),
                subset.key("notReadyAddresses"),
                subset.key("ports"),
            );
            if ready.len() + waiting.len() == 0 {
                errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
            }
            for address in ready.items().chain(waiting.items()) {
                endpoint_address(&address, errors);
            }
            for port in ports.items() {
                endpoint_port(&port, ports.len() > 1, errors);
            }
        }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        for subset in new.at("subsets").items() {
            for list in ["addresses", "notReadyAddresses"] {
                let addresses = subset.key(list);
                let ips = addresses.items().map(|address| address.key("ip"));
                found.extend(ips.filter_map(|at| address::warning(&at)));
            }
        }
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            addresses_text(&object.at("subsets")).into(),
            age(object, now),
        ]
    }
}

fn endpoint_address(endpoint: &At<'_>, errors: &mut FieldErrors) {
    let ip = endpoint.key("ip");
    let shown = At::maybe(Some(ip.value().unwrap_or(&EMPTY)), ip.path());
    let before = errors.len();
    address::ip(&shown, errors);
    if errors.len() > before {
        errors.invalid(&shown, "must be a valid IP address");
    } else {
        address::non_special_ip(&ip, errors);
    }
    for (field, rule) in [
        ("hostname", names::dns1123_label as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
    ] {
        let name = endpoint.key(field);
        if !name.str().is_empty() {
            errors.text(&name, rule);
        }
    }
}

static EMPTY: Value = Value::String(String::new());

fn endpoint_port(port: &At<'_>, name_required: bool, errors: &mut FieldErrors) {
    let (name, protocol) = (port.key("name"), port.key("protocol"));
    if name_required && name.str().is_empty() {
        errors.required(&name, "");
    } else if !name.str().is_empty() {
        errors.text(&name, names::dns1123_label);
    }
    numbers::port(&port.key("port"), errors);
    if protocol.str().is_empty() {
        errors.required(&protocol, "");
    } else {
        errors.one_of(&protocol, &["SCTP", "TCP", "UDP"]);
    }
    if !port.key("appProtocol").str().is_empty() {
        errors.text(&port.key("appProtocol"), names::qualified_name);
    }
}

fn addresses_text(subsets: &At<'_>) -> String {
    let mut all = Vec::new();
    for subset in subsets.items() {
        let (addresses, ports) = (subset.key("addresses"), subset.key("ports"));
        for address in addresses.items().filter(|_| ports.is_empty()) {
            all.push(address.key("ip").str().to_owned());
        }
        for port in ports.items() {
            let number = port.key("port").as_i64().unwrap_or(0);
            for address in addresses.items() {
                let ip = address.key("ip").str();
                all.push(if ip.contains(':') {
                    format!("[{ip}]:{number}")
                } else {
                    format!("{ip}:{number}")
                });
            }
        }
    }
    match all.len() {
        0 if subsets.is_empty() => "<none>".to_owned(),
        count if count > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), count - SHOWN),
        _ => all.join(","),
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Endpoints",
        "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to \
         the IPs they share. A single address with multiple ports, some of which are ready and some of which \
         are not (because they come from different containers) will result in the address being displayed in \
         different subsets for the different ports. No address will appear in both Addresses and \
         NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
    ),
    AGE,
];

//! EndpointSlice: a part of the addresses behind a Service.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::object::{default_value, each_object};
use crate::validation::{address, names, numbers};
use crate::{At, FieldErrors, Object, Resource, Strategy};

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;

/// What the pipeline knows of endpointslices.
pub static RESOURCE: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
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
    strategy: &EndpointSlice,
};

/// EndpointSlice: a part of the addresses behind a Service.
pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Object) {
        // Go has one nothing: what was decoded as an empty list is shown as null.
        for list in ["endpoints", "ports"] {
            if object.at(list).is_empty() {
                object.set(list, Value::Null);
            }
        }
        each_object(object.root_mut(), "ports", |port| {
            default_value(port, "name", || Value::from(""));
            default_value(port, "protocol", || Value::from("TCP"));
        });
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        // Labels say which Service a slice belongs to, so they count as content here.
        if new.at("metadata.labels").value() != old.at("metadata.labels").value() {
            let generation = old.at("metadata.generation").as_i64().unwrap_or(0) + 1;
            new.set("metadata.generation", generation);
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let (kind, endpoints, ports) =
            (new.at("addressType"), new.at("endpoints"), new.at("ports"));
        if kind.str().is_empty() {
            errors.required(&kind, "");
        } else {
            errors.one_of(&kind, &["FQDN", "IPv4", "IPv6"]);
        }
        if endpoints.len() > MOST_ENDPOINTS {
            errors.too_many(&endpoints, MOST_ENDPOINTS);
        } else {
            for one in endpoints.items() {
                endpoint(&one, kind.str(), errors);
            }
        }
        endpoint_ports(&ports, errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("addressType"), &old.at("addressType"));
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        for endpoint in new.at("endpoints").items() {
            let addresses = endpoint.key("addresses");
            found.extend(addresses.items().filter_map(|at| address::warning(&at)));
        }
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let all_ports = object.at("ports");
        let ports = all_ports
            .items()
            .map(|port| match port.key("port").as_i64() {
                Some(number) => number.to_string(),
                None => "*".to_owned(),
            });
        let endpoints = object.at("endpoints");
        let mut addresses = Vec::new();
        for endpoint in endpoints.items() {
            addresses.extend(
                endpoint
                    .key("addresses")
                    .items()
                    .map(|address| address.str().to_owned()),
            );
        }
        vec![
            object.name().into(),
            object.at("addressType").str().into(),
            some_of(ports.collect()).into(),
            some_of(addresses).into(),
            age(object, now),
        ]
    }
}

fn endpoint(endpoint: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    let addresses = endpoint.key("addresses");
    if addresses.is_empty() {
        errors.required(&addresses, "must contain at least 1 address");
    } else if addresses.len() > MOST_ADDRESSES {
        errors.too_many(&addresses, MOST_ADDRESSES);
    }
    for at in addresses.items() {
        match kind {
            "FQDN" => errors.text(&at, names::dns1123_subdomain),
            "IPv4" | "IPv6" => match address::parse_ip(at.str()) {
                Some(ip) if ip.is_ipv4() != (kind == "IPv4") => {
                    errors.invalid(&at, format!("must be an {kind} address"));
                }
                _ => address::non_special_ip(&at, errors),
            },
            _ => {}
        }
    }
    if endpoint.key("nodeName").exists() {
        errors.text(&endpoint.key("nodeName"), names::dns1123_subdomain);
    }
    if endpoint.key("hostname").exists() {
        errors.text(&endpoint.key("hostname"), names::dns1123_label);
    }
    let mut zones = HashSet::new();
    for zone in endpoint.at("hints.forZones").items() {
        let name = zone.key("name");
        if !zones.insert(name.str()) {
            errors.duplicate(&name);
        }
        errors.text(&name, names::label_value);
    }
}

fn endpoint_ports(ports: &At<'_>, errors: &mut FieldErrors) {
    if ports.len() > MOST_PORTS {
        return errors.too_many(ports, MOST_PORTS);
    }
    let mut taken = HashSet::new();
    for port in ports.items() {
        let (name, number, protocol) = (port.key("name"), port.key("port"), port.key("protocol"));
        if !name.str().is_empty() {
            errors.text(&name, names::dns1123_label);
        }
        if !taken.insert(name.str()) {
            errors.duplicate(&name);
        }
        if number.exists() {
            numbers::port(&number, errors);
        }
        if protocol.str().is_empty() {
            errors.required(&protocol, "");
        } else {
            errors.one_of(&protocol, &["SCTP", "TCP", "UDP"]);
        }
        if port.key("appProtocol").exists() {
            errors.text(&port.key("appProtocol"), names::qualified_name);
        }
    }
}

/// The first three, and how many more there are.
fn some_of(texts: Vec<String>) -> String {
    const SHOWN: usize = 3;
    match texts.len() {
        0 => "<unset>".to_owned(),
        count if count > SHOWN => {
            format!("{} + {} more...", texts[..SHOWN].join(","), count - SHOWN)
        }
        _ => texts.join(","),
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "AddressType",
        "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice \
         must be the same type. This field is immutable after creation. The following address types are \
         currently supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: \
         Represents a Fully Qualified Domain Name. (Deprecated) The EndpointSlice controller only generates, \
         and kube-proxy only processes, slices of addressType \"IPv4\" and \"IPv6\". No semantics are defined for \
         the \"FQDN\" type.",
    ),
    Column::string(
        "Ports",
        "ports specifies the list of network ports exposed by each endpoint in this slice. Each port must \
         have a unique name. Each slice may include a maximum of 100 ports. Services always have at least 1 \
         port, so EndpointSlices generated by the EndpointSlice controller will likewise always have at least \
         1 port. EndpointSlices used for other purposes may have an empty ports list.",
    ),
    Column::string(
        "Endpoints",
        "endpoints is a list of unique endpoints in this slice. Each slice may include a maximum of 1000 \
         endpoints.",
    ),
    AGE,
];

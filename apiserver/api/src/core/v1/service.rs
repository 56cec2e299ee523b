//! Service: a stable address in front of Pods.

use std::collections::{HashMap, HashSet};

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age, labels_text, proxy,
};
use crate::object::{default_int, default_text, default_value, each_object};
use crate::validation::address;
use crate::{At, FieldErrors, Object, Resource, Strategy};

#[cfg(test)]
mod tests;
mod validation;

/// How long a client stays with its endpoint by default, in seconds.
const THREE_HOURS: i64 = 10_800;

/// Annotation that another one has replaced.
const HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";

/// What the pipeline knows of services.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[proxy("ServiceProxyOptions"), STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Label,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Service,
};

/// Service: a stable address in front of Pods.
pub struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_text(spec, "sessionAffinity", "None");
        default_text(spec, "type", "ClusterIP");
        if spec.get("sessionAffinity").and_then(Value::as_str) == Some("ClientIP") {
            default_value(spec, "sessionAffinityConfig", || json!({}));
            if let Some(config) = spec
                .get_mut("sessionAffinityConfig")
                .and_then(Value::as_object_mut)
            {
                default_value(config, "clientIP", || json!({}));
                if let Some(client) = config.get_mut("clientIP").and_then(Value::as_object_mut) {
                    default_value(client, "timeoutSeconds", || json!(THREE_HOURS));
                }
            }
        } else if spec.get("sessionAffinity").and_then(Value::as_str) == Some("None") {
            spec.shift_remove("sessionAffinityConfig");
        }
        each_object(spec, "ports", |port| {
            default_text(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or(json!(0));
            let unset = match port.get("targetPort") {
                None | Some(Value::Null) => true,
                Some(Value::String(name)) => name.is_empty(),
                Some(target) => target.as_i64() == Some(0),
            };
            if unset {
                port.insert("targetPort".to_owned(), number);
            }
        });
        let kind = spec
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let external_addresses = spec
            .get("externalIPs")
            .and_then(Value::as_array)
            .is_some_and(|ips| !ips.is_empty());
        if ["NodePort", "LoadBalancer"].contains(&&*kind)
            || (kind == "ClusterIP" && external_addresses)
        {
            default_text(spec, "externalTrafficPolicy", "Cluster");
        }
        if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&&*kind) {
            default_value(spec, "internalTrafficPolicy", || json!("Cluster"));
        }
        if kind == "LoadBalancer" {
            default_value(spec, "allocateLoadBalancerNodePorts", || json!(true));
        }
        let status = object.map_mut("status");
        default_value(status, "loadBalancer", || json!({}));
        if kind == "LoadBalancer"
            && let Some(balancer) = status
                .get_mut("loadBalancer")
                .and_then(Value::as_object_mut)
        {
            each_object(balancer, "ingress", |point| {
                if point
                    .get("ip")
                    .and_then(Value::as_str)
                    .is_some_and(|ip| !ip.is_empty())
                {
                    default_text(point, "ipMode", "VIP");
                }
            });
        }
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({"loadBalancer": {}}));
        normalise_cluster_ips(new, None);
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        validation::status(new, old, errors);
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        drop_dependents_of_type(new, old);
        patch_allocated(new, old);
        normalise_cluster_ips(new, Some(old));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        validation::service(new, errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        validation::update(new, old, errors);
    }

    /// `pkg/api/service/warnings.go`, in its order.
    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let spec = new.at("spec");
        let mut found = Vec::new();
        let mut say = |said: bool, text: &str| found.extend(said.then(|| text.to_owned()));
        let (addresses, external) = (spec.key("clusterIPs"), spec.key("externalIPs"));
        let by_name = spec.key("type").str() == "ExternalName";
        let headless =
            spec.key("type").str() == "ClusterIP" && spec.key("clusterIP").str() == "None";
        let hints = new.at("metadata.annotations").entry(HINTS_ANNOTATION);
        say(
            hints.exists(),
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead",
        );
        let own = addresses.items().filter_map(|at| address::warning(&at));
        own.for_each(|text| say(true, &text));
        for (said, field) in [
            (!spec.key("loadBalancerIP").is_empty(), "loadBalancerIP"),
            (!external.is_empty(), "externalIPs"),
            (
                spec.key("sessionAffinity").str() != "None",
                "SessionAffinity",
            ),
        ] {
            let text = format!("spec.{field} is ignored for headless services");
            say(headless && said, &text);
        }
        let outer = external.items().filter_map(|at| address::warning(&at));
        outer.for_each(|text| say(true, &text));
        say(
            !external.is_empty() && !headless && !by_name,
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        );
        let balancer = address::warning(&spec.key("loadBalancerIP"));
        let ranges = spec.key("loadBalancerSourceRanges");
        let ranges = ranges.items().filter_map(|at| address::range_warning(&at));
        balancer
            .into_iter()
            .chain(ranges)
            .for_each(|text| say(true, &text));
        say(
            by_name && !external.is_empty(),
            "spec.externalIPs is ignored when spec.type is \"ExternalName\"",
        );
        say(
            !by_name && !spec.key("externalName").is_empty(),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        );
        if spec.key("trafficDistribution").str() == "PreferClose" {
            let text =
                "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
            found.push(text.to_owned());
        }
        found
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let text = |path: &str| object.at(path).str().to_owned();
        vec![
            ("spec.clusterIP", text("spec.clusterIP")),
            ("spec.type", text("spec.type")),
        ]
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let kind = spec.key("type").str();
        let cluster_ip = match spec.key("clusterIPs").index(0).str() {
            "" => "<none>",
            address => address,
        };
        vec![
            object.name().into(),
            kind.into(),
            cluster_ip.into(),
            external_ip(object).into(),
            ports_text(&spec.key("ports")).into(),
            age(object, now),
            labels_text(&spec.key("selector")).into(),
        ]
    }
}

/// Reports where `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` do not agree.
pub fn validate_cluster_ips(service: &Object, errors: &mut FieldErrors) {
    validation::cluster_ips(&service.at("spec"), errors);
}

/// How clients outside reach the Service, by its type.
fn external_ip(service: &Object) -> String {
    let spec = service.at("spec");
    let texts =
        |list: At<'_>| -> Vec<String> { list.items().map(|item| item.str().to_owned()).collect() };
    let given = texts(spec.key("externalIPs"));
    match spec.key("type").str() {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => given.join(","),
        "ExternalName" => spec.key("externalName").str().to_owned(),
        "LoadBalancer" => {
            let mut addresses: Vec<String> = service
                .at("status.loadBalancer.ingress")
                .items()
                .map(|ingress| match ingress.key("ip").str() {
                    "" => ingress.key("hostname").str().to_owned(),
                    address => address.to_owned(),
                })
                .filter(|address| !address.is_empty())
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses.extend(given);
            if addresses.is_empty() {
                "<pending>".to_owned()
            } else {
                addresses.join(",")
            }
        }
        _ => "<unknown>".to_owned(),
    }
}

fn ports_text(ports: &At<'_>) -> String {
    let texts: Vec<String> = ports
        .items()
        .map(|port| {
            let number = |field: &str| port.key(field).as_i64().unwrap_or(0);
            let protocol = port.key("protocol").str();
            match number("nodePort") {
                0 => format!("{}/{protocol}", number("port")),
                node => format!("{}:{node}/{protocol}", number("port")),
            }
        })
        .collect();
    if texts.is_empty() {
        "<none>".to_owned()
    } else {
        texts.join(",")
    }
}

/// `clusterIP` is the first of `clusterIPs`; old clients know only the one, so the other follows it.
fn normalise_cluster_ips(new: &mut Object, old: Option<&Object>) {
    let text = |object: &Object, path: &str| object.at(path).str().to_owned();
    let now = text(new, "spec.clusterIP");
    let list = |object: &Object| object.at("spec.clusterIPs").value().cloned();
    let Some(old) = old else {
        if !now.is_empty() && new.at("spec.clusterIPs").is_empty() {
            new.set("spec.clusterIPs", json!([now]));
        }
        return;
    };
    let was = text(old, "spec.clusterIP");
    if !was.is_empty() && now.is_empty() && list(new) == list(old) {
        new.remove("spec.clusterIPs");
    } else if !now.is_empty() && new.at("spec.clusterIPs").is_empty() {
        new.set("spec.clusterIPs", json!([now]));
    } else if now != was && list(new) == list(old) {
        if now.is_empty() {
            new.remove("spec.clusterIPs");
        } else {
            new.set("spec.clusterIPs", json!([now]));
        }
    }
}

/// An update that leaves out what was allocated keeps it, unless it changes the type to one without.
fn patch_allocated(new: &mut Object, old: &Object) {
    let kind = |object: &Object| object.at("spec.type").str().to_owned();
    let needs_ip = |kind: &str| ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind);
    let needs_port = |kind: &str| ["NodePort", "LoadBalancer"].contains(&kind);
    let (now, was) = (kind(new), kind(old));
    if needs_ip(&now) && needs_ip(&was) {
        if new.at("spec.clusterIP").is_empty()
            && let Some(address) = old.at("spec.clusterIP").value()
        {
            new.set("spec.clusterIP", address.clone());
        }
        if new.at("spec.clusterIPs").is_empty()
            && new.at("spec.clusterIP").value() == old.at("spec.clusterIP").value()
            && let Some(addresses) = old.at("spec.clusterIPs").value()
        {
            new.set("spec.clusterIPs", addresses.clone());
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.at("spec").key(field).value() {
                new.set_default(&format!("spec.{field}"), value.clone());
            }
        }
    }
    if needs_port(&now) && needs_port(&was) {
        let key = |port: &At<'_>| {
            (
                port.key("protocol").str().to_owned(),
                port.key("port").as_i64(),
            )
        };
        let known: HashMap<_, _> = old
            .at("spec.ports")
            .items()
            .filter_map(|port| {
                Some((
                    key(&port),
                    port.key("nodePort").as_i64().filter(|node| *node != 0)?,
                ))
            })
            .collect();
        let taken: HashSet<i64> = new
            .at("spec.ports")
            .items()
            .filter_map(|port| port.key("nodePort").as_i64())
            .collect();
        each_object(new.map_mut("spec"), "ports", |port| {
            let place = Value::Object(port.clone());
            let at = At::root(&place, "");
            if let Some(node) = known.get(&key(&at)).filter(|node| !taken.contains(node)) {
                default_int(port, "nodePort", *node);
            }
        });
    }
    let check = "spec.healthCheckNodePort";
    let local = |object: &Object| {
        object.at("spec.type").str() == "LoadBalancer"
            && object.at("spec.externalTrafficPolicy").str() == "Local"
    };
    if local(new)
        && local(old)
        && new.at(check).is_empty()
        && let Some(port) = old.at(check).value()
    {
        new.set(check, port.clone());
    }
}

/// Whether something outside the cluster can reach the Service.
fn is_exposed(service: &Object) -> bool {
    match service.at("spec.type").str() {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !service.at("spec.externalIPs").is_empty(),
        _ => false,
    }
}

/// Fields that only the old type had are dropped when the type changes and the client left them as
/// they were.
fn drop_dependents_of_type(new: &mut Object, old: &Object) {
    let kind = |object: &Object| object.at("spec.type").str().to_owned();
    let (now, was) = (kind(new), kind(old));
    let needs_ip = |kind: &str| ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind);
    let needs_port = |kind: &str| ["NodePort", "LoadBalancer"].contains(&kind);
    let same = |new: &Object, path: &str| new.at(path).value() == old.at(path).value();
    let gives_up_ip = needs_ip(&was) && !needs_ip(&now);
    if gives_up_ip && same(new, "spec.clusterIP") && same(new, "spec.clusterIPs") {
        new.remove("spec.clusterIP");
        new.remove("spec.clusterIPs");
    }
    if gives_up_ip {
        for path in [
            "spec.ipFamilies",
            "spec.ipFamilyPolicy",
            "spec.internalTrafficPolicy",
        ] {
            if same(new, path) {
                new.remove(path);
            }
        }
    }
    if needs_port(&was) && !needs_port(&now) {
        let had = node_ports(old);
        // A port that is new has to fail.
        if node_ports(new).is_subset(&had) {
            each_object(new.map_mut("spec"), "ports", |port| {
                port.shift_remove("nodePort");
            });
        }
    }
    if is_checked(old) && !is_checked(new) && same(new, "spec.healthCheckNodePort") {
        new.remove("spec.healthCheckNodePort");
    }
    if is_exposed(old) && !is_exposed(new) && same(new, "spec.externalTrafficPolicy") {
        new.remove("spec.externalTrafficPolicy");
    }
    if was == "LoadBalancer" && now != "LoadBalancer" {
        for path in [
            "spec.allocateLoadBalancerNodePorts",
            "spec.loadBalancerClass",
        ] {
            if same(new, path) {
                new.remove(path);
            }
        }
    }
    if now != "LoadBalancer" {
        // Its balancer may take longer to go; nobody needs to know.
        new.set("status.loadBalancer", json!({}));
    }
}

fn node_ports(service: &Object) -> HashSet<i64> {
    let ports = service.at("spec.ports");
    let numbers = ports
        .items()
        .filter_map(|port| port.key("nodePort").as_i64());
    numbers.filter(|number| *number != 0).collect()
}

/// Whether a port on every node tells which of them have endpoints of the Service.
fn is_checked(service: &Object) -> bool {
    service.at("spec.type").str() == "LoadBalancer"
        && service.at("spec.externalTrafficPolicy").str() == "Local"
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Type",
        "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, \
         ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for \
         load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, \
         by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no \
         virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual \
         IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same \
         endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer \
         (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \
         \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply \
         to ExternalName services. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
    ),
    Column::string(
        "Cluster-IP",
        "clusterIP is the IP address of the service and is usually assigned randomly. If an address is specified manually, is in-range (as per system configuration), and is not in use, it will be allocated to the service; otherwise creation of the service will fail. This field may not be changed through updates unless the type field is also being changed to ExternalName (which requires this field to be blank) or the type field is being changed from ExternalName (in which case this field may optionally be specified, as describe above).  Valid values are \"None\", empty string (\"\"), or a valid IP address. Setting this to \"None\" makes a \"headless service\" (no virtual IP), which is useful when direct endpoint connections are preferred and proxying is not required.  Only applies to types ClusterIP, NodePort, and LoadBalancer. If this field is specified when creating a Service of type ExternalName, creation will fail. This field will be wiped when updating a Service to type ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    Column::string(
        "External-IP",
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.  These IPs are not managed by Kubernetes.  The user is responsible for ensuring that traffic arrives at a node with this IP.  A common example is external load-balancers that are not part of the Kubernetes system.",
    ),
    Column::string(
        "Port(s)",
        "The list of ports that are exposed by this service. More info: \
         https://kubernetes.io/docs/concepts/services-networking/service/#virtual-ips-and-service-proxies",
    ),
    AGE,
    Column::wide(
        "Selector",
        "Route service traffic to pods with label keys and values matching this selector. If empty or not \
         present, the service is assumed to have an external process managing its endpoints, which Kubernetes \
         will not modify. Only applies to types ClusterIP, NodePort, and LoadBalancer. Ignored if type is \
         ExternalName. More info: https://kubernetes.io/docs/concepts/services-networking/service/",
    ),
];

//! Validation of Services: `ValidateService` and `ValidateServiceUpdate`, in their order.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::field_errors::ErrorType;
use crate::validation::{address, metadata, names, numbers};
use crate::{At, FieldErrors, Object};

const ONLY_LOAD_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

/// Reports what is wrong with a Service by itself.
pub(super) fn service(service: &Object, errors: &mut FieldErrors) {
    let spec = service.at("spec");
    let kind = spec.key("type").str();
    let headless = spec.key("clusterIPs").index(0).str() == "None";
    let ports = spec.key("ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required(&ports, "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let first = spec.key("clusterIPs").index(0);
            errors.invalid(
                &first,
                format!("may not be set to 'None' for {kind} services"),
            );
        }
        "ExternalName" => {
            if !spec.key("clusterIPs").is_empty() {
                errors.forbidden(
                    &spec.key("clusterIPs"),
                    "may not be set for ExternalName services",
                );
            }
            let name = spec.key("externalName");
            // A trailing dot is what CNAME records have.
            match name.str().strip_suffix('.').unwrap_or(name.str()) {
                "" => errors.required(&name, ""),
                trimmed => {
                    for message in names::dns1123_subdomain(trimmed) {
                        let shown = Some(Value::from(trimmed));
                        errors.push(ErrorType::Invalid, name.path(), shown, message);
                    }
                }
            }
        }
        _ => {}
    }
    let mut taken = HashSet::new();
    for port in ports.items() {
        service_port(&port, ports.len() > 1, &mut taken, errors);
    }
    metadata::labels(&spec.key("selector"), errors);
    session_affinity(&spec, errors);
    cluster_ips(&spec, errors);
    for external in spec.key("externalIPs").items() {
        address::non_special_ip(&external, errors);
    }
    if kind.is_empty() {
        errors.required(&spec.key("type"), "");
    } else {
        errors.one_of(
            &spec.key("type"),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
    }
    unique_ports(&ports, kind, errors);
    load_balancer(&spec, kind, errors);
    traffic_policies(&spec, kind, errors);
}

/// Reports what may not change, then what is wrong with the load balancer's class.
pub(super) fn update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let (now, was) = (new.at("spec"), old.at("spec"));
    // Of a type that nobody knows, only the type is wrong.
    let same_needs = |kind: &str| ["", "ClusterIP", "NodePort", "LoadBalancer"].contains(&kind);
    let (now_kind, was_kind) = (now.key("type").str(), was.key("type").str());
    if same_needs(now_kind) && same_needs(was_kind) {
        let (now_ip, was_ip) = (
            now.key("clusterIPs").index(0),
            was.key("clusterIPs").index(0),
        );
        if !was_ip.str().is_empty() && now_ip.str() != was_ip.str() {
            let shown = now
                .key("clusterIPs")
                .value()
                .cloned()
                .unwrap_or(Value::Null);
            let path = format!("{}[0]", now.key("clusterIPs").path());
            errors.push(
                ErrorType::Invalid,
                &path,
                Some(shown),
                "may not change once set",
            );
        }
        let policy = now.key("ipFamilyPolicy");
        let releases = was.key("ipFamilies").len() > 1 && now.key("ipFamilies").len() == 1;
        if releases && policy.str() != "SingleStack" {
            errors.invalid(
                &policy,
                "must be 'SingleStack' to release the secondary IP family",
            );
        }
    }
    if now_kind == "LoadBalancer" && was_kind == "LoadBalancer" {
        let (now_class, was_class) = (now.key("loadBalancerClass"), was.key("loadBalancerClass"));
        if now_class.value() != was_class.value() {
            errors.invalid(&now_class, "may not change once set");
        }
    } else if now_kind != "LoadBalancer" && now.key("loadBalancerClass").exists() {
        // Upstream reports it here and with the rest.
        errors.forbidden(&now.key("loadBalancerClass"), ONLY_LOAD_BALANCERS);
    }
}

fn service_port<'a>(
    port: &At<'a>,
    name_required: bool,
    taken: &mut HashSet<&'a str>,
    errors: &mut FieldErrors,
) {
    let name = port.key("name");
    if name_required && name.str().is_empty() {
        errors.required(&name, "");
    } else if !name.str().is_empty() {
        errors.text(&name, names::dns1123_label);
        if !taken.insert(name.str()) {
            errors.duplicate(&name);
        }
    }
    numbers::port(&port.key("port"), errors);
    let protocol = port.key("protocol");
    if protocol.str().is_empty() {
        errors.required(&protocol, "");
    } else {
        errors.one_of(&protocol, &["SCTP", "TCP", "UDP"]);
    }
    let target = port.key("targetPort");
    numbers::port_or_name(&target, errors);
    if !port.key("appProtocol").str().is_empty() {
        errors.text(&port.key("appProtocol"), names::qualified_name);
    }
}

fn session_affinity(spec: &At<'_>, errors: &mut FieldErrors) {
    let (affinity, config) = (
        spec.key("sessionAffinity"),
        spec.key("sessionAffinityConfig"),
    );
    if affinity.str().is_empty() {
        errors.required(&affinity, "");
    } else {
        errors.one_of(&affinity, &["ClientIP", "None"]);
    }
    match affinity.str() {
        "ClientIP" => {
            let seconds = config.at("clientIP.timeoutSeconds");
            if !config.exists() {
                errors.required(&config, "when session affinity type is ClientIP");
            } else if !config.key("clientIP").exists() {
                errors.required(
                    &config.key("clientIP"),
                    "when session affinity type is ClientIP",
                );
            } else if !seconds.exists() {
                errors.required(&seconds, "when session affinity type is ClientIP");
            } else if !(1..=86_400).contains(&seconds.as_i64().unwrap_or(0)) {
                errors.invalid(&seconds, "must be greater than 0 and less than 86400");
            }
        }
        "None" if config.exists() => {
            errors.forbidden(&config, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` must agree.
pub(super) fn cluster_ips(spec: &At<'_>, errors: &mut FieldErrors) {
    if spec.key("type").str() == "ExternalName" {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if !spec.key(field).is_empty() {
                errors.forbidden(&spec.key(field), "may not be set for ExternalName services");
            }
        }
        return;
    }
    let (one, all) = (spec.key("clusterIP"), spec.key("clusterIPs"));
    let list = || all.value().cloned();
    if !all.is_empty() && one.str().is_empty() {
        errors.push(
            ErrorType::Invalid,
            all.path(),
            list(),
            "must be empty when `clusterIP` is not specified",
        );
    } else if !all.is_empty() && all.index(0).str() != one.str() {
        errors.push(
            ErrorType::Invalid,
            all.path(),
            list(),
            "first value must match `clusterIP`",
        );
    }
    let (families, policy) = (spec.key("ipFamilies"), spec.key("ipFamilyPolicy"));
    let mut seen = HashSet::new();
    for family in families.items() {
        if !["IPv4", "IPv6"].contains(&family.str()) {
            errors.not_supported(&family, &["IPv4", "IPv6"]);
        } else if !seen.insert(family.str()) {
            errors.duplicate(&family);
        }
    }
    if policy.exists() {
        errors.one_of(
            &policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
    let mut wrong = false;
    for address in all.items() {
        if address.str() == "None" {
            if all.len() > 1 {
                errors.push(
                    ErrorType::Invalid,
                    all.path(),
                    list(),
                    "'None' must be the first and only value",
                );
                return;
            }
            continue;
        }
        let before = errors.len();
        address::ip(&address, errors);
        wrong |= errors.len() > before;
    }
    if wrong {
        return;
    }
    let parsed: Vec<bool> = all
        .items()
        .filter_map(|ip| address::parse_ip(ip.str()))
        .map(|ip| ip.is_ipv6())
        .collect();
    if parsed.len() > 2 {
        errors.push(
            ErrorType::Invalid,
            all.path(),
            list(),
            "may only hold up to 2 values",
        );
    }
    if parsed.len() == 2 && parsed[0] == parsed[1] {
        errors.push(
            ErrorType::Invalid,
            all.path(),
            list(),
            "may specify no more than one IP for each IP family",
        );
    }
    for (index, is_v6) in parsed.iter().enumerate() {
        let family = families.index(index);
        if family.exists()
            && (family.str() == "IPv6") != *is_v6
            && ["IPv4", "IPv6"].contains(&family.str())
        {
            let detail = format!(
                "expected an {} value as indicated by `ipFamilies[{index}]`",
                family.str()
            );
            errors.invalid(&all.index(index), detail);
        }
    }
}

/// Reports what a balancer may not say of itself.
pub(super) fn status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let field = "status.loadBalancer.ingress";
    let (points, before) = (new.at(field), old.at(field));
    if new.at("spec.type").str() != "LoadBalancer" && !points.is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.forbidden(&points, detail);
        return;
    }
    for point in points.items() {
        let (ip, mode, host) = (point.key("ip"), point.key("ipMode"), point.key("hostname"));
        let known = before.items().any(|had| had.key("ip").str() == ip.str());
        if !ip.is_empty() && !known {
            address::ip(&ip, errors);
        }
        match (mode.exists(), ip.is_empty()) {
            (false, false) => errors.required(&mode, "must be specified when `ip` is set"),
            (true, true) => errors.forbidden(&mode, "may not be specified when `ip` is not set"),
            (true, false) => errors.one_of(&mode, &["Proxy", "VIP"]),
            (false, true) => {}
        }
        if !host.is_empty() {
            errors.text(&host, names::dns1123_subdomain);
            if host.str().parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}

fn unique_ports(ports: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    // Two ports with one node port are the allocator's to refuse.
    for node in ports.items().map(|port| port.key("nodePort")) {
        if kind == "ClusterIP" && node.as_i64().unwrap_or(0) != 0 {
            errors.forbidden(&node, "may not be used when `type` is 'ClusterIP'");
        }
    }
    let mut taken = HashSet::new();
    for port in ports.items() {
        let (protocol, number) = (
            port.key("protocol").str(),
            port.key("port").as_i64().unwrap_or(0),
        );
        if !taken.insert((protocol, number)) {
            let key = json!({
                "Name": "", "Protocol": protocol, "AppProtocol": null, "Port": number, "TargetPort": 0, "NodePort": 0,
            });
            errors.push(ErrorType::Duplicate, port.path(), Some(key), "");
        }
    }
}

fn load_balancer(spec: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    let ranges = spec.key("loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Upstream writes this path with a capital letter.
        let path = format!("{}.LoadBalancerSourceRanges", spec.path());
        let place = At::maybe(ranges.value(), path);
        if kind != "LoadBalancer" {
            errors.forbidden(&place, ONLY_LOAD_BALANCERS);
        }
        for range in place.items() {
            if address::parse_cidr(range.str().trim()).is_none() {
                address::cidr(&range, errors);
            }
        }
    }
    let allocate = spec.key("allocateLoadBalancerNodePorts");
    if kind == "LoadBalancer" && !allocate.exists() {
        errors.required(&allocate, "");
    } else if kind != "LoadBalancer" && allocate.exists() {
        errors.forbidden(&allocate, ONLY_LOAD_BALANCERS);
    }
    let class = spec.key("loadBalancerClass");
    if class.exists() {
        errors.text(&class, names::qualified_name);
        if kind != "LoadBalancer" {
            errors.forbidden(&class, ONLY_LOAD_BALANCERS);
        }
    }
}

fn traffic_policies(spec: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    let external = spec.key("externalTrafficPolicy");
    let exposed = ["NodePort", "LoadBalancer"].contains(&kind)
        || (kind == "ClusterIP" && !spec.key("externalIPs").is_empty());
    if !external.str().is_empty() {
        if exposed {
            errors.one_of(&external, &["Cluster", "Local"]);
        } else {
            errors.invalid(
                &external,
                "may only be set for externally-accessible services",
            );
        }
    } else if exposed {
        errors.required(&external, "");
    }
    let check = spec.key("healthCheckNodePort");
    let number = check.as_i64().unwrap_or(0);
    if !(0..=65_535).contains(&number) {
        numbers::port(&check, errors);
    }
    if number != 0 && !(kind == "LoadBalancer" && external.str() == "Local") {
        let detail =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&check, detail);
    }
    let internal = spec.key("internalTrafficPolicy");
    if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind) {
        if internal.exists() {
            errors.one_of(&internal, &["Cluster", "Local"]);
        } else {
            errors.required(&internal, "");
        }
    }
    let distribution = spec.key("trafficDistribution");
    if distribution.exists() {
        errors.one_of(
            &distribution,
            &["PreferClose", "PreferSameZone", "PreferSameNode"],
        );
    }
}

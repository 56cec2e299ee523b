//! What is wrong with an Ingress.

use std::net::IpAddr;

use crate::networking::v1::segment;
use crate::validation::{address, names, numbers};
use crate::{At, FieldErrors, Object};

/// What an update may keep because it was there before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tolerance {
    secret_names: bool,
    wildcard_rules: bool,
}

impl Tolerance {
    /// For updates of an Ingress with this spec.
    pub(super) fn of(old: &At<'_>) -> Self {
        let bad_secret = |tls: At<'_>| {
            let name = tls.key("secretName").str();
            !name.is_empty() && !names::dns1123_subdomain(name).is_empty()
        };
        let bad_rule = |rule: At<'_>| {
            let mut errors = FieldErrors::default();
            http(&rule, &mut errors);
            rule.key("host").str().contains('*') && !errors.is_empty()
        };
        Self {
            secret_names: old.key("tls").items().any(bad_secret),
            wildcard_rules: old.key("rules").items().any(bad_rule),
        }
    }
}

/// Reports what is wrong with the spec.
pub(super) fn spec(spec: &At<'_>, tolerance: Tolerance, errors: &mut FieldErrors) {
    let (rules, default) = (spec.key("rules"), spec.key("defaultBackend"));
    if rules.is_empty() && !default.exists() {
        let shown = rules.value().cloned().unwrap_or_default();
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid_as(spec, shown, detail);
    }
    if default.exists() {
        backend(&default, errors);
    }
    for at in rules.items() {
        rule(&at, tolerance, errors);
    }
    for tls in spec.key("tls").items() {
        for at in tls.key("hosts").items() {
            errors.text(&at, host_name);
        }
        let secret = tls.key("secretName");
        if !tolerance.secret_names && !secret.is_empty() {
            errors.text(&secret, names::dns1123_subdomain);
        }
    }
    let class = spec.key("ingressClassName");
    if class.exists() {
        errors.text(&class, names::dns1123_subdomain);
    }
}

/// Reports what is wrong with the addresses of a changed status.
pub(super) fn status(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let field = "status.loadBalancer.ingress";
    let before = old.at(field);
    for point in new.at(field).items() {
        let (ip, host) = (point.key("ip"), point.key("hostname"));
        let known = before.items().any(|had| had.key("ip").str() == ip.str());
        if !ip.is_empty() && !known {
            address::ip(&ip, errors);
        }
        if !host.is_empty() {
            errors.text(&host, names::dns1123_subdomain);
            no_address(&host, errors);
        }
    }
}

fn no_address(host: &At<'_>, errors: &mut FieldErrors) {
    if host.str().parse::<IpAddr>().is_ok() {
        errors.invalid(host, "must be a DNS name, not an IP address");
    }
}

/// What is wrong with a host that may begin with `*.`.
fn host_name(host: &str) -> Vec<String> {
    if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::dns1123_subdomain(host)
    }
}

fn rule(rule: &At<'_>, tolerance: Tolerance, errors: &mut FieldErrors) {
    let host = rule.key("host");
    if !host.is_empty() {
        no_address(&host, errors);
        errors.text(&host, host_name);
    }
    if !(host.str().contains('*') && tolerance.wildcard_rules) {
        http(rule, errors);
    }
}

fn http(rule: &At<'_>, errors: &mut FieldErrors) {
    let http = rule.key("http");
    if !http.exists() {
        return;
    }
    let paths = http.key("paths");
    if paths.is_empty() {
        errors.required(&paths, "");
    }
    for at in paths.items() {
        path(&at, errors);
    }
}

fn path(at: &At<'_>, errors: &mut FieldErrors) {
    let (kind, path) = (at.key("pathType"), at.key("path"));
    let text = path.str();
    let show = |detail: String, errors: &mut FieldErrors| {
        errors.invalid_as(&path, text.into(), detail);
    };
    let absolute = "must be an absolute path".to_owned();
    match kind.as_str() {
        None => return errors.required(&kind, "pathType must be specified"),
        Some("Exact" | "Prefix") => {
            if !text.starts_with('/') {
                show(absolute, errors);
            }
            let sequences = ["//", "/./", "/../", "%2f", "%2F"];
            for sequence in sequences.iter().filter(|s| text.contains(**s)) {
                show(format!("must not contain '{sequence}'"), errors);
            }
            for suffix in ["/..", "/."].iter().filter(|s| text.ends_with(**s)) {
                show(format!("cannot end with '{suffix}'"), errors);
            }
        }
        Some("ImplementationSpecific") => {
            if !text.is_empty() && !text.starts_with('/') {
                show(absolute, errors);
            }
        }
        Some(_) => {
            errors.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
    backend(&at.key("backend"), errors);
}

fn backend(at: &At<'_>, errors: &mut FieldErrors) {
    let (service, resource) = (at.key("service"), at.key("resource"));
    match (service.exists(), resource.exists()) {
        (true, true) => {
            errors.invalid_as(
                at,
                "".into(),
                "cannot set both resource and service backends",
            );
        }
        (false, true) => {
            if resource.key("apiGroup").exists() {
                errors.text(&resource.key("apiGroup"), names::dns1123_subdomain);
            }
            segment(&resource.key("kind"), errors);
            segment(&resource.key("name"), errors);
        }
        (true, false) => service_backend(at, &service, errors),
        (false, false) => {
            errors.invalid_as(at, "".into(), "resource or service backend is required");
        }
    }
}

fn service_backend(backend: &At<'_>, service: &At<'_>, errors: &mut FieldErrors) {
    let name = service.key("name");
    if name.is_empty() {
        errors.required(&name, "");
    } else {
        errors.text(&name, names::dns1123_label);
    }
    let (port_name, number) = (service.at("port.name"), service.at("port.number"));
    match (!port_name.is_empty(), !number.is_empty()) {
        (true, true) => {
            errors.invalid_as(
                backend,
                "".into(),
                "cannot set both port name & port number",
            );
        }
        (true, false) => errors.text(&port_name, names::port_name),
        (false, true) => numbers::port(&number, errors),
        (false, false) => errors.required(backend, "port name or number is required"),
    }
}

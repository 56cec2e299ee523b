//! Validation of a pod's spec: `ValidatePodSpec` of `pkg/apis/core/validation`, in its order.
//!
//! Left out are checks of features that are behind a gate upstream, and of volume types that no node
//! of ours can mount beyond their being the only source.

use super::{annotations, containers, pod_level, scheduling, security, volumes};
use crate::validation::{address, metadata, names, numbers};
use crate::{At, FieldErrors};

/// Reports what is wrong with the spec of a Pod (`is_pod`) or of a template of Pods.
pub fn pod_spec(spec: &At<'_>, is_pod: bool, errors: &mut FieldErrors) {
    let known = volumes::all(&spec.key("volumes"), errors);
    claims(&spec.key("resourceClaims"), errors);
    containers::all(spec, &known, errors);
    pod_level::validate(spec, errors);
    if spec.key("hostNetwork").is_true() {
        containers::host_network_ports(&spec.key("containers"), is_pod, errors);
        containers::host_network_ports(&spec.key("initContainers"), is_pod, errors);
    }
    required_one_of(
        &spec.key("restartPolicy"),
        &["Always", "OnFailure", "Never"],
        errors,
    );
    let policies = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    required_one_of(&spec.key("dnsPolicy"), policies, errors);
    metadata::labels(&spec.key("nodeSelector"), errors);
    security::pod(&spec.key("securityContext"), spec, errors);
    scheduling::affinity(&spec.key("affinity"), errors);
    dns(spec, errors);
    for gate in spec.key("readinessGates").items() {
        errors.text(&gate.key("conditionType"), names::qualified_name);
    }
    scheduling::gates(&spec.key("schedulingGates"), errors);
    scheduling::spread(&spec.key("topologySpreadConstraints"), errors);
    security::own_users(spec, errors);
    optional_name(
        &spec.key("serviceAccountName"),
        names::dns1123_subdomain,
        errors,
    );
    optional_name(&spec.key("nodeName"), names::dns1123_subdomain, errors);
    numbers::within(
        &spec.key("activeDeadlineSeconds"),
        1,
        i64::from(i32::MAX),
        errors,
    );
    optional_name(&spec.key("hostname"), names::dns1123_label, errors);
    optional_name(&spec.key("subdomain"), names::dns1123_label, errors);
    hostname_override(spec, errors);
    scheduling::tolerations(&spec.key("tolerations"), errors);
    host_aliases(&spec.key("hostAliases"), errors);
    optional_name(
        &spec.key("priorityClassName"),
        names::dns1123_subdomain,
        errors,
    );
    optional_name(
        &spec.key("runtimeClassName"),
        names::dns1123_subdomain,
        errors,
    );
    let preemption = spec.key("preemptionPolicy");
    if preemption.exists() {
        errors.one_of(&preemption, &["PreemptLowerPriority", "Never"]);
    }
    for (name, quantity) in spec.key("overhead").entries() {
        containers::resource_quantity(name, &quantity, errors);
    }
    let os = spec.key("os");
    if os.exists() {
        match os.key("name").str() {
            "" => errors.required(&os.key("name"), ""),
            "linux" => security::linux(spec, errors),
            "windows" => {}
            name => {
                let shown = serde_json::Value::from(name);
                errors.not_supported(&At::maybe(Some(&shown), os.path()), &["linux", "windows"]);
            }
        }
    }
    // Templates may have them.
    for list in ["containers", "initContainers"] {
        for container in spec.key(list).items().filter(|_| is_pod) {
            containers::no_spaces(&container, errors);
        }
    }
}

/// Reports what is wrong with a template of Pods: its labels, annotations and spec.
pub fn template(template: &At<'_>, errors: &mut FieldErrors) {
    // Upstream leaves `metadata` out of these paths.
    let place = |field: &str| {
        At::maybe(
            template.key("metadata").key(field).value(),
            format!("{}.{field}", template.path()),
        )
    };
    metadata::labels(&place("labels"), errors);
    metadata::annotations(&place("annotations"), errors);
    let spec = template.key("spec");
    annotations::annotations(&place("annotations"), &spec, errors);
    pod_spec(&spec, false, errors);
    let ephemeral = spec.key("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.forbidden(
            &ephemeral,
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn required_one_of(at: &At<'_>, supported: &[&str], errors: &mut FieldErrors) {
    if at.str().is_empty() {
        errors.required(at, "");
    } else {
        errors.one_of(at, supported);
    }
}

fn optional_name(at: &At<'_>, rule: impl Fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
    if !at.str().is_empty() {
        errors.text(at, rule);
    }
}

/// Reports an override that Linux' `struct utsname` has no room for, or that others contradict.
fn hostname_override(spec: &At<'_>, errors: &mut FieldErrors) {
    let name = spec.key("hostnameOverride");
    if !name.exists() {
        return;
    }
    errors.text(&name, names::dns1123_subdomain);
    if name.str().len() > 64 {
        errors.too_long(&name, 64);
    }
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec.key(field).is_true() {
            errors.forbidden(&name, format!("may not be set when `{field}` is true"));
        }
    }
}

fn claims(list: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = std::collections::HashSet::new();
    for claim in list.items() {
        let name = claim.key("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            if !taken.insert(name.str()) {
                errors.duplicate(&name);
            }
            errors.text(&name, names::dns1123_label);
        }
        let (claim_name, template) = (
            claim.key("resourceClaimName"),
            claim.key("resourceClaimTemplateName"),
        );
        match (claim_name.exists(), template.exists()) {
            (true, true) => errors.invalid(
                &claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => {
                errors.invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
            }
            _ => {}
        }
        for name in [claim_name, template] {
            // An empty name is given, and wrong.
            if name.exists() {
                errors.text(&name, names::dns1123_subdomain);
            }
        }
    }
}

fn dns(spec: &At<'_>, errors: &mut FieldErrors) {
    let config = spec.key("dnsConfig");
    let none = spec.key("dnsPolicy").str() == "None";
    if !config.exists() {
        if none {
            errors.required(&config, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        return;
    }
    let (servers, searches) = (config.key("nameservers"), config.key("searches"));
    if none && servers.is_empty() {
        errors.required(
            &servers,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if servers.len() > 3 {
        errors.invalid(&servers, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        address::ip(&server, errors);
    }
    if searches.len() > 32 {
        errors.invalid(&searches, "must not have more than 32 search paths");
    }
    let characters: usize = searches.items().map(|search| search.str().len() + 1).sum();
    if characters.saturating_sub(1) > 2048 {
        errors.invalid(
            &searches,
            "must not have more than 2048 characters (including spaces) in the search list",
        );
    }
    for search in searches.items() {
        let text = search.str();
        // A lone or a trailing dot is legal in a search path, and so are underscores.
        let plain = text.strip_suffix('.').unwrap_or(text).replace('_', "-");
        if text != "." && !names::dns1123_subdomain(&plain).is_empty() {
            errors.text(&search, |text| {
                names::dns1123_subdomain(text.strip_suffix('.').unwrap_or(text))
            });
        }
    }
    for option in config.key("options").items() {
        if option.key("name").str().is_empty() {
            errors.required(&option, "must not be empty");
        }
    }
}

fn host_aliases(list: &At<'_>, errors: &mut FieldErrors) {
    for alias in list.items() {
        address::ip(&alias.key("ip"), errors);
        for hostname in alias.key("hostnames").items() {
            errors.text(&hostname, |text| {
                text.strip_prefix("*.")
                    .map_or_else(|| names::dns1123_subdomain(text), names::dns1123_subdomain)
            });
        }
    }
}

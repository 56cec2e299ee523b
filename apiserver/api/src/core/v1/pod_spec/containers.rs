//! Validation of containers: `validateContainers` of `pkg/apis/core/validation`.

use std::collections::HashSet;

use serde_json::Value;

use super::security;
use super::volumes::{self, Volumes};
use crate::field_errors::ErrorType;
use crate::quantity::Quantity;
use crate::validation::{names, numbers};
use crate::{At, FieldErrors};

/// Reports what is wrong with all containers of a pod's spec.
pub fn all(spec: &At<'_>, volumes: &Volumes<'_>, errors: &mut FieldErrors) {
    let mut taken = HashSet::new();
    let containers = spec.key("containers");
    if containers.is_empty() {
        errors.required(&containers, "");
    }
    let grace = spec.key("terminationGracePeriodSeconds").as_i64();
    for container in containers.items() {
        common(&container, spec, volumes, errors);
        if !taken.insert(container.key("name").str()) {
            errors.duplicate(&container.key("name"));
        }
        regular(&container, grace, errors);
        restart_policy(&container, errors);
    }
    host_port_conflicts(containers.items(), errors);
    for container in spec.key("initContainers").items() {
        init(&container, spec, volumes, &mut taken, errors);
    }
    for container in spec.key("ephemeralContainers").items() {
        let name = container.key("name");
        if !name.str().is_empty() && !taken.insert(name.str()) {
            errors.duplicate(&name);
        }
        common(&container, spec, volumes, errors);
        no_spaces(&container, errors);
        debugs(&container, spec, errors);
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "resources",
        ] {
            if !container.key(field).is_empty() {
                errors.forbidden(&container.key(field), NOT_TO_DEBUG);
            }
        }
    }
}

const NOT_TO_DEBUG: &str = "cannot be set for an Ephemeral Container";

/// What a container to debug with looks into is there, and it mounts volumes as a whole.
fn debugs(container: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    let target = container.key("targetContainerName");
    let is_there = ["containers", "initContainers"].into_iter().any(|list| {
        let list = spec.key(list);
        list.items()
            .any(|other| other.key("name").str() == target.str())
    });
    if !target.str().is_empty() && !is_there {
        errors.not_found(&target);
    }
    for mount in container.key("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.key(field).str().is_empty() {
                errors.forbidden(&mount.key(field), NOT_TO_DEBUG);
            }
        }
    }
}

/// Pods name their images without spaces around them; templates may have them.
pub fn no_spaces(container: &At<'_>, errors: &mut FieldErrors) {
    let image = container.key("image");
    if image.str().trim() != image.str() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
}

fn init<'a>(
    container: &At<'a>,
    spec: &At<'a>,
    volumes: &Volumes<'_>,
    taken: &mut HashSet<&'a str>,
    errors: &mut FieldErrors,
) {
    common(container, spec, volumes, errors);
    let name = container.key("name");
    if !name.str().is_empty() && !taken.insert(name.str()) {
        errors.duplicate(&name);
    }
    // They run one by one; upstream looks at each as at the first of the list.
    let list = container.path();
    let list = list.rfind('[').map_or(list, |end| &list[..end]);
    let alone = At::maybe(container.value(), format!("{list}[0]"));
    host_port_conflicts([alone].into_iter(), errors);
    let policy = container.key("restartPolicy");
    let restartable = policy.str() == "Always";
    if restartable {
        let grace = spec.key("terminationGracePeriodSeconds").as_i64();
        regular(container, grace, errors);
    } else {
        for field in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if container.key(field).exists() {
                errors.forbidden(
                    &container.key(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
    }
    restart_policy(container, errors);
}

/// Most restart rules of a container, and most exit codes of a rule.
const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;

/// What every container must satisfy.
fn common(container: &At<'_>, spec: &At<'_>, volumes: &Volumes<'_>, errors: &mut FieldErrors) {
    let name = container.key("name");
    if name.str().is_empty() {
        errors.required(&name, "");
    } else {
        errors.text(&name, names::dns1123_label);
    }
    let image = container.key("image");
    if image.str().is_empty() {
        errors.required(&image, "");
    }
    if let policy @ ("" | "File" | "FallbackToLogsOnError") =
        container.key("terminationMessagePolicy").str()
    {
        if policy.is_empty() {
            errors.required(&container.key("terminationMessagePolicy"), "");
        }
    } else {
        errors.not_supported(
            &container.key("terminationMessagePolicy"),
            &["File", "FallbackToLogsOnError"],
        );
    }
    ports(&container.key("ports"), errors);
    env(&container.key("env"), errors);
    env_from(&container.key("envFrom"), errors);
    volumes::mounts(container, volumes, errors);
    volumes::devices(container, volumes, errors);
    pull_policy(&container.key("imagePullPolicy"), errors);
    resources(&container.key("resources"), spec, errors);
    resize_policy(container, spec, errors);
    security::container(&container.key("securityContext"), spec, errors);
}

/// What containers that run beside the others must satisfy too.
fn regular(container: &At<'_>, grace: Option<i64>, errors: &mut FieldErrors) {
    let lifecycle = container.key("lifecycle");
    for field in ["postStart", "preStop"] {
        if lifecycle.key(field).exists() {
            handler(&lifecycle.key(field), grace, errors);
        }
    }
    let signal = lifecycle.key("stopSignal");
    if signal.exists() && !signal.str().starts_with("SIG") {
        errors.invalid(&signal, "must be a valid signal name");
    }
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe_at = container.key(field);
        if !probe_at.exists() {
            continue;
        }
        probe(&probe_at, errors);
        let grace = probe_at.key("terminationGracePeriodSeconds");
        if field == "readinessProbe" && grace.exists() {
            errors.invalid(&grace, "must not be set for readinessProbes");
        }
        let threshold = probe_at.key("successThreshold");
        if field != "readinessProbe" && threshold.as_i64().unwrap_or(0) != 1 {
            errors.invalid(&threshold, "must be 1");
        }
    }
}

fn restart_policy(container: &At<'_>, errors: &mut FieldErrors) {
    let policy = container.key("restartPolicy");
    let rules = container.key("restartPolicyRules");
    if policy.exists() {
        errors.one_of(&policy, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.required(&policy, detail);
    }
    if rules.len() > MOST_RULES {
        errors.too_many(&rules, MOST_RULES);
    }
    for rule in rules.items() {
        errors.one_of(&rule.key("action"), &["Restart", "RestartAllContainers"]);
        let codes = rule.key("exitCodes");
        if !codes.exists() {
            errors.required(&codes, "must be specified");
            continue;
        }
        errors.one_of(&codes.key("operator"), &["In", "NotIn"]);
        if codes.key("values").len() > MOST_CODES {
            errors.too_many(&codes.key("values"), MOST_CODES);
        }
    }
}

fn probe(probe: &At<'_>, errors: &mut FieldErrors) {
    handler(probe, None, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        numbers::non_negative(&probe.key(field), errors);
    }
    let grace = probe.key("terminationGracePeriodSeconds");
    if grace.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(&grace, "must be greater than 0");
    }
}

/// The one action of a probe or of a lifecycle hook, which has to be over within the `grace` that the pod has to end.
fn handler(at: &At<'_>, grace: Option<i64>, errors: &mut FieldErrors) {
    let mut found = 0;
    for field in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = at.key(field);
        if !action.exists() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        match field {
            "exec" if action.key("command").is_empty() => {
                errors.required(&action.key("command"), "")
            }
            "httpGet" => http_get(&action, errors),
            "tcpSocket" => numbers::port_or_name(&action.key("port"), errors),
            "grpc" => numbers::port(&action.key("port"), errors),
            "sleep" => sleep(&action, grace, errors),
            _ => {}
        }
    }
    if found == 0 {
        errors.required(at, "must specify a handler type");
    }
}

fn sleep(action: &At<'_>, grace: Option<i64>, errors: &mut FieldErrors) {
    let seconds = action.key("seconds").as_i64().unwrap_or(0);
    // A grace that is wrong is reported by itself.
    if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid_as(action, seconds.into(), detail);
    }
}

fn http_get(get: &At<'_>, errors: &mut FieldErrors) {
    if get.key("path").str().is_empty() {
        errors.required(&get.key("path"), "");
    }
    numbers::port_or_name(&get.key("port"), errors);
    errors.one_of(&get.key("scheme"), &["HTTP", "HTTPS"]);
    for header in get.key("httpHeaders").items() {
        for message in names::http_header_name(header.key("name").str()) {
            let headers = get.key("httpHeaders");
            errors.push(
                ErrorType::Invalid,
                headers.path(),
                Some(Value::from(header.key("name").str())),
                message,
            );
        }
    }
}

fn ports(ports: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = HashSet::new();
    for port in ports.items() {
        let name = port.key("name");
        if !name.str().is_empty() {
            let before = errors.len();
            errors.text(&name, names::port_name);
            if errors.len() == before && !taken.insert(name.str()) {
                errors.duplicate(&name);
            }
        }
        let number = port.key("containerPort");
        if number.as_i64().unwrap_or(0) == 0 {
            errors.required(&number, "");
        } else {
            numbers::port(&number, errors);
        }
        if port.key("hostPort").as_i64().unwrap_or(0) != 0 {
            numbers::port(&port.key("hostPort"), errors);
        }
        let protocol = port.key("protocol");
        if protocol.str().is_empty() {
            errors.required(&protocol, "");
        } else {
            errors.one_of(&protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

/// Two containers of a pod can't have the same port of the host.
fn host_port_conflicts<'a>(containers: impl Iterator<Item = At<'a>>, errors: &mut FieldErrors) {
    let mut taken = HashSet::new();
    for container in containers {
        for port in container.key("ports").items() {
            let host = port.key("hostPort");
            let number = host.as_i64().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{number}",
                port.key("protocol").str(),
                port.key("hostIP").str()
            );
            if !taken.insert(key.clone()) {
                errors.push(
                    ErrorType::Duplicate,
                    host.path(),
                    Some(Value::from(key)),
                    "",
                );
            }
        }
    }
}

/// In the host's network a container's port is the host's. A template may leave it out: Pods get it
/// by default.
pub fn host_network_ports(containers: &At<'_>, is_pod: bool, errors: &mut FieldErrors) {
    for container in containers.items() {
        for port in container.key("ports").items() {
            let host = port.key("hostPort");
            let number = host.as_i64().unwrap_or(0);
            if (is_pod || number != 0) && number != port.key("containerPort").as_i64().unwrap_or(0)
            {
                numbers::number_invalid(
                    &host,
                    "must match `containerPort` when `hostNetwork` is true",
                    errors,
                );
            }
        }
    }
}

fn env(variables: &At<'_>, errors: &mut FieldErrors) {
    for variable in variables.items() {
        let name = variable.key("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.text(&name, names::env_var_name);
        }
        let source = variable.key("valueFrom");
        if source.exists() {
            env_source(&variable, &source, errors);
        }
    }
}

fn env_source(variable: &At<'_>, source: &At<'_>, errors: &mut FieldErrors) {
    const FIELDS: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let mut found = 0;
    if source.key("fieldRef").exists() {
        found += 1;
        volumes::field_ref(&source.key("fieldRef"), FIELDS, errors);
    }
    if source.key("resourceFieldRef").exists() {
        found += 1;
        volumes::resource_field_ref(&source.key("resourceFieldRef"), false, errors);
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.key(field);
        if reference.exists() {
            found += 1;
            errors.text(&reference.key("name"), names::dns1123_subdomain);
            if reference.key("key").str().is_empty() {
                errors.required(&reference.key("key"), "");
            } else {
                errors.text(&reference.key("key"), names::config_key);
            }
        }
    }
    found += usize::from(source.key("fileKeyRef").exists());
    let show_empty = |errors: &mut FieldErrors, detail: &str| {
        errors.push(
            ErrorType::Invalid,
            source.path(),
            Some(Value::from("")),
            detail,
        );
    };
    match found {
        0 => show_empty(
            errors,
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        1 if !variable.key("value").str().is_empty() => {
            show_empty(errors, "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => show_empty(
            errors,
            "may not have more than one field specified at a time",
        ),
    }
}

fn env_from(sources: &At<'_>, errors: &mut FieldErrors) {
    for source in sources.items() {
        let prefix = source.key("prefix");
        if !prefix.str().is_empty() {
            errors.text(&prefix, names::env_var_name);
        }
        let mut found = 0;
        for field in ["configMapRef", "secretRef"] {
            let reference = source.key(field);
            if !reference.exists() {
                continue;
            }
            found += 1;
            if reference.key("name").str().is_empty() {
                errors.required(&reference.key("name"), "");
            } else {
                errors.text(&reference.key("name"), names::dns1123_subdomain);
            }
        }
        let detail = match found {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(
            ErrorType::Invalid,
            sources.path(),
            Some(Value::from("")),
            detail,
        );
    }
}

fn pull_policy(at: &At<'_>, errors: &mut FieldErrors) {
    if at.str().is_empty() {
        errors.required(at, "");
    } else {
        errors.one_of(at, &["Always", "IfNotPresent", "Never"]);
    }
}

/// The resources that every cluster knows; others are extended resources with a domain.
pub fn is_standard(name: &str) -> bool {
    ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-")
}

/// Reports what is wrong with the names and quantities of requests and limits; `check_name` is given a name, the list, and
/// the entry.
pub fn quantities(
    resources: &At<'_>,
    errors: &mut FieldErrors,
    check_name: impl Fn(&str, &At<'_>, &At<'_>, &mut FieldErrors),
) {
    let (limits, requests) = (resources.key("limits"), resources.key("requests"));
    for list in [&limits, &requests] {
        for (name, quantity) in list.entries() {
            check_name(name, list, &quantity, errors);
            resource_quantity(name, &quantity, errors);
        }
    }
    for (name, request) in requests.entries() {
        let limit = limits.entry(name);
        let (Some(asked), Some(most)) = (parse(&request), parse(&limit)) else {
            if limit.exists() || name.starts_with("hugepages-") || !name.contains('/') {
                continue;
            }
            let detail = "Limit must be set for non overcommitable resources";
            errors.push(ErrorType::Required, limits.path(), None, detail);
            continue;
        };
        let overcommit = !name.contains('/') && !name.starts_with("hugepages-");
        let shown = Some(Value::from(request.str()));
        if !overcommit && asked != most {
            let detail = format!("must be equal to {name} limit of {}", limit.str());
            errors.push(ErrorType::Invalid, requests.path(), shown, detail);
        } else if overcommit && asked > most {
            let detail = format!(
                "must be less than or equal to {name} limit of {}",
                limit.str()
            );
            errors.push(ErrorType::Invalid, requests.path(), shown, detail);
        }
    }
}

/// Reports what is wrong with requests and limits of a container.
pub fn resources(resources: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    quantities(resources, errors, resource_name);
    let declared: HashSet<&str> = spec
        .key("resourceClaims")
        .items()
        .filter_map(|claim| claim.key("name").as_str())
        .collect();
    let mut taken = HashSet::new();
    for claim in resources.key("claims").items() {
        let name = claim.key("name").str();
        if name.is_empty() {
            errors.required(&claim.key("name"), "");
        } else if !taken.insert(name) {
            errors.push(
                ErrorType::Duplicate,
                claim.path(),
                Some(Value::from(name)),
                "",
            );
        } else if !declared.contains(name) {
            let mut known: Vec<&str> = declared.iter().copied().collect();
            known.sort_unstable();
            let detail = match known[..] {
                [] => {
                    "must be one of the names in pod.spec.resourceClaims which is empty".to_owned()
                }
                _ => format!(
                    "must be one of the names in pod.spec.resourceClaims: {}",
                    known.join(", ")
                ),
            };
            errors.push(
                ErrorType::NotFound,
                claim.path(),
                Some(Value::from(name)),
                detail,
            );
        }
    }
}

fn parse(at: &At<'_>) -> Option<Quantity> {
    match at.value()? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn resource_name(name: &str, list: &At<'_>, at: &At<'_>, errors: &mut FieldErrors) {
    for message in names::qualified_name(name) {
        errors.push(
            ErrorType::Invalid,
            list.path(),
            Some(Value::from(name)),
            message,
        );
    }
    if !name.contains('/') && !is_standard(name) {
        let shown = Some(Value::from(name));
        errors.push(
            ErrorType::Invalid,
            at.path(),
            shown,
            "must be a standard resource for containers",
        );
    }
}

/// Reports a quantity below zero, and parts of what can only be had whole.
pub fn resource_quantity(name: &str, at: &At<'_>, errors: &mut FieldErrors) {
    let Some(quantity) = parse(at) else {
        return;
    };
    if quantity.is_negative() {
        errors.invalid(at, "must be greater than or equal to 0");
    }
    if name.contains('/') && Quantity::from_value(quantity.value()) != quantity {
        errors.invalid(at, "must be an integer");
    }
}

fn resize_policy(container: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    let policies = container.key("resizePolicy");
    let mut taken = HashSet::new();
    for policy in policies.items() {
        let name = policy.key("resourceName");
        if !taken.insert(name.str()) {
            errors.push(
                ErrorType::Duplicate,
                policies.path(),
                Some(Value::from(name.str())),
                "",
            );
        }
        let unsupported = |value: &str, supported: &str, errors: &mut FieldErrors| {
            let detail = format!("supported values: {supported}");
            errors.push(
                ErrorType::NotSupported,
                policies.path(),
                Some(Value::from(value)),
                detail,
            );
        };
        match name.str() {
            "cpu" | "memory" => {}
            "" => errors.push(ErrorType::Required, policies.path(), None, ""),
            other => unsupported(other, "\"cpu\", \"memory\"", errors),
        }
        match policy.key("restartPolicy").str() {
            "NotRequired" => {}
            "RestartContainer" if spec.key("restartPolicy").str() != "Never" => {}
            "RestartContainer" => {
                let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
                errors.push(
                    ErrorType::Invalid,
                    policies.path(),
                    Some(Value::from("RestartContainer")),
                    detail,
                );
            }
            "" => errors.push(ErrorType::Required, policies.path(), None, ""),
            other => unsupported(other, "\"NotRequired\", \"RestartContainer\"", errors),
        }
    }
}

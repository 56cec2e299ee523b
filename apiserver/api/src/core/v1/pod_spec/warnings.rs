//! What is accepted in a pod but probably not meant: `pkg/api/pod/warnings.go`, in its order, and what
//! `pkg/api/node/util.go` says of labels of nodes.

use std::collections::{HashMap, HashSet};

use crate::core::v1::persistent_volume_claim as claim;
use crate::quantity::Quantity;
use crate::validation::{address, names};
use crate::{At, Object};

/// About the name of an object that Pods are called after; `used` says how it is used.
pub fn name(object: &Object, used: &str) -> Option<String> {
    let found = names::dns1123_label(object.name());
    let advice = "which can result in surprising behavior; a DNS label is recommended:";
    (!found.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used}, {advice} [{}]",
            found.join(", ")
        )
    })
}

/// About the template of Pods at this place.
pub fn template(template: &At<'_>) -> Vec<String> {
    let annotations = template.at("metadata.annotations");
    pod(&template.key("spec"), &annotations, true)
}

/// About the spec and the annotations of a Pod or of a template of Pods, which upstream tells apart in one point.
pub fn pod(spec: &At<'_>, annotations: &At<'_>, is_template: bool) -> Vec<String> {
    let mut found = Vec::new();
    node_labels(spec, &mut found);
    for constraint in spec.key("topologySpreadConstraints").items() {
        let (key, selector) = (
            constraint.key("topologyKey"),
            constraint.key("labelSelector"),
        );
        if let Some(why) = deprecated_label(key.str()) {
            found.push(format!("{}: {} is {why}", key.path(), key.str()));
        }
        found.extend(null_selector(&selector));
    }
    for (key, why) in DEPRECATED_ANNOTATIONS {
        let annotation = annotations.entry(key);
        if annotation.exists() {
            found.push(format!("{}: {why}", annotation.path()));
        }
    }
    volumes(&spec.key("volumes"), &mut found);
    token_paths(&spec.key("volumes"), &mut found);
    let (aliases, secrets) = (spec.key("hostAliases"), spec.key("imagePullSecrets"));
    twice(&aliases, "ip", &mut found);
    twice(&secrets, "name", &mut found);
    for name in secrets.items().map(|secret| secret.key("name")) {
        if name.is_empty() {
            found.push(format!("{}: invalid empty name \"\"", name.path()));
        }
    }
    whole_bytes(&spec.key("overhead"), "memory", &mut found);
    whole_bytes(&spec.key("overhead"), "ephemeral-storage", &mut found);
    let profile = spec.at("securityContext.seccompProfile");
    let annotation = annotations.entry("seccomp.security.alpha.kubernetes.io/pod");
    if annotation.exists() && !profile.exists() {
        found.push(format!("{}: {SECCOMP}", annotation.path()));
    }
    for container in containers(spec) {
        profiles(&container, spec, annotations, is_template, &mut found);
        let resources = container.key("resources");
        for (list, name) in [
            ("limits", "memory"),
            ("requests", "memory"),
            ("limits", "ephemeral-storage"),
            ("requests", "ephemeral-storage"),
        ] {
            whole_bytes(&resources.key(list), name, &mut found);
        }
        environment(&container.key("env"), &mut found);
    }
    ports(spec, &mut found);
    let grace = spec.key("terminationGracePeriodSeconds");
    if grace.as_i64().is_some_and(|seconds| seconds < 0) {
        found.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            grace.path()
        ));
    }
    affinity(&spec.key("affinity"), &mut found);
    let servers = spec.at("dnsConfig.nameservers");
    found.extend(servers.items().filter_map(|at| address::warning(&at)));
    found.extend(
        aliases
            .items()
            .filter_map(|at| address::warning(&at.key("ip"))),
    );
    found
}

const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

const DEPRECATED_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const DEPRECATED_VOLUMES: &[(&str, &str)] = &[
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
];

/// The container types in the order in which upstream visits them.
fn containers<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.key(list).items().collect::<Vec<_>>())
        .collect()
}

/// Labels of nodes that others have replaced, where nodes are chosen by them.
fn node_labels(spec: &At<'_>, found: &mut Vec<String>) {
    let selector = spec.key("nodeSelector");
    for (key, _) in selector.entries() {
        if let Some(why) = deprecated_label(key) {
            found.push(format!("{}: {why}", selector.entry(key).path()));
        }
    }
    let affinity = spec.at("affinity.nodeAffinity");
    let required = affinity.key("requiredDuringSchedulingIgnoredDuringExecution");
    for term in required.key("nodeSelectorTerms").items() {
        node_term(&term, false, found);
    }
    let preferred = affinity.key("preferredDuringSchedulingIgnoredDuringExecution");
    for term in preferred.items() {
        node_term(&term.key("preference"), false, found);
    }
}

/// About a term of a node selector: replaced labels and, where nothing refuses them, values that no label can have.
pub fn node_term(term: &At<'_>, values_too: bool, found: &mut Vec<String>) {
    for expression in term.key("matchExpressions").items() {
        let key = expression.key("key");
        if let Some(why) = deprecated_label(key.str()) {
            found.push(format!("{}: {} is {why}", key.path(), key.str()));
        }
        for value in expression.key("values").items().filter(|_| values_too) {
            for why in names::label_value(value.str()) {
                found.push(format!(
                    "{}: {} is invalid, {why}",
                    value.path(),
                    value.str()
                ));
            }
        }
    }
}

/// Why a node's label should no longer be used, if so.
pub fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => {
            "deprecated since v1.22; use Taints and Tolerations instead"
        }
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

fn volumes(volumes: &At<'_>, found: &mut Vec<String>) {
    for volume in volumes.items() {
        let mut deprecated = |(field, why): &(&str, &str)| {
            if volume.key(field).exists() {
                // Upstream says the Go name of this one.
                let field = field.replace("storageos", "storageOS");
                found.push(format!("{}.{field}: {why}", volume.path()));
            }
        };
        DEPRECATED_VOLUMES.iter().for_each(&mut deprecated);
        let claim = volume.at("ephemeral.volumeClaimTemplate.spec");
        let warning = claim::spec_warnings(&claim);
        deprecated(&("cephfs", "deprecated in v1.28, non-functional in v1.31+"));
        deprecated(&("rbd", "deprecated in v1.28, non-functional in v1.31+"));
        found.extend(warning);
    }
}

/// Files that a service account's token would hide, wherever in the projected volumes they are.
fn token_paths(volumes: &At<'_>, found: &mut Vec<String>) {
    let sources = || {
        volumes.items().flat_map(|volume| {
            let sources = volume.at("projected.sources");
            let place = format!("{}.projected.sources", volume.path());
            sources
                .items()
                .map(move |source| (place.clone(), source))
                .collect::<Vec<_>>()
        })
    };
    let tokens: HashSet<String> = sources()
        .map(|(_, source)| source.key("serviceAccountToken"))
        .filter(At::exists)
        .map(|token| token.key("path").str().to_owned())
        .collect();
    for (place, source) in sources().filter(|_| !tokens.is_empty()) {
        let mut look = |at: String, path: &str| {
            if tokens.contains(path) {
                found.push(format!(
                    "{at}: has duplicated path with ServiceAccountToken {path:?}"
                ));
            }
        };
        for (field, told) in [
            ("configMap", "configMap"),
            ("secret", "secrets"),
            ("downwardAPI", "downwardAPI"),
        ] {
            for (index, item) in source.key(field).key("items").items().enumerate() {
                look(format!("{place}.{told}[{index}]"), item.key("path").str());
            }
        }
        let bundle = source.key("clusterTrustBundle");
        if bundle.exists() {
            look(
                format!("{place}.ClusterTrustBundle"),
                bundle.key("path").str(),
            );
        }
    }
}

/// About elements of a list that have the same `field` as an earlier one.
fn twice(list: &At<'_>, field: &str, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for at in list.items().map(|item| item.key(field)) {
        if !seen.insert(at.str().to_owned()) {
            found.push(format!("{}: duplicate {field} {:?}", at.path(), at.str()));
        }
    }
}

/// Annotations that a field has replaced.
fn profiles(
    container: &At<'_>,
    spec: &At<'_>,
    annotations: &At<'_>,
    is_template: bool,
    found: &mut Vec<String>,
) {
    let (context, name) = (container.key("securityContext"), container.key("name"));
    let annotation = annotations.entry(&format!(
        "container.seccomp.security.alpha.kubernetes.io/{}",
        name.str()
    ));
    if annotation.exists() && !context.key("seccompProfile").exists() {
        found.push(format!("{}: {SECCOMP}", annotation.path()));
    }
    // Upstream warns of a Pod's elsewhere.
    let annotation = annotations.entry(&format!(
        "container.apparmor.security.beta.kubernetes.io/{}",
        name.str()
    ));
    let pods = spec.at("securityContext.appArmorProfile");
    let has_field = pods.exists() || context.key("appArmorProfile").exists();
    if is_template && annotation.exists() && !has_field {
        found.push(format!(
            "{}: deprecated since v1.30; use the \"appArmorProfile\" field instead",
            annotation.path()
        ));
    }
}

/// Ports of all containers that stand in each other's way.
fn ports(spec: &At<'_>, found: &mut Vec<String>) {
    struct Seen {
        path: String,
        address: String,
        port: i64,
    }
    let mut all: HashMap<String, Vec<Seen>> = HashMap::new();
    for container in containers(spec) {
        for at in container.key("ports").items() {
            let number = |field: &str| at.key(field).as_i64().unwrap_or(0);
            let text = |field: &str| at.key(field).str().to_owned();
            let (name, protocol, address) = (text("name"), text("protocol"), text("hostIP"));
            let (port, inside) = (number("hostPort"), number("containerPort"));
            if !address.is_empty() && port == 0 {
                found.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{inside} \
                     Protocol:{protocol} HostIP:{address}}}",
                    at.path()
                ));
            }
            let others = all.entry(format!("{inside}/{protocol}")).or_default();
            for other in others.iter() {
                let same_port = port == other.port;
                let how = if same_port && address == other.address {
                    "duplicate"
                } else if port == 0 || other.port == 0 {
                    "overlapping"
                } else if same_port && address.is_empty() != other.address.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                let path = at.path();
                found.push(format!("{path}: {how} port definition with {}", other.path));
            }
            others.push(Seen {
                path: at.path().to_owned(),
                address,
                port,
            });
        }
    }
}

/// A selector that is absent selects nothing, which is not what most people expect.
fn null_selector(selector: &At<'_>) -> Option<String> {
    (!selector.exists()).then(|| {
        format!(
            "{}: a null labelSelector results in matching no pod",
            selector.path()
        )
    })
}

fn affinity(affinity: &At<'_>, found: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = affinity.key(kind);
        let required = affinity.key("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = affinity.key("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = required.items().chain(
            preferred
                .items()
                .map(|preferred| preferred.key("podAffinityTerm")),
        );
        found.extend(terms.filter_map(|term| null_selector(&term.key("labelSelector"))));
    }
}

/// Memory can't be had in parts of a byte.
fn whole_bytes(quantities: &At<'_>, name: &str, found: &mut Vec<String>) {
    let at = quantities.entry(name);
    let quantity = at.as_str().and_then(|text| text.parse::<Quantity>().ok());
    if quantity.is_some_and(|quantity| Quantity::from_value(quantity.value()) != quantity) {
        let text = at.str();
        found.push(format!(
            "{}: fractional byte value {text:?} is invalid, must be an integer",
            at.path()
        ));
    }
}

fn environment(variables: &At<'_>, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in variables.items() {
        let name = variable.key("name").str();
        if !seen.insert(name.to_owned()) {
            // A value that says more than the earlier one doesn't hide it.
            let (value, earlier) = (variable.key("value").str(), format!("$({name})"));
            let given = variable.key("valueFrom").exists();
            if given || value == earlier || !value.contains(&earlier) {
                let detail = "which may be dropped when using apply";
                found.push(format!(
                    "{}: hides previous definition of {name:?}, {detail}",
                    variable.path()
                ));
            }
        }
    }
}

//! What is accepted in a pod but probably not meant: `pkg/api/pod/warnings.go`, in its order, and what
//! `pkg/api/node/util.go` says of labels of nodes.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::core::v1::persistent_volume_claim as claim;
use crate::field_errors::go_quote;
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
    overlaps(&spec.key("volumes"), &mut found);
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

/// Most overlaps that are told of one volume: far more than a `Warning` header holds.
const MOST_OVERLAPS: usize = 100;

/// Files of volumes that would lie on or in each other (upstream's `warningsForOverlappingVirtualPaths`).
fn overlaps(volumes: &At<'_>, found: &mut Vec<String>) {
    for volume in volumes.items() {
        let name = go_quote(volume.key("name").str());
        for (field, kind, named) in [
            ("configMap", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("downwardAPI", "DownwardAPI", ""),
        ] {
            let source = volume.key(field);
            let of = described(kind, &source.key(named));
            let mut files = Files::of(format!("volume {name} ({of})"));
            for item in source.key("items").items() {
                files.add(item.key("path").str(), "", found);
            }
        }
        let mut files = Files::of(format!("volume {name} (Projected)"));
        for source in volume.at("projected.sources").items() {
            if source.is_empty() {
                found.push(format!("{} has no sources provided", files.volume));
            }
            for (field, kind) in [
                ("configMap", "ConfigMap"),
                ("secret", "Secret"),
                ("downwardAPI", "DownwardAPI"),
            ] {
                let of = format!(" ({})", described(kind, &source.key(field).key("name")));
                for item in source.key(field).key("items").items() {
                    files.add(item.key("path").str(), &of, found);
                }
            }
            let token = source.key("serviceAccountToken").key("path");
            files.add(token.str(), " (ServiceAccountToken)", found);
            let bundle = source.key("clusterTrustBundle");
            let named = match bundle.key("name").exists() {
                true => bundle.key("name"),
                false => bundle.key("signerName"),
            };
            let of = format!(" ({})", described("ClusterTrustBundle", &named));
            files.add(bundle.key("path").str(), &of, found);
        }
    }
}

/// A source of files by its kind and name, if that kind has names.
fn described(kind: &str, name: &At<'_>) -> String {
    match kind {
        "DownwardAPI" => kind.to_owned(),
        _ => format!("{kind} {}", go_quote(name.str())),
    }
}

/// The files of a volume so far, each as it is told.
struct Files {
    volume: String,
    told: Vec<String>,
    /// Which of them have this path, with a slash at its end.
    at: BTreeMap<String, Vec<usize>>,
    overlaps: usize,
}

impl Files {
    fn of(volume: String) -> Self {
        Self {
            volume,
            told: Vec::new(),
            at: BTreeMap::new(),
            overlaps: 0,
        }
    }

    fn add(&mut self, path: &str, of: &str, found: &mut Vec<String>) {
        let path = path.trim_end_matches('/');
        let left = MOST_OVERLAPS - self.overlaps;
        if path.is_empty() || left == 0 {
            return;
        }
        let told = format!("{}{of}", go_quote(path));
        let path = format!("{path}/");
        let from_here = self.at.range(path.clone()..);
        let inside = from_here.take_while(|(other, _)| other.starts_with(&path));
        let around = path.match_indices('/').map(|(slash, _)| &path[..=slash]);
        let around = around.filter(|other| *other != path);
        let around = around.filter_map(|other| self.at.get(other));
        let others = inside.map(|(_, others)| others).chain(around).flatten();
        let mut others: Vec<usize> = others.copied().take(left).collect();
        others.sort_unstable();
        self.overlaps += others.len();
        found.extend(others.into_iter().map(|other| {
            let (volume, other) = (&self.volume, &self.told[other]);
            format!("{volume}: overlapping paths: {told} with {other}")
        }));
        self.at.entry(path).or_default().push(self.told.len());
        self.told.push(told);
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

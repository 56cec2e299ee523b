//! Node: a machine, or a process that stands for one, that runs Pods.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::pod_spec::containers;
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age, proxy};
use crate::validation::{address, names};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of nodes.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[proxy("NodeProxyOptions"), STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Node,
};

/// Node: a machine, or a process that stands for one, that runs Pods.
pub struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Object) {
        if let Some(capacity) = object.at("status.capacity").value().cloned() {
            object.set_default("status.allocatable", capacity);
        }
        // The list is the newer form; the first of it is the old one, which counts where they differ.
        let one = object.at("spec.podCIDR").str().to_owned();
        let first = object.at("spec.podCIDRs").index(0).str().to_owned();
        if one.is_empty() && !first.is_empty() {
            object.set("spec.podCIDR", first);
        } else if one != first {
            object.set("spec.podCIDRs", json!([one]));
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        // Upstream reports taints under `metadata`.
        taints(
            &At::maybe(new.at("spec.taints").value(), "metadata.taints"),
            errors,
        );
        for list in ["capacity", "allocatable"] {
            let at = new.at("status").key(list);
            for (name, quantity) in at.entries() {
                let place = At::maybe(quantity.value(), format!("{}.{name}", at.path()));
                containers::resource_quantity(name, &place, errors);
            }
        }
        pod_ranges(&new.at("spec.podCIDRs"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let mut taken = HashSet::new();
        for address in new.at("status.addresses").items() {
            let (kind, address_text) = (address.key("type"), address.key("address"));
            let (kind, text) = (kind.str(), address_text.str());
            if !taken.insert((kind.to_owned(), text.to_owned())) {
                let shown = json!({"Type": kind, "Address": text});
                errors.push(ErrorType::Duplicate, address.path(), Some(shown), "");
            }
        }
        let (now, was) = (new.at("spec"), old.at("spec"));
        if !was.key("podCIDRs").is_empty()
            && now.key("podCIDRs").value() != was.key("podCIDRs").value()
        {
            errors.forbidden(
                &now.key("podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
        if !was.key("providerID").str().is_empty()
            && now.key("providerID").str() != was.key("providerID").str()
        {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&now.key("providerID"), detail);
        }
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        self.validate(new, errors);
        self.validate_update(new, old, errors);
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![(
            "spec.unschedulable",
            object.at("spec.unschedulable").is_true().to_string(),
        )]
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let spec = new.at("spec");
        let mut found = Vec::new();
        if spec.key("configSource").exists() {
            found.push("spec.configSource: the feature is removed".to_owned());
        }
        if !spec.key("externalID").is_empty() {
            found.push(
                "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
            );
        }
        let ranges = spec.key("podCIDRs");
        found.extend(ranges.items().filter_map(|at| address::range_warning(&at)));
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let info = object.at("status.nodeInfo");
        let known = |text: &str| Value::from(if text.is_empty() { "<unknown>" } else { text });
        let kernel = match (
            info.key("kernelVersion").str(),
            info.key("architecture").str(),
        ) {
            ("", _) => "<unknown>".to_owned(),
            (kernel, "") => kernel.to_owned(),
            (kernel, architecture) => format!("{kernel} ({architecture})"),
        };
        vec![
            object.name().into(),
            status_text(object).into(),
            roles(object).into(),
            age(object, now),
            info.key("kubeletVersion").str().into(),
            first_address(object, "InternalIP").into(),
            first_address(object, "ExternalIP").into(),
            known(info.key("osImage").str()),
            kernel.into(),
            known(info.key("containerRuntimeVersion").str()),
        ]
    }
}

/// Ranges of addresses for pods: at most one of each family.
fn pod_ranges(ranges: &At<'_>, errors: &mut FieldErrors) {
    for range in ranges.items() {
        address::cidr(&range, errors);
    }
    let families: HashSet<bool> = ranges
        .items()
        .map(|range| range.str().contains(':'))
        .collect();
    if ranges.len() > 1 && (ranges.len() > 2 || families.len() < 2) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.invalid(ranges, detail);
    }
    let mut taken = HashSet::new();
    for range in ranges.items() {
        if !taken.insert(range.str().to_owned()) {
            errors.duplicate(&range);
        }
    }
}

fn taints(list: &At<'_>, errors: &mut FieldErrors) {
    let mut taken = HashSet::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.key("key"), taint.key("value"), taint.key("effect"));
        errors.text(&key, names::qualified_name);
        errors.text(&value, names::label_value);
        if effect.str().is_empty() {
            errors.required(&effect, "");
        } else {
            errors.one_of(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        }
        if !taken.insert((key.str(), effect.str())) {
            let detail = "taints must be unique by key and effect pair";
            let shown = json!({
                "Key": key.str(), "Value": value.str(), "Effect": effect.str(), "TimeAdded": taint.key("timeAdded").value(),
            });
            errors.push(ErrorType::Duplicate, taint.path(), Some(shown), detail);
        }
    }
}

fn status_text(node: &Object) -> String {
    let conditions = node.at("status.conditions");
    let ready = conditions
        .items()
        .find(|condition| condition.key("type").str() == "Ready");
    let status = match ready
        .as_ref()
        .map(|condition| condition.key("status").str())
    {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let closed = if node.at("spec.unschedulable").is_true() {
        ",SchedulingDisabled"
    } else {
        ""
    };
    format!("{status}{closed}")
}

/// The roles that labels name: `node-role.kubernetes.io/<role>` and `kubernetes.io/role`.
fn roles(node: &Object) -> String {
    let labels = node.at("metadata.labels");
    let mut roles: Vec<&str> = labels
        .entries()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn first_address(node: &Object, kind: &str) -> String {
    let addresses = node.at("status.addresses");
    let found = addresses
        .items()
        .find(|address| address.key("type").str() == kind);
    found.map_or_else(
        || "<none>".to_owned(),
        |address| address.key("address").str().to_owned(),
    )
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status", "The status of the node"),
    Column::string("Roles", "The roles of the node"),
    AGE,
    Column::string("Version", "Kubelet Version reported by the node."),
    Column::wide(
        "Internal-IP",
        "List of addresses reachable to the node. Queried from cloud provider, if available. More info: \
         https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as \
         mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is \
         merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an \
         example. Consumers should assume that addresses can change during the lifetime of a Node. However, \
         there are some exceptions where this may not be possible, such as Pods that inherit a Node's address \
         in its own status or consumers of the downward API (status.hostIP).",
    ),
    Column::wide(
        "External-IP",
        "List of addresses reachable to the node. Queried from cloud provider, if available. More info: \
         https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as \
         mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is \
         merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an \
         example. Consumers should assume that addresses can change during the lifetime of a Node. However, \
         there are some exceptions where this may not be possible, such as Pods that inherit a Node's address \
         in its own status or consumers of the downward API (status.hostIP).",
    ),
    Column::wide(
        "OS-Image",
        "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
    ),
    Column::wide(
        "Kernel-Version",
        "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
    ),
    Column::wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_field_of_ranges_counts() {
        for (one, all, expected) in [
            ("", json!([]), json!({})),
            ("a", json!(null), json!({"podCIDR": "a", "podCIDRs": ["a"]})),
            (
                "",
                json!(["a", "b"]),
                json!({"podCIDR": "a", "podCIDRs": ["a", "b"]}),
            ),
            (
                "a",
                json!(["a", "b"]),
                json!({"podCIDR": "a", "podCIDRs": ["a", "b"]}),
            ),
            (
                "c",
                json!(["a", "b"]),
                json!({"podCIDR": "c", "podCIDRs": ["c"]}),
            ),
        ] {
            let node = json!({"spec": {"podCIDR": one, "podCIDRs": all}});
            let mut node = Object::from_value(node).expect("an object");
            Node.default(&mut node);
            for field in ["podCIDR", "podCIDRs"] {
                let found = node.at("spec").key(field);
                let wanted = &expected[field];
                assert!(found.is_empty() && wanted.is_null() || found.value() == Some(wanted));
            }
        }
    }
}

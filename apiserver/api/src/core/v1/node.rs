//! Node: a machine, or a process that stands for one, that runs Pods.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage};
use crate::{Resource, Strategy};

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
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    strategy: &Node,
};

/// Node: a machine, or a process that stands for one, that runs Pods.
pub struct Node;

impl Strategy for Node {}

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

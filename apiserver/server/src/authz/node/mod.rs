//! Node: what a kubelet may do, which is what its own pods need.
//!
//! ```text
//! watch caches ──pods, volumes, attachments, slices──▶ Graph ◀── authorize(system:node:NAME in system:nodes)
//! ```
//!
//! Rules and reasons: `plugin/pkg/auth/authorizer/node/node_authorizer.go` of `k8s.io/kubernetes`. What is about no single
//! object of a pod is decided by the rules of the default role `system:node`; the admission step
//! `NodeRestriction` looks at what is written.

mod graph;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{Object, Registry};
use parking_lot::RwLock;

use super::rbac::{Rule, default_rules};
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::Identity;
use crate::cache::{Caches, Observer};
use graph::{Graph, Thing};

/// The group of nodes.
const NODES: &str = "system:nodes";
/// Where the Leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// The node that `identity` is, empty if its name says none; `None` for everybody else.
pub fn node_of(identity: &Identity) -> Option<&str> {
    let node = identity.user.strip_prefix("system:node:")?;
    identity.is_in(NODES).then_some(node)
}

/// What kinds of objects a pod names.
pub(crate) struct NamedKinds {
    pub(crate) secrets: bool,
    pub(crate) config_maps: bool,
    pub(crate) claims: bool,
}

/// What kinds of objects a pod's containers and volumes name, whatever the pod is.
pub(crate) fn named_by(pod: &Object) -> NamedKinds {
    let named = graph::references_of("/", pod);
    let any = |kind: Thing| named.iter().any(|(thing, _)| *thing == kind);
    NamedKinds {
        secrets: any(Thing::Secret),
        config_maps: any(Thing::ConfigMap),
        claims: any(Thing::Claim),
    }
}

/// Lets nodes do what their pods need.
pub struct NodeAuthorizer {
    graph: Arc<RwLock<Graph>>,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    /// Follows the pods of `caches`, and what pods lead to.
    pub fn follow(caches: &Caches, registry: &Registry) -> Self {
        let this = Self::empty();
        for (group, plural, set) in FOLLOWED {
            let mut resources = registry.iter();
            let stored = resources
                .find(|resource| resource.group == group && resource.plural == plural)
                .and_then(|resource| caches.of(caches.stored(resource)));
            if let Some(cache) = stored {
                let graph = Arc::clone(&this.graph);
                cache.observe(Arc::new(Follower { graph, set }));
            }
        }
        this
    }

    fn empty() -> Self {
        Self {
            graph: Arc::default(),
            rules: default_rules("system:node"),
        }
    }

    /// Decides; see [`Authorizer::authorize`].
    pub fn decide(&self, asked: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(asked.identity) else {
            return no("");
        };
        if node.is_empty() {
            return no(&format!("unknown node for user {:?}", asked.identity.user));
        }
        if !asked.is_resource {
            return self.by_rules(asked);
        }
        match (asked.group, asked.resource) {
            ("", "secrets") => self.read(node, Thing::Secret, asked),
            ("", "configmaps") => self.read(node, Thing::ConfigMap, asked),
            ("", "persistentvolumeclaims") if asked.subresource == "status" => match asked.verb {
                "update" | "patch" => self.related(node, asked, |graph| {
                    graph.relates(node, Thing::Claim, asked.namespace, &asked.name)
                }),
                _ => no("can only get/update/patch this type"),
            },
            ("", "persistentvolumeclaims") => self.get(node, asked, |graph| {
                graph.relates(node, Thing::Claim, asked.namespace, &asked.name)
            }),
            ("", "persistentvolumes") => {
                self.get(node, asked, |graph| graph.has_volume(node, &asked.name))
            }
            ("resource.k8s.io", "resourceclaims") => self.get(node, asked, |graph| {
                graph.relates(node, Thing::ResourceClaim, asked.namespace, &asked.name)
            }),
            ("storage.k8s.io", "volumeattachments") => {
                self.get(node, asked, |graph| graph.has_attachment(node, &asked.name))
            }
            ("", "serviceaccounts") => self.account(node, asked),
            ("coordination.k8s.io", "leases") => lease(node, asked),
            ("storage.k8s.io", "csinodes") => csi_node(node, asked),
            ("resource.k8s.io", "resourceslices") => self.slice(node, asked),
            ("", "nodes") => own_node(node, asked),
            ("", "pods") => self.pod(node, asked),
            _ => self.by_rules(asked),
        }
    }

    fn by_rules(&self, asked: &Attributes<'_>) -> Decision {
        match self.rules.iter().any(|rule| rule.allows(asked)) {
            true => yes(),
            false => no(""),
        }
    }

    /// Reading single objects that pods name.
    fn read(&self, node: &str, thing: Thing, asked: &Attributes<'_>) -> Decision {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !asked.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if asked.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, asked, |graph| {
            graph.relates(node, thing, asked.namespace, &asked.name)
        })
    }

    fn get(
        &self,
        node: &str,
        asked: &Attributes<'_>,
        relates: impl Fn(&Graph) -> bool,
    ) -> Decision {
        if asked.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !asked.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, asked, relates)
    }

    fn related(
        &self,
        node: &str,
        asked: &Attributes<'_>,
        relates: impl Fn(&Graph) -> bool,
    ) -> Decision {
        if asked.name.is_empty() {
            return no("No Object name found");
        }
        match relates(&self.graph.read()) {
            true => yes(),
            false => no(&format!(
                "no relationship found between node '{node}' and this object"
            )),
        }
    }

    fn account(&self, node: &str, asked: &Attributes<'_>) -> Decision {
        let relates =
            |graph: &Graph| graph.relates(node, Thing::Account, asked.namespace, &asked.name);
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.get(node, asked, relates);
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if asked.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, asked, relates)
    }

    fn slice(&self, node: &str, asked: &Attributes<'_>) -> Decision {
        if !asked.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match asked.verb {
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, asked, |graph| graph.has_slice(node, &asked.name))
            }
            "watch" | "list" | "deletecollection" => {
                match asked.fields.exact("nodeName") == Some(node) {
                    true => yes(),
                    false => no(
                        "can only list/watch/deletecollection resourceslices with nodeName field selector",
                    ),
                }
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod(&self, node: &str, asked: &Attributes<'_>) -> Decision {
        let relates = |graph: &Graph| graph.relates(node, Thing::Pod, asked.namespace, &asked.name);
        match (asked.subresource, asked.verb) {
            ("", "get") => self.get(node, asked, relates),
            ("", "list" | "watch") if asked.fields.exact("spec.nodeName") == Some(node) => yes(),
            ("", "list" | "watch") if !asked.name.is_empty() => self.related(node, asked, relates),
            ("", "list" | "watch") => {
                no("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                yes()
            }
            _ => no(""),
        }
    }
}

fn lease(node: &str, asked: &Attributes<'_>) -> Decision {
    if !is_single_write_or_get(asked.verb) {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if asked.namespace != LEASES {
        return no(&format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    // A new one's name is not known here; the admission step looks at it.
    if asked.verb != "create" && asked.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, asked: &Attributes<'_>) -> Decision {
    if !is_single_write_or_get(asked.verb) {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !asked.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if asked.verb != "create" && asked.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

fn is_single_write_or_get(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}

fn own_node(node: &str, asked: &Attributes<'_>) -> Decision {
    match (asked.subresource, asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match &*asked.name {
            "" => no(&format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            name if name == node => yes(),
            name => no(&format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
        },
        _ => no(""),
    }
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion(reason.to_owned())
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        self.decide(asked)
    }

    async fn rules(&self, identity: &Identity, _namespace: &str) -> Rules {
        let mut rules = Rules::default();
        if node_of(identity).is_some() {
            rules.incomplete = true;
            let why = "node authorizer does not support user rule resolution";
            rules.errors.push(why.to_owned());
        }
        rules
    }
}

type Set = fn(&mut Graph, &str, Option<&Object>);

/// What the graph is made of.
const FOLLOWED: [(&str, &str, Set); 4] = [
    ("", "pods", Graph::set_pod),
    ("", "persistentvolumes", Graph::set_volume),
    ("storage.k8s.io", "volumeattachments", Graph::set_attachment),
    ("resource.k8s.io", "resourceslices", Graph::set_slice),
];

/// Keeps one part of the graph up to date.
struct Follower {
    graph: Arc<RwLock<Graph>>,
    set: Set,
}

impl Observer for Follower {
    fn changed(&self, key: &str, object: Option<&Object>) {
        (self.set)(&mut self.graph.write(), key, object);
    }
}

#[cfg(test)]
mod tests;

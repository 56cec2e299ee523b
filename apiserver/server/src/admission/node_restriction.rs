//! NodeRestriction: a kubelet writes its own Node, its own pods' statuses, and what belongs to them.
//!
//! The Node authorizer decides by names alone; this step looks at what is written. Rules and texts:
//! `plugin/pkg/admission/noderestriction` of `k8s.io/kubernetes`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use coracle_api::{At, Object};

use super::{Admission, Attributes, Operation};
use crate::authz::node::node_of;
use crate::metadata;
use crate::status::{ApiError, Result};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeRestriction;

/// Where the Leases of nodes are.
const LEASES: &str = "kube-node-lease";

#[async_trait]
impl Admission for NodeRestriction {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let Some(node) = node_of(attributes.identity) else {
            return Ok(());
        };
        let request = Request {
            attributes,
            node,
            new: object.as_deref(),
        };
        if node.is_empty() {
            let user = &attributes.identity.user;
            return request.refuse(format!("could not determine node from user {user:?}"));
        }
        let resource = attributes.resource;
        match (resource.group, resource.plural, attributes.subresource) {
            ("", "pods", "") => request.pod().await,
            ("", "pods", "status") => request.pod_status(),
            ("", "pods", "eviction") => request.eviction().await,
            ("", "pods", other) => request.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            ("", "nodes", _) => request.own_node(),
            ("", "persistentvolumeclaims", "status") => request.claim_status(),
            ("", "persistentvolumeclaims", _) => request.refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") => request.token().await,
            ("coordination.k8s.io", "leases", _) => request.lease(),
            ("storage.k8s.io", "csinodes", _) => request.csi_node(),
            ("resource.k8s.io", "resourceslices", _) => request.slice(),
            _ => Ok(()),
        }
    }
}

/// One request of a node.
struct Request<'a> {
    attributes: &'a Attributes<'a>,
    node: &'a str,
    new: Option<&'a Object>,
}

impl Request<'_> {
    fn refuse(&self, why: impl std::fmt::Display) -> Result<()> {
        let Attributes { resource, name, .. } = *self.attributes;
        Err(ApiError::forbidden(resource, name, why))
    }

    fn refuse_if(&self, wrong: bool, why: impl FnOnce() -> String) -> Result<()> {
        match wrong {
            true => self.refuse(why()),
            false => Ok(()),
        }
    }

    /// A field of the object as it will be.
    fn wanted(&self, path: &str) -> At<'_> {
        match self.new {
            Some(new) => new.at(path),
            None => At::maybe(None, path),
        }
    }

    /// A field of the object as it is.
    fn old(&self, path: &str) -> At<'_> {
        match self.attributes.old {
            Some(old) => old.at(path),
            None => At::maybe(None, path),
        }
    }

    fn operation(&self) -> &'static str {
        match self.attributes.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }

    async fn pod(&self) -> Result<()> {
        let node = self.node;
        match self.attributes.operation {
            Operation::Create => self.mirror_pod().await,
            Operation::Delete => {
                let elsewhere = self.old("spec.nodeName").str() != node;
                self.refuse_if(elsewhere, || {
                    format!("node {node:?} can only delete pods with spec.nodeName set to itself")
                })
            }
            Operation::Update => self.refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                self.operation()
            )),
        }
    }

    async fn mirror_pod(&self) -> Result<()> {
        let node = self.node;
        let mirror = "kubernetes.io/config.mirror";
        let is_mirror = self.wanted("metadata.annotations").entry(mirror).exists();
        self.refuse_if(!is_mirror, || {
            format!(
                "pod does not have {mirror:?} annotation, node {node:?} can only create mirror pods"
            )
        })?;
        self.refuse_if(self.wanted("spec.nodeName").str() != node, || {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        })?;
        let owners = self.wanted("metadata.ownerReferences");
        self.refuse_if(owners.len() > 1, || {
            format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            )
        })?;
        let owner = owners.index(0);
        let is_node = owner.key("apiVersion").str() == "v1"
            && owner.key("kind").str() == "Node"
            && owner.key("name").str() == node;
        self.refuse_if(!is_node, || {
            format!("node {node:?} can only create pods with an owner reference set to itself")
        })?;
        self.refuse_if(!owner.key("controller").is_true(), || {
            format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            )
        })?;
        self.refuse_if(owner.key("blockOwnerDeletion").is_true(), || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let server = self.attributes.server;
        let nodes = server.registry().by_plural("", "v1", "nodes");
        let found = server.find("", "nodes", "", node).await?;
        let found = match (found, nodes) {
            (Some(found), _) => found.object(),
            (None, Some(nodes)) => return Err(ApiError::not_found(nodes, node)),
            (None, None) => return Ok(()),
        };
        let (expected, got) = (owner.key("uid").str(), found.uid());
        self.refuse_if(expected != got, || {
            format!("node {node} UID mismatch: expected {expected} got {got}")
        })?;
        let refers =
            |what: &str| format!("node {node:?} can not create pods that reference {what}");
        let account = self.wanted("spec.serviceAccountName");
        self.refuse_if(!account.is_empty(), || refers("a service account"))?;
        let pod = self.new.cloned().unwrap_or_default();
        let named = crate::authz::node::named_by(&pod);
        self.refuse_if(named.secrets, || refers("secrets"))?;
        self.refuse_if(named.config_maps, || refers("configmaps"))?;
        for volume in self.wanted("spec.volumes").items() {
            for source in volume.at("projected.sources").items() {
                let bundle = source.key("clusterTrustBundle").exists();
                self.refuse_if(bundle, || refers("clustertrustbundles"))?;
            }
        }
        self.refuse_if(named.claims, || refers("persistentvolumeclaims"))
    }

    fn pod_status(&self) -> Result<()> {
        let node = self.node;
        if self.attributes.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {:?}", self.operation()));
        }
        self.refuse_if(self.old("spec.nodeName").str() != node, || {
            format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            )
        })?;
        let labels = "metadata.labels";
        let changed = !changed_keys(&self.wanted(labels), &self.old(labels)).is_empty();
        self.refuse_if(changed, || {
            format!("node {node:?} cannot update labels through pod status")
        })?;
        let claims = "status.resourceClaimStatuses";
        let (new, old) = (self.wanted(claims), self.old(claims));
        let names = |claim: &At<'_>| {
            let text = |field: &str| claim.key(field).as_str().map(str::to_owned);
            (text("name"), text("resourceClaimName"))
        };
        let same = new
            .items()
            .map(|c| names(&c))
            .eq(old.items().map(|c| names(&c)));
        self.refuse_if(!same, || {
            format!("node {node:?} cannot update resource claim statues")
        })
    }

    async fn eviction(&self) -> Result<()> {
        let node = self.node;
        let pod = self.pod_named(self.attributes.name).await?;
        self.refuse_if(pod.at("spec.nodeName").str() != node, || {
            format!("node {node} can only evict pods with spec.nodeName set to itself")
        })
    }

    /// The pod of that name in the request's namespace, or that there is none.
    async fn pod_named(&self, name: &str) -> Result<Object> {
        let Attributes {
            server, namespace, ..
        } = *self.attributes;
        let found = server.find("", "pods", namespace, name).await?;
        let pods = server.registry().by_plural("", "v1", "pods");
        match (found, pods) {
            (Some(pod), _) => Ok(pod.object()),
            (None, Some(pods)) => Err(ApiError::not_found(pods, name)),
            (None, None) => Err(ApiError::unknown_path()),
        }
    }

    fn claim_status(&self) -> Result<()> {
        let node = self.node;
        if self.attributes.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {:?}", self.operation()));
        }
        let bare = |object: Option<&Object>| {
            let mut object = object.cloned().unwrap_or_default();
            for path in [
                "metadata.resourceVersion",
                "metadata.managedFields",
                "status.capacity",
                "status.conditions",
                "status.allocatedResourceStatuses",
                "status.allocatedResources",
            ] {
                object.remove(path);
            }
            object
        };
        let (new, old) = (bare(self.new), bare(self.attributes.old));
        self.refuse_if(!metadata::same(&new, &old), || {
            format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions")
        })
    }

    fn own_node(&self) -> Result<()> {
        let (node, name) = (self.node, self.attributes.name);
        self.refuse_if(name != node, || {
            format!("node {node:?} is not allowed to modify node {name:?}")
        })?;
        let source = self.wanted("spec.configSource");
        match self.attributes.operation {
            Operation::Create => {
                self.refuse_if(source.exists(), || {
                    format!(
                        "node {node:?} is not allowed to create pods with a non-nil configSource"
                    )
                })?;
                let labels = changed_keys(&self.wanted("metadata.labels"), &At::maybe(None, ""));
                let forbidden = forbidden_labels(&labels);
                self.refuse_if(!forbidden.is_empty(), || {
                    let forbidden = forbidden.join(", ");
                    format!("node {node:?} is not allowed to set the following labels: {forbidden}")
                })
            }
            Operation::Update => {
                let moved =
                    source.exists() && source.value() != self.old("spec.configSource").value();
                self.refuse_if(moved, || {
                    format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
                })?;
                let taints =
                    |at: At<'_>| at.items().map(|t| t.value().cloned()).collect::<Vec<_>>();
                let (new, old) = (
                    taints(self.wanted("spec.taints")),
                    taints(self.old("spec.taints")),
                );
                self.refuse_if(new != old, || {
                    format!("node {node:?} is not allowed to modify taints")
                })?;
                let labels = "metadata.labels";
                let forbidden =
                    forbidden_labels(&changed_keys(&self.wanted(labels), &self.old(labels)));
                self.refuse_if(!forbidden.is_empty(), || {
                    format!("is not allowed to modify labels: {}", forbidden.join(", "))
                })
            }
            Operation::Delete => Ok(()),
        }
    }

    async fn token(&self) -> Result<()> {
        if self.attributes.operation != Operation::Create {
            return Ok(());
        }
        let bound = self.wanted("spec.boundObjectRef");
        let text = |field: &str| bound.key(field).str();
        let to_pod =
            text("apiVersion") == "v1" && text("kind") == "Pod" && !text("name").is_empty();
        self.refuse_if(!to_pod, || {
            "node requested token not bound to a pod".to_owned()
        })?;
        let uid = text("uid");
        self.refuse_if(uid.is_empty(), || {
            "node requested token with a pod binding without a uid".to_owned()
        })?;
        let pod = self.pod_named(text("name")).await?;
        self.refuse_if(uid != pod.uid(), || {
            format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated")
        })?;
        self.refuse_if(pod.at("spec.nodeName").str() != self.node, || {
            "node requested token bound to a pod scheduled on a different node".to_owned()
        })
    }

    fn lease(&self) -> Result<()> {
        let Attributes {
            namespace, name, ..
        } = *self.attributes;
        self.refuse_if(namespace != LEASES, || {
            format!("can only access leases in the {LEASES:?} system namespace")
        })?;
        self.refuse_if(name != self.node, || {
            "can only access node lease with the same name as the requesting node".to_owned()
        })
    }

    fn csi_node(&self) -> Result<()> {
        self.refuse_if(self.attributes.name != self.node, || {
            "can only access CSINode with the same name as the requesting node".to_owned()
        })
    }

    fn slice(&self) -> Result<()> {
        let (slice, verb) = match self.attributes.operation {
            Operation::Create => (self.wanted("spec.nodeName"), "create"),
            Operation::Delete => (self.old("spec.nodeName"), "delete"),
            Operation::Update => return Ok(()),
        };
        self.refuse_if(slice.str() != self.node, || {
            format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")
        })
    }
}

/// The keys that only one of the maps has, or that have another value in the other.
fn changed_keys(new: &At<'_>, old: &At<'_>) -> BTreeSet<String> {
    let differing = |a: &At<'_>, b: &At<'_>| {
        let entries = a.entries();
        let differing = entries.filter(|(key, value)| b.entry(key).as_str() != value.as_str());
        differing.map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
    };
    let changed = differing(new, old).into_iter().chain(differing(old, new));
    changed.collect()
}

/// Labels that a kubelet may set although they are Kubernetes' own.
const KUBELET_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Those labels by which a node could draw pods to itself.
fn forbidden_labels(labels: &BTreeSet<String>) -> Vec<String> {
    let forbidden = labels.iter().filter(|label| {
        let domain = label.split_once('/').map_or("", |(domain, _)| domain);
        let under = |parent: &str| {
            let rest = domain.strip_suffix(parent);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let ours = under("kubernetes.io") || under("k8s.io");
        let allowed = KUBELET_LABELS.contains(&label.as_str())
            || under("kubelet.kubernetes.io")
            || under("node.kubernetes.io");
        under("node-restriction.kubernetes.io") || ours && !allowed
    });
    forbidden.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_that_draw_no_pods_are_a_nodes_own() {
        for (label, forbidden) in [
            ("disk", false),
            ("example.com/disk", false),
            ("kubernetes.io/hostname", false),
            ("kubernetes.io/role", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("node.kubernetes.io/anything", false),
            ("a.node.kubernetes.io/anything", false),
            ("notnode.kubernetes.io/x", true),
            ("kubelet.kubernetes.io/x", false),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
            ("x.k8s.io/y", true),
            ("notk8s.io/y", false),
        ] {
            let labels = BTreeSet::from([label.to_owned()]);
            assert_eq!(!forbidden_labels(&labels).is_empty(), forbidden, "{label}");
        }
    }
}

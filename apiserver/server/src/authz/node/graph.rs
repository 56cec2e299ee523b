//! What each node has to do with: its pods, and through them secrets, config maps, claims, accounts and volumes.
//!
//! ```text
//! node ◀─ pod ◀─ secret · config map · account · resource claim · claim ◀─ volume ◀─ secret
//!   ◀─ attachment · slice
//! ```
//!
//! Rules: `plugin/pkg/auth/authorizer/node/graph.go` of `k8s.io/kubernetes`. A question is a few look-ups, because every
//! node has its own index of what its pods name.

use std::collections::{HashMap, HashSet};

use coracle_api::{At, Object};

/// What a node may have to do with, other than itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Thing {
    Pod,
    Secret,
    ConfigMap,
    Account,
    Claim,
    ResourceClaim,
}

pub(super) type Named = (Thing, Box<str>);

/// The relations of all nodes.
#[derive(Default)]
pub(super) struct Graph {
    /// By `namespace/name`.
    pods: HashMap<Box<str>, Pod>,
    /// By node: what its pods name, and how many of them do.
    nodes: HashMap<Box<str>, HashMap<Named, usize>>,
    volumes: HashMap<Box<str>, Volume>,
    /// By secret: the volumes that name it.
    volumes_of: HashMap<Box<str>, HashSet<Box<str>>>,
    attachments: HashMap<Box<str>, Box<str>>,
    slices: HashMap<Box<str>, Box<str>>,
}

struct Pod {
    uid: Box<str>,
    node: Box<str>,
    /// What may change while the pod is where it is.
    extent: (usize, usize),
    names: Vec<Named>,
}

struct Volume {
    claim: Box<str>,
    secrets: Vec<Box<str>>,
}

impl Graph {
    /// Takes over a pod; `None`: it is gone.
    pub(super) fn set_pod(&mut self, key: &str, pod: Option<&Object>) {
        let node = pod.map_or("", |pod| pod.at("spec.nodeName").str());
        let uid = pod.map_or("", Object::uid);
        let extent = pod.map_or((0, 0), |pod| {
            let length = |path: &str| pod.at(path).len();
            (
                length("spec.ephemeralContainers"),
                length("status.resourceClaimStatuses"),
            )
        });
        let known = self.pods.get(key);
        if known.is_some_and(|old| *old.node == *node && *old.uid == *uid && old.extent == extent) {
            return;
        }
        if let Some(old) = self.pods.remove(key)
            && let Some(index) = self.nodes.get_mut(&old.node)
        {
            for name in &old.names {
                if let Some(count) = index.get_mut(name) {
                    *count -= 1;
                    if *count == 0 {
                        index.remove(name);
                    }
                }
            }
            if index.is_empty() {
                self.nodes.remove(&old.node);
            }
        }
        let Some(pod) = pod.filter(|_| !node.is_empty()) else {
            return;
        };
        let names = names_of(key, pod);
        let index = self.nodes.entry(node.into()).or_default();
        for name in &names {
            *index.entry(name.clone()).or_default() += 1;
        }
        let pod = Pod {
            uid: uid.into(),
            node: node.into(),
            extent,
            names,
        };
        self.pods.insert(key.into(), pod);
    }

    /// Takes over a persistent volume.
    pub(super) fn set_volume(&mut self, name: &str, volume: Option<&Object>) {
        if let Some(old) = self.volumes.remove(name) {
            for secret in old.secrets {
                if let Some(volumes) = self.volumes_of.get_mut(&secret) {
                    volumes.remove(name);
                    if volumes.is_empty() {
                        self.volumes_of.remove(&secret);
                    }
                }
            }
        }
        let Some(volume) = volume else {
            return;
        };
        let claim = volume.at("spec.claimRef");
        if !claim.exists() {
            return;
        }
        let namespace = claim.key("namespace").str();
        let secrets = volume_secrets(volume, namespace);
        for secret in &secrets {
            let volumes = self.volumes_of.entry(secret.clone()).or_default();
            volumes.insert(name.into());
        }
        let claim = format!("{namespace}/{}", claim.key("name").str()).into();
        self.volumes.insert(name.into(), Volume { claim, secrets });
    }

    /// Takes over a volume attachment.
    pub(super) fn set_attachment(&mut self, name: &str, attachment: Option<&Object>) {
        set_node(&mut self.attachments, name, attachment);
    }

    /// Takes over a resource slice.
    pub(super) fn set_slice(&mut self, name: &str, slice: Option<&Object>) {
        set_node(&mut self.slices, name, slice);
    }

    /// Whether a pod of `node` names that.
    pub(super) fn relates(&self, node: &str, thing: Thing, namespace: &str, name: &str) -> bool {
        let key: Box<str> = format!("{namespace}/{name}").into();
        if thing == Thing::Secret
            && let Some(volumes) = self.volumes_of.get(&key)
            && volumes.iter().any(|volume| self.has_volume(node, volume))
        {
            return true;
        }
        self.names(node, (thing, key))
    }

    /// Whether a pod of `node` claims the volume.
    pub(super) fn has_volume(&self, node: &str, volume: &str) -> bool {
        let volume = self.volumes.get(volume);
        volume.is_some_and(|volume| self.names(node, (Thing::Claim, volume.claim.clone())))
    }

    /// Whether the attachment is to `node`.
    pub(super) fn has_attachment(&self, node: &str, name: &str) -> bool {
        self.attachments.get(name).is_some_and(|at| **at == *node)
    }

    /// Whether the slice is of `node`.
    pub(super) fn has_slice(&self, node: &str, name: &str) -> bool {
        self.slices.get(name).is_some_and(|of| **of == *node)
    }

    fn names(&self, node: &str, name: Named) -> bool {
        let index = self.nodes.get(node);
        index.is_some_and(|index| index.contains_key(&name))
    }

    /// Whether nothing is known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.nodes.is_empty()
            && self.volumes.is_empty()
            && self.volumes_of.is_empty()
            && self.attachments.is_empty()
            && self.slices.is_empty()
    }
}

fn set_node(nodes: &mut HashMap<Box<str>, Box<str>>, name: &str, object: Option<&Object>) {
    match object.map(|object| object.at("spec.nodeName").str()) {
        Some(node) if !node.is_empty() => drop(nodes.insert(name.into(), node.into())),
        _ => drop(nodes.remove(name)),
    }
}

/// What a pod names, itself included; each once.
fn names_of(key: &str, pod: &Object) -> Vec<Named> {
    // A mirror pod is the node's own doing: it gets the node nothing.
    let mirror = pod
        .at("metadata.annotations")
        .entry("kubernetes.io/config.mirror");
    let mut names = match mirror.exists() {
        true => Vec::new(),
        false => references_of(key, pod),
    };
    names.push((Thing::Pod, key.into()));
    names
}

/// The objects that a pod names, each once.
pub(super) fn references_of(key: &str, pod: &Object) -> Vec<Named> {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let mut names = Vec::new();
    let mut name = |thing: Thing, at: At<'_>| {
        if !at.str().is_empty() {
            names.push((thing, format!("{namespace}/{}", at.str()).into()));
        }
    };
    let spec = pod.at("spec");
    name(Thing::Account, spec.key("serviceAccountName"));
    for secret in spec.key("imagePullSecrets").items() {
        name(Thing::Secret, secret.key("name"));
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.key(field).items() {
            for source in container.key("envFrom").items() {
                name(Thing::Secret, source.at("secretRef.name"));
                name(Thing::ConfigMap, source.at("configMapRef.name"));
            }
            for variable in container.key("env").items() {
                name(Thing::Secret, variable.at("valueFrom.secretKeyRef.name"));
                name(
                    Thing::ConfigMap,
                    variable.at("valueFrom.configMapKeyRef.name"),
                );
            }
        }
    }
    for volume in spec.key("volumes").items() {
        for path in SECRETS_OF_VOLUMES {
            name(Thing::Secret, volume.at(path));
        }
        name(Thing::ConfigMap, volume.at("configMap.name"));
        name(Thing::Claim, volume.at("persistentVolumeClaim.claimName"));
        for source in volume.at("projected.sources").items() {
            name(Thing::Secret, source.at("secret.name"));
            name(Thing::ConfigMap, source.at("configMap.name"));
        }
    }
    let volumes = spec.key("volumes");
    let own = volumes
        .items()
        .filter(|volume| volume.key("ephemeral").exists());
    for volume in own {
        let claim = format!("{key}-{}", volume.key("name").str());
        names.push((Thing::Claim, claim.into()));
    }
    let mut name = |thing: Thing, text: &str| {
        if !text.is_empty() {
            names.push((thing, format!("{namespace}/{text}").into()));
        }
    };
    let made = pod.at("status.resourceClaimStatuses");
    for claim in spec.key("resourceClaims").items() {
        name(Thing::ResourceClaim, claim.key("resourceClaimName").str());
        let own = claim.key("name").str();
        let made = made.items().find(|status| status.key("name").str() == own);
        if let Some(made) = made {
            name(Thing::ResourceClaim, made.key("resourceClaimName").str());
        }
    }
    let extended = pod.at("status.extendedResourceClaimStatus.resourceClaimName");
    name(Thing::ResourceClaim, extended.str());
    names.sort_by(|a, b| (a.0 as u8, &a.1).cmp(&(b.0 as u8, &b.1)));
    names.dedup();
    names
}

/// Where the volumes of a pod name secrets.
const SECRETS_OF_VOLUMES: &[&str] = &[
    "secret.secretName",
    "azureFile.secretName",
    "cephfs.secretRef.name",
    "cinder.secretRef.name",
    "csi.nodePublishSecretRef.name",
    "flexVolume.secretRef.name",
    "iscsi.secretRef.name",
    "rbd.secretRef.name",
    "scaleIO.secretRef.name",
    "storageos.secretRef.name",
];

/// The secrets that a volume names; they are in the namespace that it says, else in that of its claim.
fn volume_secrets(volume: &Object, claimed_in: &str) -> Vec<Box<str>> {
    let spec = volume.at("spec");
    let mut secrets = Vec::new();
    let mut add = |namespace: At<'_>, name: At<'_>| {
        let namespace = match namespace.str() {
            "" => claimed_in,
            namespace => namespace,
        };
        if !name.str().is_empty() {
            secrets.push(format!("{namespace}/{}", name.str()).into());
        }
    };
    let azure = spec.key("azureFile");
    add(azure.key("secretNamespace"), azure.key("secretName"));
    for path in [
        "cephfs.secretRef",
        "cinder.secretRef",
        "flexVolume.secretRef",
        "iscsi.secretRef",
        "rbd.secretRef",
        "scaleIO.secretRef",
        "storageos.secretRef",
        "csi.controllerPublishSecretRef",
        "csi.controllerExpandSecretRef",
        "csi.nodePublishSecretRef",
        "csi.nodeStageSecretRef",
        "csi.nodeExpandSecretRef",
    ] {
        let secret = spec.at(path);
        add(secret.key("namespace"), secret.key("name"));
    }
    secrets
}

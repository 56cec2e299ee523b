//! What a Pod's claims mean for its place: upstream's `volumebinding`, `volumezone` and
//! `volumerestrictions` plugins, as far as volumes are folders of nodes.
//!
//! ```text
//! every claim bound          ─▶ the nodes that its volumes can be reached from
//! one that nobody waits for  ─▶ nowhere yet
//! one that waits for a Pod   ─▶ a node is chosen and written into the claim; once a volume was made there
//!                               and bound, the Pod is placed like any other
//! ```

use std::sync::Arc;

use coracle_client::ObjectKey;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;

use crate::affinity;

/// Where the scheduler writes which node a claim's volume is for.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Set by the binder when claim and volume know each other.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The annotation that named a claim's class before there was a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// The provisioner of classes whose volumes an administrator makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What of the cluster a Pod's claims are looked up in.
pub(crate) trait Storage {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>>;
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    fn volumes(&self) -> Vec<Arc<PersistentVolume>>;
    fn class(&self, name: &str) -> Option<Arc<StorageClass>>;
    /// Whether another Pod that has a node uses the claim.
    fn is_used(&self, key: &ObjectKey, by_other_than: &Pod) -> bool;
}

/// What the Pod's claims ask of its node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// The nodes from which each bound volume can be reached.
    nodes: Vec<NodeSelector>,
    /// Claims that get their volume when a node is chosen.
    pub(crate) waiting: Vec<Arc<PersistentVolumeClaim>>,
}

impl Needs {
    /// Why the node is not one for the Pod, in upstream's words.
    pub(crate) fn refusal(&self, node: &Node) -> Option<&'static str> {
        let reached = |nodes: &NodeSelector| affinity::selects(nodes, node);
        let all = self.nodes.iter().all(reached);
        (!all).then_some("node(s) didn't match PersistentVolume's node affinity")
    }
}

/// The keys of the claims that the Pod mounts, and whether each was made for it alone.
pub(crate) fn claims_of(pod: &Pod) -> Vec<(ObjectKey, bool)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    let names = volumes.filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some((source.claim_name.clone(), false)),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| (format!("{pod}-{}", volume.name), true)),
    });
    names
        .map(|(name, is_own)| (ObjectKey::new(namespace, name), is_own))
        .collect()
}

/// The claim that the volume is bound to, or meant for.
pub(crate) fn claim_of(volume: &PersistentVolume) -> Option<ObjectKey> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let (namespace, name) = (reference.namespace.clone()?, reference.name.clone()?);
    Some(ObjectKey::new(namespace, name))
}

/// What the Pod's claims ask for, or why no node will do for now, in upstream's words.
pub(crate) fn needs(pod: &Pod, storage: &dyn Storage) -> Result<Needs, String> {
    let mut needs = Needs::default();
    let mut is_unbound = false;
    for (key, is_own) in claims_of(pod) {
        let name = &key.name;
        let Some(claim) = storage.claim(&key) else {
            return Err(match is_own {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                ),
                false => format!("persistentvolumeclaim {name:?} not found"),
            });
        };
        if is_own && !belongs(&claim, pod) {
            let (namespace, pod) = (&key.namespace, pod.metadata.name.as_deref());
            let pod = pod.unwrap_or_default();
            return Err(format!(
                "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
        let volume_name = volume_name.unwrap_or_default();
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase == Some("Lost") {
            return Err(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume_name:?}"
            ));
        }
        if is_exclusive(&claim) && storage.is_used(&key, pod) {
            return Err(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
                    .to_owned(),
            );
        }
        if !volume_name.is_empty() && has(&claim, BIND_COMPLETED) {
            let Some(volume) = storage.volume(volume_name) else {
                return Err(
                    "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
                        .to_owned(),
                );
            };
            let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
            needs
                .nodes
                .extend(affinity.and_then(|affinity| affinity.required.clone()));
            continue;
        }
        let class = storage.class(class_of(&claim));
        let class = class
            .filter(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
            .filter(|_| volume_name.is_empty());
        match class {
            None => is_unbound = true,
            Some(class) if class.provisioner == NO_PROVISIONER => {
                let free: Vec<_> = free_volumes(class_of(&claim), &claim, storage);
                if free.is_empty() {
                    let why = "node(s) didn't find available persistent volumes to bind";
                    return Err(why.to_owned());
                }
                needs.waiting.push(claim);
            }
            Some(_) => needs.waiting.push(claim),
        }
    }
    match is_unbound {
        true => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        false => Ok(needs),
    }
}

/// Volumes that an administrator made for claims of the class, and nobody has.
fn free_volumes(
    class: &str,
    claim: &PersistentVolumeClaim,
    storage: &dyn Storage,
) -> Vec<Arc<PersistentVolume>> {
    let is_free = |volume: &Arc<PersistentVolume>| {
        let Some(spec) = volume.spec.as_ref() else {
            return false;
        };
        let is_meant = spec.claim_ref.as_ref().is_none_or(|reference| {
            reference.name == claim.metadata.name && reference.namespace == claim.metadata.namespace
        });
        is_meant && spec.storage_class_name.as_deref() == Some(class)
    };
    storage.volumes().into_iter().filter(is_free).collect()
}

fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let annotations = claim.metadata.annotations.as_ref();
    let named = annotations.and_then(|all| all.get(CLASS_ANNOTATION));
    let field = claim
        .spec
        .as_ref()
        .and_then(|s| s.storage_class_name.as_deref());
    named.map(String::as_str).or(field).unwrap_or_default()
}

fn has(claim: &PersistentVolumeClaim, annotation: &str) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(annotation))
}

fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|s| s.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

fn belongs(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    owners.any(|owner| {
        owner.controller == Some(true) && Some(&owner.uid) == pod.metadata.uid.as_ref()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// One claim `data` and one volume `pv`.
    struct Cluster {
        claim: Value,
        volume: Value,
        class: Value,
        is_used: bool,
    }

    fn read<T: k8s_openapi::serde::de::DeserializeOwned>(value: &Value) -> Option<Arc<T>> {
        (!value.is_null()).then(|| Arc::new(serde_json::from_value(value.clone()).expect("valid")))
    }

    impl Storage for Cluster {
        fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>> {
            read(&self.claim).filter(|_| key.name == self.claim["metadata"]["name"])
        }
        fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
            read(&self.volume).filter(|_| name == "pv")
        }
        fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
            read(&self.volume).into_iter().collect()
        }
        fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
            read(&self.class).filter(|_| name == "standard")
        }
        fn is_used(&self, _: &ObjectKey, _: &Pod) -> bool {
            self.is_used
        }
    }

    fn cluster() -> Cluster {
        let host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]});
        Cluster {
            claim: json!({
                "metadata": {"name": "data", "annotations": {BIND_COMPLETED: "yes"}},
                "spec": {"volumeName": "pv", "storageClassName": "standard"},
                "status": {"phase": "Bound"},
            }),
            volume: json!({
                "metadata": {"name": "pv"},
                "spec": {"storageClassName": "standard", "nodeAffinity":
                    {"required": {"nodeSelectorTerms": [{"matchExpressions": [host]}]}}},
            }),
            class: json!({
                "metadata": {"name": "standard"}, "provisioner": "x.y/z",
                "volumeBindingMode": "WaitForFirstConsumer",
            }),
            is_used: false,
        }
    }

    fn pod(volume: Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"containers": [], "volumes": [volume]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn mounting() -> Pod {
        pod(json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}))
    }

    fn node(host: &str) -> Node {
        let labels = json!({"kubernetes.io/hostname": host});
        serde_json::from_value(json!({"metadata": {"name": host, "labels": labels}}))
            .expect("a node")
    }

    #[test]
    fn a_pod_goes_where_its_volumes_are() {
        let found = needs(&mounting(), &cluster()).expect("bound");
        assert!(found.waiting.is_empty());
        assert_eq!(found.refusal(&node("a")), None);
        assert!(found.refusal(&node("b")).is_some());
        let plain = needs(&pod(json!({"name": "v", "emptyDir": {}})), &cluster());
        assert_eq!(plain.expect("nothing").refusal(&node("b")), None);
    }

    #[test]
    fn a_claim_that_waits_for_a_pod_asks_for_no_node() {
        let mut cluster = cluster();
        cluster.claim["spec"]["volumeName"] = Value::Null;
        cluster.claim["metadata"]["annotations"] = Value::Null;
        cluster.claim["status"]["phase"] = json!("Pending");
        let found = needs(&mounting(), &cluster).expect("it waits");
        assert_eq!(found.waiting.len(), 1);
        assert_eq!(found.refusal(&node("b")), None);

        cluster.class["provisioner"] = json!(NO_PROVISIONER);
        assert!(needs(&mounting(), &cluster).is_ok(), "one is free");
        cluster.volume["spec"]["claimRef"] = json!({"name": "other"});
        let why = needs(&mounting(), &cluster).expect_err("none is free");
        assert!(
            why.contains("didn't find available persistent volumes"),
            "{why}"
        );
        cluster.class["volumeBindingMode"] = json!("Immediate");
        let why = needs(&mounting(), &cluster).expect_err("unbound");
        assert_eq!(why, "pod has unbound immediate PersistentVolumeClaims");
    }

    #[test]
    fn why_no_node_will_do_is_said() {
        type Change = fn(&mut Cluster);
        let cases: [(Change, &str); 6] = [
            (
                |c| c.claim = Value::Null,
                "persistentvolumeclaim \"data\" not found",
            ),
            (
                |c| c.claim["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z"),
                "persistentvolumeclaim \"data\" is being deleted",
            ),
            (
                |c| c.claim["status"]["phase"] = json!("Lost"),
                "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"pv\"",
            ),
            (
                |c| c.volume = Value::Null,
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            ),
            (
                |c| c.claim["metadata"]["annotations"] = Value::Null,
                "pod has unbound immediate PersistentVolumeClaims",
            ),
            (
                |c| {
                    c.claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
                    c.is_used = true;
                },
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ),
        ];
        for (change, expected) in cases {
            let mut cluster = cluster();
            change(&mut cluster);
            assert_eq!(needs(&mounting(), &cluster).expect_err(expected), expected);
        }
    }

    #[test]
    fn an_ephemeral_volume_needs_its_own_claim() {
        let mut cluster = cluster();
        let own = pod(json!({"name": "v", "ephemeral": {}}));
        let why = needs(&own, &cluster).expect_err("not made");
        assert!(
            why.starts_with("waiting for ephemeral volume controller"),
            "{why}"
        );
        cluster.claim["metadata"]["name"] = json!("web-v");
        let why = needs(&own, &cluster).expect_err("another's");
        assert!(why.ends_with("(pod is not owner)"), "{why}");
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u", "controller": true});
        cluster.claim["metadata"]["ownerReferences"] = json!([owner]);
        assert!(needs(&own, &cluster).is_ok());
    }
}

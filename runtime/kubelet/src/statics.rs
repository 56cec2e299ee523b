//! Static pods: pods that the node was given directly, not by the API server.
//!
//! ```text
//!  set_static_pods ─▶ an entry under a UID of its own ─▶ runs as any pod
//!                          │ shown as
//!                          ▼
//!                     a mirror pod in the API: made, made again when somebody deletes it,
//!                     and deleted when the node is not given the pod any more
//! ```
//!
//! Names, annotations and owner are upstream's (pkg/kubelet/config and pkg/kubelet/pod): a mirror pod is
//! called `NAME-NODE` and belongs to the Node. A pod that is given in another form is another pod.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_client::{DeletePropagation, Error, ObjectKey, Precondition};
use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::kubelet::Kubelet;

/// Annotations of static pods and their mirrors.
const SOURCE: &str = "kubernetes.io/config.source";
const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// How a static pod is shown in the API.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mirror {
    /// The node is still given the pod.
    pub(crate) wanted: bool,
    /// What the API has, as last seen.
    pub(crate) object: Option<Arc<Pod>>,
}

/// The UID of the static pod that `pod` mirrors, if it is a mirror.
pub(crate) fn mirrored(pod: &Pod) -> Option<&str> {
    let annotations = pod.metadata.annotations.as_ref()?;
    annotations.get(MIRROR).map(String::as_str)
}

impl Kubelet {
    /// Runs exactly these static pods from now on. Those that were given before in the same form go on;
    /// others are ended. Each needs a name; what it leaves out is as the API's defaults.
    pub fn set_static_pods(&self, pods: impl IntoIterator<Item = Pod>) {
        let now = self.0.ctx.clock().now();
        let prepared = pods.into_iter().map(|pod| prepare(pod, self.node(), now));
        let wanted: HashMap<String, Pod> = prepared
            .map(|pod| (coracle_client::uid(&pod).to_owned(), pod))
            .collect();
        let mut keys = Vec::new();
        let mut state = self.0.state.lock();
        state.statics_are_known = true;
        for (uid, entry) in &mut state.entries {
            if let Some(mirror) = &mut entry.mirror
                && mirror.wanted != wanted.contains_key(uid)
            {
                mirror.wanted = !mirror.wanted;
                keys.push(entry.key.clone());
            }
        }
        for (uid, mut pod) in wanted {
            let key = ObjectKey::of(&pod);
            if state.entries.contains_key(&uid) {
                continue;
            }
            // What ran before this process shows in the mirror.
            let shown = self.0.pods.get(&key);
            let shown = shown.filter(|shown| mirrored(shown) == Some(uid.as_str()));
            pod.status = shown.and_then(|shown| shown.status.clone());
            state.insert_static(Arc::new(pod), now);
            keys.push(key);
        }
        drop(state);
        // Mirrors of pods that are not given any more are found by their names.
        let mirrors = self.0.pods.list().into_iter();
        let mirrors = mirrors.filter(|pod| self.is_ours(pod) && mirrored(pod).is_some());
        keys.extend(mirrors.map(|pod| ObjectKey::of(pod.as_ref())));
        keys.into_iter().for_each(|key| self.0.queue.add(key));
    }

    /// Makes the mirror of a static pod; false when it is too early. Somebody else's pod of that name is
    /// left alone.
    pub(crate) async fn make_mirror(&self, pod: &Pod) -> Result<bool, Error> {
        let objects = self.0.ctx.objects();
        let node = ObjectKey::cluster(self.node());
        let Some(node) = objects.get::<Node>(&node).await? else {
            // It owns the mirror.
            return Ok(false);
        };
        match objects.create(&mirror_of(pod, &node)).await {
            Err(error) if error.is_conflict() || error.is_already_exists() => {
                let pod = ObjectKey::of(pod);
                tracing::debug!(%pod, "a static pod is not shown: its name is taken");
                Ok(true)
            }
            made => made.map(|_| true),
        }
    }

    /// Deletes a mirror that nothing is behind, or that somebody began to delete.
    pub(crate) async fn delete_mirror(&self, mirror: &Pod) -> Result<(), Error> {
        let (key, when) = (ObjectKey::of(mirror), Precondition::uid_of(mirror));
        let objects = self.0.ctx.objects();
        let propagation = DeletePropagation::Background;
        match objects
            .delete::<Pod>(&key, &when, propagation, Some(0))
            .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            done => done,
        }
    }
}

/// The pod under its name on this node, and with a UID that is its own as long as it stays as it is.
fn prepare(mut pod: Pod, node: &str, now: Timestamp) -> Pod {
    let name = pod.metadata.name.take().unwrap_or_default();
    let labels = pod.metadata.labels.take();
    let annotations = pod.metadata.annotations.take();
    let namespace = pod.metadata.namespace.take();
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let mut spec = pod.spec.take().unwrap_or_default();
    let given = (&name, &namespace, &labels, &annotations, &spec, node);
    let uid = format!(
        "{:032x}",
        fingerprint(&serde_json::to_vec(&given).unwrap_or_default())
    );
    spec.node_name = Some(node.to_owned());
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    });
    let mut annotations = annotations.unwrap_or_default();
    annotations.insert(SOURCE.into(), "file".into());
    annotations.insert(HASH.into(), uid.clone());
    annotations.insert(SEEN.into(), now.to_string());
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{node}")),
            namespace: Some(namespace),
            uid: Some(uid),
            labels,
            annotations: Some(annotations),
            // As the API counts a pod that never changes.
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let uid = meta.uid.take().unwrap_or_default();
    meta.generation = None;
    meta.annotations
        .get_or_insert_default()
        .insert(MIRROR.into(), uid);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror.status = None;
    mirror
}

/// FNV-1a of 128 bits.
fn fingerprint(bytes: &[u8]) -> u128 {
    let step = |hash: u128, byte: &u8| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    };
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(start, step)
}

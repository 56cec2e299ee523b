//! Claims, volumes and the Pods that wait for them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use coracle_client::{DeletePropagation, Precondition};
use coracle_controllers::{LocalVolumes, PROVISIONER, run_local_provisioner};
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use crate::support::{TestCluster, is_ready, key};

/// Folders that are only remembered.
#[derive(Default)]
struct Folders(Mutex<Vec<String>>);

#[async_trait]
impl LocalVolumes for Folders {
    fn node(&self) -> &str {
        "node-a"
    }

    fn path(&self, volume: &str) -> String {
        format!("/data/volumes/{volume}")
    }

    async fn remove(&self, volume: &str) -> Result<(), String> {
        let mut removed = self.0.lock().expect("nobody panics");
        removed.push(volume.to_owned());
        Ok(())
    }
}

/// A cluster with a node that has its label, and a class `standard` of its folders.
async fn start(mode: &str) -> (TestCluster, Arc<Folders>) {
    let cluster = TestCluster::start().await;
    let labels = json!({"metadata": {"labels": {"kubernetes.io/hostname": "node-a"}}});
    let objects = cluster.ctx.objects();
    objects
        .patch::<Node>(&key("", "node-a"), &Precondition::default(), labels)
        .await
        .expect("labelled");
    let folders = Arc::new(Folders::default());
    tokio::spawn(run_local_provisioner(cluster.ctx.clone(), folders.clone()));
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": PROVISIONER,
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "volumeBindingMode": mode, "allowVolumeExpansion": true,
    });
    cluster.create::<StorageClass>(class).await;
    (cluster, folders)
}

fn claim(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    })
}

fn pod(name: &str, volume: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "app:1"}],
            "volumes": [volume],
        },
    })
}

fn mounting(name: &str, claim: &str) -> Value {
    pod(
        name,
        json!({"name": "v", "persistentVolumeClaim": {"claimName": claim}}),
    )
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status.and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

async fn told(cluster: &TestCluster, reason: &str, words: &str) {
    cluster
        .until::<Event>(reason, |events| {
            events.iter().any(|event| {
                let message = event.message.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some(reason) && message.contains(words)
            })
        })
        .await;
}

async fn bound(cluster: &TestCluster) {
    cluster
        .until::<PersistentVolumeClaim>("it is bound", |claims| {
            !claims.is_empty() && claims.iter().all(|claim| phase(claim) == "Bound")
        })
        .await;
}

async fn ready(cluster: &TestCluster) {
    let are_ready = |pods: &[Arc<Pod>]| !pods.is_empty() && pods.iter().all(|pod| is_ready(pod));
    cluster.until::<Pod>("the pods are ready", are_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_its_volume_with_its_first_pod_and_both_go_together() {
    let (cluster, folders) = start("WaitForFirstConsumer").await;
    cluster.create::<PersistentVolumeClaim>(claim("data")).await;
    told(
        &cluster,
        "WaitForFirstConsumer",
        "waiting for first consumer",
    )
    .await;
    cluster.create::<Pod>(mounting("web", "data")).await;
    ready(&cluster).await;
    bound(&cluster).await;
    let bound_claim: PersistentVolumeClaim = cluster.get("data").await;
    let name = bound_claim.spec.and_then(|s| s.volume_name).expect("bound");
    let capacity = bound_claim.status.and_then(|s| s.capacity).expect("shown");
    assert_eq!(capacity["storage"].0, "1Gi");

    // Nothing goes while a Pod uses it.
    let how = DeletePropagation::Background;
    cluster.delete::<PersistentVolumeClaim>("data", how).await;
    cluster.settle().await;
    let going: PersistentVolumeClaim = cluster.get("data").await;
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(folders.0.lock().expect("nobody panics").len(), 0);
    cluster.delete::<Pod>("web", how).await;
    cluster
        .until::<PersistentVolume>("the volume is gone", |volumes| volumes.is_empty())
        .await;
    let removed = folders.0.lock().expect("nobody panics").clone();
    assert!(removed.iter().all(|removed| *removed == name) && !removed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_immediate_claim_is_bound_before_anybody_asks_and_grows() {
    let (cluster, _) = start("Immediate").await;
    cluster.create::<PersistentVolumeClaim>(claim("data")).await;
    bound(&cluster).await;
    let more = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    let objects = cluster.ctx.objects();
    let when = Precondition::default();
    objects
        .patch::<PersistentVolumeClaim>(&key("default", "data"), &when, more)
        .await
        .expect("patched");
    cluster
        .until::<PersistentVolumeClaim>("it has grown", |claims| {
            let status = claims.iter().find_map(|claim| claim.status.as_ref());
            let capacity = status.and_then(|s| s.capacity.as_ref());
            capacity.is_some_and(|capacity| capacity["storage"].0 == "3Gi")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_a_claim_and_says_so() {
    let (cluster, _) = start("Immediate").await;
    cluster.create::<Pod>(mounting("web", "data")).await;
    let prefix = "0/1 nodes are available: ";
    told(
        &cluster,
        "FailedScheduling",
        &format!("{prefix}persistentvolumeclaim \"data\" not found."),
    )
    .await;
    let mut manual = claim("data");
    manual["spec"]["storageClassName"] = json!("");
    cluster.create::<PersistentVolumeClaim>(manual).await;
    told(
        &cluster,
        "FailedScheduling",
        &format!("{prefix}pod has unbound immediate PersistentVolumeClaims."),
    )
    .await;
    told(
        &cluster,
        "FailedBinding",
        "no persistent volumes available for this claim",
    )
    .await;
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {
            "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/srv/pv"},
        },
    });
    cluster.create::<PersistentVolume>(volume).await;
    ready(&cluster).await;

    let how = DeletePropagation::Background;
    cluster.delete::<Pod>("web", how).await;
    cluster.delete::<PersistentVolumeClaim>("data", how).await;
    cluster
        .until::<PersistentVolume>("it is released and stays", |volumes| {
            let status = volumes.iter().find_map(|volume| volume.status.as_ref());
            status.is_some_and(|status| status.phase.as_deref() == Some("Released"))
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_volume_lives_and_goes_with_its_pod() {
    let (cluster, folders) = start("WaitForFirstConsumer").await;
    let spec = claim("unused")["spec"].clone();
    let volume = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}});
    cluster.create::<Pod>(pod("web", volume)).await;
    ready(&cluster).await;
    bound(&cluster).await;
    cluster.get::<PersistentVolumeClaim>("web-v").await;
    let how = DeletePropagation::Background;
    cluster.delete::<Pod>("web", how).await;
    cluster
        .until::<PersistentVolume>("the volume is gone", |volumes| volumes.is_empty())
        .await;
    assert!(!folders.0.lock().expect("nobody panics").is_empty());
}

use std::path::PathBuf;

use coracle_cri::fake::Script;
use coracle_cri::{ImageFs, SandboxId};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use crate::node::{TestNode, condition, phase};

const GI: u64 = 1 << 30;

/// The folder of a volume of the pod.
fn volume(node: &TestNode, pod: &Pod, name: &str) -> PathBuf {
    let uid = pod.metadata.uid.as_deref().expect("a uid");
    let pods = node.folder.path().join("data/pods");
    pods.join(uid).join("volumes").join(name)
}

/// Reason and message of the pod's status.
fn why(pod: &Pod) -> (&str, &str) {
    let status = pod.status.as_ref().expect("a status");
    (
        status.reason.as_deref().unwrap_or_default(),
        status.message.as_deref().unwrap_or_default(),
    )
}

fn under_pressure(node: &Node, kind: &str) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == kind && c.status == "True")
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_volume_is_too_large_is_evicted_and_its_files_go() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "64Ki"}}],
        "containers": [{"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}],
    });
    node.run("web", "app:1", spec.clone()).await;
    node.run("good", "app:1", spec).await;
    let (pod, good) = (node.ready("web").await, node.ready("good").await);
    let folder = volume(&node, &pod, "cache");
    std::fs::write(volume(&node, &good, "cache").join("x"), "small").expect("written");
    std::fs::write(folder.join("x"), vec![1; 100_000]).expect("written");
    let pod = node
        .pod_when("web", "it is evicted", |pod| phase(pod) == "Failed")
        .await;
    let message = "Usage of EmptyDir volume \"cache\" exceeds the limit \"64Ki\". ";
    assert_eq!(why(&pod), ("Evicted", message));
    assert_eq!(condition(&pod, "DisruptionTarget"), ("", ""));
    node.event("Evicted", message.trim_end()).await;
    // The sandbox goes a moment after the last container.
    node.eventually("its files are gone", || !folder.exists())
        .await;
    let stops = node.begun_and_ended();
    assert!(stops.iter().any(|call| call.starts_with("stop app")));
    let good = node.ready("good").await;
    assert_eq!(phase(&good), "Running");
}

#[tokio::test(start_paused = true)]
async fn files_of_a_pod_count_together_against_its_containers_limits() {
    let node = TestNode::start().await;
    let limits = json!({"limits": {"ephemeral-storage": "64Ki"}});
    let spec = json!({
        "volumes": [{"name": "a", "emptyDir": {}}],
        "containers": [{"resources": limits}],
    });
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    std::fs::write(volume(&node, &pod, "a").join("x"), vec![1; 100_000]).expect("written");
    let pod = node
        .pod_when("web", "it is evicted", |pod| phase(pod) == "Failed")
        .await;
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. ";
    assert_eq!(why(&pod), ("Evicted", message));
}

#[tokio::test(start_paused = true)]
async fn a_volume_in_memory_counts_as_memory() {
    let node = TestNode::start().await;
    let volumes = json!([{"name": "m", "emptyDir": {"medium": "Memory"}}]);
    node.run("web", "app:1", json!({"volumes": volumes})).await;
    let pod = node.ready("web").await;
    std::fs::write(volume(&node, &pod, "m").join("x"), vec![1; 100_000]).expect("written");
    let id = SandboxId(pod.metadata.uid.clone().expect("a uid"));
    let is_charged = || node.runtime.charged_memory(&id) >= 100_000;
    node.eventually("the file is charged", is_charged).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_costs_a_pod_and_keeps_others_out() {
    let node = TestNode::start().await;
    let volumes = json!({"volumes": [{"name": "a", "emptyDir": {}}]});
    node.run("small", "app:1", volumes.clone()).await;
    node.run("large", "app:1", volumes).await;
    let (small, large) = (node.ready("small").await, node.ready("large").await);
    std::fs::write(volume(&node, &small, "a").join("x"), "1").expect("written");
    std::fs::write(volume(&node, &large, "a").join("x"), vec![1; 100_000]).expect("written");
    let disk = |available| ImageFs {
        capacity: 100 * GI,
        available,
    };
    node.runtime.fill_disk(disk(GI / 2));
    let evicted = node
        .pod_when("large", "it is evicted", |pod| phase(pod) == "Failed")
        .await;
    node.runtime.fill_disk(disk(50 * GI));
    let (reason, message) = why(&evicted);
    assert_eq!(reason, "Evicted");
    assert!(message.starts_with(
        "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 512Mi. "
    ));
    assert_eq!(
        condition(&evicted, "DisruptionTarget"),
        ("True", "TerminationByKubelet")
    );
    node.until::<Node>("the node says so", |nodes| {
        nodes
            .iter()
            .any(|node| under_pressure(node, "DiskPressure"))
    })
    .await;
    node.run("late", "app:1", json!({})).await;
    let late = node
        .pod_when("late", "it is refused", |pod| phase(pod) == "Failed")
        .await;
    assert_eq!(
        why(&late),
        (
            "Evicted",
            "Pod was rejected: The node had condition: [DiskPressure]. "
        )
    );
    node.until::<Node>("it is over", |nodes| {
        nodes
            .iter()
            .all(|node| !under_pressure(node, "DiskPressure"))
    })
    .await;
    node.run("later", "app:1", json!({})).await;
    node.ready("later").await;
    let small = node.ready("small").await;
    assert_eq!(phase(&small), "Running");
}

#[tokio::test(start_paused = true)]
async fn who_uses_memory_beyond_its_request_goes_when_the_node_has_none_left() {
    let node = TestNode::start().await;
    // Of 4 GiB, all but 50 MiB.
    node.script("small:1", Script::runs().uses(1, GI));
    node.script("large:1", Script::runs().uses(1, 3 * GI - (50 << 20)));
    let asks = |memory: &str| {
        let resources = json!({"requests": {"memory": memory}});
        json!({"containers": [{"resources": resources}]})
    };
    node.run("small", "small:1", asks("1Gi")).await;
    node.ready("small").await;
    node.run("large", "large:1", asks("1Gi")).await;
    let evicted = node
        .pod_when("large", "it is evicted", |pod| phase(pod) == "Failed")
        .await;
    let (reason, message) = why(&evicted);
    assert_eq!(reason, "Evicted");
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 100Mi, "),
        "{message}"
    );
    assert!(message.contains("Container app was using "), "{message}");
    node.until::<Node>("the node says so", |nodes| {
        let mut nodes = nodes.iter();
        nodes.any(|node| under_pressure(node, "MemoryPressure"))
    })
    .await;
    // One that was promised memory may come; one that was not may not.
    node.run("late", "app:1", json!({})).await;
    let late = node
        .pod_when("late", "it is refused", |pod| phase(pod) == "Failed")
        .await;
    assert_eq!(why(&late).0, "Evicted");
    node.run("asking", "app:1", asks("1Mi")).await;
    node.ready("asking").await;
    let small = node.ready("small").await;
    assert_eq!(phase(&small), "Running");
}

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;

use crate::harness::{TestCluster, deployment, pod};

/// Name, UID and address of every pod.
fn identities(cluster: &TestCluster) -> BTreeMap<String, (Option<String>, Option<String>)> {
    let pods = cluster.all::<Pod>().in_namespace("default");
    let identity = |pod: &Pod| {
        (
            pod.metadata.uid.clone(),
            pod.status.as_ref().and_then(|s| s.pod_ip.clone()),
        )
    };
    pods.iter()
        .map(|pod| (pod.metadata.name.clone().unwrap_or_default(), identity(pod)))
        .collect()
}

fn restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten())
        .map(|c| c.restart_count)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn pods_keep_their_names_and_addresses_through_a_crash() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 3, "app:1"))
        .await;
    cluster.ready_pods("web", 3).await;
    let before = identities(&cluster);
    let cluster = cluster.crash().await;
    cluster
        .all::<Pod>()
        .wait_until(|pods| pods.list().iter().all(|pod| restarts(pod) == 1))
        .await;
    cluster.ready_pods("web", 3).await;
    assert_eq!(identities(&cluster), before);
}

#[tokio::test(start_paused = true)]
async fn pods_keep_their_names_and_addresses_through_a_clean_stop() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 2, "app:1"))
        .await;
    cluster.ready_pods("web", 2).await;
    let before = identities(&cluster);
    let cluster = cluster.restart().await;
    cluster.ready_pods("web", 2).await;
    assert_eq!(identities(&cluster), before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_has_failed_after_a_crash() {
    let cluster = TestCluster::start().await;
    cluster.create::<Pod>(pod("once", "Never", "app:1")).await;
    cluster.ready_pods("once", 1).await;
    let cluster = cluster.crash().await;
    let failed = cluster
        .until::<Pod>("once", |pod| {
            pod.status
                .as_ref()
                .is_some_and(|s| s.phase.as_deref() == Some("Failed"))
        })
        .await;
    assert_eq!(
        failed.status.as_ref().and_then(|s| s.reason.as_deref()),
        Some("NodeRestarted")
    );
}

use coracle_client::{DeletePropagation, ObjectKey, Precondition};
use coracle_cri::fake::Script;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::harness::{TestCluster, deployment, is_ready};

async fn set_image(cluster: &TestCluster, name: &str, image: &str) {
    let patch =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    let key = ObjectKey::new("default", name);
    cluster
        .admin()
        .strategic_patch::<Deployment>(&key, &Precondition::default(), patch)
        .await
        .expect("patched");
    // What follows looks at the informers' copies, which come after the answer.
    let is_seen = |deployment: &Deployment| {
        let pods = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref());
        pods.and_then(|pods| pods.containers[0].image.as_deref()) == Some(image)
    };
    cluster.until::<Deployment>(name, is_seen).await;
}

fn image(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.containers[0].image.as_deref())
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_replaces_every_pod() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 3, "app:1"))
        .await;
    cluster.rolled_out("web").await;
    set_image(&cluster, "web", "app:2").await;
    cluster.rolled_out("web").await;
    let pods = cluster.ready_pods("web", 3).await;
    assert!(pods.iter().all(|pod| image(pod) == "app:2"));
    let sets = cluster.all::<ReplicaSet>().in_namespace("default");
    assert_eq!(sets.len(), 2, "the old one is kept for rollbacks");
}

#[tokio::test(start_paused = true)]
async fn a_bad_update_leaves_the_old_pods_serving() {
    let cluster = TestCluster::start().await;
    cluster.script("bad:1", Script::image_error("no such file"));
    cluster
        .create::<Deployment>(deployment("web", 4, "app:1"))
        .await;
    cluster.rolled_out("web").await;
    set_image(&cluster, "web", "bad:1").await;
    let stuck = cluster
        .until::<Deployment>("web", |d| {
            let conditions = d
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded"))
        })
        .await;
    assert!(stuck.status.as_ref().and_then(|s| s.available_replicas) >= Some(3));
    let pods = cluster.all::<Pod>().in_namespace("default");
    assert!(
        pods.iter()
            .filter(|pod| image(pod) == "app:1" && is_ready(pod))
            .count()
            >= 3
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollout_survives_a_crash_in_its_middle() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 3, "app:1"))
        .await;
    cluster.rolled_out("web").await;
    set_image(&cluster, "web", "app:2").await;
    let pods = cluster.all::<Pod>();
    pods.wait_until(|pods| pods.list().iter().any(|pod| image(pod) == "app:2"))
        .await;
    let cluster = cluster.crash().await;
    cluster.rolled_out("web").await;
    let pods = cluster.ready_pods("web", 3).await;
    assert!(pods.iter().all(|pod| image(pod) == "app:2"));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_deployment_takes_its_pods_along() {
    let cluster = TestCluster::start().await;
    let made = cluster
        .create::<Deployment>(deployment("web", 2, "app:1"))
        .await;
    cluster.ready_pods("web", 2).await;
    let (key, when) = (ObjectKey::of(&made), Precondition::uid_of(&made));
    cluster
        .admin()
        .delete::<Deployment>(&key, &when, DeletePropagation::Foreground, None)
        .await
        .expect("deleted");
    cluster
        .all::<Deployment>()
        .wait_until(|all| all.get(&key).is_none())
        .await;
    cluster.ready_pods("web", 0).await;
}

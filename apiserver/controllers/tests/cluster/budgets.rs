//! Evictions under budgets.

use coracle_client::{ObjectKey, Precondition};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::support::{TestCluster, deployment, key};

fn budget(spec: Value) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
    })
}

async fn evict(cluster: &TestCluster, pod: &str) -> Result<(), coracle_client::Error> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"},
    });
    let objects = cluster.ctx.objects();
    objects
        .create_subresource::<Pod>(&key("default", pod), "eviction", &eviction)
        .await
        .map(drop)
}

async fn until_allowed(cluster: &TestCluster, allowed: i32) {
    cluster
        .until::<PodDisruptionBudget>("that many may go", |budgets| {
            let status = budgets.iter().find_map(|budget| budget.status.as_ref());
            status.is_some_and(|status| {
                status.observed_generation.is_some() && status.disruptions_allowed == Some(allowed)
            })
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn evictions_stop_where_the_budget_ends_and_go_on_when_pods_are_replaced() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 3, "one"))
        .await;
    let pods = cluster.ready_pods("web", 3).await;
    let spec = json!({"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}});
    cluster.create::<PodDisruptionBudget>(budget(spec)).await;
    until_allowed(&cluster, 1).await;
    evict(&cluster, &pods[0]).await.expect("one may go");
    cluster
        .until::<Pod>("it is gone", |left| {
            left.iter()
                .all(|pod| pod.metadata.name.as_ref() != Some(&pods[0]))
        })
        .await;
    // Another Pod takes its place, and the next one may go.
    until_allowed(&cluster, 1).await;
    assert_eq!(cluster.ready_pods("web", 3).await.len(), 3);

    // From here on nothing becomes ready any more.
    cluster.silence();
    let pods = cluster.ready_pods("web", 3).await;
    evict(&cluster, &pods[0]).await.expect("one may go");
    // An eviction says at once that no other may follow, and the controller counts later.
    cluster
        .until::<PodDisruptionBudget>("two are counted", |budgets| {
            let status = budgets.iter().find_map(|budget| budget.status.as_ref());
            status.is_some_and(|status| status.current_healthy == Some(2))
        })
        .await;
    let refused = evict(&cluster, &pods[1]).await.expect_err("no more");
    assert_eq!(refused.reason(), "TooManyRequests");
    let status = refused.status().expect("a status");
    let causes = &status.details.as_ref().expect("details").causes;
    assert_eq!(
        causes[0].message,
        "The disruption budget web needs 2 healthy pods and has 2 currently"
    );

    // Who asks for less gets it at the next look.
    let patch = json!({"spec": {"minAvailable": "30%"}});
    let budget = ObjectKey::new("default", "web");
    cluster
        .ctx
        .objects()
        .patch::<PodDisruptionBudget>(&budget, &Precondition::default(), patch)
        .await
        .expect("patched");
    until_allowed(&cluster, 1).await;
    evict(&cluster, &pods[1]).await.expect("one more may go");
}

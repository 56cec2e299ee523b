//! What becomes of objects of which the collector alone keeps track, in caches of metadata.

use coracle_client::{DeletePropagation, Precondition, uid};
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::support::{TestCluster, key};

/// A reference to a ConfigMap that blocks its deletion.
async fn owned_by(cluster: &TestCluster, owner: &str) -> Value {
    let owner = cluster.get::<ConfigMap>(owner).await;
    json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner.metadata.name, "uid": uid(&owner),
        "blockOwnerDeletion": true,
    }])
}

async fn create(cluster: &TestCluster, name: &str, owner: Option<&str>) {
    let owners = match owner {
        Some(owner) => owned_by(cluster, owner).await,
        None => json!([]),
    };
    let metadata = json!({"name": name, "namespace": "default", "ownerReferences": owners});
    cluster
        .create::<ConfigMap>(json!({"metadata": metadata}))
        .await;
}

/// Waits until no ConfigMap of these is left.
async fn until_gone(cluster: &TestCluster, names: &[&str]) {
    let named = |map: &ConfigMap| {
        let name = map.metadata.name.as_deref();
        name.is_some_and(|name| names.contains(&name))
    };
    cluster
        .until::<ConfigMap>("they are gone", |all| !all.iter().any(|map| named(map)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_tree_goes_with_its_root_and_a_bystander_stays() {
    let cluster = TestCluster::start().await;
    create(&cluster, "root", None).await;
    create(&cluster, "bystander", None).await;
    create(&cluster, "branch", Some("root")).await;
    create(&cluster, "leaf", Some("branch")).await;
    cluster
        .delete::<ConfigMap>("root", DeletePropagation::Background)
        .await;
    until_gone(&cluster, &["root", "branch", "leaf"]).await;
    cluster.settle().await;
    cluster.get::<ConfigMap>("bystander").await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_goes_when_what_it_waits_for_lets_go() {
    let cluster = TestCluster::start().await;
    create(&cluster, "owner", None).await;
    let owners = owned_by(&cluster, "owner").await;
    // It is on its way already, and will be for long.
    let metadata = json!({
        "name": "slow", "namespace": "default", "ownerReferences": owners, "finalizers": ["example.com/slow"],
    });
    cluster
        .create::<ConfigMap>(json!({"metadata": metadata}))
        .await;
    cluster.settle().await;
    cluster
        .delete::<ConfigMap>("owner", DeletePropagation::Foreground)
        .await;
    cluster
        .until::<ConfigMap>("the dependent is asked to go", |all| {
            let slow = all
                .iter()
                .find(|map| map.metadata.name.as_deref() == Some("slow"));
            slow.is_some_and(|slow| slow.metadata.deletion_timestamp.is_some())
        })
        .await;
    cluster.settle().await;
    cluster.get::<ConfigMap>("owner").await;
    let patch = json!({"metadata": {"ownerReferences": null}});
    let objects = cluster.ctx.objects();
    objects
        .patch::<ConfigMap>(&key("default", "slow"), &Precondition::default(), patch)
        .await
        .expect("it lets go");
    until_gone(&cluster, &["owner"]).await;
    cluster.get::<ConfigMap>("slow").await;
}

#[tokio::test(start_paused = true)]
async fn a_circle_of_owners_does_not_hold_up_its_deletion() {
    let cluster = TestCluster::start().await;
    create(&cluster, "one", None).await;
    create(&cluster, "two", Some("one")).await;
    create(&cluster, "three", Some("two")).await;
    let owners = owned_by(&cluster, "three").await;
    let patch = json!({"metadata": {"ownerReferences": owners}});
    let objects = cluster.ctx.objects();
    objects
        .patch::<ConfigMap>(&key("default", "one"), &Precondition::default(), patch)
        .await
        .expect("the circle is closed");
    cluster.settle().await;
    cluster
        .delete::<ConfigMap>("one", DeletePropagation::Foreground)
        .await;
    until_gone(&cluster, &["one", "two", "three"]).await;
}

use std::time::Duration;

use coracle_client::{ObjectKey, Precondition};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use crate::node::TestNode;

fn ready(node: &Node) -> &str {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready
        .next()
        .map_or("", |condition| condition.status.as_str())
}

#[tokio::test(start_paused = true)]
async fn a_node_registers_and_keeps_its_lease() {
    let node = TestNode::start().await;
    node.until::<Node>("the node is ready", |nodes| {
        nodes.iter().any(|node| ready(node) == "True")
    })
    .await;
    assert!(node.elapsed() < 1);
    let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
    let mut first = None;
    node.until::<Lease>("it has a lease", |leases| {
        first = leases.first().and_then(|lease| renewed(lease));
        first.is_some()
    })
    .await;
    let before = node.elapsed();
    node.until::<Lease>("it is renewed", |leases| {
        leases.first().and_then(|l| renewed(l)) > first
    })
    .await;
    assert_eq!(node.elapsed() - before, 10);
    let stored = node
        .ctx
        .lister::<Node>()
        .get(&ObjectKey::cluster("node-a"))
        .expect("registered");
    let labels = stored.metadata.labels.as_ref().expect("labels");
    // Which role a node has is not the node's to say.
    assert!(!labels.keys().any(|label| label.starts_with("node-role")));
    let info = stored
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .expect("facts");
    assert_eq!(info.kubelet_version, "v1.36.2+coracle");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_given_up_says_that_it_lives() {
    let node = TestNode::start().await;
    node.until::<Node>("the node is ready", |nodes| {
        nodes.iter().any(|node| ready(node) == "True")
    })
    .await;
    let lost = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
    let objects = node.ctx.objects();
    let key = ObjectKey::cluster("node-a");
    let given_up = objects
        .patch_status::<Node>(&key, &Precondition::default(), lost)
        .await;
    assert_eq!(ready(&given_up.expect("written")), "Unknown");
    let before = node.elapsed();
    node.until::<Node>("the node is ready", |nodes| {
        nodes.iter().any(|node| ready(node) == "True")
    })
    .await;
    assert!(node.elapsed() - before <= 10);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_deleted_registers_again() {
    let node = TestNode::start().await;
    node.until::<Node>("the node is there", |nodes| nodes.len() == 1)
        .await;
    let key = ObjectKey::cluster("node-a");
    let how = coracle_client::DeletePropagation::Background;
    let deleted = node
        .ctx
        .objects()
        .delete::<Node>(&key, &Precondition::default(), how, None)
        .await;
    deleted.expect("deleted");
    node.until::<Node>("the node is gone", |nodes| nodes.is_empty())
        .await;
    node.until::<Node>("the node is back", |nodes| {
        nodes.iter().any(|node| ready(node) == "True")
    })
    .await;
    node.clock.sleep(Duration::from_secs(30)).await;
    let lease = node
        .ctx
        .objects()
        .get::<Lease>(&ObjectKey::new("kube-node-lease", "node-a"))
        .await;
    assert!(lease.expect("an answer").is_some());
}

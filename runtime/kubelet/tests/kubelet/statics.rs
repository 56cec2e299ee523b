use std::time::Duration;

use coracle_cri::fake::{Call, Script};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::node::{TestNode, address, is_ready, restarts};

fn given(image: &str) -> Pod {
    let container = json!({"name": "app", "image": image, "ports": [{"containerPort": 8080}]});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 5});
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": spec});
    serde_json::from_value(pod).expect("a pod")
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> &'a str {
    let annotations = pod.metadata.annotations.as_ref();
    let found = annotations.and_then(|all| all.get(&format!("kubernetes.io/config.{name}")));
    found.map_or("", String::as_str)
}

fn starts(node: &TestNode) -> usize {
    let calls = node.runtime.calls().into_iter();
    calls
        .filter(|call| matches!(call, Call::StartContainer(_)))
        .count()
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_runs_and_is_shown_by_a_mirror() {
    let node = TestNode::start().await;
    node.kubelet.set_static_pods([given("app:1")]);
    let mirror = node.ready("web-node-a").await;
    assert_eq!(annotation(&mirror, "source"), "file");
    let hash = annotation(&mirror, "mirror");
    assert!(hash.len() == 32 && hash == annotation(&mirror, "hash"));
    assert_ne!(
        mirror.metadata.uid.as_deref(),
        Some(hash),
        "it is another object"
    );
    let owner = &mirror.metadata.owner_references.as_ref().expect("an owner")[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller),
        ("Node", Some(true))
    );
    let status = mirror.status.as_ref().expect("a status");
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(address(&mirror), Some("10.240.0.2"));
    // The same again changes nothing.
    node.kubelet.set_static_pods([given("app:1")]);
    node.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(starts(&node), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mirror_that_is_deleted_comes_again_and_the_pod_runs_on() {
    let node = TestNode::start().await;
    node.kubelet.set_static_pods([given("app:1")]);
    let first = node.ready("web-node-a").await;
    node.delete("web-node-a", None).await;
    let again = node
        .pod_when("web-node-a", "it comes again", |pod| {
            pod.metadata.uid != first.metadata.uid && is_ready(pod)
        })
        .await;
    assert_eq!(address(&again), address(&first));
    assert_eq!((starts(&node), restarts(&again)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_changed_pod_takes_the_place_of_the_one_before() {
    let node = TestNode::start().await;
    node.script("app:1", Script::runs().ignores_stop());
    node.kubelet.set_static_pods([given("app:1")]);
    let first = node.ready("web-node-a").await;
    node.kubelet.set_static_pods([given("app:2")]);
    let second = node
        .pod_when("web-node-a", "the other runs", |pod| {
            let image = pod
                .spec
                .as_ref()
                .map(|spec| spec.containers[0].image.as_deref());
            image == Some(Some("app:2")) && is_ready(pod)
        })
        .await;
    assert_ne!(annotation(&first, "hash"), annotation(&second, "hash"));
    node.clock.sleep(Duration::from_secs(10)).await;
    assert!(node.begun_and_ended().contains(&"stop app 5".to_owned()));
    node.kubelet.set_static_pods([]);
    node.gone("web-node-a").await;
    node.clock.sleep(Duration::from_secs(10)).await;
    let ends = node.begun_and_ended();
    assert_eq!(
        ends.iter().filter(|end| end.starts_with("stop")).count(),
        2,
        "{ends:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_taken_away_and_put_back_within_its_grace_runs_anew() {
    for between in [vec![], vec![given("app:2")]] {
        let node = TestNode::start().await;
        node.script("app:1", Script::runs().ignores_stop());
        node.kubelet.set_static_pods([given("app:1")]);
        let first = node.ready("web-node-a").await;
        node.kubelet.set_static_pods(between);
        node.clock.sleep(Duration::from_secs(2)).await;
        node.kubelet.set_static_pods([given("app:1")]);
        node.clock.sleep(Duration::from_secs(60)).await;
        let again = node.ready("web-node-a").await;
        assert_eq!(annotation(&first, "hash"), annotation(&again, "hash"));
        assert_eq!(restarts(&again), 0);
        let begun = node.begun_and_ended();
        assert_eq!(
            begun.last().map(String::as_str),
            Some("start app"),
            "{begun:?}"
        );
        node.kubelet.set_static_pods([]);
        node.gone("web-node-a").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_goes_on_with_its_static_pods_and_drops_those_it_is_not_given() {
    let node = TestNode::start().await;
    let mut other = given("app:1");
    other.metadata.name = Some("other".into());
    node.kubelet.set_static_pods([given("app:1"), other]);
    let before = node.ready("web-node-a").await;
    node.ready("other-node-a").await;
    let node = node.restart().await;
    node.kubelet.set_static_pods([given("app:1")]);
    let after = node
        .pod_when("web-node-a", "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert_eq!(address(&before), address(&after));
    node.gone("other-node-a").await;
}

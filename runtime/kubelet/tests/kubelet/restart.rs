use std::time::Duration;

use coracle_cri::fake::{Call, Script};
use serde_json::json;

use crate::node::{TestNode, address, app, is_ready, phase, restarts, status};

#[tokio::test(start_paused = true)]
async fn a_killed_node_brings_its_pods_back_where_they_were() {
    let node = TestNode::start().await;
    for name in ["one", "two", "three"] {
        node.run(name, "app:1", json!({})).await;
        node.ready(name).await;
    }
    node.run("once", "app:1", json!({"restartPolicy": "Never"}))
        .await;
    node.ready("once").await;
    let before = node.ready("two").await;
    node.delete("one", None).await;
    node.gone("one").await;

    let node = node.restart().await;
    let after = node
        .pod_when("two", "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    assert_eq!(address(&after), address(&before));
    assert_eq!(after.metadata.uid, before.metadata.uid);
    let last = app(&after)
        .and_then(|s| s.last_state.as_ref()?.terminated.clone())
        .expect("the last run");
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("NodeRestarted"))
    );
    let once = node
        .pod_when("once", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    assert_eq!(
        once.status.as_ref().and_then(|s| s.reason.as_deref()),
        Some("NodeRestarted")
    );

    // New pods get addresses that nobody has.
    node.run("four", "app:1", json!({})).await;
    let new = node.ready("four").await;
    let three = node
        .pod_when("three", "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    for other in [&after, &three, &once] {
        assert_ne!(address(&new), address(other));
    }
    // The image comes from the digest that is known.
    let asked =
        node.runtime.calls().into_iter().any(
            |call| matches!(call, Call::EnsureImage(request) if request.known_digest.is_some()),
        );
    assert!(asked);
}

#[tokio::test(start_paused = true)]
async fn init_containers_come_first_after_a_restart_too() {
    let node = TestNode::start().await;
    let setup = || Script::exits(0).after(Duration::from_secs(2));
    node.script("setup", setup());
    let spec = json!({"initContainers": [{"name": "setup", "image": "setup"}]});
    node.run("web", "app:1", spec).await;
    let before = node.ready("web").await;

    let node = node.restart().await;
    node.script("setup", setup());
    let began = node.elapsed();
    let after = node
        .pod_when("web", "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    assert!(node.elapsed() - began >= 2, "it did not wait for its setup");
    assert_eq!(node.begun_and_ended(), ["start setup", "start app"]);
    assert!(status(&after, "setup").is_some_and(|setup| setup.ready && setup.restart_count == 1));
    assert_eq!(address(&after), address(&before));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_starts_over_with_the_node() {
    let node = TestNode::start().await;
    node.script("crash", Script::exits(1));
    node.run("web", "crash", json!({})).await;
    node.pod_when("web", "it waits for minutes", |pod| restarts(pod) == 5)
        .await;
    node.clock.sleep(Duration::from_secs(1)).await;
    let node = node.restart().await;
    let before = node.elapsed();
    // The new runtime knows no script: it runs.
    node.pod_when("web", "it runs", |pod| is_ready(pod) && restarts(pod) == 6)
        .await;
    assert!(node.elapsed() - before < 2);
}

#[tokio::test(start_paused = true)]
async fn draining_ends_guests_and_reports_how() {
    let node = TestNode::start().await;
    node.script("stubborn", Script::runs().ignores_stop());
    node.run("web", "app:1", json!({})).await;
    node.run("slow", "stubborn", json!({})).await;
    node.run("once", "app:1", json!({"restartPolicy": "Never"}))
        .await;
    node.run("retried", "app:1", json!({"restartPolicy": "OnFailure"}))
        .await;
    for name in ["web", "slow", "once", "retried"] {
        node.ready(name).await;
    }
    let before = node.elapsed();
    node.kubelet.drain(Duration::from_secs(5)).await;
    assert_eq!(
        node.elapsed() - before,
        5,
        "the longest grace is that of the node"
    );
    let web = node
        .pod_when("web", "it has ended", |pod| !is_ready(pod))
        .await;
    let ended = app(&web)
        .and_then(|s| s.state.as_ref()?.terminated.clone())
        .expect("it ended");
    assert_eq!(
        (ended.exit_code, ended.reason.as_deref()),
        (143, Some("NodeRestarted"))
    );
    assert_eq!(phase(&web), "Running");
    let once = node
        .pod_when("once", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    assert_eq!(
        once.status.as_ref().and_then(|s| s.reason.as_deref()),
        Some("NodeRestarted")
    );

    // A pod that comes while the node ends is left to the next start.
    node.run("late", "app:1", json!({})).await;
    node.clock.sleep(Duration::from_secs(60)).await;
    let node = node.restart().await;
    for name in ["web", "slow", "retried"] {
        node.pod_when(name, "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    }
    node.ready("late").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_over_is_left_alone() {
    let node = TestNode::start().await;
    node.script("done", Script::exits(0));
    node.run("once", "done", json!({"restartPolicy": "Never"}))
        .await;
    node.pod_when("once", "it has succeeded", |pod| phase(pod) == "Succeeded")
        .await;
    node.clock.sleep(Duration::from_secs(60)).await;
    let before = node.pod_when("once", "it is there", |_| true).await;
    let node = node.restart().await;
    node.clock.sleep(Duration::from_secs(60)).await;
    let after = node.pod_when("once", "it is there", |_| true).await;
    assert_eq!(
        after.metadata.resource_version,
        before.metadata.resource_version
    );
    assert!(node.runtime.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn files_of_former_pods_are_removed_and_those_of_present_ones_kept() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [{"volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    let pods = node.folder.path().join("data/pods");
    let kept = pods
        .join(&node.container(&pod).sandbox.0)
        .join("volumes/data/file");
    std::fs::write(&kept, "x").expect("written");
    std::fs::create_dir_all(pods.join("stranger/logs")).expect("made");
    let node = node.restart().await;
    while pods.join("stranger").exists() {
        node.clock.sleep(Duration::from_millis(10)).await;
        assert!(node.elapsed() < 1000, "the stranger stays");
    }
    assert!(kept.exists());
}

#[tokio::test(start_paused = true)]
async fn an_address_that_somebody_else_has_is_replaced_by_another() {
    let node = TestNode::start().await;
    node.run("one", "app:1", json!({})).await;
    let one = node.ready("one").await;
    // As if another node's kubelet had written it.
    let status = json!({"status": {"podIP": "10.240.0.1", "podIPs": [
        {"$patch": "replace"}, {"ip": "10.240.0.1"}]}});
    let objects = node.ctx.objects();
    let when = coracle_client::Precondition::default();
    let written: k8s_openapi::api::core::v1::Pod = objects
        .strategic_patch_status(&crate::node::key("one"), &when, status)
        .await
        .expect("patched");
    assert_eq!(address(&written), Some("10.240.0.1"));
    let pod = node
        .pod_when("one", "it has its own", |pod| address(pod) == address(&one))
        .await;
    let all = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ips.as_ref());
    assert_eq!(all.map(Vec::len), Some(1));
}

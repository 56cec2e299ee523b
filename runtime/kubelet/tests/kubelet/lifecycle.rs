use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coracle_cri::fake::{Call, Script};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::node::{TestNode, address, app, is_ready, phase, restarts, waiting};

#[tokio::test(start_paused = true)]
async fn a_pod_becomes_ready_and_says_where() {
    let node = TestNode::start().await;
    node.run("web", "app:1", json!({})).await;
    let pod = node.ready("web").await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(address(&pod), Some("10.240.0.2"));
    assert_eq!(
        pod.status.as_ref().and_then(|s| s.host_ip.as_deref()),
        Some("10.240.0.1")
    );
    let status = app(&pod).expect("a status");
    assert!(status.ready && status.started == Some(true));
    assert!(status.image_id.contains("@sha256:"), "{}", status.image_id);
    let started = node
        .runtime
        .container(&node.container(&pod))
        .expect("it runs");
    assert!(started.env.is_empty() && started.restart_count == 0);
    node.event("Started", "app").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_at_once_costs_one_write() {
    let node = TestNode::start().await;
    let writes = Arc::new(AtomicU32::new(0));
    let counter = writes.clone();
    node.ctx.informer::<Pod>().subscribe(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    node.run("web", "app:1", json!({})).await;
    node.ready("web").await;
    node.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(
        writes.load(Ordering::SeqCst),
        2,
        "its creation, and its status when it was ready"
    );
}

#[tokio::test(start_paused = true)]
async fn a_settled_pod_is_never_written_again() {
    let node = TestNode::start().await;
    node.run("web", "app:1", json!({})).await;
    let before = node.ready("web").await.metadata.resource_version.clone();
    node.clock.sleep(Duration::from_secs(3600)).await;
    assert_eq!(node.ready("web").await.metadata.resource_version, before);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off() {
    let node = TestNode::start().await;
    node.script("crash", Script::exits(3).after(Duration::from_secs(1)));
    node.run("web", "crash", json!({})).await;
    let mut moments = Vec::new();
    for count in 1..=5 {
        node.pod_when("web", "it runs again", |pod| restarts(pod) == count)
            .await;
        moments.push(node.elapsed());
    }
    // One second of running, then nothing, 10, 20, 40 and 80 seconds.
    let gaps: Vec<u64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [11, 21, 41, 81]);
    let pod = node
        .pod_when("web", "it waits", |pod| waiting(pod) == "CrashLoopBackOff")
        .await;
    let last = app(&pod)
        .and_then(|s| s.last_state.as_ref()?.terminated.clone())
        .expect("the last run");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(phase(&pod), "Running");
    node.event(
        "BackOff",
        "Back-off restarting failed container app in pod web_default",
    )
    .await;
    let runs = node
        .runtime
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Call::StartContainer(_)));
    assert_eq!(runs.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_succeeds_or_fails() {
    let node = TestNode::start().await;
    node.script("done", Script::exits(0));
    node.script("broken", Script::exits(7).message("no such table"));
    for (name, image) in [("good", "done"), ("bad", "broken")] {
        node.run(name, image, json!({"restartPolicy": "Never"}))
            .await;
    }
    node.pod_when("good", "it succeeds", |pod| phase(pod) == "Succeeded")
        .await;
    let bad = node
        .pod_when("bad", "it fails", |pod| phase(pod) == "Failed")
        .await;
    let ended = app(&bad)
        .and_then(|s| s.state.as_ref()?.terminated.clone())
        .expect("it ended");
    assert_eq!(
        (ended.exit_code, ended.message.as_deref()),
        (7, Some("no such table"))
    );
    // Their addresses are free again, and they stay what they are.
    node.clock.sleep(Duration::from_secs(60)).await;
    assert!(
        node.runtime
            .sandbox(&node.container(&bad).sandbox)
            .is_none()
    );
    assert_eq!(restarts(&bad), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_has_its_grace_and_no_more() {
    let node = TestNode::start().await;
    node.script("stubborn", Script::runs().ignores_stop());
    for image in ["app:1", "stubborn"] {
        node.run("web", image, json!({"terminationGracePeriodSeconds": 20}))
            .await;
        let pod = node.ready("web").await;
        let before = node.elapsed();
        node.delete("web", None).await;
        if image == "stubborn" {
            node.pod_when("web", "it is not ready", |pod| !is_ready(pod))
                .await;
        }
        node.gone("web").await;
        let took = node.elapsed() - before;
        assert_eq!(took, if image == "stubborn" { 20 } else { 0 });
        assert!(
            node.runtime
                .sandbox(&node.container(&pod).sandbox)
                .is_none()
        );
        assert!(
            !node
                .folder
                .path()
                .join("data/pods")
                .join(&node.container(&pod).sandbox.0)
                .exists()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_by_force_does_not_wait_for_an_earlier_grace() {
    let node = TestNode::start().await;
    node.script("stubborn", Script::runs().ignores_stop());
    node.run(
        "web",
        "stubborn",
        json!({"terminationGracePeriodSeconds": 3000}),
    )
    .await;
    let pod = node.ready("web").await;
    node.delete("web", None).await;
    node.pod_when("web", "it is being stopped", |pod| !is_ready(pod))
        .await;
    node.delete("web", Some(0)).await;
    node.gone("web").await;
    // The successor of the same name starts at once.
    node.run("web", "app:1", json!({})).await;
    node.ready("web").await;
    let id = node.container(&pod).sandbox;
    while node.runtime.sandbox(&id).is_some() {
        node.clock.sleep(Duration::from_millis(10)).await;
        assert!(node.elapsed() < 100, "the old sandbox stays");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_before_it_can_start_goes() {
    let node = TestNode::start().await;
    node.script("missing", Script::image_error("no such image"));
    node.run("no-image", "missing", json!({})).await;
    let volume = json!({"volumes": [{"name": "v", "configMap": {"name": "none"}}]});
    node.run("no-volume", "app:1", volume).await;
    node.pod_when("no-image", "it waits", |pod| waiting(pod) == "ErrImagePull")
        .await;
    node.event("FailedMount", "configmap \"none\" not found")
        .await;
    for name in ["no-image", "no-volume"] {
        node.delete(name, None).await;
        node.gone(name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_an_image_is_shown_until_it_can_be_had() {
    let node = TestNode::start().await;
    node.script(
        "missing",
        Script::image_error("file:///srv/app.wasm: no such file"),
    );
    node.run("web", "missing", json!({})).await;
    let pod = node
        .pod_when("web", "it waits", |pod| waiting(pod) == "ErrImagePull")
        .await;
    let why = app(&pod).and_then(|s| s.state.as_ref()?.waiting.as_ref()?.message.clone());
    assert!(why.expect("why").contains("no such file"));
    assert_eq!(phase(&pod), "Pending");
    node.pod_when("web", "it backs off", |pod| {
        waiting(pod) == "ImagePullBackOff"
    })
    .await;
    node.event("Failed", "Failed to pull image").await;
    node.script("missing", Script::runs());
    node.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_started_is_tried_again() {
    let node = TestNode::start().await;
    node.script(
        "bad",
        Script::start_error("import \"wasi:nn\" is not available"),
    );
    node.run("web", "bad", json!({})).await;
    let pod = node
        .pod_when("web", "it has failed twice", |pod| restarts(pod) >= 1)
        .await;
    let last = app(&pod)
        .and_then(|s| s.last_state.as_ref()?.terminated.clone())
        .expect("the last run");
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (128, Some("StartError"))
    );
    node.script("bad", Script::runs());
    node.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn init_containers_come_first() {
    let node = TestNode::start().await;
    node.script("prepare", Script::exits(0).after(Duration::from_secs(5)));
    let init = json!({"initContainers": [{"name": "one", "image": "prepare"}, {"name": "two", "image": "prepare"}]});
    node.run("web", "app:1", init).await;
    node.pod_when("web", "it initialises", |pod| {
        waiting(pod) == "PodInitializing"
    })
    .await;
    node.ready("web").await;
    assert!((10..12).contains(&node.elapsed()), "{}", node.elapsed());
    let started: Vec<String> = node
        .runtime
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::StartContainer(config) => Some(config.id.name),
            _ => None,
        })
        .collect();
    assert_eq!(started, ["one", "two", "app"]);
}

#[tokio::test(start_paused = true)]
async fn no_two_pods_have_one_address_and_those_without_wait() {
    // Five addresses.
    let node = TestNode::with_range("10.240.0.0/29").await;
    for index in 0..7 {
        node.run(&format!("web-{index}"), "app:1", json!({})).await;
    }
    let ready = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| is_ready(pod)).count();
    node.until::<Pod>("five are ready", |pods| ready(pods) == 5)
        .await;
    node.event("FailedCreatePodSandBox", "no free address is left")
        .await;
    let mut lucky = Vec::new();
    node.until::<Pod>("five have addresses", |pods| {
        let running: Vec<_> = pods.iter().filter(|pod| is_ready(pod)).collect();
        let addresses: BTreeSet<_> = running.iter().filter_map(|pod| address(pod)).collect();
        assert_eq!(
            addresses.len(),
            running.len(),
            "an address is shared: {addresses:?}"
        );
        lucky = running
            .iter()
            .filter_map(|pod| pod.metadata.name.clone())
            .collect();
        lucky.len() == 5
    })
    .await;
    node.delete(&lucky[0], None).await;
    node.delete(&lucky[1], None).await;
    node.until::<Pod>("the others have their turn", |pods| {
        pods.len() == 5 && ready(pods) == 5
    })
    .await;
}

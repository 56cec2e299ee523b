use std::time::Duration;

use coracle_cri::fake::Script;
use serde_json::{Value, json};

use crate::node::{TestNode, condition, is_ready, phase, restarts, status};

/// A sidecar that serves port 9090 and is started once it does, and an init container behind it.
fn with_sidecar(more: Value) -> Value {
    let ports = json!([{"containerPort": 9090}]);
    let startup = json!({"tcpSocket": {"port": 9090}, "periodSeconds": 1, "failureThreshold": 60});
    let mut spec = json!({"initContainers": [
        {"name": "proxy", "image": "proxy", "restartPolicy": "Always", "ports": ports,
         "startupProbe": startup},
        {"name": "setup", "image": "setup"},
    ]});
    let fields = more.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(fields);
    spec
}

async fn node() -> TestNode {
    let node = TestNode::start().await;
    node.script("proxy", Script::serves_after(Duration::from_secs(5)));
    node.script("setup", Script::exits(0).after(Duration::from_secs(2)));
    node
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_starts_before_the_others_and_ends_after_them() {
    let node = node().await;
    node.script("app:1", Script::runs().ignores_stop());
    node.run(
        "web",
        "app:1",
        with_sidecar(json!({"terminationGracePeriodSeconds": 20})),
    )
    .await;
    let early = node
        .pod_when("web", "the proxy runs", |pod| {
            status(pod, "proxy")
                .is_some_and(|proxy| proxy.state.as_ref().is_some_and(|s| s.running.is_some()))
        })
        .await;
    assert_eq!(phase(&early), "Pending");
    assert_eq!(
        condition(&early, "Initialized"),
        ("False", "ContainersNotInitialized")
    );
    let pod = node.ready("web").await;
    assert!((7..=9).contains(&node.elapsed()), "{}", node.elapsed());
    assert_eq!(phase(&pod), "Running");
    let proxy = status(&pod, "proxy").expect("a status");
    assert!(proxy.ready && proxy.started == Some(true));
    assert!(status(&pod, "setup").is_some_and(|setup| setup.ready));
    let before = node.elapsed();
    node.delete("web", None).await;
    node.gone("web").await;
    assert_eq!(node.elapsed() - before, 20);
    // The application needed all the time there was; the proxy still had the least there is.
    assert_eq!(
        node.begun_and_ended(),
        [
            "start proxy",
            "start setup",
            "start app",
            "stop app 20",
            "stop proxy 2"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_done_when_its_main_containers_are() {
    let node = node().await;
    for (name, code, phase_then) in [("good", 0, "Succeeded"), ("bad", 3, "Failed")] {
        node.script(name, Script::exits(code).after(Duration::from_secs(10)));
        node.run(name, name, with_sidecar(json!({"restartPolicy": "Never"})))
            .await;
        let pod = node
            .pod_when(name, "it is over", |pod| phase(pod) == phase_then)
            .await;
        let proxy = status(&pod, "proxy").and_then(|s| s.state.as_ref()?.terminated.clone());
        assert_eq!(proxy.expect("it ended").exit_code, 143, "{name}");
        assert_eq!(condition(&pod, "Ready").0, "False");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_is_started_again_whatever_the_pods_policy() {
    let node = node().await;
    node.run(
        "web",
        "app:1",
        with_sidecar(json!({"restartPolicy": "Never"})),
    )
    .await;
    let pod = node.ready("web").await;
    assert!(node.runtime.exit(&node.container_of(&pod, "proxy"), 1));
    let pod = node
        .pod_when("web", "it is not ready", |pod| !is_ready(pod))
        .await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(condition(&pod, "Initialized").0, "True");
    assert_eq!(condition(&pod, "Ready"), ("False", "ContainersNotReady"));
    let pod = node.ready("web").await;
    assert_eq!(
        status(&pod, "proxy").map(|proxy| proxy.restart_count),
        Some(1)
    );
    assert_eq!(
        (
            restarts(&pod),
            status(&pod, "setup").map(|s| s.restart_count)
        ),
        (0, Some(0))
    );
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_never_starts_holds_the_pod_up_and_is_tried_again() {
    let node = node().await;
    node.script("proxy", Script::never_serves());
    let mut spec = with_sidecar(json!({"terminationGracePeriodSeconds": 1}));
    spec["initContainers"][0]["startupProbe"]["failureThreshold"] = json!(3);
    node.run("web", "app:1", spec).await;
    let pod = node
        .pod_when("web", "it is tried again", |pod| {
            status(pod, "proxy").is_some_and(|proxy| proxy.restart_count == 2)
        })
        .await;
    assert_eq!(phase(&pod), "Pending");
    node.event("Killing", "Init container proxy failed startup probe")
        .await;
    assert!(!node.begun_and_ended().contains(&"start setup".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_starts_all_in_their_turn_again() {
    let node = node().await;
    node.run("web", "app:1", with_sidecar(json!({}))).await;
    node.ready("web").await;
    let node = node.restart().await;
    node.script("setup", Script::exits(0).after(Duration::from_secs(2)));
    node.pod_when("web", "it runs again", |pod| {
        is_ready(pod) && restarts(pod) == 1
    })
    .await;
    // What the init container did, it did for a sandbox that is gone.
    assert_eq!(
        node.begun_and_ended(),
        ["start proxy", "start setup", "start app"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_has_all_containers_start_over_in_their_sandbox() {
    let node = node().await;
    node.script("app:1", Script::runs().ignores_stop());
    let mut spec = with_sidecar(json!({"restartPolicy": "Never"}));
    let codes = json!({"operator": "In", "values": [88]});
    spec["initContainers"][0]["restartPolicyRules"] =
        json!([{"action": "RestartAllContainers", "exitCodes": codes}]);
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    assert_eq!(condition(&pod, "AllContainersRestarting"), ("False", ""));
    assert!(node.runtime.exit(&node.container_of(&pod, "proxy"), 88));
    let pod = node
        .pod_when("web", "it starts over", |pod| {
            condition(pod, "AllContainersRestarting").0 == "True"
        })
        .await;
    let waits = status(&pod, "proxy").and_then(|s| s.state.as_ref()?.waiting.clone());
    assert_eq!(
        waits.and_then(|waits| waits.reason).as_deref(),
        Some("RestartingAllContainers")
    );
    let pod = node.ready("web").await;
    let counts = ["proxy", "setup", "app"];
    let counts = counts.map(|name| status(&pod, name).map(|status| status.restart_count));
    assert_eq!(counts, [Some(1); 3]);
    assert_eq!(condition(&pod, "AllContainersRestarting").0, "False");
    assert_eq!(
        node.begun_and_ended(),
        [
            "start proxy",
            "start setup",
            "start app",
            "stop app 2",
            "start proxy",
            "start setup",
            "start app"
        ]
    );
    let sandboxes = node.runtime.calls().into_iter();
    let sandboxes =
        sandboxes.filter(|call| matches!(call, coracle_cri::fake::Call::RunPodSandbox(_)));
    assert_eq!(sandboxes.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_ends_sidecars_last_and_calls_hooks() {
    let node = node().await;
    let hook = json!({"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}});
    node.run("web", "app:1", with_sidecar(json!({"containers": [hook]})))
        .await;
    node.ready("web").await;
    node.run("other", "app:1", json!({})).await;
    node.ready("other").await;
    let before = node.elapsed();
    node.kubelet.drain(Duration::from_secs(10)).await;
    assert_eq!(node.elapsed() - before, 2);
    let ends = node.begun_and_ended();
    let ends: Vec<&str> = ends
        .iter()
        .map(String::as_str)
        .filter(|end| end.starts_with("stop"))
        .collect();
    assert_eq!(ends, ["stop app 10", "stop app 8", "stop proxy 8"]);
}

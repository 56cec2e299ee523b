use std::time::Duration;

use coracle_client::Precondition;
use coracle_cri::fake::Script;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::node::{TestNode, app, condition, is_ready, key, phase, restarts, status, waiting};

#[tokio::test(start_paused = true)]
async fn a_pod_that_runs_for_too_long_fails() {
    let node = TestNode::start().await;
    node.script("stubborn", Script::runs().ignores_stop());
    let spec = json!({"activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 10});
    node.run("web", "stubborn", spec).await;
    node.ready("web").await;
    node.event(
        "DeadlineExceeded",
        "Pod was active on the node longer than the specified deadline",
    )
    .await;
    let ending = node
        .pod_when("web", "it is not ready", |pod| !is_ready(pod))
        .await;
    assert_eq!(phase(&ending), "Running", "it still runs");
    assert_eq!(condition(&ending, "Ready"), ("False", "PodFailed"));
    let pod = node
        .pod_when("web", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    let status = pod.status.as_ref().expect("a status");
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert!((70..=72).contains(&node.elapsed()), "{}", node.elapsed());
    let node = node.restart().await;
    node.clock.sleep(Duration::from_secs(10)).await;
    assert!(node.runtime.calls().is_empty(), "it is over");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_may_come_later_and_counts_from_the_start() {
    let node = TestNode::start().await;
    node.run("web", "app:1", json!({})).await;
    node.ready("web").await;
    node.clock.sleep(Duration::from_secs(30)).await;
    let patch = json!({"spec": {"activeDeadlineSeconds": 50}});
    let objects = node.ctx.objects();
    objects
        .patch::<Pod>(&key("web"), &Precondition::default(), patch)
        .await
        .expect("patched");
    node.pod_when("web", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    assert!((50..=52).contains(&node.elapsed()), "{}", node.elapsed());
}

#[tokio::test(start_paused = true)]
async fn containers_have_policies_and_rules_of_their_own() {
    let node = TestNode::start().await;
    node.script("exits-42", Script::exits(42).after(Duration::from_secs(1)));
    node.script("exits-1", Script::exits(1).after(Duration::from_secs(1)));
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let own = json!({"restartPolicy": "Never", "restartPolicyRules": rules});
    let spec = json!({"restartPolicy": "Never", "containers": [own]});
    node.run("again", "exits-42", spec.clone()).await;
    node.run("once", "exits-1", spec).await;
    let once = node
        .pod_when("once", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    assert_eq!(restarts(&once), 0);
    let again = node
        .pod_when("again", "it waits", |pod| {
            waiting(pod) == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(phase(&again), "Running");
    let message = app(&again).and_then(|app| app.state.as_ref()?.waiting.as_ref()?.message.clone());
    let message = message.expect("a message");
    let expected = "back-off 10s restarting failed container=app pod=again_default(";
    assert!(message.starts_with(expected), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_container_to_debug_with_runs_once_beside_the_others() {
    let node = TestNode::start().await;
    node.script("toolbox", Script::exits(3).after(Duration::from_secs(5)));
    node.run("web", "app:1", json!({})).await;
    let before = node.ready("web").await;
    let debug = json!({"name": "debugger", "image": "toolbox", "targetContainerName": "app",
                       "securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}},
                       "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"});
    let patch = json!({"spec": {"ephemeralContainers": [debug]}});
    let objects = node.ctx.objects();
    let when = Precondition::default();
    objects
        .patch_subresource::<Pod>(&key("web"), "ephemeralcontainers", &when, patch)
        .await
        .expect("patched");
    let pod = node
        .pod_when("web", "the debugger has run", |pod| {
            status(pod, "debugger")
                .is_some_and(|s| s.state.as_ref().is_some_and(|s| s.terminated.is_some()))
        })
        .await;
    let ended = status(&pod, "debugger").and_then(|s| s.state.as_ref()?.terminated.clone());
    assert_eq!(ended.expect("it ended").exit_code, 3);
    assert!(is_ready(&pod) && phase(&pod) == "Running");
    assert_eq!(before.metadata.uid, pod.metadata.uid);
    node.clock.sleep(Duration::from_secs(600)).await;
    assert_eq!(node.begun_and_ended(), ["start app", "start debugger"]);
    node.event("Started", "debugger").await;
    // As `kubectl debug --profile=general` asks.
    node.event(
        "FieldsIgnored",
        "containers[].securityContext.capabilities.add",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_when_its_gates_are_open() {
    let node = TestNode::start().await;
    let gates = json!([{"conditionType": "example.org/balanced"}]);
    node.run("web", "app:1", json!({"readinessGates": gates}))
        .await;
    let pod = node
        .pod_when("web", "its containers are ready", |pod| {
            condition(pod, "ContainersReady").0 == "True"
        })
        .await;
    assert_eq!(
        condition(&pod, "Ready"),
        ("False", "ReadinessGatesNotReady")
    );
    let open = json!({"type": "example.org/balanced", "status": "True"});
    let patch = json!({"status": {"conditions": [open]}});
    let objects = node.ctx.objects();
    objects
        .strategic_patch_status::<Pod>(&key("web"), &Precondition::default(), patch)
        .await
        .expect("patched");
    let pod = node.ready("web").await;
    assert_eq!(condition(&pod, "example.org/balanced").0, "True");
    assert_eq!(condition(&pod, "PodScheduled").0, "True");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_its_node_fails() {
    let node = TestNode::start().await;
    let asking = |cpu: &str| json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]});
    node.run("one", "app:1", asking("1500m")).await;
    node.ready("one").await;
    node.run("two", "app:1", asking("1")).await;
    let two = node
        .pod_when("two", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    let status = two.status.as_ref().expect("a status");
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    let words =
        "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000";
    assert_eq!(status.message, Some(format!("Pod was rejected: {words}")));
    assert!(status.container_statuses.is_none());
    node.event("OutOfcpu", words).await;
    // It stays what it is, and the next one has what the first gives back.
    node.delete("one", None).await;
    node.gone("one").await;
    node.run("three", "app:1", asking("2")).await;
    node.ready("three").await;
    assert_eq!(
        phase(&*node.pod_when("two", "it is there", |_| true).await),
        "Failed"
    );
    node.run("four", "app:1", json!({"nodeSelector": {"disk": "ssd"}}))
        .await;
    let four = node
        .pod_when("four", "it has failed", |pod| phase(pod) == "Failed")
        .await;
    let status = four.status.as_ref().expect("a status");
    assert_eq!(status.reason.as_deref(), Some("NodeAffinity"));
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_asks_for_in_vain_is_told_once() {
    let node = TestNode::start().await;
    let eager = json!({"securityContext": {"privileged": true}});
    node.run(
        "web",
        "app:1",
        json!({"hostPID": true, "containers": [eager]}),
    )
    .await;
    node.ready("web").await;
    let words = "hostPID, containers[].securityContext.privileged";
    node.event("FieldsIgnored", words).await;
    let node = node.restart().await;
    node.pod_when("web", "it runs again", |pod| {
        is_ready(pod) && restarts(pod) == 1
    })
    .await;
    node.clock.sleep(Duration::from_secs(60)).await;
    node.until::<k8s_openapi::api::core::v1::Event>("it was told once", |events| {
        let told = events
            .iter()
            .filter(|e| e.reason.as_deref() == Some("FieldsIgnored"));
        told.map(|event| event.count.unwrap_or(1)).sum::<i32>() == 1
    })
    .await;
}

use std::time::Duration;

use coracle_cri::fake::Script;
use serde_json::{Value, json};

use crate::node::{TestNode, app, is_ready, phase, restarts};

fn probed(probes: Value) -> Value {
    json!({"containers": [probes], "terminationGracePeriodSeconds": 1})
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_when_its_probe_passes() {
    let node = TestNode::start().await;
    node.script("slow", Script::serves_after(Duration::from_secs(20)));
    let probe = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 5});
    node.run("web", "slow", probed(json!({"readinessProbe": probe})))
        .await;
    node.pod_when("web", "it runs", |pod| {
        phase(pod) == "Running" && !is_ready(pod)
    })
    .await;
    node.ready("web").await;
    assert!((20..=25).contains(&node.elapsed()), "{}", node.elapsed());
    node.event("Unhealthy", "Readiness probe failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_its_liveness_probe_is_started_again() {
    let node = TestNode::start().await;
    let probe = json!({"tcpSocket": {"port": 9}, "periodSeconds": 10, "failureThreshold": 2});
    node.run("web", "app:1", probed(json!({"livenessProbe": probe})))
        .await;
    let pod = node
        .pod_when("web", "it is started again", |pod| restarts(pod) == 1)
        .await;
    let last = app(&pod)
        .and_then(|s| s.last_state.as_ref()?.terminated.clone())
        .expect("the last run");
    assert_eq!(last.exit_code, 143);
    node.event("Unhealthy", "Liveness probe failed").await;
    node.event(
        "Killing",
        "Container app failed liveness probe, will be restarted",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn other_probes_wait_until_the_container_has_started() {
    let node = TestNode::start().await;
    node.script("slow", Script::serves_after(Duration::from_secs(60)));
    let startup =
        json!({"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 30});
    let liveness =
        json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    node.run(
        "web",
        "slow",
        probed(json!({"startupProbe": startup, "livenessProbe": liveness})),
    )
    .await;
    let pod = node.ready("web").await;
    assert_eq!(restarts(&pod), 0);
    assert!((60..=75).contains(&node.elapsed()), "{}", node.elapsed());
}

#[tokio::test(start_paused = true)]
async fn probes_that_are_not_known_count_as_passed_and_say_so() {
    let node = TestNode::start().await;
    let probe = json!({"exec": {"command": ["true"]}});
    node.run("web", "app:1", probed(json!({"readinessProbe": probe})))
        .await;
    node.ready("web").await;
    node.event(
        "ProbeNotSupported",
        "readiness probes of this type are not supported",
    )
    .await;
}

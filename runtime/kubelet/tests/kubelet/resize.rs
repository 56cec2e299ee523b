use coracle_client::Precondition;
use coracle_cri::fake::Call;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::node::{TestNode, app, condition, is_ready, key, restarts};

fn asking(cpu: &str, limit: &str) -> Value {
    json!({"requests": {"cpu": cpu}, "limits": {"memory": limit}})
}

impl TestNode {
    async fn resize(&self, name: &str, resources: Value) {
        let current = self.pod_when(name, "it is there", |_| true).await;
        let containers = &current.spec.as_ref().expect("a spec").containers;
        let mut containers = serde_json::to_value(containers).expect("containers");
        containers[0]["resources"] = resources;
        self.resize_with(name, json!({"spec": {"containers": containers}}))
            .await;
    }

    /// Resizes the pod as a whole.
    async fn resize_whole(&self, name: &str, resources: Value) {
        self.resize_with(name, json!({"spec": {"resources": resources}}))
            .await;
    }

    async fn resize_with(&self, name: &str, patch: Value) {
        let when = Precondition::default();
        let objects = self.ctx.objects();
        let key = key(name);
        let resized = objects.patch_subresource::<Pod>(&key, "resize", &when, patch);
        resized.await.expect("accepted");
    }
}

/// What the container has, as its status says.
fn has(pod: &Pod) -> Value {
    serde_json::to_value(app(pod).and_then(|app| app.resources.clone())).expect("resources")
}

#[tokio::test(start_paused = true)]
async fn a_container_is_given_more_while_it_runs() {
    let node = TestNode::start().await;
    let spec = json!({"containers": [{"resources": asking("500m", "64Mi")}]});
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    assert_eq!(has(&pod)["limits"]["memory"], "64Mi");
    node.resize("web", asking("1", "128Mi")).await;
    let pod = node
        .pod_when("web", "it has more", |pod| {
            has(pod)["limits"]["memory"] == "128Mi"
        })
        .await;
    assert_eq!(has(&pod)["requests"]["cpu"], "1");
    node.event(
        "ResizeStarted",
        r#"Pod resize started: {"containers":[{"name":"app","#,
    )
    .await;
    let asked = r#"{"limits":{"memory":"128Mi"},"requests":{"cpu":"1","memory":"128Mi"}}}],"generation":2}"#;
    node.event("ResizeCompleted", asked).await;
    assert_eq!((restarts(&pod), is_ready(&pod)), (0, true));
    assert_eq!(condition(&pod, "PodResizeInProgress").0, "");
    let config = node
        .runtime
        .container(&node.container(&pod))
        .expect("it runs");
    assert_eq!(
        (config.memory_limit, config.cpu_weight_millis),
        (Some(128 << 20), 1000)
    );
    let calls = node.runtime.calls().into_iter();
    let resized = calls.filter(|call| matches!(call, Call::ResizeContainer(..)));
    assert_eq!(resized.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_others_have_is_waited_for_and_what_nobody_has_is_refused() {
    let node = TestNode::start().await;
    for name in ["one", "two"] {
        let spec = json!({"containers": [{"resources": asking("1", "64Mi")}]});
        node.run(name, "app:1", spec).await;
        node.ready(name).await;
    }
    node.resize("one", asking("3", "64Mi")).await;
    let pod = node
        .pod_when("one", "it is refused", |pod| {
            condition(pod, "PodResizePending").0 == "True"
        })
        .await;
    assert_eq!(condition(&pod, "PodResizePending").1, "Infeasible");
    node.event("ResizeInfeasible", "Pod resize Infeasible: ")
        .await;
    node.resize("one", asking("1500m", "64Mi")).await;
    let pod = node
        .pod_when("one", "it waits", |pod| {
            condition(pod, "PodResizePending").1 == "Deferred"
        })
        .await;
    assert_eq!(has(&pod)["requests"]["cpu"], "1");
    node.event("ResizeDeferred", "Pod resize Deferred: ").await;
    node.delete("two", None).await;
    let pod = node
        .pod_when("one", "it has more", |pod| {
            has(pod)["requests"]["cpu"] == "1500m"
        })
        .await;
    assert_eq!(
        (restarts(&pod), condition(&pod, "PodResizePending").0),
        (0, "")
    );
}

#[tokio::test(start_paused = true)]
async fn a_container_that_wants_to_is_started_again_with_what_it_gets() {
    let node = TestNode::start().await;
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let container = json!({"resources": asking("500m", "64Mi"), "resizePolicy": policy});
    node.run("web", "app:1", json!({"containers": [container]}))
        .await;
    node.ready("web").await;
    node.resize("web", asking("1", "64Mi")).await;
    let pod = node
        .pod_when("web", "it has more", |pod| {
            has(pod)["requests"]["cpu"] == "1"
        })
        .await;
    assert_eq!(restarts(&pod), 0);
    node.resize("web", asking("1", "128Mi")).await;
    node.event("Killing", "Container app resize requires restart")
        .await;
    let pod = node
        .pod_when("web", "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    assert_eq!(has(&pod)["limits"]["memory"], "128Mi");
}

/// What the status says of the pod as a whole: what it has, and what it was promised.
fn whole(pod: &Pod) -> (Value, Value) {
    let status = pod.status.as_ref().expect("a status");
    (json!(status.resources), json!(status.allocated_resources))
}

fn limited(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

#[tokio::test(start_paused = true)]
async fn a_pod_as_a_whole_is_given_more_while_it_runs() {
    let node = TestNode::start().await;
    let own = json!({"requests": {"cpu": "100m"}});
    let own = json!({"name": "other", "image": "app:1", "resources": own});
    let spec = json!({"resources": limited("1", "64Mi"), "containers": [{}, own]});
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    let promised = json!({"cpu": "1", "memory": "64Mi"});
    assert_eq!(whole(&pod), (limited("1", "64Mi"), promised));
    let id = node.container(&pod);
    assert_eq!(
        node.runtime.container(&id).map(|c| c.cpu_weight_millis),
        Some(900)
    );

    node.resize_whole("web", limited("2", "128Mi")).await;
    let pod = node
        .pod_when("web", "it has more", |pod| {
            whole(pod).0 == limited("2", "128Mi")
        })
        .await;
    assert_eq!(whole(&pod).1, json!({"cpu": "2", "memory": "128Mi"}));
    assert_eq!((restarts(&pod), is_ready(&pod)), (0, true));
    node.event(
        "ResizeStarted",
        r#"Pod resize started: {"resources":{"limits":{"cpu":"2","#,
    )
    .await;
    node.event("ResizeCompleted", "Pod resize completed: ")
        .await;
    assert_eq!(condition(&pod, "PodResizeInProgress").0, "");
    let sandbox = node.runtime.sandbox(&id.sandbox).expect("it is there");
    assert_eq!(
        (sandbox.cpu_limit_millis, sandbox.memory_limit),
        (Some(2000), Some(128 << 20))
    );
    // A container without a request has what the others leave of the pod's.
    assert_eq!(
        node.runtime.container(&id).map(|c| c.cpu_weight_millis),
        Some(1900)
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_as_a_whole_waits_for_what_it_cannot_have_and_says_what_went_wrong() {
    let node = TestNode::start().await;
    let spec = json!({"resources": limited("1", "64Mi")});
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    let id = node.container(&pod);
    node.resize_whole("web", limited("5", "64Mi")).await;
    let pod = node
        .pod_when("web", "it is refused", |pod| {
            condition(pod, "PodResizePending").0 == "True"
        })
        .await;
    assert_eq!(condition(&pod, "PodResizePending").1, "Infeasible");
    let promised = json!({"cpu": "1", "memory": "64Mi"});
    assert_eq!(whole(&pod), (limited("1", "64Mi"), promised));
    // A run that begins meanwhile has what the pod was granted, too.
    assert!(node.runtime.exit(&id, 1));
    node.pod_when("web", "it runs again", |pod| {
        is_ready(pod) && restarts(pod) == 1
    })
    .await;
    assert_eq!(
        node.runtime.container(&id).map(|c| c.cpu_weight_millis),
        Some(1000)
    );

    node.runtime.fail_resizes(Some("no way down"));
    node.resize_whole("web", limited("1", "32Mi")).await;
    let pod = node
        .pod_when("web", "it says so", |pod| {
            condition(pod, "PodResizeInProgress").1 == "Error"
        })
        .await;
    assert_eq!(condition(&pod, "PodResizePending").0, "");
    assert_eq!(whole(&pod).0, limited("1", "64Mi"));
    node.event("ResizeError", r#""error":"no way down"}"#).await;
    node.runtime.fail_resizes(None);
    let pod = node
        .pod_when("web", "it has less", |pod| {
            whole(pod).0 == limited("1", "32Mi")
        })
        .await;
    assert_eq!(condition(&pod, "PodResizeInProgress").0, "");
}

#[tokio::test(start_paused = true)]
async fn a_container_starts_again_for_a_limit_that_it_has_of_its_pod() {
    let node = TestNode::start().await;
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let own = json!({"limits": {"memory": "16Mi"}});
    let containers = json!([
        {"resizePolicy": policy},
        {"name": "other", "image": "app:1", "resizePolicy": policy, "resources": own},
    ]);
    let spec = json!({"resources": limited("1", "64Mi"), "containers": containers});
    node.run("web", "app:1", spec).await;
    node.ready("web").await;
    node.resize_whole("web", limited("2", "64Mi")).await;
    let pod = node
        .pod_when("web", "it has more", |pod| {
            whole(pod).0 == limited("2", "64Mi")
        })
        .await;
    assert_eq!(restarts(&pod), 0);
    node.resize_whole("web", limited("2", "128Mi")).await;
    node.event("Killing", "resize requires restart").await;
    let pod = node
        .pod_when("web", "it runs again", |pod| {
            is_ready(pod)
                && restarts(pod) == 1
                && condition(pod, "PodResizeInProgress").0.is_empty()
        })
        .await;
    let status = pod.status.as_ref().expect("a status");
    let counts = status.container_statuses.iter().flatten();
    let counts: Vec<i32> = counts.map(|status| status.restart_count).collect();
    assert_eq!(counts, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_not_had_after_a_restart_either() {
    let node = TestNode::start().await;
    let spec = json!({"containers": [{"resources": asking("1", "64Mi")}]});
    node.run("one", "app:1", spec).await;
    node.ready("one").await;
    node.resize("one", asking("50", "64Mi")).await;
    let refused = |pod: &Pod| condition(pod, "PodResizePending").1 == "Infeasible";
    node.pod_when("one", "it is refused", refused).await;
    let node = node.restart().await;
    let pod = node
        .pod_when("one", "it runs again", |pod| {
            is_ready(pod) && restarts(pod) == 1
        })
        .await;
    assert!(refused(&pod), "{:?}", pod.status);
    assert_eq!(has(&pod)["requests"]["cpu"], "1");
    // Others have the rest.
    let spec = json!({"containers": [{"resources": asking("500m", "64Mi")}]});
    node.run("two", "app:1", spec).await;
    node.ready("two").await;
}

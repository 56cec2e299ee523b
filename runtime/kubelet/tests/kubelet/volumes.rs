use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use crate::node::{TestNode, waiting};

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_config_map_and_no_longer() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [{"name": "config", "configMap": {"name": "settings"}}],
        "containers": [{"volumeMounts": [{"name": "config", "mountPath": "/etc/app"}]}],
    });
    node.run("web", "app:1", spec).await;
    node.event(
        "FailedMount",
        "MountVolume.SetUp failed for volume \"config\" : configmap \"settings\" not found",
    )
    .await;
    let before = node.clock.monotonic();
    node.create::<ConfigMap>(config_map("settings", json!({"greeting": "hello"})))
        .await;
    let pod = node.ready("web").await;
    assert!((node.clock.monotonic() - before).as_millis() < 500);
    let started = node
        .runtime
        .container(&node.container(&pod))
        .expect("it runs");
    let mut mounts = started.mounts.iter();
    let mount = mounts
        .find(|mount| mount.container_path == "/etc/app")
        .expect("mounted");
    assert!(mount.read_only);
    assert_eq!(
        std::fs::read_to_string(mount.host_path.join("greeting")).expect("there"),
        "hello"
    );
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_the_secret_in_its_environment() {
    let node = TestNode::start().await;
    let variable =
        json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}});
    node.run("web", "app:1", json!({"containers": [{"env": [variable]}]}))
        .await;
    node.pod_when("web", "it waits", |pod| {
        waiting(pod) == "CreateContainerConfigError"
    })
    .await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"token": "t0p"},
                        "metadata": {"name": "keys", "namespace": "default"}});
    node.create::<Secret>(secret).await;
    let pod = node.ready("web").await;
    let started = node
        .runtime
        .container(&node.container(&pod))
        .expect("it runs");
    assert!(
        started
            .env
            .contains(&("TOKEN".to_owned(), "t0p".to_owned())),
        "{:?}",
        started.env
    );
    assert_eq!(started.restart_count, 0);
}

/// Where the container sees the files of its service account, on the host.
async fn account_files(node: &TestNode, name: &str) -> PathBuf {
    let pod = node.ready(name).await;
    let started = node
        .runtime
        .container(&node.container(&pod))
        .expect("it runs");
    let [mount] = started.mounts.as_slice() else {
        panic!("one mount: {:?}", started.mounts)
    };
    assert_eq!(
        mount.container_path,
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    mount.host_path.clone()
}

/// What the API server says of a token.
async fn review(node: &TestNode, token: &str) -> Value {
    let body = json!({"spec": {"token": token}}).to_string();
    let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
        .header("content-type", "application/json")
        .body(body.into_bytes())
        .expect("a request");
    let client = node.ctx.client();
    let answer: Value = client.request(request).await.expect("answered");
    answer["status"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_a_token_of_its_own_that_is_made_anew() {
    let node = TestNode::start().await;
    node.run("web", "app:1", json!({})).await;
    let files = account_files(&node, "web").await;
    let read = |name: &str| std::fs::read_to_string(files.join(name)).expect("there");
    assert_eq!(
        (read("namespace"), read("ca.crt")),
        ("default".to_owned(), "the authority".to_owned())
    );
    let first = read("token");
    let known = review(&node, &first).await;
    let user = &known["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    let extra = &user["extra"];
    assert_eq!(
        extra["authentication.kubernetes.io/pod-name"],
        json!(["web"])
    );
    assert_eq!(
        extra["authentication.kubernetes.io/node-name"],
        json!(["node-a"])
    );
    node.clock.sleep(Duration::from_secs(40 * 60)).await;
    assert_eq!(read("token"), first, "most of its life is left");
    // 80 % of 3607 seconds, and the minute until the kubelet looks again.
    node.clock.sleep(Duration::from_secs(10 * 60)).await;
    let second = read("token");
    assert_ne!(second, first);
    assert_eq!(review(&node, &second).await["authenticated"], true);
}

#[tokio::test(start_paused = true)]
async fn the_token_of_a_pod_that_is_gone_is_worth_nothing() {
    let node = TestNode::start().await;
    node.run("web", "app:1", json!({})).await;
    let files = account_files(&node, "web").await;
    let token = std::fs::read_to_string(files.join("token")).expect("there");
    assert_eq!(review(&node, &token).await["authenticated"], true);
    node.delete("web", Some(0)).await;
    node.clock.sleep(Duration::from_secs(90)).await;
    let known = review(&node, &token).await;
    assert_eq!(known["authenticated"], Value::Null);
    let error = known["error"].as_str().unwrap_or_default();
    assert!(error.contains("has been invalidated"), "{known}");
    assert!(!files.exists(), "its files went with it");
}

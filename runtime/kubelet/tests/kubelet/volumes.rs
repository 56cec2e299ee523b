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

#[tokio::test(start_paused = true)]
async fn the_service_accounts_files_do_not_hold_a_pod_up() {
    let node = TestNode::start().await;
    node.run("web", "app:1", json!({})).await;
    let pod = node.ready("web").await;
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
    let namespace = std::fs::read_to_string(mount.host_path.join("namespace"));
    assert_eq!(namespace.expect("there"), "default");
    assert!(!mount.host_path.join("token").exists(), "tokens come later");
}

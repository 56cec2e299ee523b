use std::path::PathBuf;
use std::time::Duration;

use coracle_client::Precondition;
use coracle_cri::fake::Script;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use serde_json::{Value, json};

use crate::node::{TestNode, key, status, waiting};

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

#[tokio::test(start_paused = true)]
async fn a_pod_that_nobody_scheduled_waits_for_its_claim() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        "containers": [{"volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
    });
    node.run("web", "app:1", spec).await;
    let refused =
        "MountVolume.SetUp failed for volume \"v\" : persistentvolumeclaim \"data\" not found";
    node.event("FailedMount", refused).await;
    let asked = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "pv",
        "resources": {"requests": {"storage": "1Gi"}}});
    node.create::<PersistentVolumeClaim>(json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default"}, "spec": asked,
    }))
    .await;
    node.event("FailedMount", "has non-bound phase").await;
    let objects = node.ctx.objects();
    let claim = objects.get::<PersistentVolumeClaim>(&key("data")).await;
    let uid = claim.expect("an answer").expect("the claim").metadata.uid;
    let folder = node.folder.path().join("data/volumes/pv");
    node.create::<PersistentVolume>(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": folder, "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": "default", "name": "data", "uid": uid},
        },
    }))
    .await;
    let when = Precondition::default();
    let bound = json!({"status": {"phase": "Bound"}});
    objects
        .patch_status::<PersistentVolumeClaim>(&key("data"), &when, bound)
        .await
        .expect("bound");
    let pod = node.ready("web").await;
    let started = node.runtime.container(&node.container(&pod));
    let mounts = started.expect("it runs").mounts;
    let mount = mounts.iter().find(|mount| mount.container_path == "/data");
    let mount = mount.expect("mounted");
    assert!(!mount.read_only && mount.host_path.ends_with("data/volumes/pv"));
    std::fs::write(mount.host_path.join("x"), "kept").expect("written");
    node.delete("web", Some(0)).await;
    node.gone("web").await;
    assert!(folder.join("x").is_file(), "a volume outlives its pods");
}

#[tokio::test(start_paused = true)]
async fn an_image_is_pulled_for_the_containers_that_mount_it() {
    let node = TestNode::start().await;
    let spec = json!({
        "volumes": [{"name": "files", "image": {"reference": "files:1", "pullPolicy": "Always"}}],
        "containers": [
            {"volumeMounts": [{"name": "files", "mountPath": "/files"}]},
            {"name": "other", "image": "app:1"},
        ],
    });
    node.run("web", "app:1", spec).await;
    // The other container mounts nothing, and runs.
    let runs = |pod: &Pod, name: &str| {
        let state = status(pod, name).and_then(|status| status.state.as_ref());
        state.is_some_and(|state| state.running.is_some())
    };
    node.pod_when("web", "it waits", |pod| {
        ["ErrImagePull", "ImagePullBackOff"].contains(&waiting(pod)) && runs(pod, "other")
    })
    .await;
    node.event("Pulling", "Pulling image \"files:1\"").await;
    node.event("Failed", "Failed to pull image \"files:1\"")
        .await;
    node.runtime
        .unpack("files:1", node.folder.path().join("unpacked"));
    std::fs::create_dir(node.folder.path().join("unpacked")).expect("made");
    let pod = node.ready("web").await;
    let started = node.runtime.container(&node.container(&pod));
    let mounts = started.expect("it runs").mounts;
    let mount = mounts.iter().find(|mount| mount.container_path == "/files");
    assert!(mount.is_some_and(|m| m.read_only && m.host_path.ends_with("unpacked")));
}

#[tokio::test(start_paused = true)]
async fn a_variable_may_come_from_a_file_that_an_init_container_wrote() {
    let node = TestNode::start().await;
    node.script("setup:1", Script::exits(0).after(Duration::from_secs(5)));
    let file = |key: &str, optional: bool| json!({"volumeName": "env", "path": "app.env", "key": key, "optional": optional});
    let spec = json!({
        "volumes": [{"name": "env", "emptyDir": {}}],
        "initContainers": [{"name": "setup", "image": "setup:1"}],
        "containers": [{"env": [
            {"name": "COLOUR", "valueFrom": {"fileKeyRef": file("COLOUR", false)}},
            {"name": "NONE", "valueFrom": {"fileKeyRef": file("NONE", true)}},
        ]}],
    });
    node.run("web", "app:1", spec).await;
    let pod = node
        .pod_when("web", "it sets up", |pod| {
            let setup = status(pod, "setup").and_then(|status| status.state.as_ref());
            setup.is_some_and(|state| state.running.is_some())
        })
        .await;
    let uid = pod.metadata.uid.clone().expect("a uid");
    let pods = node.folder.path().join("data/pods");
    let written = pods.join(uid).join("volumes/env/app.env");
    std::fs::write(&written, "# mine\nCOLOUR=red\n").expect("written");
    let pod = node
        .pod_when("web", "it waits", |pod| {
            waiting(pod) == "CreateContainerConfigError"
        })
        .await;
    node.event("Failed", "invalid environment variable format at line 2")
        .await;
    std::fs::write(&written, "# mine\nCOLOUR='red'\n").expect("written");
    let id = node.container(&pod);
    node.ready("web").await;
    let env = node.runtime.container(&id).expect("it runs").env;
    assert!(env.contains(&("COLOUR".to_owned(), "red".to_owned())));
    assert!(env.iter().all(|(name, _)| name != "NONE"));
}

#[tokio::test(start_paused = true)]
async fn files_follow_what_they_are_made_of_within_seconds() {
    let node = TestNode::start().await;
    node.create::<ConfigMap>(config_map("settings", json!({"greeting": "hello"})))
        .await;
    let memory = json!({"containerName": "app", "resource": "limits.memory", "divisor": "1Mi"});
    let own = json!([
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "memory", "resourceFieldRef": memory},
    ]);
    let spec = json!({
        "volumes": [
            {"name": "config", "configMap": {"name": "settings"}},
            {"name": "own", "downwardAPI": {"items": own}},
        ],
        "containers": [{
            "resources": {"limits": {"memory": "64Mi"}},
            "volumeMounts": [
                {"name": "config", "mountPath": "/config"}, {"name": "own", "mountPath": "/own"},
            ],
        }],
    });
    node.run("web", "app:1", spec).await;
    let pod = node.ready("web").await;
    let mounts = node
        .runtime
        .container(&node.container(&pod))
        .expect("it runs")
        .mounts;
    let (objects, when) = (node.ctx.objects(), Precondition::default());
    let data = json!({"data": {"greeting": "goodbye"}});
    objects
        .patch::<ConfigMap>(&key("settings"), &when, data)
        .await
        .expect("patched");
    let labels = json!({"metadata": {"labels": {"colour": "red"}}});
    objects
        .patch::<Pod>(&key("web"), &when, labels)
        .await
        .expect("patched");
    let limit = json!({"name": "app", "resources": {"limits": {"memory": "128Mi"}}});
    let limit = json!({"spec": {"containers": [limit]}});
    objects
        .patch_subresource::<Pod>(&key("web"), "resize", &when, limit)
        .await
        .expect("patched");
    let has = |index: usize, file: &str, text: &str| {
        let path = mounts[index].host_path.join(file);
        std::fs::read_to_string(path).is_ok_and(|read| read == text)
    };
    let begun = node.clock.monotonic();
    node.eventually("the files are new", || {
        has(0, "greeting", "goodbye")
            && has(1, "labels", "colour=\"red\"")
            && has(1, "memory", "128")
    })
    .await;
    // Not only at the next look at everything, which is a minute away.
    assert!(node.clock.monotonic() - begun <= Duration::from_secs(5));
}

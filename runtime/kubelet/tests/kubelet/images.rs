//! Images: Events, back-off, credentials, what the Node shows, and what goes when the disk is full.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::Precondition;
use coracle_cri::fake::{Call, Script};
use coracle_cri::{ImageFs, PodRuntime};
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret};
use serde_json::json;

use crate::node::{TestNode, app, is_ready, key, phase, restarts, waiting};

/// Names of the images that the Node shows.
fn shown(node: &Node) -> Vec<String> {
    let images = node
        .status
        .iter()
        .flat_map(|status| &status.images)
        .flatten();
    images
        .flat_map(|image| image.names.clone().unwrap_or_default())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_told_in_upstreams_words_and_a_second_one_is_none() {
    let node = TestNode::start().await;
    let policy = json!({"containers": [{"imagePullPolicy": "IfNotPresent"}]});
    node.run("one", "r.example.com/app:1", policy.clone()).await;
    let pod = node.ready("one").await;
    let id = &app(&pod).expect("a status").image_id;
    assert!(id.starts_with("r.example.com/app@sha256:"), "{id}");
    node.event("Pulling", "Pulling image \"r.example.com/app:1\"")
        .await;
    let words = "Successfully pulled image \"r.example.com/app:1\" in 0s (0s including waiting). Image size: 19 bytes.";
    node.event("Pulled", words).await;
    node.run("two", "r.example.com/app:1", policy).await;
    node.ready("two").await;
    let words = "Container image \"r.example.com/app:1\" already present on machine and can be accessed by the pod";
    node.event("Pulled", words).await;
    node.until::<Event>("one pull was told of", |events| {
        let pulls = events
            .iter()
            .filter(|e| e.reason.as_deref() == Some("Pulling"));
        pulls.count() == 1
    })
    .await;
}

/// What `kubectl set image` does.
async fn set_image(node: &TestNode, pod: &str, image: &str) {
    let patch = json!({"spec": {"containers": [{"name": "app", "image": image}]}});
    let objects = node.ctx.objects();
    objects
        .strategic_patch::<Pod>(&key(pod), &Precondition::default(), patch)
        .await
        .expect("patched");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_gets_another_image_is_started_again_with_it() {
    let node = TestNode::start().await;
    for (name, policy) in [("web", "Always"), ("job", "Never")] {
        node.run(name, "app:1", json!({"restartPolicy": policy}))
            .await;
        let before = node.ready(name).await;
        set_image(&node, name, "app:2").await;
        let pod = node
            .pod_when(name, "the other image runs", |pod| {
                is_ready(pod) && restarts(pod) == 1
            })
            .await;
        assert_eq!(phase(&pod), "Running");
        let (had, has) = (app(&before).expect("told"), app(&pod).expect("told"));
        assert_eq!((had.image.as_str(), has.image.as_str()), ("app:1", "app:2"));
        assert_ne!(had.image_id, has.image_id);
        node.clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(restarts(&*node.ready(name).await), 1, "once");
    }
    let words = "Container app definition changed, will be restarted";
    node.event("Killing", words).await;
}

#[tokio::test(start_paused = true)]
async fn what_held_up_an_image_does_not_hold_up_the_next() {
    let node = TestNode::start().await;
    node.script("typo:1", Script::image_error("404 Not Found"));
    node.script("bad:1", Script::exits(1));
    // The first wait is 10 s, and those that follow are longer.
    for (image, reason) in [
        ("typo:1", "ImagePullBackOff"),
        ("bad:1", "CrashLoopBackOff"),
    ] {
        let name = image.trim_end_matches(":1");
        node.run(name, image, json!({})).await;
        node.pod_when(name, "it backs off", |pod| waiting(pod) == reason)
            .await;
        let begun = node.elapsed();
        set_image(&node, name, "app:1").await;
        node.ready(name).await;
        assert!(node.elapsed() - begun <= 1, "{image}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_replaced_while_it_was_pulled_does_not_run() {
    let node = TestNode::start().await;
    node.script("large:1", Script::runs().pulls_for(Duration::from_secs(30)));
    node.run("web", "large:1", json!({})).await;
    node.event("Pulling", "large:1").await;
    set_image(&node, "web", "app:1").await;
    let pod = node.ready("web").await;
    assert_eq!(app(&pod).expect("told").image, "app:1");
    assert_eq!(restarts(&pod), 0);
    assert_eq!(node.begun_and_ended(), ["start app"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_pull_backs_off_and_says_so() {
    let node = TestNode::start().await;
    let words = "r.example.com: 404 Not Found: MANIFEST_UNKNOWN: manifest unknown";
    node.script("r.example.com/app:1", Script::image_error(words));
    node.run("web", "r.example.com/app:1", json!({})).await;
    node.pod_when("web", "the pull failed", |pod| {
        waiting(pod) == "ErrImagePull"
    })
    .await;
    node.event(
        "Failed",
        &format!("Failed to pull image \"r.example.com/app:1\": {words}"),
    )
    .await;
    node.event("Failed", "Error: ErrImagePull").await;
    let pod = node
        .pod_when("web", "it backs off", |pod| {
            waiting(pod) == "ImagePullBackOff"
        })
        .await;
    let state = app(&pod).and_then(|status| status.state.as_ref());
    let message = state.and_then(|state| state.waiting.as_ref()?.message.clone());
    let wanted = format!("Back-off pulling image \"r.example.com/app:1\": ErrImagePull: {words}");
    assert_eq!(message.expect("a message"), wanted);
    node.event("BackOff", "Back-off pulling image \"r.example.com/app:1\"")
        .await;
    node.event("Failed", "Error: ImagePullBackOff").await;
    node.script("r.example.com/app:1", Script::runs());
    node.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn pull_secrets_go_along_and_missing_ones_are_named() {
    let node = TestNode::start().await;
    let content = r#"{"auths":{"r.example.com":{"username":"jane","password":"secret"}}}"#;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "login", "namespace": "default"},
        "stringData": {".dockerconfigjson": content},
    });
    node.create::<Secret>(secret).await;
    let spec = json!({"imagePullSecrets": [{"name": "login"}, {"name": "none"}]});
    node.run("web", "r.example.com/app:1", spec).await;
    node.ready("web").await;
    let words = "Unable to retrieve some image pull secrets (none); attempting to pull the image may not succeed.";
    node.event("FailedToRetrieveImagePullSecret", words).await;
    let calls = node.runtime.calls();
    let request = calls.iter().find_map(|call| match call {
        Call::EnsureImage(request) => Some(request),
        _ => None,
    });
    let secrets = &request.expect("it was pulled").pull_secrets;
    assert_eq!(secrets.len(), 1);
    assert_eq!(secrets[0].name, "default/login");
    assert_eq!(secrets[0].content, content.as_bytes());
    assert!(
        !format!("{calls:?}").contains("secret\""),
        "no password is shown"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_the_images_that_no_pod_uses() {
    let node = TestNode::start().await;
    for name in ["used", "unused"] {
        node.run(name, &format!("r.example.com/{name}:1"), json!({}))
            .await;
        node.ready(name).await;
    }
    node.until::<Node>("the node shows its images", |nodes| {
        nodes.iter().any(|node| {
            let shown = shown(node);
            shown.contains(&"r.example.com/used:1".to_owned()) && shown.len() == 4
        })
    })
    .await;
    node.delete("unused", Some(0)).await;
    node.gone("unused").await;
    // Nothing goes as long as there is room.
    node.runtime.fill_disk(ImageFs {
        capacity: 1000,
        available: 500,
    });
    node.clock.sleep(Duration::from_secs(1000)).await;
    node.until::<Node>("both images are there", |nodes| {
        nodes.iter().any(|node| shown(node).len() == 4)
    })
    .await;
    node.runtime.fill_disk(ImageFs {
        capacity: 1000,
        available: 50,
    });
    node.until::<Node>("the unused image is gone", |nodes| {
        nodes.iter().any(|node| {
            let shown = shown(node);
            shown.len() == 2 && shown.contains(&"r.example.com/used:1".to_owned())
        })
    })
    .await;
    node.event(
        "FreeDiskSpaceFailed",
        "Attempted to free 150 bytes, but only found 22 bytes eligible",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_image_of_a_volume_stays_while_its_container_is_made_ready() {
    let node = TestNode::start().await;
    let folder = node.folder.path().join("unpacked");
    std::fs::create_dir(&folder).expect("made");
    node.runtime.unpack("files:1", folder);
    let mounting = |policy: &str| {
        json!({
            "volumes": [{"name": "files", "image": {"reference": "files:1", "pullPolicy": policy}}],
            "containers": [{"volumeMounts": [{"name": "files", "mountPath": "/files"}]}],
        })
    };
    node.run("first", "first:1", mounting("IfNotPresent")).await;
    node.ready("first").await;
    node.delete("first", Some(0)).await;
    node.gone("first").await;
    node.script(
        "slow:1",
        Script::runs().pulls_for(Duration::from_secs(2000)),
    );
    node.run("second", "slow:1", mounting("Never")).await;
    let is_there = |nodes: &[Arc<Node>], image: &str| {
        let mut nodes = nodes.iter();
        nodes.any(|node| shown(node).iter().any(|name| name == image))
    };
    node.until::<Node>("both images are there", |nodes| {
        is_there(nodes, "first:1") && is_there(nodes, "files:1")
    })
    .await;
    // Full enough for images to go, and not for pods.
    node.runtime.fill_disk(ImageFs {
        capacity: 1000,
        available: 120,
    });
    node.until::<Node>("an image is gone", |nodes| !is_there(nodes, "first:1"))
        .await;
    let there = node.runtime.list_images().await;
    let there: Vec<&String> = there.iter().flat_map(|image| &image.names).collect();
    assert_eq!(there, ["files:1"], "only what nobody waits for is gone");
    node.ready("second").await;
}

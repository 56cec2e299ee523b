use std::time::Duration;

use bytes::Bytes;
use coracle_cri::fake::Script;
use futures::TryStreamExt;
use http::Request;
use serde_json::json;

use crate::node::{TestNode, restarts, waiting};

async fn ask(node: &TestNode, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Bytes::new()).expect("a request");
    let response = node.kubelet.serve(request);
    let status = response.status().as_u16();
    let blocks: Vec<Bytes> = response.into_body().try_collect().await.expect("read");
    (status, String::from_utf8(blocks.concat()).expect("text"))
}

#[tokio::test(start_paused = true)]
async fn the_lines_of_a_container_can_be_read_and_followed() {
    let node = TestNode::start().await;
    node.script(
        "chatty",
        Script::exits(0)
            .after(Duration::from_secs(30))
            .prints(&["one", "two"]),
    );
    node.run("web", "chatty", json!({"restartPolicy": "Never"}))
        .await;
    node.ready("web").await;
    let path = "/containerLogs/default/web/app";
    assert_eq!(ask(&node, path).await, (200, "one\ntwo\n".into()));
    assert_eq!(
        ask(&node, &format!("{path}?tailLines=1")).await,
        (200, "two\n".into())
    );
    let before = node.elapsed();
    assert_eq!(
        ask(&node, &format!("{path}?follow=true")).await,
        (200, "one\ntwo\n".into())
    );
    assert!(
        node.elapsed() - before >= 29,
        "it follows until the container ends"
    );
    assert_eq!(
        ask(&node, path).await,
        (200, "one\ntwo\n".into()),
        "and after its end"
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_are_in_upstreams_words() {
    let node = TestNode::start().await;
    node.script("missing", Script::image_error("no"));
    node.run("web", "missing", json!({})).await;
    node.pod_when("web", "it waits", |pod| waiting(pod) == "ErrImagePull")
        .await;
    let expected = [
        (
            "default/web/app",
            400,
            "container \"app\" in pod \"web\" is waiting to start: image can't be pulled",
        ),
        (
            "default/web/app?previous=true",
            400,
            "previous terminated container \"app\" in pod \"web\" not found",
        ),
        (
            "default/web/other",
            404,
            "container \"other\" not found in pod \"web\"",
        ),
        ("default/none/app", 404, "pod \"none\" does not exist"),
        (
            "default/web/app?tailLines=x",
            400,
            "invalid value \"x\" of tailLines: expected a number of 0 or more",
        ),
    ];
    for (path, status, message) in expected {
        assert_eq!(
            ask(&node, &format!("/containerLogs/{path}")).await,
            (status, message.into()),
            "{path}"
        );
    }
    assert_eq!(ask(&node, "/healthz").await, (200, "ok".into()));
    assert_eq!(ask(&node, "/run/x").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_container_shows_its_last_run() {
    let node = TestNode::start().await;
    node.script("crash", Script::exits(1).prints(&["first"]));
    node.run("web", "crash", json!({})).await;
    let waits = |pod: &k8s_openapi::api::core::v1::Pod| {
        waiting(pod) == "CrashLoopBackOff" && restarts(pod) == 1
    };
    node.pod_when("web", "it waits", waits).await;
    assert_eq!(
        ask(&node, "/containerLogs/default/web/app").await,
        (200, "first\n".into())
    );
    assert_eq!(
        ask(&node, "/containerLogs/default/web/app?previous=true").await,
        (200, "first\n".into())
    );
    node.script("crash", Script::runs().prints(&["second"]));
    node.ready("web").await;
    assert_eq!(
        ask(&node, "/containerLogs/default/web/app").await,
        (200, "second\n".into())
    );
    assert_eq!(
        ask(&node, "/containerLogs/default/web/app?previous=true").await,
        (200, "first\n".into())
    );
}

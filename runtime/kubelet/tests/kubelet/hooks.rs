use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_cri::ExecError;
use coracle_cri::fake::{Call, Script};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{TestNode, app, is_ready, phase, restarts, waiting};

fn with_hooks(hooks: Value, grace: u64) -> Value {
    json!({"containers": [{"lifecycle": hooks}], "terminationGracePeriodSeconds": grace})
}

/// Seconds from the deletion of the pod to its end.
async fn deletion(node: &TestNode, name: &str) -> u64 {
    let before = node.elapsed();
    node.delete(name, None).await;
    node.gone(name).await;
    node.elapsed() - before
}

#[tokio::test(start_paused = true)]
async fn a_container_runs_once_its_post_start_hook_has_passed() {
    let node = TestNode::start().await;
    let readiness = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1});
    let mut spec = with_hooks(json!({"postStart": {"sleep": {"seconds": 30}}}), 30);
    spec["containers"][0]["readinessProbe"] = readiness;
    node.run("web", "app:1", spec).await;
    let early = node
        .pod_when("web", "it waits", |pod| waiting(pod) == "ContainerCreating")
        .await;
    assert_eq!(phase(&early), "Pending");
    let pod = node.ready("web").await;
    assert!((30..=31).contains(&node.elapsed()), "{}", node.elapsed());
    assert_eq!(app(&pod).and_then(|app| app.started), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_post_start_hook_fails_is_ended_and_started_again() {
    let node = TestNode::start().await;
    node.runtime.on_exec(|process| {
        assert_eq!(process.command, ["warm-up"]);
        Ok(Box::pin(async { Ok(1) }))
    });
    let hook = json!({"postStart": {"exec": {"command": ["warm-up"]}}});
    node.run("web", "app:1", with_hooks(hook, 5)).await;
    node.event("FailedPostStartHook", "PostStartHook failed")
        .await;
    node.event("Killing", "FailedPostStartHook").await;
    let pod = node
        .pod_when("web", "it is tried again", |pod| restarts(pod) == 2)
        .await;
    assert!(!is_ready(&pod));
    node.runtime.on_exec(|_| Ok(Box::pin(async { Ok(0) })));
    node.ready("web").await;
}

/// A hook in TLS with a password, and a server that answers the offer of TLS with `refusal`. Returns the
/// requests that came without TLS.
async fn plain_requests(refusal: &'static [u8], node: &TestNode) -> Arc<Mutex<Vec<String>>> {
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let seen = requests.clone();
    node.runtime.on_connect(move |_, mut stream| {
        let seen = seen.clone();
        tokio::spawn(async move {
            let mut request = [0; 2048];
            let count = stream.read(&mut request).await.unwrap_or(0);
            // A handshake begins with this.
            if request[0] == 22 {
                let _ = stream.write_all(refusal).await;
                return;
            }
            let text = String::from_utf8_lossy(&request[..count]).into_owned();
            seen.lock().expect("no panic").push(text);
            let reply = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(reply).await;
        });
    });
    let headers = json!([{"name": "Authorization", "value": "Basic c2VjcmV0"},
                         {"name": "X-Kept", "value": "1"}]);
    let get = json!({"port": "http", "scheme": "HTTPS", "httpHeaders": headers});
    let hook = json!({"postStart": {"httpGet": get}});
    node.run("web", "app:1", with_hooks(hook, 5)).await;
    requests
}

#[tokio::test(start_paused = true)]
async fn a_hook_falls_back_to_plain_http_only_where_there_is_no_tls_and_without_its_password() {
    let node = TestNode::start().await;
    let requests = plain_requests(b"HTTP/1.0 400 Bad Request\r\n\r\n", &node).await;
    node.ready("web").await;
    let requests = requests.lock().expect("no panic").clone();
    let [request] = &requests[..] else {
        panic!("{requests:?}")
    };
    let request = request.to_lowercase();
    assert!(request.contains("x-kept: 1"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
    // A server that hangs up, and one that refuses with an alert of TLS (handshake_failure).
    for refusal in [b"".as_slice(), &[21, 3, 3, 0, 2, 2, 40]] {
        let node = TestNode::start().await;
        let requests = plain_requests(refusal, &node).await;
        node.event("FailedPostStartHook", "PostStartHook failed")
            .await;
        assert!(requests.lock().expect("no panic").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_pre_stop_hook_takes_its_time_from_the_grace() {
    let node = TestNode::start().await;
    node.script("stubborn", Script::runs().ignores_stop());
    for (sleep, grace, stop, took) in [
        (5, None, "stop app 55", 60),
        // It is cut off, and the container has the least there is.
        (60, Some(10), "stop app 2", 12),
    ] {
        let hook = json!({"preStop": {"sleep": {"seconds": sleep}}});
        node.run("web", "stubborn", with_hooks(hook, 60)).await;
        node.ready("web").await;
        let before = node.elapsed();
        node.delete("web", grace).await;
        node.gone("web").await;
        assert_eq!(node.elapsed() - before, took);
        assert_eq!(
            node.begun_and_ended().last().map(String::as_str),
            Some(stop)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_that_fails_is_told_and_holds_nothing_up() {
    let node = TestNode::start().await;
    for handler in [
        json!({"exec": {"command": ["missing"]}}),
        json!({"httpGet": {"port": 9}}),
        json!({"tcpSocket": {"port": "http"}}),
    ] {
        let hook = json!({"preStop": handler});
        node.run("web", "app:1", with_hooks(hook, 20)).await;
        node.ready("web").await;
        assert_eq!(deletion(&node, "web").await, 0);
        assert_eq!(
            node.begun_and_ended().last().map(String::as_str),
            Some("stop app 20")
        );
    }
    node.event("FailedPreStopHook", "PreStopHook failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_before_its_container_ends() {
    let node = TestNode::start().await;
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    node.runtime.on_connect(move |port, mut stream| {
        let asked = asked.clone();
        tokio::spawn(async move {
            let mut request = [0; 512];
            let count = tokio::io::AsyncReadExt::read(&mut stream, &mut request)
                .await
                .unwrap_or(0);
            let head = String::from_utf8_lossy(&request[..count]).into_owned();
            let _ = asked.send((port, head));
            let reply = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(reply).await;
        });
    });
    let hook = json!({"preStop": {"httpGet": {"port": "http", "path": "/drain"}}});
    node.run("web", "app:1", with_hooks(hook, 20)).await;
    node.ready("web").await;
    deletion(&node, "web").await;
    let (port, head) = requests.recv().await.expect("a request");
    assert_eq!(port, 8080);
    assert!(head.starts_with("GET /drain HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("host: 10.240.0.2:8080\r\n"), "{head}");
    assert!(head.contains("user-agent: kube-lifecycle/"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_without_grace_calls_no_hooks() {
    let node = TestNode::start().await;
    node.runtime
        .on_exec(|_| Err(ExecError::Failed("not now".to_owned())));
    let hook = json!({"preStop": {"exec": {"command": ["bye"]}}});
    node.run("web", "app:1", with_hooks(hook, 20)).await;
    let pod = node.ready("web").await;
    node.delete("web", Some(0)).await;
    node.gone("web").await;
    node.clock.sleep(Duration::from_secs(5)).await;
    let calls = node.runtime.calls();
    assert!(!calls.iter().any(|call| matches!(call, Call::Exec(..))));
    assert!(
        node.runtime
            .sandbox(&node.container(&pod).sandbox)
            .is_none()
    );
}

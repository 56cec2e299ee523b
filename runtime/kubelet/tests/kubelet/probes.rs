use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use coracle_cri::fake::{Call, Script};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
    let pod = node.ready("web").await;
    assert!((20..=25).contains(&node.elapsed()), "{}", node.elapsed());
    // Why it was not ready is not told of one that is.
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    assert!(
        conditions.all(|one| one.reason.is_none() && one.message.is_none()),
        "{:?}",
        pod.status
    );
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
async fn a_delay_counts_from_the_start_of_the_container() {
    let node = TestNode::start().await;
    node.script("slow", Script::serves_after(Duration::from_secs(60)));
    let startup =
        json!({"tcpSocket": {"port": "http"}, "periodSeconds": 10, "failureThreshold": 30});
    let readiness = json!({"tcpSocket": {"port": "http"}, "initialDelaySeconds": 60});
    let probes = json!({"startupProbe": startup, "readinessProbe": readiness});
    node.run("started", "slow", probed(probes)).await;
    node.ready("started").await;
    assert!((60..=75).contains(&node.elapsed()), "{}", node.elapsed());
    let before = node.elapsed();
    node.run(
        "plain",
        "app:1",
        probed(json!({"readinessProbe": readiness})),
    )
    .await;
    node.ready("plain").await;
    let took = node.elapsed() - before;
    assert!((60..=62).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn attempts_that_take_long_come_as_often_as_others() {
    let node = TestNode::start().await;
    node.runtime
        .on_exec(|_| Ok(Box::pin(std::future::pending())));
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 10, "timeoutSeconds": 9});
    node.run("web", "app:1", probed(json!({"livenessProbe": probe})))
        .await;
    node.pod_when("web", "it is started again", |pod| restarts(pod) == 1)
        .await;
    // The third attempt begins after 20 seconds.
    assert!((29..=32).contains(&node.elapsed()), "{}", node.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_command_decides_whether_a_container_is_ready() {
    let node = TestNode::start().await;
    node.runtime.on_exec(|mut process| {
        Ok(Box::pin(async move {
            let stdout = process.stdout.as_mut().expect("it is read");
            stdout.write_all(b"not yet").await.expect("room");
            Ok(1)
        }))
    });
    let probe = json!({"exec": {"command": ["check", "me"]}, "periodSeconds": 5});
    node.run("web", "app:1", probed(json!({"readinessProbe": probe})))
        .await;
    node.event("Unhealthy", "Readiness probe failed: not yet")
        .await;
    node.runtime.on_exec(|process| {
        assert_eq!(process.command, ["check", "me"]);
        Ok(Box::pin(async { std::future::pending().await }))
    });
    let slow = "Readiness probe failed: command timed out: \"check me\" timed out after 1s";
    node.event("Unhealthy", slow).await;
    node.runtime.on_exec(|_| Ok(Box::pin(async { Ok(0) })));
    node.ready("web").await;
    let calls = node.runtime.calls().into_iter();
    let mut waits = calls.filter_map(|call| match call {
        Call::Exec(_, request) => Some(request.waits),
        _ => None,
    });
    assert!(
        waits.all(|waits| waits),
        "users' sessions are no reason to give up"
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_made_says_nothing_about_the_container() {
    let node = TestNode::start().await;
    // No command is found.
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    node.run("web", "app:1", probed(json!({"livenessProbe": probe})))
        .await;
    node.event(
        "Unhealthy",
        "Liveness probe errored and resulted in unknown state: check: not found",
    )
    .await;
    node.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(restarts(&*node.ready("web").await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_decides_by_its_status() {
    let node = TestNode::start().await;
    let status = Arc::new(AtomicU16::new(503));
    let shown = status.clone();
    node.runtime.on_connect(move |_, mut stream| {
        let status = shown.load(Ordering::SeqCst);
        tokio::spawn(async move {
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes()).await;
        });
    });
    let probe = json!({"httpGet": {"port": "http"}, "periodSeconds": 5});
    node.run("web", "app:1", probed(json!({"readinessProbe": probe})))
        .await;
    let failed = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    node.event("Unhealthy", failed).await;
    status.store(200, Ordering::SeqCst);
    node.ready("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_behind_tls_is_asked_and_not_verified() {
    let node = TestNode::start().await;
    let names = ["somebody.example".to_owned()];
    let own = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .expect("a key of its certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    node.runtime.on_connect(move |_, stream| {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            let reply = b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.write_all(reply).await;
        });
    });
    // Without TLS the server says nothing that is HTTP.
    let plain = json!({"httpGet": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    node.run("plain", "app:1", probed(json!({"readinessProbe": plain})))
        .await;
    node.event(
        "Unhealthy",
        "Readiness probe failed: Get \"http://10.240.0.2:8080/\"",
    )
    .await;
    let secure = json!({"httpGet": {"port": "http", "scheme": "HTTPS"}, "periodSeconds": 1});
    node.run("secure", "app:1", probed(json!({"readinessProbe": secure})))
        .await;
    node.ready("secure").await;
}

//! More than can be served at once: refusals come at once, say when to come again, and leave room for others.

use std::time::Duration;

use bytes::Bytes;
use coracle_server::Identity;
use http::StatusCode;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;

use crate::support::{CONFIG_MAPS, TestServer, event, request};

/// A request whose body never comes.
fn stuck(path: &str) -> http::Request<coracle_server::Body> {
    let body = StreamBody::new(futures::stream::pending()).boxed_unsync();
    let (mut parts, _) = request("POST", path, "application/json", None).into_parts();
    parts
        .extensions
        .insert(Identity::new("admin", ["system:masters"]));
    http::Request::from_parts(parts, body)
}

#[tokio::test(start_paused = true)]
async fn past_the_limit_clients_are_told_when_to_come_again() {
    let server = TestServer::start_with(|config| config.max_in_flight = 1).await;
    let api = server.api.clone();
    let first = tokio::spawn(async move { api.handle(stuck(CONFIG_MAPS)).await });
    tokio::task::yield_now().await;
    let answer = server.get(CONFIG_MAPS).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers["retry-after"], "1");
    // Watches have places of their own.
    server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    first.abort();
    let _ = first.await;
    server.get(CONFIG_MAPS).await.ok();
}

#[tokio::test(start_paused = true)]
async fn watches_hold_their_places_until_they_end() {
    let server = TestServer::start_with(|config| config.max_long_running = 1).await;
    let path = format!("{CONFIG_MAPS}?watch=1");
    let watch = server.watch(&path).await;
    let answer = server.get(&path).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers["retry-after"], "1");
    server.get(CONFIG_MAPS).await.ok();
    drop(watch);
    server.watch(&path).await;
    // One that was refused or has ended holds nothing.
    server
        .get(&format!("{path}&resourceVersion=x"))
        .await
        .failure();
    server.get(&format!("{path}&timeoutSeconds=1")).await;
    server.watch(&path).await;
}

#[tokio::test(start_paused = true)]
#[expect(
    clippy::disallowed_methods,
    reason = "the paused clock itself is what is measured"
)]
async fn requests_end_when_their_time_is_up() {
    let server = TestServer::start().await;
    for (query, seconds) in [("?timeout=2s", 2), ("", 60), ("?timeout=10m", 60)] {
        let before = tokio::time::Instant::now();
        let path = format!("{CONFIG_MAPS}{query}");
        let response = server.api.handle(stuck(&path)).await;
        let took = before.elapsed();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT, "{query}");
        assert!(took >= Duration::from_secs(seconds), "{query}: {took:?}");
        assert!(took < Duration::from_secs(seconds + 2), "{query}: {took:?}");
        let body = response.into_body().collect().await.expect("a body");
        let status: serde_json::Value = serde_json::from_slice(&body.to_bytes()).expect("a status");
        assert_eq!(
            (&status["reason"], &status["code"]),
            (&json!("Timeout"), &json!(504))
        );
    }
    let (code, _, message) = server
        .get(&format!("{CONFIG_MAPS}?timeout=soon"))
        .await
        .failure();
    assert_eq!(code, 400);
    assert!(
        message.starts_with("invalid timeout specified in the request URL"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let server = TestServer::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    server.config_map("x", json!({})).await;
    for n in 0..2000 {
        let body = json!({"data": {"a": n.to_string()}});
        server.merge(&format!("{CONFIG_MAPS}/x"), body).await.ok();
    }
    assert_eq!(watch.event().await, event("ADDED", "x"));
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert!(seen < 2000, "{seen} changes waited for one client");
    // The others go on.
    server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
}

#[tokio::test(start_paused = true)]
async fn protobuf_answers_are_the_same_objects() {
    let server = TestServer::start().await;
    server.config_map("x", json!({"l": "1"})).await;
    let accept = "application/vnd.kubernetes.protobuf";
    let holds = |body: &Bytes, text: &[u8]| body.windows(text.len()).any(|part| part == text);
    for path in [format!("{CONFIG_MAPS}/x"), CONFIG_MAPS.to_owned()] {
        let first = server.get_accepting(&path, accept).await;
        assert_eq!(first.headers["content-type"], accept);
        assert!(first.body.starts_with(b"k8s\0") && holds(&first.body, b"default"));
        let again = server.get_accepting(&path, accept).await;
        assert_eq!(first.body, again.body);
    }
    let missing = server
        .get_accepting(&format!("{CONFIG_MAPS}/none"), accept)
        .await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert!(missing.body.starts_with(b"k8s\0") && holds(&missing.body, b"NotFound"));
    let watched = server
        .get_accepting(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), accept)
        .await;
    assert_eq!(
        watched.headers["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let length = u32::from_be_bytes(watched.body[..4].try_into().expect("a frame"));
    assert_eq!(watched.body.len(), length as usize + 4);
    assert!(holds(&watched.body, b"ADDED") && holds(&watched.body, b"k8s\0"));
}

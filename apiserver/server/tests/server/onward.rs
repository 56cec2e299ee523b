//! What pods and kubelets are told of a request that the API server hands on, and how their answers are seen.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_server::authz::Mode;
use coracle_server::{Body, DialError, NodeDialer};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use crate::connections::Anybody;
use crate::connects::{Heads, running_pod};
use crate::support::{PODS, TestServer, request};

/// A server whose pods answer with the head of what they are sent.
async fn server() -> TestServer {
    let server = TestServer::start_with(|config| {
        config.cluster_dialer = Arc::new(Heads);
        config.authorizers = vec![Mode::Other(Box::new(Anybody))];
    });
    let server = server.await;
    running_pod(&server, "x", "10.1.2.3").await;
    server
}

/// What the pod is told of `request`, which comes from 192.0.2.7 over HTTP/1.1 or 2.
async fn told(server: &TestServer, request: Request<Empty<Bytes>>, http2: bool) -> String {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let api = server.api.clone();
    let from: IpAddr = [192, 0, 2, 7].into();
    let serving = tokio::spawn(async move { api.serve(far, None, Some(from)).await });
    let io = TokioIo::new(near);
    let answer = if http2 {
        let executor = TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    };
    let told = answer
        .into_body()
        .collect()
        .await
        .expect("whole")
        .to_bytes();
    serving.abort();
    String::from_utf8_lossy(&told).into_owned()
}

/// The lines of a head that begin with one of these, sorted.
fn lines(head: &str, names: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = head
        .lines()
        .filter(|line| {
            names
                .iter()
                .any(|name| line.starts_with(&format!("{name}:")))
        })
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn pods_are_told_which_host_was_asked_from_where_and_for_what() {
    let server = server().await;
    let names = [
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-uri",
        "x-own",
        "keep-alive",
    ];
    for http2 in [false, true] {
        let path = format!("{PODS}/x/proxy/a%20b//c/?d=e");
        let mut asked = match http2 {
            true => Request::get(format!("http://cluster:6443{path}")),
            // Neither is for the pod: the connection names the one, and the other is about it.
            false => Request::get(path)
                .header("host", "cluster:6443")
                .header("connection", "x-own")
                .header("keep-alive", "timeout=9")
                .header("x-own", "1"),
        };
        asked = asked
            .header("x-forwarded-for", "198.51.100.1, 198.51.100.2")
            .header("x-forwarded-host", "outside");
        let asked = asked.body(Empty::new()).expect("a request");
        let head = told(&server, asked, http2).await;
        assert!(head.starts_with("GET /a%20b/c/?d=e HTTP/1.1\r\n"), "{head}");
        assert_eq!(
            lines(&head, &names),
            [
                "host: cluster:6443".to_owned(),
                "x-forwarded-for: 198.51.100.1, 198.51.100.2, 192.0.2.7".to_owned(),
                "x-forwarded-host: outside".to_owned(),
                format!("x-forwarded-uri: {PODS}/x/proxy/a b/c/"),
            ],
            "HTTP/2: {http2}"
        );
    }
}

/// A node whose kubelet shows a page, moves clients on from `/moved`, and tells the host that it was asked for.
struct Kubelet;

#[async_trait]
impl NodeDialer for Kubelet {
    async fn request(&self, _: &str, asked: Request<Bytes>) -> Result<Response<Body>, DialError> {
        let page = r#"<a href="/logs/a">a</a><a href="https://node-a:10250/pods">b</a>"#;
        let mut response = Response::new(
            Full::new(Bytes::from(page))
                .map_err(|never| match never {})
                .boxed_unsync(),
        );
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert("content-type", "text/html".parse().expect("a header"));
        headers.insert("x-asked", asked.headers()["host"].clone());
        headers.insert("keep-alive", "timeout=9".parse().expect("a header"));
        if asked.uri().path() == "/moved" {
            headers.insert("location", "/logs/".parse().expect("a header"));
            *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
        }
        Ok(response)
    }
}

#[tokio::test(start_paused = true)]
async fn the_pages_of_a_kubelet_stay_in_the_proxy() {
    let server = TestServer::start_with(|config| config.dialer = Arc::new(Kubelet)).await;
    let addresses = json!([
        {"type": "InternalIP", "address": "10.0.0.9"},
        {"type": "Hostname", "address": "node-a"},
    ]);
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": addresses}});
    server.post("/api/v1/nodes", node.clone()).await.ok();
    server.put("/api/v1/nodes/n/status", node).await.ok();
    let proxy = "/api/v1/nodes/n/proxy";
    let ask = |path: &str| {
        let mut asked = request("GET", &format!("{proxy}{path}"), "", None);
        let host = "cluster:6443".parse().expect("a header");
        asked.headers_mut().insert("host", host);
        server.send(asked)
    };
    let page = ask("/logs/").await;
    assert_eq!(page.headers["x-asked"], "cluster:6443");
    assert!(!page.headers.contains_key("keep-alive"));
    assert_eq!(
        page.body,
        format!(r#"<a href="{proxy}/logs/a">a</a><a href="{proxy}/pods">b</a>"#)
    );
    let moved = ask("/moved").await;
    assert_eq!(moved.status, 301);
    assert_eq!(moved.headers["location"], format!("{proxy}/logs/").as_str());
    let root = ask("?a=b").await;
    assert_eq!(root.headers["location"], format!("{proxy}/?a=b").as_str());
}

//! `exec`, `attach`, `portforward` and `proxy`: what is refused, and what goes on to whom.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_server::authn::{HeaderNames, RequestHeader};
use coracle_server::{ClusterDialer, Connection, DialError, Identity};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{PODS, TestServer, request};

/// A network in which every address answers what it was asked.
struct Echo;

#[async_trait]
impl ClusterDialer for Echo {
    async fn connect(&self, address: IpAddr, port: u16) -> Result<Box<dyn Connection>, DialError> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut asked = vec![0; 4096];
            let length = far.read(&mut asked).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&asked[..length]);
            let line = line.lines().next().unwrap_or_default().to_owned();
            let body = format!("{address}:{port} {line}");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/x-echo\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}

/// A network in which every address answers with the head of what it was sent.
pub(crate) struct Heads;

#[async_trait]
impl ClusterDialer for Heads {
    async fn connect(&self, _: IpAddr, _: u16) -> Result<Box<dyn Connection>, DialError> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut asked = vec![0; 4096];
            let length = far.read(&mut asked).await.unwrap_or(0);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            let _ = far.write_all(head.as_bytes()).await;
            let _ = far.write_all(&asked[..length]).await;
        });
        Ok(Box::new(near))
    }
}

pub(crate) async fn running_pod(server: &TestServer, name: &str, address: &str) {
    server.pod(name, Some("n")).await;
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    server
        .merge(&format!("{PODS}/{name}/status"), status)
        .await
        .ok();
}

#[tokio::test(start_paused = true)]
async fn streams_are_refused_step_by_step() {
    let server = TestServer::start().await;
    let exec = |name: &str| format!("{PODS}/{name}/exec?command=ls&stdout=1");
    assert_eq!(
        server.get(&exec("none")).await.failure().2,
        "pods \"none\" not found"
    );
    server.pod("x", None).await;
    assert_eq!(
        server.get(&exec("x")).await.failure(),
        (
            400,
            "BadRequest".to_owned(),
            "pod x does not have a host assigned".to_owned()
        )
    );
    server.pod("y", Some("n")).await;
    for path in [exec("y"), format!("{PODS}/y/log")] {
        assert_eq!(server.get(&path).await.failure().2, "nodes \"n\" not found");
    }
    let address = json!([{"type": "InternalIP", "address": "10.0.0.9"}]);
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": address}});
    server.post("/api/v1/nodes", node.clone()).await.ok();
    server.put("/api/v1/nodes/n/status", node).await.ok();
    assert_eq!(
        server
            .get(&format!("{}&container=b", exec("y")))
            .await
            .failure()
            .2,
        "container b is not valid for pod y"
    );
    for path in [
        exec("y"),
        format!("{PODS}/y/attach"),
        format!("{PODS}/y/portforward"),
    ] {
        assert_eq!(
            server.get(&path).await.failure().2,
            "Upgrade request required"
        );
        assert_eq!(server.post(&path, json!({})).await.failure().0, 400);
        assert_eq!(server.delete(&path).await.failure().0, 405);
    }
    let mut upgrade = request("GET", &exec("y"), "", None);
    upgrade
        .headers_mut()
        .insert("connection", "Upgrade".parse().expect("a header"));
    upgrade
        .headers_mut()
        .insert("upgrade", "websocket".parse().expect("a header"));
    let (code, _, message) = server.send(upgrade).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (500, "no kubelet is known for node n")
    );
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_kubelet_need_the_right_to_create() {
    let server = TestServer::start().await;
    let address = json!([{"type": "InternalIP", "address": "10.0.0.9"}]);
    let node = json!({"metadata": {"name": "n"}, "status": {"addresses": address}});
    server.post("/api/v1/nodes", node.clone()).await.ok();
    server.put("/api/v1/nodes/n/status", node).await.ok();
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (user, verbs) in [("jane", json!(["get"])), ("john", json!(["get", "create"]))] {
        let rule = json!({"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": verbs});
        let role = json!({"metadata": {"name": user}, "rules": [rule]});
        server
            .post(&format!("{rbac}/clusterroles"), role)
            .await
            .ok();
        let group = "rbac.authorization.k8s.io";
        let binding = json!({
            "metadata": {"name": user},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": user},
        });
        let bindings = format!("{rbac}/clusterrolebindings");
        server.post(&bindings, binding).await.ok();
    }
    // The roles are in force.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for (user, expected) in [("jane", 403), ("john", 500)] {
        let path = "/api/v1/nodes/n/proxy/exec/default/x/c?command=ls";
        let mut upgrade = request("GET", path, "", None);
        upgrade.extensions_mut().insert(Identity::component(user));
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
            let value = value.parse().expect("a header");
            upgrade.headers_mut().insert(name, value);
        }
        let (code, _, message) = server.send_as_is(upgrade).await.failure();
        assert_eq!(code, expected, "{user}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn proxies_without_a_network_reach_nobody() {
    let server = TestServer::start().await;
    running_pod(&server, "x", "10.1.2.3").await;
    let (code, reason, message) = server.get(&format!("{PODS}/x/proxy/")).await.failure();
    assert_eq!((code, reason.as_str()), (503, "ServiceUnavailable"));
    assert_eq!(
        message,
        "error trying to reach service: dial tcp 10.1.2.3:80: connect: network is unreachable"
    );
    server.pod("z", None).await;
    assert_eq!(
        server.get(&format!("{PODS}/z/proxy/")).await.failure().2,
        "address not allowed"
    );
    let (code, _, message) = server
        .get(&format!("{PODS}/ftp:x:1/proxy/"))
        .await
        .failure();
    assert_eq!(
        (code, message.as_str()),
        (400, "invalid pod request \"ftp:x:1\"")
    );
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    server.post(services, service).await.ok();
    for (name, message) in [
        ("s", "no endpoints available for service \"s\""),
        ("s:80", "no endpoints available for service \"s:80\""),
        ("s:81", "no service port 81 found for service \"s\""),
        ("none", "services \"none\" not found"),
    ] {
        let answer = server.get(&format!("{services}/{name}/proxy/")).await;
        assert_eq!(answer.failure().2, message);
    }
    let answer = server.get("/api/v1/nodes/none/proxy/").await;
    assert_eq!(answer.failure().2, "nodes \"none\" not found");
}

#[tokio::test(start_paused = true)]
async fn proxies_carry_path_and_query_to_the_pod() {
    let server = TestServer::start_with(|config| config.cluster_dialer = Arc::new(Echo)).await;
    running_pod(&server, "x", "10.1.2.3").await;
    let answer = server
        .get(&format!("{PODS}/x:8080/proxy/a%20b//c/?d=e"))
        .await;
    assert_eq!(answer.headers["content-type"], "text/x-echo");
    assert_eq!(answer.body, "10.1.2.3:8080 GET /a%20b/c/?d=e HTTP/1.1");
    let answer = server.post(&format!("{PODS}/x/proxy/a"), json!({})).await;
    assert_eq!(answer.body, "10.1.2.3:80 POST /a HTTP/1.1");
    let answer = server.get(&format!("{PODS}/x/proxy?d=e")).await;
    assert_eq!(answer.status, 301);
    assert_eq!(
        answer.headers["location"],
        format!("{PODS}/x/proxy/?d=e").as_str()
    );
}

/// A network in which every address counts the bytes that it is sent, and redirects from `/moved`.
struct Counter {
    /// With it, TLS is spoken.
    tls: Option<tokio_rustls::TlsAcceptor>,
}

#[async_trait]
impl ClusterDialer for Counter {
    async fn connect(
        &self,
        _address: IpAddr,
        _port: u16,
    ) -> Result<Box<dyn Connection>, DialError> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let tls = self.tls.clone();
        tokio::spawn(async move {
            match tls {
                Some(tls) => count(tls.accept(far).await.expect("a handshake")).await,
                None => count(far).await,
            }
        });
        Ok(Box::new(near))
    }
}

async fn count(stream: impl Connection + 'static) {
    let service = service_fn(async |request: Request<hyper::body::Incoming>| {
        let moved = request.uri().path() == "/moved";
        let mut body = request.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, Bytes::len);
        }
        let mut response = Response::new(Full::new(Bytes::from(bytes.to_string())));
        if moved {
            *response.status_mut() = http::StatusCode::FOUND;
            let location = "/login".parse().expect("a header");
            response.headers_mut().insert("location", location);
        }
        Ok::<_, hyper::Error>(response)
    });
    let connection = hyper::server::conn::http1::Builder::new();
    let _ = connection
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[tokio::test(start_paused = true)]
async fn bodies_of_any_size_stream_through_the_proxy_and_redirections_stay_in_it() {
    let server =
        TestServer::start_with(|config| config.cluster_dialer = Arc::new(Counter { tls: None }))
            .await;
    running_pod(&server, "x", "10.1.2.3").await;
    let mut upload = request("POST", &format!("{PODS}/x/proxy/up"), "", None);
    *upload.body_mut() = Full::new(Bytes::from(vec![7; 10 << 20]));
    let answer = server.send(upload).await;
    assert_eq!(answer.body, (10 << 20).to_string());
    let answer = server.get(&format!("{PODS}/x/proxy/moved")).await;
    assert_eq!(answer.status, 302);
    let location = answer.headers["location"].to_str().expect("text");
    assert_eq!(location, format!("{PODS}/x/proxy/login"));
}

/// A network in which every address shows a page, packed if its path says so.
struct Pages;

const PAGE: &str = r#"<html><a href="/next?a=b">/next</a><img src='http://10.1.2.3/i.png'><a href="https://elsewhere/x">"#;

fn packed(coding: &str, page: &str) -> Vec<u8> {
    use std::io::Write;
    let best = flate2::Compression::best();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), best);
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), best);
    match coding {
        "gzip" => {
            gzip.write_all(page.as_bytes()).expect("in memory");
            gzip.finish().expect("in memory")
        }
        "deflate" => {
            deflate.write_all(page.as_bytes()).expect("in memory");
            deflate.finish().expect("in memory")
        }
        _ => page.into(),
    }
}

fn unpacked(coding: &str, bytes: &[u8]) -> String {
    use std::io::Read;
    let mut page = String::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut page),
        "deflate" => flate2::read::DeflateDecoder::new(bytes).read_to_string(&mut page),
        _ => Read::read_to_string(&mut &*bytes, &mut page),
    };
    read.expect("what was packed");
    page
}

#[async_trait]
impl ClusterDialer for Pages {
    async fn connect(
        &self,
        _address: IpAddr,
        _port: u16,
    ) -> Result<Box<dyn Connection>, DialError> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let service = service_fn(async |request: Request<hyper::body::Incoming>| {
                let coding = request.uri().path().trim_matches('/').to_owned();
                let media = match coding.as_str() {
                    "plain" => "text/plain",
                    _ => "text/html; charset=utf-8",
                };
                let page = packed(&coding, &PAGE.repeat(2000));
                let mut response = Response::builder()
                    .header("content-type", media)
                    .header("access-control-allow-origin", "*");
                match coding.as_str() {
                    "gzip" | "deflate" | "br" => {
                        response = response.header("content-encoding", &coding)
                    }
                    _ => {}
                }
                Ok::<_, hyper::Error>(
                    response
                        .body(Full::new(Bytes::from(page)))
                        .expect("an answer"),
                )
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection
                .serve_connection(TokioIo::new(far), service)
                .await;
        });
        Ok(Box::new(near))
    }
}

#[tokio::test(start_paused = true)]
async fn the_links_of_pages_stay_in_the_proxy_packed_or_not() {
    let server = TestServer::start_with(|config| config.cluster_dialer = Arc::new(Pages)).await;
    running_pod(&server, "x", "10.1.2.3").await;
    let proxy = format!("{PODS}/x/proxy");
    let seen = PAGE
        .replace("\"/next", &format!("\"{proxy}/next"))
        .replace("http://10.1.2.3/", &format!("{proxy}/"));
    for (coding, page) in [
        ("", &*seen),
        ("gzip", &seen),
        ("deflate", &seen),
        // What cannot be read, and what is no page, stays as it is.
        ("br", PAGE),
        ("plain", PAGE),
    ] {
        let answer = server.get(&format!("{proxy}/{coding}")).await;
        assert_eq!(answer.status, 200, "{coding}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert!(
            unpacked(coding, &answer.body) == page.repeat(2000),
            "{coding}"
        );
        let head = request("HEAD", &format!("{proxy}/{coding}"), "", None);
        let head = server.send(head).await;
        assert_eq!(
            (head.status.as_u16(), head.body.len()),
            (200, 0),
            "{coding}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn pods_are_not_told_who_asks() {
    let name = http::HeaderName::from_static;
    let server = TestServer::start_with(|config| {
        config.cluster_dialer = Arc::new(Heads);
        config.authentication.request_header = Some(RequestHeader {
            authorities: rustls::server::WebPkiClientVerifier::no_client_auth(),
            allowed_names: Vec::new(),
            headers: HeaderNames {
                users: vec![name("x-user")],
                uids: vec![name("x-uid")],
                groups: vec![name("x-team")],
                extra_prefixes: vec!["x-more-".to_owned()],
            },
        });
    })
    .await;
    running_pod(&server, "x", "10.1.2.3").await;
    let mut asked = request("GET", &format!("{PODS}/x/proxy/"), "", None);
    let own = ["x-user", "x-uid", "x-team", "x-more-scope"];
    let standard = ["authorization", "x-remote-user", "x-remote-extra-scope"];
    for header in own.into_iter().chain(standard).chain(["x-kept"]) {
        let value = "said".parse().expect("a header");
        asked.headers_mut().insert(name(header), value);
    }
    let told = server.send(asked).await;
    let told = String::from_utf8_lossy(&told.body).into_owned();
    assert!(told.contains("x-kept: said"), "{told}");
    assert_eq!(told.matches(": said").count(), 1, "{told}");
}

#[tokio::test(start_paused = true)]
async fn pods_that_speak_tls_are_reached_whatever_their_certificate() {
    let own = rcgen::generate_simple_self_signed(["pod".to_owned()]).expect("a certificate");
    let key = own.signing_key.serialize_der().try_into().expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("a pair");
    let tls = Some(Arc::new(config).into());
    let server =
        TestServer::start_with(|config| config.cluster_dialer = Arc::new(Counter { tls })).await;
    running_pod(&server, "x", "10.1.2.3").await;
    let answer = server
        .post(&format!("{PODS}/https:x:443/proxy/up"), json!("four"))
        .await;
    assert_eq!(answer.body, "6");
    let (code, _, message) = server
        .post(&format!("{PODS}/x:443/proxy/up"), json!("four"))
        .await
        .failure();
    assert_eq!(code, 503, "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_pods_extra_subresources_change_only_their_part() {
    let server = TestServer::start().await;
    server.pod("x", None).await;
    let debugger =
        json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}], "nodeName": "n"}});
    let path = format!("{PODS}/x/ephemeralcontainers");
    let pod = server
        .patch(&path, "application/strategic-merge-patch+json", debugger)
        .await
        .ok();
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["name"], "d");
    assert_eq!(
        (&pod["spec"]["nodeName"], &pod["metadata"]["generation"]),
        (&json!(null), &json!(2))
    );
    let gone = json!({"spec": {"ephemeralContainers": null}});
    let (code, _, message) = server.merge(&path, gone).await.failure();
    assert_eq!(code, 422);
    assert!(
        message.contains("existing ephemeral containers \"d\" may not be removed"),
        "{message}"
    );
    server.get(&path).await.ok();
    let more = json!({"spec": {"containers": [{"name": "a", "image": "other", "resources": {"requests": {"cpu": "1"}}}]}});
    let path = format!("{PODS}/x/resize");
    let answer = server
        .patch(&path, "application/strategic-merge-patch+json", more)
        .await;
    assert!(answer.failure().2.contains("Pod QOS Class may not change"));
}

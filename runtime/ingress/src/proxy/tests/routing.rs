//! Whom a request reaches, and what it is answered when it reaches nobody.

use std::sync::atomic::Ordering;

use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{World, empty, full, get, read, request};
use crate::settings::{Redirect, Settings};

/// Answers with the head that it got.
async fn head_of<B>(request: Request<B>) -> Response<super::world::TestBody> {
    let mut lines = vec![format!("{} {}", request.method(), request.uri())];
    let headers: &HeaderMap = request.headers();
    for (name, value) in headers {
        lines.push(format!("{name}: {}", value.to_str().unwrap_or("?")));
    }
    lines.sort();
    Response::new(full(lines.join("\n")))
}

#[tokio::test(start_paused = true)]
async fn a_request_reaches_a_pod_and_says_where_it_came_from() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, head_of);
    let (status, text) = world.get("/a%20b?q=1").await;
    assert_eq!(status, 200);
    let wanted = "GET /a%20b?q=1\nhost: web.localhost:8080\nx-forwarded-for: 192.0.2.7\n\
                  x-forwarded-host: web.localhost:8080\nx-forwarded-port: 8080\n\
                  x-forwarded-proto: http\nx-real-ip: 192.0.2.7";
    assert_eq!(text, wanted);
}

#[tokio::test(start_paused = true)]
async fn connections_stay_open_between_requests_and_not_for_long() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    let connections = world.backend(2, head_of);
    for _ in 0..5 {
        assert_eq!(world.get("/").await.0, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(world.proxy.pool.kept(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_eq!(world.proxy.pool.kept(), 0);
    assert_eq!(world.get("/").await.0, 200);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_in_the_answer() {
    let world = World::new();
    let (status, text) = world.get("/").await;
    assert_eq!(
        (status, text.as_str()),
        (404, "404 Not Found: no Ingress is served here so far\n")
    );
    world.route("/nobody", "nobody", Settings::default());
    world.route("/empty", "empty", Settings::default());
    world.route("/refuses", "refuses", Settings::default());
    let closed = Settings {
        closed_by: Some("nginx.ingress.kubernetes.io/auth-url".to_owned()),
        ..Settings::default()
    };
    world.route("/closed", "empty", closed);
    world.serve_at("empty", &[]);
    world.serve_at("refuses", &[9]);
    for (path, wanted, part) in [
        (
            "/other",
            404,
            "no Ingress has a rule for the host \"web.localhost\" and the path \"/other\"",
        ),
        ("/nobody", 503, "service default/nobody was not found"),
        (
            "/empty",
            503,
            "service default/empty has no ready endpoints",
        ),
        ("/refuses", 503, "10.240.0.9:80 is unreachable"),
        ("/closed", 503, "auth-url, which is not supported"),
    ] {
        let (status, text) = world.get(path).await;
        assert_eq!(status, wanted, "{path}: {text}");
        assert!(text.contains(part), "{path}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_endpoint_is_tried_when_one_cannot_be_reached() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[9, 8, 2]);
    world.backend(2, head_of);
    let mut client = world.client().await;
    let sent = client
        .send_request(request("POST", "/", full("body")))
        .await;
    assert_eq!(read(sent.expect("an answer")).await.0, 200);
}

/// A pod that answers one request on each connection, and closes it when the next one has come.
async fn answers_once(world: &World, last: u8) {
    let (listener, scope) = world.listener(last);
    tokio::spawn(async move {
        let _scope = scope;
        while let Ok(mut stream) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                if stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
                let _ = stream.read(&mut bytes).await;
            });
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_question_is_asked_again_when_a_kept_connection_breaks_and_nothing_else_is() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    answers_once(&world, 2).await;
    for _ in 0..3 {
        assert_eq!(world.get("/").await, (200, "ok".to_owned()));
    }
    let mut client = world.client().await;
    let sent = client
        .send_request(request("POST", "/", full("body")))
        .await;
    let (status, text) = read(sent.expect("an answer")).await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("10.240.0.2:80"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn requests_without_tls_are_redirected_if_the_ingress_says_so() {
    let redirecting = Settings {
        ssl_redirect: Redirect::WithTls,
        ..Settings::default()
    };
    let world = World::with(redirecting);
    world.serve_at("web", &[2]);
    world.backend(2, head_of);
    assert_eq!(world.get("/").await.0, 200, "there is nowhere to go");
    world.proxy.set_https_port(8443);
    let mut client = world.client().await;
    let answer = client.send_request(get("/a?b")).await.expect("an answer");
    assert_eq!(answer.status(), 308);
    assert_eq!(
        answer.headers()["location"],
        "https://web.localhost:8443/a?b"
    );
}

#[tokio::test(start_paused = true)]
async fn paths_are_rewritten() {
    let rewriting = Settings {
        rewrite: Some("/inner".to_owned()),
        ..Settings::default()
    };
    let world = World::with(rewriting);
    world.serve_at("web", &[2]);
    world.backend(2, head_of);
    let (_, text) = world.get("/outer/x?q=1").await;
    assert!(text.starts_with("GET /inner?q=1\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_make_no_sense_are_refused() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, head_of);
    for (text, wanted) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
            "HTTP/1.1 405",
        ),
        ("GARBAGE\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let mut raw = world.raw();
        raw.write_all(text.as_bytes()).await.expect("sent");
        let mut bytes = vec![0; 4096];
        let read = raw.read(&mut bytes).await.expect("an answer");
        let got = String::from_utf8_lossy(&bytes[..read]);
        assert!(got.starts_with(wanted), "{text:?}: {got}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http2_is_served_by_a_backend_of_http1_and_the_other_way_round() {
    for is_http2 in [false, true] {
        let world = World::with(Settings {
            is_http2,
            ..Settings::default()
        });
        world.serve_at("web", &[2]);
        let connections = world.backend(2, head_of);
        let mut two = world.client_http2().await;
        let mut one = world.client().await;
        let request = Request::builder().uri("http://web.localhost:8080/two");
        let request = request.header("cookie", "a=1").header("cookie", "b=2");
        let answer = two
            .send_request(request.body(empty()).expect("a request"))
            .await;
        let (status, text) = read(answer.expect("an answer")).await;
        assert_eq!(status, 200);
        assert!(text.contains("cookie: a=1; b=2"), "{text}");
        assert!(
            text.contains("x-forwarded-host: web.localhost:8080"),
            "{text}"
        );
        let line = if is_http2 {
            "GET http://web.localhost:8080/two"
        } else {
            "GET /two"
        };
        assert!(text.contains(line), "{text}");
        let answer = one.send_request(get("/one")).await.expect("an answer");
        assert_eq!(read(answer).await.0, 200);
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

#[derive(Default)]
struct Lines(parking_lot::Mutex<Vec<serde_json::Value>>);

impl coracle_services::AccessSink for Lines {
    fn append(&self, line: Vec<u8>) {
        let line = serde_json::from_slice(&line).expect("JSON");
        self.0.lock().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_a_line_of_the_access_log_unless_its_ingress_minds() {
    let lines = std::sync::Arc::<Lines>::default();
    let world = World::telling(Some(lines.clone()));
    let silent = Settings {
        access_log: false,
        ..Settings::default()
    };
    world.route("/quiet", "web", silent);
    world.route("/", "web", Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, head_of);
    assert_eq!(world.get("/quiet").await.0, 200);
    assert_eq!(world.get("/hello?secret=1").await.0, 200);
    let lines = lines.0.lock();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    for (field, value) in [
        ("kind", "request"),
        ("ingress", "default/ing"),
        ("client", "192.0.2.7:5000"),
        ("method", "GET"),
        ("host", "web.localhost"),
        ("path", "/hello"),
        ("endpoint", "10.240.0.2:80"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["whole"], true);
}

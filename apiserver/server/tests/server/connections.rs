//! What bounds connections: silence, endless heads, floods of resets, and answers that nobody reads.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use coracle_server::ServeError;
use coracle_server::authz::{Attributes, Authorizer, Decision, Mode};

use crate::support::{CONFIG_MAPS, TestServer, request};

/// A server whose anonymous clients may do everything, and its connections.
struct Open(TestServer);

impl Open {
    async fn start(max_in_flight: usize) -> Self {
        let server = TestServer::start_with(|config| {
            config.max_in_flight = max_in_flight;
            config.authorizers = vec![Mode::Other(Box::new(Anybody))];
        });
        Self(server.await)
    }

    /// The client's end of a connection, and what becomes of the server's.
    fn connect(&self) -> (DuplexStream, JoinHandle<Result<(), ServeError>>) {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let api = self.0.api.clone();
        (
            near,
            tokio::spawn(async move { api.serve(far, None, None).await }),
        )
    }

    /// ConfigMaps that take some megabytes.
    async fn fill(&self) {
        for n in 0..8 {
            let body = json!({"metadata": {"name": format!("big-{n}")}, "data": {"a": "x".repeat(500_000)}});
            self.0.post(CONFIG_MAPS, body).await.ok();
        }
    }
}

/// Lets everybody do everything.
pub(crate) struct Anybody;

#[async_trait::async_trait]
impl Authorizer for Anybody {
    async fn authorize(&self, _attributes: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
}

fn get(path: &str) -> Request<Empty<bytes::Bytes>> {
    Request::get(path)
        .header("host", "localhost")
        .body(Empty::new())
        .expect("a request")
}

/// Everything that the server sends until it closes the connection.
async fn read_all(mut near: DuplexStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A connection that is cut off ends as well.
    let _ = near.read_to_end(&mut read).await;
    read
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_little_is_sent_away() {
    let server = Open::start(10).await;
    for said in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n",
        "GET /healthz HTTP/1.1\r\nhost: x\r\naccept: ",
    ] {
        let (mut near, serving) = server.connect();
        near.write_all(said.as_bytes()).await.expect("written");
        let answer = String::from_utf8_lossy(&read_all(near).await).into_owned();
        assert!(!answer.contains("200 OK"), "{said:?}: {answer}");
        serving.await.expect("no panic").expect_err("sent away");
    }
}

#[tokio::test(start_paused = true)]
async fn heads_that_never_end_are_refused() {
    let server = Open::start(10).await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(300_000));
    for (fields, refused) in [("x: y\r\n", false), (&many, true), (&long, true)] {
        let (near, serving) = server.connect();
        let (mut reader, mut writer) = tokio::io::split(near);
        let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n");
        // The server need not read all of it.
        let writing = tokio::spawn(async move {
            let _ = writer.write_all(head.as_bytes()).await;
            writer
        });
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let expected = if refused {
            "HTTP/1.1 431"
        } else {
            "HTTP/1.1 200"
        };
        assert!(answer.starts_with(expected), "{answer}");
        writing.abort();
        let _ = serving.await.expect("no panic");
    }
}

/// Asks over a connection that stays open afterwards, and waits for the answer.
async fn ask(near: &mut DuplexStream) -> String {
    let get = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    near.write_all(get).await.expect("written");
    let mut answer = [0; 4096];
    let length = near.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn connections_past_the_most_wait_until_one_ends() {
    let server = Open::start(10).await;
    let (connect, waiting) = tokio::sync::mpsc::unbounded_channel::<DuplexStream>();
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let accept = move || {
        let waiting = Arc::clone(&waiting);
        async move {
            let stream = waiting.lock().await.recv().await;
            Ok((stream.ok_or(std::io::ErrorKind::NotConnected)?, None))
        }
    };
    let api = server.0.api.clone();
    let serving = tokio::spawn(async move { api.serve_all(accept, || None, 2).await });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (near, far) = tokio::io::duplex(16 * 1024);
        connect.send(far).expect("the server listens");
        clients.push(near);
    }
    let mut third = clients.pop().expect("three");
    for client in &mut clients {
        assert!(ask(client).await.starts_with("HTTP/1.1 200 OK"));
    }
    // Both stay open, and are asked on.
    let early = tokio::time::timeout(Duration::from_secs(30), ask(&mut third)).await;
    early.expect_err("two connections are the most");
    for client in &mut clients {
        assert!(ask(client).await.starts_with("HTTP/1.1 200 OK"));
    }
    drop(clients.pop());
    // The answer to what was asked above.
    let mut answer = [0; 15];
    third.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    server.0.api.stop();
    serving.await.expect("no panic");
}

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_resets_ends_the_connection() {
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const GO_AWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u8 = 0xb;
    let server = Open::start(10).await;
    let (near, serving) = server.connect();
    let (reader, mut writer) = tokio::io::split(near);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for n in 0..2000 {
        // GET https / of the static table, and an authority.
        let head = [0x82, 0x84, 0x87, 0x41, 1, b'x'];
        bytes.extend(frame(HEADERS, 0b101, 2 * n + 1, &head));
        bytes.extend(frame(RESET, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let mut answer = Vec::new();
    let mut reader = reader;
    let _ = reader.read_to_end(&mut answer).await;
    let mut rest = answer.as_slice();
    let mut sent_away = false;
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let whole = (9 + length).min(rest.len());
        sent_away |= rest[3] == GO_AWAY && rest[9..whole].get(7) == Some(&ENHANCE_YOUR_CALM);
        rest = &rest[whole..];
    }
    assert!(sent_away, "{answer:?}");
    serving.await.expect("no panic").expect_err("sent away");
    writing.abort();
    // Nothing of it is left: all places are free.
    server.0.get(CONFIG_MAPS).await.ok();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_a_big_answer_loses_it_and_its_place() {
    let server = Open::start(1).await;
    server.fill().await;
    for http2 in [false, true] {
        let (near, serving) = server.connect();
        let io = TokioIo::new(near);
        let answer = if http2 {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(65_535);
            let (mut sender, connection) = builder.handshake(io).await.expect("HTTP/2");
            tokio::spawn(connection);
            let uri = format!("http://localhost{CONFIG_MAPS}");
            sender.send_request(get(&uri)).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
                .await
                .expect("HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(get(CONFIG_MAPS)).await
        };
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        // It is not read: its place stays taken for a while, and no longer.
        let same = || server.0.send_as_is(request("GET", CONFIG_MAPS, "", None));
        let refused = same().await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{http2}");
        tokio::time::sleep(Duration::from_secs(61)).await;
        same().await.ok();
        serving.await.expect("no panic").expect_err("cut off");
        answer.into_body().collect().await.expect_err("incomplete");
    }
}

#[tokio::test(start_paused = true)]
async fn big_answers_arrive_whole_and_free_their_place() {
    let server = Open::start(1).await;
    server.fill().await;
    let (near, _serving) = server.connect();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .expect("HTTP/1.1");
    tokio::spawn(connection);
    for _ in 0..3 {
        let answer = sender
            .send_request(get(CONFIG_MAPS))
            .await
            .expect("an answer");
        assert!(answer.headers().contains_key("content-length"));
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        let list: serde_json::Value = serde_json::from_slice(&body).expect("a list");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(8));
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_end_and_watches_stay() {
    let server = Open::start(10).await;
    let (near, idle) = server.connect();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let uri = format!("http://localhost{CONFIG_MAPS}");
    let answer = sender.send_request(get(&uri)).await.expect("an answer");
    answer.into_body().collect().await.expect("a body");

    let (near, watching) = server.connect();
    let (mut watcher, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let watch = watcher.send_request(get(&format!("{uri}?watch=1"))).await;
    let mut watch = watch.expect("an answer").into_body();

    // The client may hang up first when it is told that this is the end.
    let _ = idle.await.expect("no panic");
    sender.ready().await.expect_err("the connection has ended");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!watching.is_finished());
    server.0.config_map("late", json!({})).await;
    let event = watch.frame().await.expect("an event").expect("a frame");
    assert!(
        event
            .into_data()
            .expect("data")
            .starts_with(b"{\"type\":\"ADDED\"")
    );
}

/// What comes of a connection of HTTP/1.1 whose client says `more` so many seconds after its first request was answered.
async fn said_later(server: &Open, seconds: u64, more: &str) -> (String, Result<(), ServeError>) {
    const GET: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let (mut near, serving) = server.connect();
    near.write_all(GET.as_bytes()).await.expect("written");
    let mut answer = [0; 4096];
    let length = near.read(&mut answer).await.expect("an answer");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    // The server may have gone, which is what is asked.
    let _ = near.write_all(more.as_bytes()).await;
    let read = tokio::time::timeout(Duration::from_secs(95), read_all(near)).await;
    let answer = read.expect("the server closes in the end");
    let outcome = serving.await.expect("no panic");
    (String::from_utf8_lossy(&answer).into_owned(), outcome)
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http_1_may_be_idle_for_a_minute_and_a_half() {
    let server = Open::start(10).await;
    let get = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for (seconds, answered) in [(0, true), (33, true), (89, true), (91, false)] {
        let (answer, outcome) = said_later(&server, seconds, get).await;
        assert_eq!(answer.contains("200 OK"), answered, "{seconds}: {answer}");
        outcome.expect("idleness is no failure");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_begins_on_an_idle_connection_has_to_end() {
    let server = Open::start(10).await;
    for more in ["G", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let started = tokio::time::sleep(Duration::from_secs(40 + 32 + 10));
        let (answer, outcome) = tokio::select! {
            said = said_later(&server, 40, more) => said,
            () = started => panic!("the head of {more:?} may take too long"),
        };
        assert_eq!(answer, "");
        outcome.expect_err("sent away");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_and_an_answer_may_take_longer_than_a_head() {
    let server = Open::start(10).await;
    let (near, _serving) = server.connect();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
        .await
        .expect("HTTP/1.1");
    tokio::spawn(connection);
    let watch = sender
        .send_request(get(&format!("{CONFIG_MAPS}?watch=1")))
        .await;
    let mut watch = watch.expect("an answer").into_body();
    tokio::time::sleep(Duration::from_secs(200)).await;
    server.0.config_map("late", json!({})).await;
    let event = watch.frame().await.expect("an event").expect("a frame");
    assert!(
        event
            .into_data()
            .expect("data")
            .starts_with(b"{\"type\":\"ADDED\"")
    );
}

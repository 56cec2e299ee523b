//! What an http guest's manifest may limit, and what becomes of those who leave; HTTP/2 by upgrade.

use bytes::Bytes;
use coracle_cri::ContainerId;
use coracle_network::TcpStream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http_streams::{GUESTS, serve};
use crate::node::{Node, container, port};

const ADDRESS: &str = "10.240.0.3:8080";

/// Starts a guest that does as the path says, at 10.240.0.3:8080.
async fn echo(node: &Node, wasm: &str, annotations: &[(&str, &str)]) -> ContainerId {
    serve(node, wasm, 3, annotations).await
}

async fn dial(node: &Node) -> TcpStream {
    node.fabric.dial(ADDRESS.parse().unwrap()).await.unwrap()
}

/// A connection that a test holds; dropping it closes it.
struct Client {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Client {
    async fn open(node: &Node) -> Self {
        let io = TokioIo::new(dial(node).await);
        let (sender, connection) = http1::handshake(io).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { sender, driver }
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = Request::get(path).header("host", "test");
        let request = request.body(Empty::new()).unwrap();
        self.sender.send_request(request).await.unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Asks over a connection of its own and reads everything.
async fn get(node: &Node, path: &str) -> (http::response::Parts, String) {
    let mut client = Client::open(node).await;
    let (head, body) = client.get(path).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head, String::from_utf8(body.to_vec()).unwrap())
}

async fn logged(node: &Node, id: &ContainerId, text: &str) {
    let found = node.until(|| async {
        let log = node.log(id, 0);
        log.iter().any(|line| line.contains(text)).then_some(())
    });
    let found = found.await;
    found.unwrap_or_else(|| panic!("no {text:?} in {:?}", node.log(id, 0)));
}

/// Waits until no instance is left.
async fn at_rest(node: &Node, id: &ContainerId) {
    let rest = node.until(|| async { (node.runtime.usage(id)?.memory_bytes == 0).then_some(()) });
    rest.await.expect("no instance is left");
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_and_those_beyond_the_queue_are_told_to_come_again() {
    for wasm in GUESTS {
        let node = Node::start();
        let id = echo(&node, wasm, &[("concurrency", "1"), ("queue", "1")]).await;
        let mut first = Client::open(&node).await;
        let mut sleeping = Box::pin(async move { first.get("/sleep?3600000").await });
        tokio::select! {
            answer = &mut sleeping => panic!("{answer:?}"),
            () = logged(&node, &id, "/sleep") => {}
        }
        let mut one = Box::pin(get(&node, "/count"));
        let mut other = Box::pin(get(&node, "/count"));
        let ((refused, text), waiting) = tokio::select! {
            answer = &mut one => (answer, other),
            answer = &mut other => (answer, one),
        };
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
        assert_eq!(refused.headers["retry-after"], "1");
        // The client of the first leaves; its turn goes to the one that waits.
        drop(sleeping);
        let (head, text) = waiting.await;
        assert_eq!((head.status, text.as_str()), (StatusCode::OK, "1\n"));
        at_rest(&node, &id).await;
    }
}

#[tokio::test]
async fn a_guest_that_takes_too_long_is_answered_for_and_dropped() {
    for wasm in GUESTS {
        let node = Node::start();
        let id = echo(&node, wasm, &[("timeout", "50ms")]).await;
        let mut client = Client::open(&node).await;
        let late = client.get("/sleep?3600000").await;
        assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
        let text = late.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "the guest did not answer in time\n");
        logged(&node, &id, "GET /sleep: no answer within 50ms").await;
        at_rest(&node, &id).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_guest_along() {
    for wasm in GUESTS {
        let node = Node::start();
        let id = echo(&node, wasm, &[]).await;
        let mut client = Client::open(&node).await;
        tokio::select! {
            answer = client.get("/sleep?3600000") => panic!("{answer:?}"),
            () = logged(&node, &id, "/sleep") => {}
        }
        drop(client);
        at_rest(&node, &id).await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_refused_by_name() {
    let node = Node::start();
    let id = echo(&node, GUESTS[0], &[]).await;
    let image = node.status(&id).await.unwrap().image;
    let mut config = container(&id.sandbox, "other", &image);
    config.ports = vec![port("http", 8081)];
    let name = "coracle.dev/http-timeout".to_owned();
    config.annotations.insert(name, "soon".to_owned());
    let error = node.start_with(config).await.unwrap_err().to_string();
    assert!(
        error.contains("coracle.dev/http-timeout: \"soon\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_may_be_upgraded_to_http2() {
    for wasm in GUESTS {
        let node = Node::start();
        echo(&node, wasm, &[]).await;
        let mut stream = dial(&node).await;
        let request = "GET /count HTTP/1.1\r\nhost: test\r\nconnection: Upgrade, HTTP2-Settings\r\n\
                   upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The preface, and settings without any.
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let (mut body, mut acknowledged) = (Vec::new(), 0);
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = (usize::from(head[1]) << 8) | usize::from(head[2]);
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            let (kind, flags, number) = (head[3], head[4], head[8]);
            match kind {
                0 => body.extend(payload),
                4 => acknowledged += u32::from(flags & 1),
                7 => panic!("the server gave up: {payload:?}"),
                _ => {}
            }
            if number == 1 && matches!(kind, 0 | 1) && flags & 1 == 1 {
                break;
            }
        }
        assert_eq!(body, b"1\n");
        // A client takes an acknowledgement too many for an error.
        assert!(acknowledged <= 1, "{acknowledged}");
    }
}

//! Exec, attach and port-forward as clients speak them, over a runtime that plays scripts.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_cri::fake::{Process, Script};
use coracle_streaming::spdy::{self, FrameDecoder, FrameEncoder};
use coracle_streaming::websocket::{self, Event, Role};
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use crate::node::TestNode;

/// More than all buffers on the way hold together.
const LARGE: usize = 16 << 20;

async fn node() -> TestNode {
    let node = TestNode::start().await;
    node.script("app", Script::runs());
    let ports =
        json!({"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 80}]}]});
    node.run("web", "app", ports).await;
    node.ready("web").await;
    node
}

/// Copies stdin to stdout, then says on stderr how much it was, and exits with the number in its command.
fn script(node: &TestNode) {
    node.runtime.on_exec(|process: Process| {
        Ok(Box::pin(async move {
            let Process {
                command,
                stdin,
                stdout,
                stderr,
                ..
            } = process;
            let mut copied = 0;
            if let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) {
                copied = tokio::io::copy(&mut stdin, &mut stdout)
                    .await
                    .expect("copied");
            }
            if let Some(mut stderr) = stderr {
                let text = format!("{copied} bytes");
                stderr.write_all(text.as_bytes()).await.expect("written");
            }
            Ok(command[1].parse().expect("an exit code"))
        }))
    });
}

fn websocket(node: &TestNode, path: &str, protocol: &str) -> (u16, Option<WebSocket>) {
    let request = Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", protocol)
        .body(Bytes::new())
        .expect("a request");
    let upgraded = node.kubelet.upgrade(&request);
    let stream = upgraded.stream.map(|stream| WebSocket {
        stream,
        decoder: websocket::FrameDecoder::new(Role::Client),
        source: BytesMut::new(),
    });
    (upgraded.response.status().as_u16(), stream)
}

struct WebSocket {
    stream: DuplexStream,
    decoder: websocket::FrameDecoder,
    source: BytesMut,
}

impl WebSocket {
    /// The next event; `None` at the end.
    async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.decoder.next(&mut self.source).expect("WebSocket") {
                return Some(event);
            }
            if self.stream.read_buf(&mut self.source).await.expect("read") == 0 {
                return None;
            }
        }
    }

    /// All messages up to the end, put together by their channels; and whether the end was a proper one.
    async fn rest(&mut self) -> (Vec<Vec<u8>>, bool) {
        self.until(|_| false).await
    }

    /// As [`rest`](Self::rest), unless `enough` has come before.
    async fn until(&mut self, enough: impl Fn(&[Vec<u8>]) -> bool) -> (Vec<Vec<u8>>, bool) {
        let (mut channels, mut message) = (vec![Vec::new(); 6], Vec::new());
        while let Some(event) = self.event().await {
            match event {
                Event::Data { bytes, last, .. } => {
                    message.extend_from_slice(&bytes);
                    if last {
                        let channel = usize::from(message[0]);
                        channels[channel].extend_from_slice(&message[1..]);
                        message.clear();
                        if enough(&channels) {
                            return (channels, false);
                        }
                    }
                }
                Event::Close(code) => return (channels, code == Some(1000)),
                Event::Ping(_) | Event::Pong(_) => {}
            }
        }
        (channels, false)
    }
}

fn masked(messages: &[Vec<u8>]) -> BytesMut {
    let mut wire = BytesMut::new();
    for message in messages {
        let frame = websocket::Frame::Binary(Bytes::copy_from_slice(message));
        frame.encode(Some([1, 2, 3, 4]), &mut wire);
    }
    wire
}

fn status(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("a Status")
}

#[tokio::test(start_paused = true)]
async fn a_command_reads_to_the_end_of_its_input_and_its_exit_code_is_told() {
    let node = node().await;
    script(&node);
    for (code, reason) in [(0, Value::Null), (3, json!("NonZeroExitCode"))] {
        let path =
            format!("/exec/default/web/app?command=cat&command={code}&input=1&output=1&error=1");
        let (switched, client) = websocket(&node, &path, "v5.channel.k8s.io");
        assert_eq!(switched, 101);
        let mut client = client.expect("a stream");
        client
            .stream
            .write_all(&masked(&[b"\0hello".to_vec(), vec![255, 0]]))
            .await
            .expect("sent");
        let (channels, closed) = client.rest().await;
        assert_eq!(channels[1], b"hello");
        assert_eq!(channels[2], b"5 bytes");
        let status = status(&channels[3]);
        assert_eq!(status["reason"], reason);
        if code != 0 {
            assert_eq!(status["details"]["causes"][0]["message"], "3");
        }
        assert!(closed, "it ends with a farewell");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_sent_nothing_before_it_has_made_its_channels() {
    let node = node().await;
    script(&node);
    let path = "/exec/default/web/app?command=cat&command=0&output=1&error=1";
    let (_, client) = websocket(&node, path, "v5.channel.k8s.io");
    let mut client = client.expect("a stream");
    assert_eq!(client.event().await, Some(Event::Ping(Bytes::new())));
    let early = timeout(Duration::from_millis(50), client.event()).await;
    assert!(early.is_err(), "{early:?}");
    let mut pong = BytesMut::new();
    websocket::Frame::Pong(Bytes::new()).encode(Some([1, 2, 3, 4]), &mut pong);
    client.stream.write_all(&pong).await.expect("sent");
    let (channels, _) = client.rest().await;
    assert_eq!(channels[2], b"0 bytes");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_run_is_told_where_the_protocol_has_a_place_for_it() {
    let node = node().await;
    let path = "/exec/default/web/other?command=cat&output=1&error=1";
    assert_eq!(websocket(&node, path, "v4.channel.k8s.io").0, 500);
    let (switched, client) = websocket(&node, path, "v5.channel.k8s.io");
    assert_eq!(switched, 101);
    let (channels, _) = client.expect("a stream").rest().await;
    assert_eq!(
        status(&channels[3])["message"],
        "Internal error occurred: unable to upgrade connection: container not found (\"other\")"
    );
    assert_eq!(
        websocket(
            &node,
            "/exec/default/none/app?command=a&output=1",
            "v4.channel.k8s.io"
        )
        .0,
        404
    );
    assert_eq!(
        websocket(
            &node,
            "/exec/default/web/app?command=a",
            "v4.channel.k8s.io"
        )
        .0,
        400
    );

    let path = "/exec/default/web/app?command=nothing&output=1&error=1";
    let (_, client) = websocket(&node, path, "v4.channel.k8s.io");
    let (channels, _) = client.expect("a stream").rest().await;
    assert_eq!(channels[2], b"nothing: not found\r\n");
    assert_eq!(
        status(&channels[3])["details"]["causes"][0]["message"],
        "127"
    );
}

#[tokio::test(start_paused = true)]
async fn a_command_ends_with_its_client() {
    let node = node().await;
    let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    node.runtime.on_exec(move |process| {
        let alive = alive.clone();
        Ok(Box::pin(async move {
            alive.send(()).await.expect("the test waits");
            let _held = (alive, process);
            std::future::pending().await
        }))
    });
    let path = "/exec/default/web/app?command=sleep&input=1&output=1";
    let (_, client) = websocket(&node, path, "v5.channel.k8s.io");
    ended.recv().await.expect("it runs");
    drop(client);
    node.runtime.on_exec(|_| unreachable!("nothing else runs"));
    assert!(ended.recv().await.is_none(), "it still runs");
}

struct Spdy<S> {
    stream: S,
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    source: BytesMut,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Spdy<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            encoder: FrameEncoder::default(),
            decoder: FrameDecoder::default(),
            source: BytesMut::new(),
        }
    }

    async fn send(&mut self, frame: spdy::Frame) {
        let mut wire = BytesMut::new();
        self.encoder.encode(&frame, &mut wire).expect("encoded");
        self.stream.write_all(&wire).await.expect("sent");
    }

    async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = headers.iter().map(own).collect();
        let fin = false;
        self.send(spdy::Frame::SynStream {
            stream,
            fin,
            headers,
        })
        .await;
    }

    async fn data(&mut self, stream: u32, bytes: impl Into<Bytes>, fin: bool) {
        let bytes = bytes.into();
        self.send(spdy::Frame::Data { stream, fin, bytes }).await;
    }

    async fn next(&mut self) -> Option<spdy::Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.source).expect("SPDY") {
                return Some(frame);
            }
            if self.stream.read_buf(&mut self.source).await.expect("read") == 0 {
                return None;
            }
        }
    }

    /// What comes on a stream up to its end; frames of others are dropped.
    async fn rest(&mut self, wanted: u32) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(frame) = self.next().await {
            match frame {
                spdy::Frame::Data { stream, bytes, fin } if stream == wanted => {
                    all.extend_from_slice(&bytes);
                    if fin {
                        break;
                    }
                }
                spdy::Frame::RstStream { stream, .. } if stream == wanted => break,
                _ => {}
            }
        }
        all
    }
}

fn over_spdy(node: &TestNode, path: &str, protocol: &str) -> Spdy<DuplexStream> {
    let request = Request::post(path)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", protocol)
        .body(Bytes::new())
        .expect("a request");
    let upgraded = node.kubelet.upgrade(&request);
    assert_eq!(
        upgraded.response.headers()["x-stream-protocol-version"],
        protocol
    );
    Spdy::new(upgraded.stream.expect("a stream"))
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_over_spdy() {
    let node = node().await;
    script(&node);
    let path = "/exec/default/web/app?command=cat&command=7&input=1&output=1";
    let mut client = over_spdy(&node, path, "v4.channel.k8s.io");
    for (number, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(number, &[("streamtype", kind)]).await;
    }
    client.send(spdy::Frame::Ping(1)).await;
    client.data(3, "hello", true).await;
    assert_eq!(client.rest(5).await, b"hello");
    let status = status(&client.rest(1).await);
    assert_eq!(status["details"]["causes"][0]["message"], "7");
}

#[tokio::test(start_paused = true)]
async fn connections_are_forwarded_side_by_side_and_half_closed() {
    let node = node().await;
    let mut client = over_spdy(&node, "/portForward/default/web", "portforward.k8s.io");
    let mut ids = (1..).step_by(2);
    let mut open = Vec::new();
    for id in ["0", "1"] {
        let (error, data) = (ids.next().expect("endless"), ids.next().expect("endless"));
        for (number, kind) in [(error, "error"), (data, "data")] {
            let headers = [("streamtype", kind), ("port", "80"), ("requestid", id)];
            client.open(number, &headers).await;
        }
        open.push((error, data));
    }
    // The first one is left alone while the second one is used to its end.
    client.data(open[0].1, "first", false).await;
    client.data(open[1].1, "second", true).await;
    assert_eq!(client.rest(open[1].1).await, b"second");
    client.data(open[0].1, "", true).await;
    assert_eq!(client.rest(open[0].0).await, b"");

    let (error, data) = (ids.next().expect("endless"), ids.next().expect("endless"));
    for (number, kind) in [(error, "error"), (data, "data")] {
        client
            .open(number, &[("streamtype", kind), ("port", "81")])
            .await;
    }
    let why = String::from_utf8(client.rest(error).await).expect("text");
    assert!(
        why.starts_with("error forwarding port 81 to pod web, uid "),
        "{why}"
    );
    assert!(why.contains("refused the connection"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_large_transfer_waits_for_its_reader_and_arrives_whole() {
    let node = node().await;
    let client = over_spdy(&node, "/portForward/default/web", "portforward.k8s.io");
    let (read, write) = tokio::io::split(client.stream);
    let mut sender = Spdy::new(tokio::io::join(tokio::io::empty(), write));
    let mut receiver = Spdy::new(tokio::io::join(read, tokio::io::sink()));
    let all: Bytes = (0..LARGE).map(|at| (at / 1000) as u8).collect();
    let sent = all.clone();
    let sending = tokio::spawn(async move {
        for (number, kind) in [(1, "error"), (3, "data")] {
            let headers = [("streamtype", kind), ("port", "80"), ("requestid", "0")];
            sender.open(number, &headers).await;
        }
        for piece in sent.chunks(100_000) {
            sender.data(3, Bytes::copy_from_slice(piece), false).await;
        }
        sender.data(3, "", true).await;
        sender
    });
    let received = receiver.rest(3).await;
    assert!(
        received == all,
        "{} of {} bytes, or others",
        received.len(),
        all.len()
    );
    sending.await.expect("everything was sent");
}

#[tokio::test(start_paused = true)]
async fn ports_are_forwarded_in_channels_of_a_websocket() {
    let node = node().await;
    let path = "/portForward/default/web?port=80&port=81";
    let (switched, client) = websocket(&node, path, "v4.channel.k8s.io");
    assert_eq!(switched, 101);
    let mut client = client.expect("a stream");
    client
        .stream
        .write_all(&masked(&[b"\0ping".to_vec()]))
        .await
        .expect("sent");
    let enough = |channels: &[Vec<u8>]| channels[0].len() >= 6 && channels[3].len() > 2;
    let (channels, _) = client.until(enough).await;
    assert_eq!(channels[0], b"\x50\0ping");
    let why = String::from_utf8_lossy(&channels[3][2..]).into_owned();
    assert!(
        why.starts_with("error forwarding port 81 to pod web"),
        "{why}"
    );
}

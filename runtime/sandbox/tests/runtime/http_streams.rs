//! Bodies of http guests: both ways at once, with trailers, no faster than whoever takes them. Each for
//! both versions of `wasi:http`, and of HTTP.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use coracle_cri::ContainerId;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::node::{Node, container, port};

/// A handler of `wasi:http` 0.2, and one of 0.3.
pub(crate) const GUESTS: [&str; 2] = [
    "http-echo.wasm",
    #[cfg(feature = "p3")]
    "newer-http.wasm",
    #[cfg(not(feature = "p3"))]
    "http-echo.wasm",
];

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// What a client may send ahead of a guest that does not read, and what a guest may send ahead of a client:
/// far more than the queues on the way hold, far less than what is sent.
const AHEAD: usize = 2 << 20;
const ALL: usize = 16 << 20;

/// Starts a guest of `tests/guests` at 10.240.0.`last`:8080; annotations without `coracle.dev/http-`.
pub(crate) async fn serve(
    node: &Node,
    wasm: &str,
    last: u8,
    annotations: &[(&str, &str)],
) -> ContainerId {
    let pod = node.pod(&format!("web-{last}"), last).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests/wasm");
    let path = folder.join(wasm).canonicalize().unwrap();
    let image = node.ensure(&path).await.unwrap();
    let mut config = container(&pod, "web", &image);
    config.ports = vec![port("http", 8080)];
    config.memory_limit = Some(64 << 20);
    for (name, value) in annotations {
        let name = format!("coracle.dev/http-{name}");
        config.annotations.insert(name, (*value).to_owned());
    }
    let id = config.id.clone();
    node.start_with(config).await.unwrap();
    id
}

/// A client's side of a connection of HTTP/1.1 or HTTP/2; dropped, it closes the connection.
pub(crate) struct Client {
    sender: Sender,
    driver: tokio::task::JoinHandle<()>,
}

enum Sender {
    One(http1::SendRequest<AnyBody>),
    Two(http2::SendRequest<AnyBody>),
}

impl Client {
    pub(crate) async fn open(node: &Node, last: u8, is_two: bool) -> Self {
        let address = ([10, 240, 0, last], 8080).into();
        let io = TokioIo::new(node.fabric.dial(address).await.unwrap());
        if is_two {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // Small ones, so that one stream that is not read does not fill the connection's.
            builder.initial_stream_window_size(64 << 10);
            builder.initial_connection_window_size(1 << 20);
            let (sender, connection) = builder.handshake(io).await.unwrap();
            let driver = tokio::spawn(async move { drop(connection.await) });
            let sender = Sender::Two(sender);
            Self { sender, driver }
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            let driver = tokio::spawn(async move { drop(connection.await) });
            let sender = Sender::One(sender);
            Self { sender, driver }
        }
    }

    /// Sends the request now; its answer may be waited for later.
    pub(crate) fn send(
        &mut self,
        path: &str,
        body: AnyBody,
    ) -> Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>> {
        let request = Request::post(format!("http://web{path}"))
            .header("trailer", "x-end")
            .body(body)
            .unwrap();
        match &mut self.sender {
            Sender::One(sender) => {
                let (mut head, body) = request.into_parts();
                head.uri = path.parse().unwrap();
                head.headers.insert("host", "web".parse().unwrap());
                head.headers.insert("te", "trailers".parse().unwrap());
                Box::pin(sender.send_request(Request::from_parts(head, body)))
            }
            Sender::Two(sender) => Box::pin(sender.send_request(request)),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> (StatusCode, String) {
        let (head, body) = self.send(path, nothing()).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(&mut self) {
        (&mut self.driver).await.unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(crate) fn nothing() -> AnyBody {
    http_body_util::Empty::new().boxed_unsync()
}

/// A body that a test feeds frame by frame.
struct Fed(mpsc::Receiver<Frame<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

pub(crate) fn fed() -> (mpsc::Sender<Frame<Bytes>>, AnyBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, Fed(receiver).boxed_unsync())
}

/// A large body that counts what was taken of it.
struct Counted {
    left: usize,
    taken: Arc<AtomicUsize>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const CHUNK: usize = 8 << 10;
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= CHUNK;
        self.taken.fetch_add(CHUNK, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; CHUNK])))))
    }
}

pub(crate) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn trailers() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "reached".parse().unwrap());
    Frame::trailers(trailers)
}

/// Reads exactly as much as `text` has.
pub(crate) async fn reads(body: &mut Incoming, text: &str) {
    let mut read = Vec::new();
    while read.len() < text.len() {
        let frame = body.frame().await.expect("more of the body").unwrap();
        read.extend_from_slice(&frame.into_data().expect("no trailers yet"));
    }
    assert_eq!(String::from_utf8_lossy(&read), text);
}

/// The rest: what of the body there is, and the trailers.
async fn rest(body: Incoming) -> (Bytes, Option<HeaderMap>) {
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned();
    (collected.to_bytes(), trailers)
}

/// A word is sent when the one before has come back.
async fn talk(client: &mut Client, path: &str) {
    let (feed, body) = fed();
    let answer = client.send(path, body);
    feed.send(data("one")).await.unwrap();
    let mut answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    reads(answer.body_mut(), "one").await;
    feed.send(data("two")).await.unwrap();
    reads(answer.body_mut(), "two").await;
    feed.send(trailers()).await.unwrap();
    drop(feed);
    let (left, trailers) = rest(answer.into_body()).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(trailers.expect("trailers come back")["x-end"], "reached");
}

#[tokio::test]
async fn bodies_go_both_ways_at_once_and_trailers_too() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        serve(&node, wasm, last, &[]).await;
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            talk(&mut client, "/stream").await;
        }
    }
}

#[tokio::test]
async fn what_a_guest_asks_others_is_streamed_both_ways_too() {
    let node = Node::start();
    // The pod's hosts file calls 10.240.0.5 `store`.
    serve(&node, GUESTS[0], 5, &[]).await;
    for (last, wasm) in (2..).zip(GUESTS) {
        serve(&node, wasm, last, &[]).await;
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            talk(&mut client, "/relay?http://store:8080/stream").await;
        }
    }
}

#[tokio::test]
async fn a_guest_waits_for_a_client_that_does_not_read() {
    let node = Node::start();
    let cases = GUESTS.map(|wasm| [(wasm, false), (wasm, true)]);
    for (last, (wasm, is_two)) in (2..).zip(cases.concat()) {
        let id = serve(&node, wasm, last, &[]).await;
        let sent = || {
            let sent = node.log(&id, 0).into_iter().rev();
            sent.filter_map(|line| line.split_once("sent ")?.1.parse::<usize>().ok())
                .next()
        };
        let mut client = Client::open(&node, last, is_two).await;
        let answer = client.send(&format!("/flood?{ALL}"), nothing());
        let answer = answer.await.unwrap();
        node.until(|| async { sent() }).await.expect("it has begun");
        // There is time to send all of it, if nothing held the guest back.
        let mut other = Client::open(&node, last, false).await;
        for _ in 0..20 {
            assert_eq!(other.get("/sleep?1").await.0, StatusCode::OK);
        }
        assert!(sent().unwrap() < AHEAD, "{wasm}: {:?}", sent());
        let used = node.runtime.usage(&id).unwrap().memory_bytes;
        assert!(used < 16 << 20, "{wasm}: {used}");
        let (body, _) = rest(answer.into_body()).await;
        assert_eq!(body.len(), ALL, "{wasm}");
    }
}

#[tokio::test]
async fn a_client_waits_for_a_guest_that_does_not_read() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        serve(&node, wasm, last, &[]).await;
        for is_two in [false, true] {
            let taken = Arc::new(AtomicUsize::new(0));
            let (left, counted) = (ALL, taken.clone());
            let body = Counted {
                left,
                taken: counted,
            };
            let mut client = Client::open(&node, last, is_two).await;
            let answer = client.send("/sleep?100", body.boxed_unsync());
            // It answers without having read anything.
            let answer = answer.await.unwrap();
            let ahead = taken.load(Ordering::Relaxed);
            assert!(ahead < AHEAD, "{wasm}: {ahead}");
            assert_eq!(answer.status(), StatusCode::OK);
        }
        // One that reads gets all of it.
        let mut client = Client::open(&node, last, true).await;
        let taken = Arc::new(AtomicUsize::new(0));
        let body = Counted { left: ALL, taken };
        let answer = client.send("/stream", body.boxed_unsync()).await.unwrap();
        assert_eq!(rest(answer.into_body()).await.0.len(), ALL);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        serve(&node, wasm, last, &[]).await;
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            let answer = client.send("/half", nothing());
            // Even its head may not get out.
            let whole = async { answer.await?.into_body().collect().await };
            let whole = whole.await;
            assert!(whole.is_err(), "{wasm} {is_two}: {whole:?}");
        }
    }
}

#[tokio::test]
async fn a_guest_may_go_on_after_its_answer() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[]).await;
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            assert_eq!(client.get("/after?20").await.1, "answered\n");
        }
        let done = node.until(|| async {
            let log = node.log(&id, 0);
            let done = log.iter().filter(|line| line.ends_with("done")).count();
            (done == 2).then_some(())
        });
        done.await
            .unwrap_or_else(|| panic!("{wasm}: {:?}", node.log(&id, 0)));
    }
}

//! Bodies, trailers and upgrades on their way through.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::world::{TestBody, World, empty, get, request};
use crate::settings::Settings;

/// A body whose frames are sent as the test goes.
struct Channel(mpsc::Receiver<Frame<Bytes>>);

impl Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

pub(super) fn channel() -> (mpsc::Sender<Frame<Bytes>>, TestBody) {
    let (sender, receiver) = mpsc::channel(1);
    let body = Channel(receiver);
    (sender, body.map_err(|never| match never {}).boxed_unsync())
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// Sends back every frame of a request as it comes, trailers too.
async fn echo(request: Request<Incoming>) -> Response<TestBody> {
    let trailers = request.headers().get("trailer").cloned();
    let body = request.into_body().map_err(Into::into).boxed_unsync();
    let mut response = Response::new(body);
    if let Some(trailers) = trailers {
        response.headers_mut().insert("trailer", trailers);
    }
    response
}

async fn next<B>(body: &mut B) -> String
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let frame = body.frame().await.expect("a frame").expect("no error");
    match frame.into_data() {
        Ok(data) => String::from_utf8_lossy(&data).into_owned(),
        Err(frame) => format!("{:?}", frame.trailers_ref()),
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_go_both_ways_at_the_same_time_with_their_trailers() {
    for is_http2 in [false, true] {
        let world = World::with(Settings {
            is_http2,
            ..Settings::default()
        });
        world.serve_at("web", &[2]);
        world.backend(2, echo);
        let (sender, body) = channel();
        let mut asked = request("POST", "/", body);
        asked
            .headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        asked
            .headers_mut()
            .insert("trailer", HeaderValue::from_static("x-sum"));
        let mut client = world.client().await;
        sender.send(data("one")).await.expect("taken");
        let mut answer = client.send_request(asked).await.expect("an answer");
        // Each comes back before the next is sent: nothing waits for the whole.
        assert_eq!(next(answer.body_mut()).await, "one");
        sender.send(data("two")).await.expect("taken");
        assert_eq!(next(answer.body_mut()).await, "two");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("2"));
        sender.send(Frame::trailers(trailers)).await.expect("taken");
        drop(sender);
        let last = next(answer.body_mut()).await;
        assert!(last.contains("x-sum"), "{last}");
        assert!(answer.body_mut().frame().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_a_server_come_as_they_are_sent() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    let (sender, receiver) = mpsc::channel::<mpsc::Receiver<Frame<Bytes>>>(1);
    let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
    world.backend(2, move |_| {
        let receiver = receiver.clone();
        async move {
            let frames = receiver.lock().await.recv().await.expect("one request");
            let body = Channel(frames).map_err(|never| match never {});
            let mut response = Response::new(body.boxed_unsync());
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", kind);
            response
        }
    });
    let (events, frames) = mpsc::channel(1);
    sender.send(frames).await.expect("taken");
    let mut client = world.client().await;
    let mut answer = client.send_request(get("/")).await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        events.send(data(event)).await.expect("taken");
        assert_eq!(next(answer.body_mut()).await, event);
        // Minutes of silence are no error.
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
    // The backend's end is told when the client leaves.
    drop((answer, client));
    events.closed().await;
}

/// Agrees to `echo`, and sends back what comes.
async fn upgrade(mut request: Request<Incoming>) -> Response<TestBody> {
    let asked = request.headers().get("upgrade").cloned();
    if asked.as_ref().is_none_or(|asked| asked != "echo") {
        let mut no = Response::new(empty());
        *no.status_mut() = StatusCode::BAD_REQUEST;
        return no;
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.expect("upgraded"));
        let mut bytes = [0; 1024];
        while let Ok(read) = io.read(&mut bytes).await
            && read > 0
            && io.write_all(&bytes[..read]).await.is_ok()
        {}
        let _ = io.shutdown().await;
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("echo"));
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("x-accept", HeaderValue::from_static("yes"));
    response
}

fn upgrading(to: &'static str) -> Request<TestBody> {
    let mut asked = get("/");
    asked
        .headers_mut()
        .insert("connection", HeaderValue::from_static("Upgrade"));
    asked
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static(to));
    asked
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_carries_bytes_until_it_is_silent_for_too_long() {
    let patience = Duration::from_secs(7200);
    let world = World::with(Settings {
        tunnel_timeout: patience,
        ..Settings::default()
    });
    world.serve_at("web", &[2]);
    world.backend(2, upgrade);
    let mut client = world.client().await;
    let mut answer = client
        .send_request(upgrading("echo"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["upgrade"], "echo");
    assert_eq!(answer.headers()["x-accept"], "yes");
    let upgraded = hyper::upgrade::on(&mut answer).await.expect("upgraded");
    let mut io = TokioIo::new(upgraded);
    let mut bytes = [0; 16];
    for text in ["hello", "again"] {
        io.write_all(text.as_bytes()).await.expect("sent");
        io.read_exact(&mut bytes[..5]).await.expect("an echo");
        assert_eq!(&bytes[..5], text.as_bytes());
        tokio::time::sleep(patience / 2).await;
    }
    let before = world.clock.monotonic();
    assert_eq!(io.read(&mut bytes).await.unwrap_or(0), 0);
    assert!(world.clock.monotonic() - before < patience);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_tunnel_still_answers() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, upgrade);
    let mut client = world.client().await;
    let mut answer = client
        .send_request(upgrading("echo"))
        .await
        .expect("an answer");
    let upgraded = hyper::upgrade::on(&mut answer).await.expect("upgraded");
    let mut io = TokioIo::new(upgraded);
    io.write_all(b"last words").await.expect("sent");
    io.shutdown().await.expect("closed");
    let mut all = String::new();
    io.read_to_string(&mut all).await.expect("the end");
    assert_eq!(all, "last words");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_is_refused_is_an_answer_like_any_other() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, upgrade);
    let mut client = world.client().await;
    let answer = client
        .send_request(upgrading("other"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 400);
    let _ = answer.into_body().collect().await.expect("a body");
    // Nobody gets through to HTTP/2 on a tunnel.
    client.ready().await.expect("still open");
    let answer = client
        .send_request(upgrading("h2c"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 400);
}

//! What a client, or a backend, may not do: too much, too slowly, or for ever.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::REQUESTS;
use super::streams::channel;
use super::world::{TestBody, World, empty, full, get, read, request};
use crate::settings::Settings;

/// Reads a request to its end, and says how long its body was.
async fn length(request: http::Request<hyper::body::Incoming>) -> Response<TestBody> {
    match request.into_body().collect().await {
        Ok(body) => Response::new(full(body.to_bytes().len().to_string())),
        Err(_) => Response::new(full("broken")),
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
    let world = World::with(Settings {
        body_limit: Some(10),
        ..Settings::default()
    });
    world.serve_at("web", &[2]);
    world.backend(2, length);
    for (body, wanted) in [("0123456789", 200), ("0123456789a", 413)] {
        let mut client = world.client().await;
        let sent = client.send_request(request("POST", "/", full(body))).await;
        let (status, text) = read(sent.expect("an answer")).await;
        assert_eq!(status, wanted, "{text}");
        // The same without a length.
        let (sender, chunked) = channel();
        let mut client = world.client().await;
        let sending = async {
            for part in body.as_bytes().chunks(3) {
                let part = Frame::data(Bytes::copy_from_slice(part));
                if sender.send(part).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        let (sent, ()) = tokio::join!(client.send_request(request("POST", "/", chunked)), sending);
        let (status, text) = read(sent.expect("an answer")).await;
        assert_eq!(status, wanted, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_its_body_too_slowly_is_told_so() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, length);
    let (sender, body) = channel();
    let mut client = world.client().await;
    sender
        .send(Frame::data(Bytes::from_static(b"a part")))
        .await
        .expect("taken");
    let sent = client.send_request(request("POST", "/", body)).await;
    assert_eq!(read(sent.expect("an answer")).await.0, 408);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_answer_is_given_up() {
    let world = World::with(Settings {
        read_timeout: Duration::from_secs(7),
        ..Settings::default()
    });
    world.serve_at("web", &[2]);
    world.backend(2, |_| std::future::pending::<Response<TestBody>>());
    let before = world.clock.monotonic();
    let (status, text) = world.get("/").await;
    assert_eq!(status, 504, "{text}");
    assert_eq!((world.clock.monotonic() - before).as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_time_for_an_answer_begins_when_the_body_was_sent() {
    let world = World::with(Settings {
        read_timeout: Duration::from_secs(7),
        ..Settings::default()
    });
    world.serve_at("web", &[2]);
    world.backend(2, length);
    let (sender, body) = channel();
    let mut client = world.client().await;
    let sending = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            sender
                .send(Frame::data(Bytes::from_static(b"part")))
                .await
                .expect("taken");
        }
        drop(sender);
    };
    let (sent, ()) = tokio::join!(client.send_request(request("POST", "/", body)), sending);
    assert_eq!(read(sent.expect("an answer")).await, (200, "20".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_stops_in_the_middle_breaks_the_answer_off() {
    let world = World::with(Settings {
        read_timeout: Duration::from_secs(7),
        ..Settings::default()
    });
    world.serve_at("web", &[2]);
    let (sender, body) = channel();
    let body = std::sync::Arc::new(parking_lot::Mutex::new(Some(body)));
    world.backend(2, move |_| {
        let body = body.lock().take().expect("one request");
        async move { Response::new(body) }
    });
    sender
        .send(Frame::data(Bytes::from_static(b"a part")))
        .await
        .expect("taken");
    let mut client = world.client().await;
    let mut answer = client.send_request(get("/")).await.expect("an answer");
    let part = answer
        .body_mut()
        .frame()
        .await
        .expect("a frame")
        .expect("no error");
    assert_eq!(part.into_data().expect("data"), "a part");
    let end = answer
        .body_mut()
        .frame()
        .await
        .expect("an end that is told");
    assert!(
        end.is_err(),
        "an answer that is cut off does not look whole"
    );
    sender.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_off() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    let (sender, body) = channel();
    let body = std::sync::Arc::new(parking_lot::Mutex::new(Some(body)));
    world.backend(2, move |_| {
        let body = body.lock().take().expect("one request");
        async move { Response::new(body) }
    });
    let mut raw = world.raw();
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("sent");
    // More than all that lies in between holds.
    let mut sent = 0;
    let chunk = Bytes::from(vec![0; 64 << 10]);
    while sender.send(Frame::data(chunk.clone())).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 8 << 20, "what nobody reads is held");
    }
    let mut all = Vec::new();
    raw.read_to_end(&mut all).await.expect("the end of it");
    assert!(all.len() < sent);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut_off() {
    for beginning in ["", "GET / HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let world = World::with(Settings::default());
        let mut raw = world.raw();
        raw.write_all(beginning.as_bytes()).await.expect("sent");
        let before = world.clock.monotonic();
        let mut all = Vec::new();
        let _ = raw.read_to_end(&mut all).await;
        let took = world.clock.monotonic() - before;
        assert!(took <= Duration::from_secs(75), "{beginning:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_refused() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, length);
    let mut client = world.client().await;
    let mut large = get("/");
    let value = HeaderValue::from_str(&"x".repeat(66 << 10)).expect("a value");
    large.headers_mut().insert("x-large", value);
    let answer = client.send_request(large).await.expect("an answer");
    assert_eq!(answer.status(), 431);
    let mut many = get("/");
    for number in 0..200 {
        let name = http::HeaderName::try_from(format!("x-{number}")).expect("a name");
        many.headers_mut()
            .insert(name, HeaderValue::from_static("1"));
    }
    let mut client = world.client().await;
    let answer = client.send_request(many).await.expect("an answer");
    assert_eq!(answer.status(), 431);
}

#[tokio::test(start_paused = true)]
async fn a_backends_head_that_is_too_large_is_an_error_of_the_backend() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, |_| async {
        let mut response = Response::new(empty());
        let value = HeaderValue::from_str(&"x".repeat(200 << 10)).expect("a value");
        response.headers_mut().insert("x-large", value);
        response
    });
    let (status, text) = world.get("/").await;
    assert_eq!(status, 502, "{text}");
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_there_are_places_for_are_sent_away() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    world.backend(2, length);
    let all = u32::try_from(REQUESTS).expect("few");
    let places = world.proxy.places.clone();
    let taken = places.acquire_many_owned(all).await.expect("never closed");
    let mut client = world.client().await;
    let answer = client.send_request(get("/")).await.expect("an answer");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    drop((taken, answer));
    assert_eq!(world.get("/").await.0, 200);
    // Each has given its place back.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(world.proxy.places.available_permits(), REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_request_along() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    let (began, mut begun) = tokio::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>(1);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let sender = std::sync::Arc::new(parking_lot::Mutex::new(Some(sender)));
    world.backend(2, move |_| {
        // Dropped with the request's future.
        let held = sender.lock().take();
        let began = began.clone();
        async move {
            let (alive, _seen) = tokio::sync::oneshot::channel();
            began.send(alive).await.expect("the test waits");
            std::future::pending::<()>().await;
            drop(held);
            Response::new(empty())
        }
    });
    let mut raw = world.raw();
    raw.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("sent");
    begun.recv().await.expect("it has begun");
    drop(raw);
    assert!(receiver.await.is_err(), "dropped, never sent");
}

#[tokio::test(start_paused = true)]
async fn at_the_stop_what_is_under_way_is_answered_and_nothing_else_is_taken() {
    let world = World::with(Settings::default());
    world.serve_at("web", &[2]);
    let (sender, body) = channel();
    let body = std::sync::Arc::new(parking_lot::Mutex::new(Some(body)));
    world.backend(2, move |_| {
        let body = body.lock().take().expect("one request");
        async move { Response::new(body) }
    });
    let mut client = world.client().await;
    let mut idle = world.client().await;
    idle.ready().await.expect("open");
    let answer = client.send_request(get("/")).await.expect("an answer");
    world.door.stop.cancel();
    sender
        .send(Frame::data(Bytes::from_static(b"whole")))
        .await
        .expect("taken");
    drop(sender);
    assert_eq!(read(answer).await, (200, "whole".to_owned()));
    assert!(idle.send_request(get("/")).await.is_err());
}

//! How exchanges with http guests end early: clients that leave or stand still, and the container's own
//! end.

use std::time::Duration;

use coracle_cri::{ContainerId, PodRuntime};
use coracle_network::TcpStream;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http_streams::{Client, GUESTS, data, fed, nothing, reads, serve};
use crate::node::Node;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn dial(node: &Node, last: u8) -> TcpStream {
    let address = ([10, 240, 0, last], 8080).into();
    node.fabric.dial(address).await.unwrap()
}

/// Waits until no instance is left.
async fn at_rest(node: &Node, id: &ContainerId) {
    let rest = node.until(|| async { (node.runtime.usage(id)?.memory_bytes == 0).then_some(()) });
    rest.await.expect("no instance is left");
}

async fn logged(node: &Node, id: &ContainerId, text: &str) {
    let found = node.until(|| async {
        let log = node.log(id, 0);
        log.iter().any(|line| line.contains(text)).then_some(())
    });
    let found = found.await;
    found.unwrap_or_else(|| panic!("no {text:?} in {:?}", node.log(id, 0)));
}

/// Reads until the server has closed the connection.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn a_stream_that_its_client_resets_takes_its_guest_along_and_nothing_else() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[]).await;
        let mut client = Client::open(&node, last, true).await;
        // Once before the answer, once in the middle of it.
        let waiting = client.send("/sleep?3600000", nothing());
        logged(&node, &id, "/sleep").await;
        drop(waiting);
        at_rest(&node, &id).await;
        let (feed, body) = fed();
        let talking = client.send("/stream", body);
        feed.send(data("word")).await.unwrap();
        let mut talking = talking.await.unwrap();
        reads(talking.body_mut(), "word").await;
        let other = client.send("/sleep?50", nothing());
        drop((talking, feed));
        assert_eq!(other.await.unwrap().status(), StatusCode::OK, "{wasm}");
        at_rest(&node, &id).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_takes_its_guest_along() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[]).await;
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            let flood = client.send("/flood?1000000000", nothing()).await.unwrap();
            let (feed, body) = fed();
            let mut other = Client::open(&node, last, is_two).await;
            let talking = other.send("/stream", body);
            feed.send(data("word")).await.unwrap();
            let mut talking = talking.await.unwrap();
            reads(talking.body_mut(), "word").await;
            drop((client, other, flood, talking, feed));
            at_rest(&node, &id).await;
        }
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time() {
    let node = Node::start();
    serve(&node, GUESTS[0], 2, &[("head-timeout", "50ms")]).await;
    let begins: [&[u8]; 6] = [
        b"",
        b"PRI * HT",
        b"GET / HTTP/1.1\r\nho",
        PREFACE,
        &[PREFACE, &NO_SETTINGS[..]].concat(),
        // HEADERS that say that more of them will come.
        &[
            PREFACE,
            &NO_SETTINGS[..],
            &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82],
        ]
        .concat(),
    ];
    let mut streams = Vec::new();
    for begin in begins {
        let mut stream = dial(&node, 2).await;
        // It may be too late already.
        let _ = stream.write_all(begin).await;
        streams.push(stream);
    }
    for mut stream in streams {
        closed(&mut stream).await;
    }
    // One that was used, and is kept open.
    serve(&node, GUESTS[0], 3, &[("head-timeout", "1s")]).await;
    for is_two in [false, true] {
        let used = node.until(|| async {
            let mut client = Client::open(&node, 3, is_two).await;
            let answer = client.send("/count", nothing()).await.ok()?;
            answer.into_body().collect().await.ok()?;
            Some(client)
        });
        used.await.expect("one was in time").closed().await;
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_an_answer_is_cut_off() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[("idle-timeout", "200ms")]).await;
        for is_two in [false, true] {
            let (node, id) = (&node, &id);
            let cut = node.until(|| async move {
                let mut client = Client::open(node, last, is_two).await;
                let answer = client.send("/flood?1000000000", nothing()).await.ok()?;
                at_rest(node, id).await;
                let read = answer.into_body().collect().await;
                assert!(read.is_err(), "{wasm} {is_two}");
                client.closed().await;
                // On a slow machine it may have been the guest that was late.
                let why = "POST /flood: the client took nothing of the answer for 200ms";
                let log = node.log(id, 0);
                (!is_two || log.iter().any(|line| line.contains(why))).then_some(())
            });
            cut.await
                .unwrap_or_else(|| panic!("{wasm}: {:?}", node.log(id, 0)));
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_is_cut_off_and_its_guest_told() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[("idle-timeout", "200ms")]).await;
        let (node, id) = (&node, &id);
        let told = node.until(|| async move {
            for is_two in [false, true] {
                let mut client = Client::open(node, last, is_two).await;
                let (feed, body) = fed();
                let answer = client.send("/stream", body);
                feed.send(data("word")).await.ok()?;
                let answer = answer.await.ok()?;
                at_rest(node, id).await;
                let rest = answer.into_body().collect().await;
                assert!(rest.is_err(), "{wasm} {is_two}: {rest:?}");
            }
            // On a slow machine it may have been the guest that was late.
            let log = node.log(id, 0);
            let told = log.iter().filter(|line| line.contains("broken reading"));
            (told.count() >= 2).then_some(())
        });
        told.await
            .unwrap_or_else(|| panic!("{wasm}: {:?}", node.log(id, 0)));
    }
}

#[tokio::test]
async fn a_drain_answers_what_is_in_flight_and_refuses_the_rest() {
    let node = Node::start();
    for (last, wasm) in (2..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[]).await;
        let mut busy = Vec::new();
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            let (feed, body) = fed();
            let talking = client.send("/stream", body);
            feed.send(data("before")).await.unwrap();
            let mut talking = talking.await.unwrap();
            reads(talking.body_mut(), "before").await;
            busy.push((client, feed, talking));
        }
        let mut resting = Client::open(&node, last, false).await;
        resting.get("/count").await;
        let mut silent = dial(&node, last).await;
        let stopped = node.runtime.stop_container(&id, Duration::from_secs(3600));
        let meanwhile = async {
            // Whoever has no request is told to go.
            resting.closed().await;
            closed(&mut silent).await;
            let address = ([10, 240, 0, last], 8080).into();
            assert!(node.fabric.dial(address).await.is_err(), "{wasm}");
            for (mut client, feed, mut talking) in busy {
                feed.send(data("after")).await.unwrap();
                reads(talking.body_mut(), "after").await;
                drop(feed);
                assert!(talking.into_body().collect().await.is_ok());
                // Nothing new is taken on it.
                client.closed().await;
            }
        };
        let (stopped, ()) = tokio::join!(stopped, meanwhile);
        stopped.unwrap();
        assert_eq!(node.exit(&id).await.code, 143, "{wasm}");
    }
}

#[tokio::test]
async fn clients_that_stand_still_do_not_hold_a_drain_beyond_its_grace() {
    let node = Node::start();
    // Some without a request: they are cut off, however long the grace is.
    let id = serve(&node, GUESTS[0], 2, &[]).await;
    let begins: [&[u8]; 4] = [
        b"",
        b"GET / HTTP/1.1\r\nho",
        PREFACE,
        &[PREFACE, &NO_SETTINGS[..]].concat(),
    ];
    let mut streams = Vec::new();
    for begin in begins {
        let mut stream = dial(&node, 2).await;
        stream.write_all(begin).await.unwrap();
        streams.push(stream);
    }
    let grace = Duration::from_secs(3600);
    node.runtime.stop_container(&id, grace).await.unwrap();
    assert_eq!(node.exit(&id).await.code, 143);
    drop(streams);
    // Some with one: they are cut off at the end of the grace.
    for (last, wasm) in (3..).zip(GUESTS) {
        let id = serve(&node, wasm, last, &[]).await;
        let mut held = Vec::new();
        for is_two in [false, true] {
            let mut client = Client::open(&node, last, is_two).await;
            let (feed, body) = fed();
            let (unread, unsent) = match is_two {
                true => {
                    let unread = client.send("/flood?1000000000", nothing()).await.unwrap();
                    (unread, client.send("/stream", body))
                }
                false => {
                    let mut other = Client::open(&node, last, false).await;
                    let unread = other.send("/flood?1000000000", nothing()).await.unwrap();
                    let unsent = client.send("/stream", body);
                    held.push((None, other, None));
                    (unread, unsent)
                }
            };
            feed.send(data("word")).await.unwrap();
            let unsent = unsent.await.unwrap();
            held.push((Some((unread, unsent)), client, Some(feed)));
        }
        let grace = Duration::from_millis(300);
        node.runtime.stop_container(&id, grace).await.unwrap();
        assert_eq!(node.exit(&id).await.code, 137, "{wasm}");
        drop(held);
    }
}

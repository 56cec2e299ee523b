//! Instances of `wasi:http` 0.3 that answer several requests, where a manifest allows it.

use coracle_cri::{ContainerId, PodRuntime};
use http::StatusCode;
use http_body_util::BodyExt;

use crate::http_streams::{Client, data, fed, nothing, reads, serve};
use crate::node::Node;

const NEWER: &str = "newer-http.wasm";

/// Instances that are kept for as long as a test may take.
const KEPT: (&str, &str) = ("instance-idle", "1h");
const DROPPED: (&str, &str) = ("instance-idle", "0");

/// Starts the guest with instances that answer `requests` each.
async fn reused(node: &Node, requests: &str, more: &[(&str, &str)]) -> ContainerId {
    let mut annotations = vec![("instance-requests", requests)];
    annotations.extend_from_slice(more);
    serve(node, NEWER, 2, &annotations).await
}

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

/// Which request of its instance each of these is.
async fn counts(client: &mut Client, requests: usize) -> Vec<String> {
    let mut counts = Vec::new();
    for _ in 0..requests {
        let (status, count) = client.get("/count").await;
        assert_eq!(status, StatusCode::OK);
        counts.push(count.trim().to_owned());
    }
    counts
}

#[tokio::test]
async fn every_request_has_its_own_instance_unless_the_manifest_says_otherwise() {
    let node = Node::start();
    serve(&node, NEWER, 2, &[]).await;
    let mut client = Client::open(&node, 2, false).await;
    assert_eq!(counts(&mut client, 3).await, ["1", "1", "1"]);
    // Older handlers always have.
    serve(&node, "http-echo.wasm", 3, &[("instance-requests", "9")]).await;
    let mut client = Client::open(&node, 3, false).await;
    assert_eq!(counts(&mut client, 2).await, ["1", "1"]);
}

#[tokio::test]
async fn an_instance_answers_as_many_requests_as_it_may_one_after_another() {
    let node = Node::start();
    let id = reused(&node, "3", &[KEPT]).await;
    for is_two in [false, true] {
        let mut client = Client::open(&node, 2, is_two).await;
        let counts = counts(&mut client, 6).await;
        assert_eq!(counts, ["1", "2", "3", "1", "2", "3"]);
    }
    at_rest(&node, &id).await;
}

#[tokio::test]
async fn an_instance_answers_several_requests_at_once() {
    let node = Node::start();
    let id = reused(&node, "100", &[KEPT, ("instance-concurrency", "2")]).await;
    let mut first = Client::open(&node, 2, false).await;
    let (feed, body) = fed();
    let talking = first.send("/stream", body);
    feed.send(data("one")).await.unwrap();
    let mut talking = talking.await.unwrap();
    reads(talking.body_mut(), "one").await;
    // Beside it there is room for one more.
    let mut second = Client::open(&node, 2, true).await;
    let sleeping = second.send("/sleep?3600000", nothing());
    logged(&node, &id, "/sleep").await;
    let mut third = Client::open(&node, 2, false).await;
    assert_eq!(counts(&mut third, 1).await, ["1"], "a second instance");
    drop((feed, talking, sleeping));
}

#[tokio::test]
async fn an_instance_without_requests_is_dropped_in_time() {
    let node = Node::start();
    let id = reused(&node, "100", &[DROPPED]).await;
    let mut client = Client::open(&node, 2, false).await;
    assert_eq!(counts(&mut client, 1).await, ["1"]);
    at_rest(&node, &id).await;
    assert_eq!(counts(&mut client, 1).await, ["1"]);
}

#[tokio::test]
async fn an_instance_that_a_client_left_takes_nothing_new_and_ends_with_the_last_of_the_others() {
    let node = Node::start();
    let id = reused(&node, "100", &[DROPPED]).await;
    let mut stays = Client::open(&node, 2, false).await;
    let (feed, body) = fed();
    let talking = stays.send("/stream", body);
    feed.send(data("one")).await.unwrap();
    let mut talking = talking.await.unwrap();
    reads(talking.body_mut(), "one").await;
    let mut leaves = Client::open(&node, 2, false).await;
    let sleeping = leaves.send("/sleep?3600000", nothing());
    logged(&node, &id, "/sleep").await;
    drop((sleeping, leaves));
    let fresh = node.until(|| async {
        let mut other = Client::open(&node, 2, false).await;
        (counts(&mut other, 1).await == ["1"]).then_some(())
    });
    fresh.await.expect("a new instance");
    feed.send(data("two")).await.unwrap();
    reads(talking.body_mut(), "two").await;
    drop(feed);
    assert!(talking.into_body().collect().await.is_ok());
    at_rest(&node, &id).await;
}

#[tokio::test]
async fn a_trap_ends_all_requests_of_its_instance_and_says_which() {
    let node = Node::start();
    let id = reused(&node, "100", &[KEPT]).await;
    let mut one = Client::open(&node, 2, false).await;
    let (feed, body) = fed();
    let talking = one.send("/stream", body);
    feed.send(data("one")).await.unwrap();
    let mut talking = talking.await.unwrap();
    reads(talking.body_mut(), "one").await;
    let mut two = Client::open(&node, 2, true).await;
    let sleeping = two.send("/sleep?3600000", nothing());
    logged(&node, &id, "/sleep").await;
    let mut three = Client::open(&node, 2, false).await;
    let (status, text) = three.get("/trap").await;
    let failed = (StatusCode::INTERNAL_SERVER_ERROR, "the guest failed\n");
    assert_eq!((status, text.as_str()), failed);
    let sleeping = sleeping.await.unwrap();
    assert_eq!(sleeping.status(), failed.0);
    assert!(talking.into_body().collect().await.is_err());
    let labels = "POST /stream, POST /sleep, POST /trap (3 requests of one instance): ";
    logged(&node, &id, labels).await;
    logged(&node, &id, "unreachable").await;
    // The next ones have a new one.
    assert_eq!(counts(&mut three, 2).await, ["1", "2"]);
    drop(feed);
}

#[tokio::test]
async fn a_request_that_spins_is_answered_for_and_its_instance_dropped() {
    let node = Node::start();
    let id = reused(&node, "100", &[DROPPED, ("timeout", "100ms")]).await;
    let mut client = Client::open(&node, 2, false).await;
    assert_eq!(client.get("/spin").await.0, StatusCode::GATEWAY_TIMEOUT);
    at_rest(&node, &id).await;
}

#[tokio::test]
async fn a_drain_drops_instances_at_rest_and_waits_for_others() {
    let node = Node::start();
    let id = reused(&node, "100", &[KEPT]).await;
    let mut client = Client::open(&node, 2, false).await;
    assert_eq!(counts(&mut client, 1).await, ["1"]);
    let (feed, body) = fed();
    let talking = client.send("/stream", body);
    feed.send(data("one")).await.unwrap();
    let mut talking = talking.await.unwrap();
    reads(talking.body_mut(), "one").await;
    let grace = std::time::Duration::from_secs(3600);
    let stopped = node.runtime.stop_container(&id, grace);
    let meanwhile = async {
        feed.send(data("two")).await.unwrap();
        reads(talking.body_mut(), "two").await;
        drop(feed);
        assert!(talking.into_body().collect().await.is_ok());
    };
    let (stopped, ()) = tokio::join!(stopped, meanwhile);
    stopped.unwrap();
    assert_eq!(node.exit(&id).await.code, 143);
}

#[tokio::test]
async fn what_goes_on_after_an_answer_does_not_hold_up_the_next() {
    let node = Node::start();
    let id = reused(&node, "2", &[DROPPED]).await;
    let mut client = Client::open(&node, 2, false).await;
    assert_eq!(client.get("/after?20").await.1, "answered\n");
    logged(&node, &id, "stdout F done").await;
    at_rest(&node, &id).await;
}

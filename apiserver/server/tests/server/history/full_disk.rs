//! A full disk, as clients see it: a clear refusal of writes, reads that go on, and writes again once there is room.

use std::time::Duration;

use coracle_clock::Clock;
use coracle_faults::Disk;
use serde_json::{Value, json};

use super::api::{Answer, Api, Lines};
use super::client::succeeded;
use super::notes::{items, object, text};
use super::world::World;
use crate::support::CONFIG_MAPS;

const FULL: &str =
    "the disk that holds the cluster's state is full: make room on it, and try again";

/// The room that the store leaves on the disk.
const RESERVE: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_refuses_writes_until_there_is_room_and_reads_go_on() {
    let (disk, clock) = (Disk::new(Clock::fake(1)), Clock::fake(2));
    let world = World::open(&disk, &clock).await.expect("a fresh disk");
    let room = disk.used() + RESERVE + (300 << 10);
    check(&world, &disk, room, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_during_a_write_is_told_the_same() {
    // The store is told of plenty of room: others fill the disk between its look and its write.
    let (disk, clock) = (Disk::new(Clock::fake(1)), Clock::fake(2));
    let world = World::open_unaware(&disk, &clock).await;
    let world = world.expect("a fresh disk");
    let room = disk.used() + (300 << 10);
    check(&world, &disk, room, false).await;
}

/// Fills the disk up to `room` bytes. `stays_full`: a write that is smaller does not fit either.
async fn check(world: &World, disk: &Disk, room: usize, stays_full: bool) {
    let api = &*world.api;
    let first = create(api, 0).await;
    assert_eq!(first.code, 201);
    let from = text(&first.body["metadata"]["resourceVersion"]);
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}");
    let mut watch = watch(api, &path).await;
    assert_eq!(health(api, "/readyz").await, (200, "ok".to_owned()));

    disk.set_room(room);
    let mut written = 1;
    let refused = loop {
        let answer = create(api, written).await;
        match answer.code {
            201 => written += 1,
            _ => break answer,
        }
    };
    assert!(written > 20, "{written} writes fit");
    is_told(&refused);
    let (code, text) = health(api, "/readyz").await;
    assert_eq!(code, 500);
    assert!(text.contains("[-]etcd failed: reason withheld\n"), "{text}");
    let why = format!("internal server error: {FULL}\n");
    assert_eq!(health(api, "/readyz/etcd").await, (500, why));
    assert_eq!(health(api, "/livez").await, (200, "ok".to_owned()));

    let path = format!("{CONFIG_MAPS}/{}", name(0));
    if stays_full {
        let replaced = api.call("PUT", &path, Some(object(&name(0), "new"))).await;
        is_told(&replaced.expect("an answer"));
        is_told(&api.call("DELETE", &path, None).await.expect("an answer"));
    }

    let read = succeeded(api.call("GET", &path, None).await.expect("an answer"));
    assert_eq!(read["data"], object(&name(0), "0")["data"]);
    let list = succeeded(api.call("GET", CONFIG_MAPS, None).await.expect("an answer"));
    let shown = items(&list);
    assert!((0..written).all(|number| shown.contains_key(&name(number))));
    for number in 1..written {
        is_added(&watch.next().await, number);
    }
    let again = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}");
    let mut again = self::watch(api, &again).await;
    for number in 1..written {
        is_added(&again.next().await, number);
    }

    disk.set_room(usize::MAX);
    let recovered = async {
        // 409: the refused one, which fared better than it was told.
        while !matches!(create(api, written).await.code, 201 | 409) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let recovered = tokio::time::timeout(Duration::from_secs(60), recovered).await;
    recovered.expect("the server takes no writes again");
    assert_eq!(health(api, "/readyz").await, (200, "ok".to_owned()));
    is_added(&watch.next().await, written);
    is_added(&again.next().await, written);
}

fn name(number: usize) -> String {
    format!("object-{number:05}")
}

async fn create(api: &Api, number: usize) -> Answer {
    let mut object = object(&name(number), &number.to_string());
    // Long enough to fill a disk soon.
    object["metadata"]["annotations"] = json!({"filling": "x".repeat(3000)});
    let answer = api.call("POST", CONFIG_MAPS, Some(object)).await;
    answer.expect("an answer")
}

async fn watch(api: &Api, path: &str) -> Lines {
    let opened = api.watch(path).await.expect("an answer");
    opened.unwrap_or_else(|answer| panic!("{}", answer.body))
}

async fn health(api: &Api, path: &str) -> (u16, String) {
    api.text(path).await.expect("an answer")
}

#[track_caller]
fn is_told(answer: &Answer) {
    let expected = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {FULL}"),
        "reason": "InternalError",
        "details": {"causes": [{"message": FULL}]},
        "code": 500,
    });
    assert_eq!(answer.body, expected);
    assert_eq!(answer.code, 500);
}

#[track_caller]
fn is_added(event: &Option<Value>, number: usize) {
    let event = event.as_ref().expect("the watch goes on");
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["metadata"]["name"], name(number));
}

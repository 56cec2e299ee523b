//! The reflector against a scripted server: relists, lost watches, deletions nobody watched.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use coracle_client::{Client, Context, ObjectKey, Outcome};
use coracle_clock::Clock;
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

type Script = Arc<parking_lot::Mutex<VecDeque<Answer>>>;

/// What the server answers next, and to which sort of request.
enum Answer {
    List(u64, Vec<Value>),
    /// Events, after which the stream ends.
    Watch(Vec<Value>),
    /// Events, after which the stream stays open.
    WatchForever(Vec<Value>),
}

fn server(answers: Vec<Answer>) -> (Context, Script, CancellationToken) {
    let script: Script = Arc::new(parking_lot::Mutex::new(answers.into()));
    let shared = script.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let watching = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        let answer = shared
            .lock()
            .pop_front()
            .expect("the script covers every request");
        let (chunks, open) = match (answer, watching) {
            (Answer::List(revision, items), false) => {
                let list = json!({
                    "kind": "ConfigMapList", "apiVersion": "v1",
                    "metadata": {"resourceVersion": revision.to_string()}, "items": items,
                });
                (vec![list.to_string()], false)
            }
            (Answer::Watch(events), true) => (lines(&events), false),
            (Answer::WatchForever(events), true) => (lines(&events), true),
            (_, watching) => panic!("the script expected another request; watch: {watching}"),
        };
        async move { Ok::<_, Infallible>(Response::new(body(chunks, open))) }
    });
    let stop = CancellationToken::new();
    let client = Client::new(service, "default");
    (
        Context::new(
            Arc::new(move |_| client.clone()),
            Clock::fake(1),
            stop.clone(),
        ),
        script,
        stop,
    )
}

fn lines(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn body(chunks: Vec<String>, open: bool) -> BoxBody<bytes::Bytes, Infallible> {
    use futures::{StreamExt, stream};
    let chunks = stream::iter(chunks)
        .map(|chunk| Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from(chunk))));
    let tail = match open {
        true => stream::pending().left_stream(),
        false => stream::empty().right_stream(),
    };
    BoxBody::new(StreamBody::new(chunks.chain(tail)))
}

fn config_map(name: &str, revision: u64) -> Value {
    json!({"metadata": {
        "namespace": "a", "name": name, "uid": format!("uid-{name}"),
        "resourceVersion": revision.to_string(), "managedFields": [{"manager": "test"}],
    }})
}

fn event(kind: &str, name: &str, revision: u64) -> Value {
    let mut object = config_map(name, revision);
    object["kind"] = json!("ConfigMap");
    object["apiVersion"] = json!("v1");
    json!({"type": kind, "object": object})
}

#[tokio::test(start_paused = true)]
async fn the_cache_follows_the_watch_and_survives_its_end() {
    let (ctx, script, _stop) = server(vec![
        Answer::List(5, vec![config_map("one", 3)]),
        Answer::Watch(vec![event("ADDED", "two", 6)]),
        Answer::WatchForever(vec![
            event("MODIFIED", "one", 7),
            event("DELETED", "two", 8),
        ]),
    ]);
    let cache = ctx.lister::<ConfigMap>();
    cache.wait_until(|cache| cache.revision() == 8).await;
    let names: Vec<_> = cache
        .list()
        .iter()
        .map(|object| ObjectKey::of(object.as_ref()).name)
        .collect();
    assert_eq!(names, ["one"]);
    assert_eq!(cache.list()[0].metadata.managed_fields, None);
    assert!(script.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_second_list_reveals_what_was_deleted_meanwhile() {
    let gone = json!({"type": "ERROR", "object": {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired",
        "message": "too old resource version: 5 (9)",
    }});
    let (ctx, _script, _stop) = server(vec![
        Answer::List(5, vec![config_map("one", 3), config_map("two", 4)]),
        Answer::Watch(vec![gone]),
        Answer::List(9, vec![config_map("two", 4), config_map("three", 9)]),
        Answer::WatchForever(vec![]),
    ]);
    let queue = ctx.watch::<ConfigMap>().into_queue().await;
    let cache = ctx.lister::<ConfigMap>();
    cache
        .wait_until(|cache| cache.len() == 2 && cache.revision() == 9)
        .await;
    let mut keys = Vec::new();
    while !queue.is_empty() {
        let key = queue.next().await.expect("not stopped");
        keys.push((key.name.clone(), cache.get(&key).is_some()));
        queue.finish(key, Outcome::Done);
    }
    keys.sort();
    let expected = [
        ("one".to_owned(), false),
        ("three".to_owned(), true),
        ("two".to_owned(), true),
    ];
    assert_eq!(keys, expected);
}

#[tokio::test(start_paused = true)]
async fn one_loop_serves_every_component() {
    // A second list would find the script empty and panic.
    let (ctx, _script, stop) = server(vec![
        Answer::List(5, vec![config_map("one", 3)]),
        Answer::WatchForever(vec![]),
    ]);
    let first = ctx
        .for_component("one")
        .watch::<ConfigMap>()
        .into_queue()
        .await;
    let second = ctx
        .for_component("two")
        .watch::<ConfigMap>()
        .into_queue()
        .await;
    assert_eq!(first.next().await, second.next().await);
    stop.cancel();
    assert_eq!(first.next().await, None);
}

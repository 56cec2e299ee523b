use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, TestServer, event};

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
}

#[tokio::test(start_paused = true)]
async fn a_watch_shows_what_is_there_and_what_happens() {
    let server = TestServer::start().await;
    server.config_map("a", json!({})).await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    server.config_map("b", json!({})).await;
    server
        .merge(&format!("{CONFIG_MAPS}/b"), json!({"data": {"x": "y"}}))
        .await
        .ok();
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(watch.event().await, event(kind, "b"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_a_revision() {
    let server = TestServer::start().await;
    let first = server.config_map("a", json!({})).await;
    let second = server.config_map("b", json!({})).await;
    let mut watch = server
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={}",
            version(&first)
        ))
        .await;
    let shown = watch.next().await.expect("an event");
    assert_eq!(shown["object"], second);
}

#[tokio::test(start_paused = true)]
async fn a_watch_as_a_list_of_metadata_ends_with_the_first_event() {
    let server = TestServer::start().await;
    let watched = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=60");
    for format in ["application/json", "application/vnd.kubernetes.protobuf"] {
        let accept = format!("{format};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
        let quiet = server.get_accepting(&watched, &accept).await;
        assert_eq!((quiet.status.as_u16(), quiet.body.len()), (200, 0));
    }
    server.config_map("a", json!({})).await;
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let before = server.api.server().clock().monotonic();
    let ended = server.get_accepting(&watched, accept).await;
    assert_eq!((ended.status.as_u16(), ended.body.len()), (200, 0));
    assert_eq!(server.api.server().clock().monotonic(), before);
    let accept = accept.replace("List", "");
    let told = server.get_accepting(&watched, &accept).await;
    assert!(
        told.body
            .starts_with(br#"{"type":"ADDED","object":{"kind":"PartialObjectMetadata""#)
    );
}

#[tokio::test(start_paused = true)]
async fn a_deletion_has_a_revision_of_its_own() {
    let server = TestServer::start().await;
    let made = server.config_map("a", json!({})).await;
    server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    let mut watch = server
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={}",
            version(&made)
        ))
        .await;
    let gone = watch.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    assert!(number(version(&gone["object"])) > number(version(&made)));
}

#[tokio::test(start_paused = true)]
async fn selectors_turn_changes_into_arrivals_and_departures() {
    let server = TestServer::start().await;
    let made = server.config_map("a", json!({"g": "0"})).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&labelSelector=g%3D1&resourceVersion={}",
        version(&made)
    );
    let mut watch = server.watch(&path).await;
    for value in ["1", "2"] {
        server
            .merge(
                &format!("{CONFIG_MAPS}/a"),
                json!({"metadata": {"labels": {"g": value}}}),
            )
            .await
            .ok();
    }
    assert_eq!(watch.event().await, event("ADDED", "a"));
    let gone = watch.next().await.expect("an event");
    assert_eq!(
        (
            gone["type"].as_str(),
            gone["object"]["metadata"]["labels"]["g"].as_str()
        ),
        (Some("DELETED"), Some("1"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_watch_ends_with_an_error_event() {
    let server = TestServer::start().await;
    let made = server.config_map("a", json!({})).await;
    for number in 0..4200 {
        server
            .merge(
                &format!("{CONFIG_MAPS}/a"),
                json!({"data": {"n": number.to_string()}}),
            )
            .await
            .ok();
    }
    let from = version(&made);
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}");
    let mut watch = server.watch(&path).await;
    let event = watch.next().await.expect("an event");
    assert_eq!(event["type"], "ERROR");
    let status = &event["object"];
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Failure"))
    );
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let message = status["message"].as_str().unwrap_or_default();
    let expected = format!("too old resource version: {from} (");
    assert!(message.starts_with(&expected), "{message}");
    assert!(watch.next().await.is_none(), "the error is the end");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let shown = server.get_accepting(&path, table).await.ok();
    assert_eq!(shown, event, "a Status is shown as it is");
}

#[tokio::test(start_paused = true)]
async fn a_watch_from_a_revision_to_come_is_silent_until_then() {
    let server = TestServer::start().await;
    let made = server.config_map("a", json!({})).await;
    let now: u64 = version(&made).parse().expect("a number");
    let path = format!(
        "{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={}",
        now + 2
    );
    let mut watch = server.watch(&path).await;
    for name in ["b", "c", "d"] {
        server.config_map(name, json!({})).await;
    }
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["metadata"]["name"], "d");
    let path = format!("{path}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let far = path.replace(
        &format!("resourceVersion={}", now + 2),
        &format!("resourceVersion={}", now + 99),
    );
    let mut watch = server.watch(&far).await;
    let event = watch.next().await.expect("an event");
    let status = &event["object"];
    assert_eq!(
        (&event["type"], &status["code"]),
        (&json!("ERROR"), &json!(504))
    );
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("Too large resource version"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn streaming_lists_end_with_a_bookmark() {
    let server = TestServer::start().await;
    server.config_map("a", json!({})).await;
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.event().await, event("ADDED", "a"));
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_by_the_minute_and_move_on() {
    let server = TestServer::start().await;
    let made = server.config_map("a", json!({})).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={}",
        version(&made)
    );
    let mut watch = server.watch(&path).await;
    // A change of another kind moves the revision without an event.
    let other = server
        .post("/api/v1/namespaces", json!({"metadata": {"name": "kt"}}))
        .await
        .ok();
    let bookmark = watch.next();
    let early = tokio::time::timeout(Duration::from_secs(59), bookmark).await;
    assert!(early.is_err(), "a bookmark came within a minute");
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(version(&bookmark["object"]), version(&other));
}

#[tokio::test(start_paused = true)]
async fn watches_end_when_they_were_asked_to_and_when_the_server_stops() {
    let server = TestServer::start().await;
    let mut short = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=5"))
        .await;
    assert_eq!(short.next().await, None);
    let mut long = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    server.api.stop();
    assert_eq!(long.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_is_cut_off() {
    let server = TestServer::start().await;
    let made = server.config_map("a", json!({})).await;
    let mut watch = server
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={}",
            version(&made)
        ))
        .await;
    for number in 0..1100 {
        server
            .merge(
                &format!("{CONFIG_MAPS}/a"),
                json!({"data": {"n": number.to_string()}}),
            )
            .await
            .ok();
    }
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert_eq!(seen, 1024);
}

#[tokio::test(start_paused = true)]
async fn tables_are_watched_too() {
    let server = TestServer::start().await;
    server.config_map("a", json!({})).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = server
        .get_accepting(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1"), accept)
        .await;
    let line: Value = serde_json::from_slice(&answer.body).expect("one event");
    assert_eq!(
        (
            line["object"]["kind"].as_str(),
            &line["object"]["rows"][0]["cells"][0]
        ),
        (Some("Table"), &json!("a"))
    );
}

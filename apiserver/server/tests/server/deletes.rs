use serde_json::json;

use crate::support::{CONFIG_MAPS, PODS, TestServer, request};

#[tokio::test(start_paused = true)]
async fn plain_objects_go_at_once() {
    let server = TestServer::start().await;
    let made = server.config_map("x", json!({})).await;
    let status = server.delete(&format!("{CONFIG_MAPS}/x")).await.ok();
    assert_eq!(
        (status["kind"].as_str(), status["status"].as_str()),
        (Some("Status"), Some("Success"))
    );
    assert_eq!(status["details"]["uid"], made["metadata"]["uid"]);
    assert_eq!(
        server.get(&format!("{CONFIG_MAPS}/x")).await.failure().0,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn preconditions_may_be_in_the_query() {
    let server = TestServer::start().await;
    let made = server.config_map("x", json!({})).await;
    let value = |field: &str| made["metadata"][field].as_str().expect("text").to_owned();
    let (uid, version) = (value("uid"), value("resourceVersion"));
    let path = format!("{CONFIG_MAPS}/x");
    for query in ["uid=other", "resourceVersion=1"] {
        for path in [&path, CONFIG_MAPS] {
            let refused = server.delete(&format!("{path}?{query}")).await;
            let (code, reason, message) = refused.failure();
            assert_eq!((code, reason.as_str()), (409, "Conflict"), "{path} {query}");
            assert!(message.contains("in the precondition ("), "{message}");
        }
    }
    // What a body says, it says alone.
    let elsewhere = format!("{path}?uid=other");
    let kept = server.delete_with(&elsewhere, json!({"dryRun": ["All"]}));
    kept.await.ok();
    let query = format!("uid={uid}&resourceVersion={version}");
    server.delete(&format!("{path}?{query}")).await.ok();
    assert_eq!(server.get(&path).await.failure().0, 404);
}

#[tokio::test(start_paused = true)]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = TestServer::start().await;
    let body = json!({"metadata": {"name": "x", "finalizers": ["example.com/f"]}});
    server.post(CONFIG_MAPS, body).await.ok();
    let path = format!("{CONFIG_MAPS}/x");
    let held = server.delete(&path).await.ok();
    assert_eq!(
        held["metadata"]["deletionTimestamp"],
        "2030-01-01T00:00:00Z"
    );
    let more = json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}});
    assert_eq!(server.merge(&path, more).await.failure().0, 422);
    server
        .merge(&path, json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(server.get(&path).await.failure().0, 404);
}

#[tokio::test(start_paused = true)]
async fn running_pods_get_their_grace_period() {
    let server = TestServer::start().await;
    server.pod("x", Some("n1")).await;
    let path = format!("{PODS}/x");
    let marked = server.delete(&path).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(
        marked["metadata"]["deletionTimestamp"],
        "2030-01-01T00:00:30Z"
    );
    let shorter = server
        .delete(&format!("{path}?gracePeriodSeconds=5"))
        .await
        .ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = server
        .delete(&format!("{path}?gracePeriodSeconds=50"))
        .await
        .ok();
    assert_eq!(
        longer["metadata"]["resourceVersion"],
        shorter["metadata"]["resourceVersion"]
    );
    server
        .delete(&format!("{path}?gracePeriodSeconds=0"))
        .await
        .ok();
    assert_eq!(server.get(&path).await.failure().0, 404);
}

#[tokio::test(start_paused = true)]
async fn pods_that_never_ran_go_at_once() {
    let server = TestServer::start().await;
    server.pod("x", None).await;
    assert_eq!(
        server.delete(&format!("{PODS}/x")).await.ok()["kind"],
        "Pod"
    );
    assert_eq!(server.get(&format!("{PODS}/x")).await.failure().0, 404);
}

#[tokio::test(start_paused = true)]
async fn preconditions_protect_a_successor() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let options = |body| request("DELETE", &path, "application/json", Some(body));
    let (code, _, message) = server
        .send(options(json!({"preconditions": {"uid": "other"}})))
        .await
        .failure();
    assert_eq!(code, 409);
    assert!(message.starts_with(
        r#"Operation cannot be fulfilled on ConfigMap "x": the UID in the precondition (other)"#
    ));
    assert_eq!(
        server
            .send(options(json!({"preconditions": {"resourceVersion": "1"}})))
            .await
            .failure()
            .0,
        409
    );
    server
        .send(options(json!({"propagationPolicy": "Background"})))
        .await
        .ok();
}

#[tokio::test(start_paused = true)]
async fn propagation_policies_leave_finalizers_for_the_collector() {
    let server = TestServer::start().await;
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        server
            .config_map(finalizer.to_lowercase().as_str(), json!({}))
            .await;
        let path = format!(
            "{CONFIG_MAPS}/{}?propagationPolicy={policy}",
            finalizer.to_lowercase()
        );
        assert_eq!(
            server.delete(&path).await.ok()["metadata"]["finalizers"],
            json!([finalizer])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn collections_are_deleted_by_selector() {
    let server = TestServer::start().await;
    server.config_map("a", json!({"g": "1"})).await;
    server.config_map("b", json!({"g": "2"})).await;
    let deleted = server
        .delete(&format!("{CONFIG_MAPS}?labelSelector=g%3D1"))
        .await
        .ok();
    assert_eq!(
        (
            deleted["kind"].as_str(),
            &deleted["items"][0]["metadata"]["name"]
        ),
        (Some("ConfigMapList"), &json!("a"))
    );
    assert_eq!(
        server.get(&format!("{CONFIG_MAPS}/a")).await.failure().0,
        404
    );
    server.get(&format!("{CONFIG_MAPS}/b")).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_namespace_waits_for_its_finalizer() {
    let server = TestServer::start().await;
    server
        .post("/api/v1/namespaces", json!({"metadata": {"name": "kt"}}))
        .await
        .ok();
    let going = server.delete("/api/v1/namespaces/kt").await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, _, message) = server
        .post(
            "/api/v1/namespaces/kt/configmaps",
            json!({"metadata": {"name": "x"}}),
        )
        .await
        .failure();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"configmaps "x" is forbidden: unable to create new content in namespace kt because it is being terminated"#
    );
    let (code, _, message) = server
        .post("/api/v1/namespaces", json!({"metadata": {"name": "kt"}}))
        .await
        .failure();
    assert_eq!(
        (code, message.as_str()),
        (
            409,
            r#"object is being deleted: namespaces "kt" already exists"#
        )
    );
    let finalized = json!({"metadata": {"name": "kt"}, "spec": {"finalizers": []}});
    server
        .put("/api/v1/namespaces/kt/finalize", finalized)
        .await
        .ok();
    assert_eq!(server.get("/api/v1/namespaces/kt").await.failure().0, 404);
}

#[tokio::test(start_paused = true)]
async fn some_namespaces_stay() {
    let server = TestServer::start().await;
    let (code, _, message) = server.delete("/api/v1/namespaces/default").await.failure();
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            r#"namespaces "default" is forbidden: this namespace may not be deleted"#
        )
    );
}

#[tokio::test(start_paused = true)]
async fn options_that_make_no_sense_are_all_told() {
    let server = TestServer::start().await;
    let (both, unknown) = (
        "orphanDependents and deletionPropagation cannot be both set",
        "Unsupported value: \"Bad\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
    );
    let path = format!("{CONFIG_MAPS}/none");
    let (code, _, message) = server
        .delete(&format!(
            "{path}?propagationPolicy=Bad&orphanDependents=true"
        ))
        .await
        .failure();
    assert_eq!(code, 422);
    let expected = format!(
        "[propagationPolicy: Invalid value: \"Bad\": {both}, propagationPolicy: {unknown}]"
    );
    assert!(message.ends_with(&expected), "{message}");
    // No policy is not the same as an empty one.
    for (query, options) in [
        ("?propagationPolicy=", None),
        ("", Some(json!({"propagationPolicy": ""}))),
    ] {
        let path = format!("{path}{query}");
        let answer = match options {
            None => server.delete(&path).await,
            Some(options) => server.delete_with(&path, options).await,
        };
        let (code, _, message) = answer.failure();
        assert_eq!(code, 422, "{query}");
        assert!(message.contains("Unsupported value: \"\""), "{message}");
    }
    // Of a collection, the selectors are looked at first.
    let query = "propagationPolicy=Bad&labelSelector=%3D1";
    let answer = server.delete(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(answer.failure().0, 400);
}

use serde_json::{Value, json};

use crate::support::{Answer, CONFIG_MAPS, TestServer};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].to_string()
}

#[tokio::test(start_paused = true)]
async fn what_the_store_reads_back_is_written_once() {
    let server = TestServer::start().await;
    let template =
        json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]}});
    let job = json!({"metadata": {"name": "x"}, "spec": {"template": template}});
    let made = server.post(JOBS, job).await.ok();
    assert_eq!(made["metadata"]["labels"]["job-name"], "x");
    let path = format!("{JOBS}/x");
    let once = server.merge(&path, json!({})).await.ok();
    assert_ne!(version(&once), version(&made));
    let twice = server.merge(&path, json!({})).await.ok();
    assert_eq!(version(&twice), version(&once));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_is_a_change_where_upstream_takes_it_for_one() {
    let server = TestServer::start().await;
    let made = server
        .post(WEBHOOKS, json!({"metadata": {"name": "x"}}))
        .await;
    assert_eq!(made.ok()["metadata"]["generation"], 1);
    let path = format!("{WEBHOOKS}/x");
    let changed = server.merge(&path, json!({"webhooks": []})).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    let same = server.merge(&path, json!({})).await.ok();
    assert_eq!(version(&same), version(&changed));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_base64_are_refused_at_the_byte() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let patch = json!({"binaryData": {"a": "AAEC2"}});
    let merged = server.merge(&path, patch.clone()).await.failure();
    assert!(merged.2.ends_with(": illegal base64 data at input byte 4"));
    let strategic = "application/strategic-merge-patch+json";
    let merged = server.patch(&path, strategic, patch).await.failure();
    assert!(
        merged
            .2
            .ends_with("error decoding from json: illegal base64 data at input byte 4")
    );
}

#[tokio::test(start_paused = true)]
async fn a_patch_cannot_make_another_kind() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let (code, _, message) = server
        .merge(&path, json!({"kind": "Secret"}))
        .await
        .failure();
    assert_eq!(code, 422);
    let why = "converting (v1.Secret) to (core.ConfigMap): unknown conversion";
    assert!(message.ends_with(why), "{message}");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_patch_is_told_once_there_is_something_to_patch() {
    let server = TestServer::start().await;
    let path = format!("{CONFIG_MAPS}/x");
    for media_type in [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ] {
        for (query, code) in [("", 404), ("?dryRun=Some", 422)] {
            let path = format!("{path}{query}");
            let answer = server.patch(&path, media_type, json!("x")).await;
            assert_eq!(answer.failure().0, code, "{media_type}");
        }
    }
    server.config_map("x", json!({})).await;
    let merge = "application/merge-patch+json";
    let (code, _, message) = server.patch(&path, merge, json!(null)).await.failure();
    assert_eq!((code, message.as_str()), (400, "Invalid JSON Patch"));
    let (code, _, message) = server.patch(&path, merge, json!("x")).await.failure();
    assert_eq!(code, 400);
    assert!(message.starts_with("error decoding patch: "), "{message}");
}

#[tokio::test(start_paused = true)]
async fn who_ignores_unknown_fields_hears_of_a_bad_patch_from_another_decoder() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let (json_patch, merge) = (
        "application/json-patch+json",
        "application/merge-patch+json",
    );
    let rejected = "the server rejected our request due to an error in our request";
    let no_operation = "json: cannot unmarshal number into Go value of type jsonpatch.Operation";
    for (media_type, patch, code, expected) in [
        (
            json_patch,
            json!({}),
            400,
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
        (json_patch, json!([5]), 400, no_operation),
        (
            json_patch,
            json!([{"op": 5, "path": "/data"}]),
            422,
            rejected,
        ),
        (merge, json!("x"), 400, "Invalid JSON Patch"),
        (merge, json!(null), 400, "Invalid JSON Patch"),
        (
            merge,
            json!([{"a": null}]),
            422,
            "cannot unmarshal array into Go value",
        ),
        (
            "application/strategic-merge-patch+json",
            json!("x"),
            400,
            "json: cannot unmarshal string",
        ),
    ] {
        let path = format!("{CONFIG_MAPS}/x?fieldValidation=Ignore");
        let answer = server.patch(&path, media_type, patch.clone()).await;
        let (found, _, message) = answer.failure();
        assert_eq!(found, code, "{patch}: {message}");
        let fits = match code {
            400 => message.starts_with(expected),
            _ => message.contains(expected),
        };
        assert!(fits, "{patch}: {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_also_adds_to_a_map() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let json_patch = "application/json-patch+json";
    let patch = json!([{"op": "replace", "path": "/metadata/annotations", "value": {"a": "b"}}]);
    let patched = server.patch(&path, json_patch, patch).await.ok();
    assert_eq!(patched["metadata"]["annotations"], json!({"a": "b"}));
    let patch = json!([{"op": "add", "path": "", "value": {}}]);
    let refused = server.patch(&path, json_patch, patch).await;
    assert_eq!(refused.failure().0, 422);
}

#[tokio::test(start_paused = true)]
async fn refused_patches_are_warned_of_all_the_same() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let fields = json!({"bogus": 1, "data": {"bad key": "x"}});
    let operations = json!([
        {"op": "add", "path": "/bogus", "value": 1},
        {"op": "add", "path": "/data", "value": {"bad key": "x"}},
    ]);
    for (media_type, patch) in [
        ("application/json-patch+json", operations),
        ("application/merge-patch+json", fields.clone()),
        ("application/strategic-merge-patch+json", fields),
    ] {
        let refused = server.patch(&path, media_type, patch).await;
        assert_eq!(refused.failure().0, 422, "{media_type}");
        let unknown = "299 - \"unknown field \\\"bogus\\\"\"";
        assert_eq!(refused.warnings(), [unknown], "{media_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_writes_are_warned_of_owners_that_occur_twice() {
    let server = TestServer::start().await;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1"});
    let body = |data: Value| json!({"metadata": {"name": "x", "ownerReferences": [owner, owner]}, "data": data});
    let bad = json!({"bad key": "x"});
    let warned = |answer: &Answer, when: &str| {
        let warnings = answer.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let text = format!("299 - \".metadata.ownerReferences contains duplicate entries{when}; ");
        assert!(warnings[0].starts_with(&text), "{warnings:?}");
    };
    let created = server.post(CONFIG_MAPS, body(bad.clone())).await;
    assert_eq!(created.failure().0, 422);
    warned(&created, "");
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    for (refused, when) in [
        (server.put(&path, body(bad.clone())).await, ""),
        (
            server.merge(&path, body(bad)).await,
            " after mutating admission happens",
        ),
    ] {
        assert_eq!(refused.failure().0, 422);
        warned(&refused, when);
    }
    let taken = server.post(CONFIG_MAPS, body(json!({}))).await;
    assert_eq!(taken.failure().0, 409);
    warned(&taken, "");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_an_object_of_no_version() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let refused = server.merge(&path, json!({"apiVersion": null})).await;
    let (code, _, message) = refused.failure();
    assert_eq!(code, 400);
    assert!(
        message.ends_with("was undeterminable: name must be provided"),
        "{message}"
    );
    assert!(
        refused
            .warnings()
            .iter()
            .any(|warning| warning.contains("metadata"))
    );
    server.merge(&path, json!({"kind": null})).await.ok();
}

#[tokio::test(start_paused = true)]
async fn what_a_patch_leaves_without_a_type_is_refused_for_that() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let whole = json!([{"op": "replace", "path": "", "value": []}]);
    let json_patch = server
        .patch(&path, "application/json-patch+json", whole)
        .await;
    let kind = server.merge(&path, json!({"kind": 5})).await;
    let version = server.merge(&path, json!({"apiVersion": "a/b/c"})).await;
    for (answer, why) in [
        (
            json_patch,
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into",
        ),
        (
            kind,
            "couldn't get version/kind; json parse error: json: cannot unmarshal number into",
        ),
        (version, "unexpected GroupVersion string: a/b/c"),
    ] {
        let (code, _, message) = answer.failure();
        assert_eq!(code, 422, "{message}");
        assert!(message.contains(why), "{message}");
    }
}

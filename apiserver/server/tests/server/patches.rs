use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, TestServer};

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

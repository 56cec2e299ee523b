//! One object in two versions.

use serde_json::json;

use super::support::TestServer;

const OLDER: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
const NEWER: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";

#[tokio::test(start_paused = true)]
async fn an_older_client_loses_nothing_that_it_cannot_see() {
    let server = TestServer::start().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let pods =
        json!({"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "10"}});
    let spec = json!({"scaleTargetRef": target, "maxReplicas": 3, "metrics": [{"type": "Pods", "pods": pods}]});
    server
        .post(NEWER, json!({"metadata": {"name": "x"}, "spec": spec}))
        .await
        .ok();
    let condition = json!({"type": "AbleToScale", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"});
    let mut newer = server.get(&format!("{NEWER}/x")).await.ok();
    newer["status"]["conditions"] = json!([condition]);
    server.put(&format!("{NEWER}/x/status"), newer).await.ok();

    let mut older = server.get(&format!("{OLDER}/x")).await.ok();
    assert_eq!(older["apiVersion"], "autoscaling/v1");
    let annotations = older["metadata"]["annotations"].as_object().expect("some");
    assert_eq!(annotations.len(), 2);
    older["spec"]["maxReplicas"] = json!(5);
    // The condition's annotation is dropped; the status is not this request's to change.
    older["metadata"]["annotations"]
        .as_object_mut()
        .expect("some")
        .retain(|key, _| key.ends_with("/metrics"));
    let updated = server.put(&format!("{OLDER}/x"), older).await.ok();
    assert_eq!(updated["spec"]["maxReplicas"], 5);

    let newer = server.get(&format!("{NEWER}/x")).await.ok();
    assert_eq!(newer["spec"]["metrics"][0]["type"], "Pods");
    assert_eq!(newer["status"]["conditions"][0]["type"], "AbleToScale");
    assert!(newer["metadata"].get("annotations").is_none());
}

#[tokio::test(start_paused = true)]
async fn events_of_either_group_are_seen_and_deleted_in_both() {
    let server = TestServer::start().await;
    let event = json!({
        "metadata": {"name": "x"}, "involvedObject": {"namespace": "default", "name": "p"}, "message": "said",
    });
    server
        .post("/api/v1/namespaces/default/events", event)
        .await
        .ok();
    let there = "/apis/events.k8s.io/v1/namespaces/default/events";
    let seen = server
        .get(&format!("{there}?fieldSelector=regarding.name=p"))
        .await
        .ok();
    assert_eq!(seen["items"][0]["note"], "said");
    server.delete(&format!("{there}/x")).await.ok();
    let gone = server.get("/api/v1/namespaces/default/events/x").await;
    assert_eq!(gone.status, 404);
}

//! Priority and fairness: the default schemas and levels.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::TestServer;

const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

async fn started() -> TestServer {
    let server = TestServer::start().await;
    let made = server.api.bootstrap_flow_control().await;
    made.expect("schemas and levels are made");
    server
}

/// Lets the server's own tasks do what is due within `seconds`.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn dangling(schema: &Value) -> (&str, &str) {
    let condition = &schema["status"]["conditions"][0];
    assert_eq!(condition["type"], "Dangling", "{schema}");
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    (text("status"), text("reason"))
}

#[tokio::test(start_paused = true)]
async fn schemas_say_whether_their_level_is_there() {
    let server = started().await;
    pass(1).await;
    let exempt = server.get(&format!("{SCHEMAS}/exempt")).await.ok();
    assert_eq!(dangling(&exempt), ("False", "Found"));
    let mine = json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "x"}}});
    server.post(SCHEMAS, mine).await.ok();
    pass(1).await;
    let path = format!("{SCHEMAS}/mine");
    let mine = server.get(&path).await.ok();
    assert_eq!(dangling(&mine), ("True", "NotFound"));
    let limited = json!({"limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "x"}, "spec": {"type": "Limited", "limited": limited}});
    server.post(LEVELS, level).await.ok();
    pass(1).await;
    let mine = server.get(&path).await.ok();
    assert_eq!(dangling(&mine), ("False", "Found"));
}

#[tokio::test(start_paused = true)]
async fn default_objects_come_back_and_changed_ones_are_put_right() {
    let server = started().await;
    let shares = async || {
        let level = server.get(&format!("{LEVELS}/system")).await.ok();
        level["spec"]["limited"]["nominalConcurrencyShares"].clone()
    };
    let change = |annotations: Value| {
        json!({
            "metadata": {"annotations": annotations},
            "spec": {"limited": {"nominalConcurrencyShares": 7}},
        })
    };
    for path in [
        format!("{SCHEMAS}/exempt"),
        format!("{LEVELS}/workload-low"),
    ] {
        server.delete(&path).await.ok();
    }
    let system = format!("{LEVELS}/system");
    server.merge(&system, change(json!({}))).await.ok();
    assert_eq!(shares().await, 7);
    pass(61).await;
    for path in [
        format!("{SCHEMAS}/exempt"),
        format!("{LEVELS}/workload-low"),
    ] {
        server.get(&path).await.ok();
    }
    assert_eq!(shares().await, 30);
    let mine = change(json!({"apf.kubernetes.io/autoupdate-spec": "false"}));
    server.merge(&system, mine).await.ok();
    pass(121).await;
    assert_eq!(shares().await, 7);
}

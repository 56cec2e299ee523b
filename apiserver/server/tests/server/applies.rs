//! Server-side apply and field ownership, over HTTP.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support::{Answer, TestServer, request};

const PATH: &str = "/api/v1/namespaces/default/configmaps/x";

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

async fn apply(server: &TestServer, path: &str, query: &str, body: &str) -> Answer {
    let target = format!("{path}?{query}");
    let mut request = request("PATCH", &target, "application/apply-patch+yaml", None);
    *request.body_mut() = Full::new(Bytes::from(body.to_owned()));
    server.send(request).await
}

/// Manager and operation of each entry.
fn owners(object: &Value) -> Vec<(String, String)> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| (text(&entry["manager"]), text(&entry["operation"])))
        .collect()
}

#[tokio::test]
async fn a_configuration_makes_the_object_and_then_changes_it() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  a: \"1\"\n---\nnot: read\n";
    let made = apply(&server, PATH, "fieldManager=one", yaml).await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(entry["fieldsV1"], json!({"f:data": {"f:a": {}}}));
    let again = apply(&server, PATH, "fieldManager=one", yaml).await.ok();
    assert_eq!(again, made, "nothing changed, so nothing is written");
    let body = config_map(json!({"b": "2"})).to_string();
    let changed = apply(&server, PATH, "fieldManager=one", &body).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.ok()["data"], json!({"b": "2"}));
}

#[tokio::test]
async fn conflicts_have_one_cause_each_until_forced() {
    let server = TestServer::start().await;
    let body = |value: &str| config_map(json!({"a": value, "b": value})).to_string();
    apply(&server, PATH, "fieldManager=one", &body("1"))
        .await
        .ok();
    let refused = apply(&server, PATH, "fieldManager=two", &body("2")).await;
    let (code, reason, message) = refused.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    let text = "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b";
    assert_eq!(message, text);
    let causes = refused.json()["details"]["causes"].clone();
    let cause = |field: &str| json!({"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": field});
    assert_eq!(causes, json!([cause(".data.a"), cause(".data.b")]));
    let dry = apply(
        &server,
        PATH,
        "fieldManager=two&force=true&dryRun=All",
        &body("2"),
    )
    .await
    .ok();
    assert_eq!(owners(&dry), [("two".to_owned(), "Apply".to_owned())]);
    let forced = apply(&server, PATH, "fieldManager=two&force=true", &body("2"))
        .await
        .ok();
    assert_eq!(owners(&forced), [("two".to_owned(), "Apply".to_owned())]);
    let unnamed = apply(&server, PATH, "", &body("2")).await.failure();
    assert!(
        unnamed
            .2
            .ends_with("fieldManager: Required value: is required for apply patch")
    );
}

#[tokio::test]
async fn writes_are_owned_by_the_program_that_makes_them() {
    let server = TestServer::start().await;
    let body = config_map(json!({"a": "1"}));
    let path = "/api/v1/namespaces/default/configmaps";
    let mut create = request("POST", path, "application/json", Some(body));
    create
        .headers_mut()
        .insert("user-agent", "shell/1.0 (x)".parse().expect("a header"));
    server.send(create).await.ok();
    let patch = |body: Value| {
        let path = format!("{PATH}?fieldManager=ed");
        server.send(request(
            "PATCH",
            &path,
            "application/merge-patch+json",
            Some(body),
        ))
    };
    let patched = patch(json!({"data": {"b": "2"}})).await.ok();
    let update = |manager: &str| (manager.to_owned(), "Update".to_owned());
    assert_eq!(owners(&patched), [update("ed"), update("shell")]);
    let forgotten = patch(json!({"metadata": {"managedFields": []}})).await.ok();
    assert_eq!(owners(&forgotten), []);
}

#[tokio::test]
async fn status_and_scale_have_owners_of_their_own() {
    let server = TestServer::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/x";
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": {
            "metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "example.com/a:1"}]},
        }},
    });
    apply(&server, path, "fieldManager=one", &deployment.to_string())
        .await
        .ok();
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "status": {"replicas": 2}});
    let status_path = format!("{path}/status");
    let shown = apply(
        &server,
        &status_path,
        "fieldManager=ctl",
        &status.to_string(),
    )
    .await
    .ok();
    assert_eq!(
        shown["metadata"]["managedFields"][0]["subresource"],
        "status"
    );
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"}, "spec": {"replicas": 4}});
    let scale_path = format!("{path}/scale");
    let refused = apply(&server, &scale_path, "fieldManager=hpa", &scale.to_string())
        .await
        .failure();
    assert_eq!(
        refused.2,
        "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
    );
    let query = "fieldManager=hpa&force=true";
    let scaled = apply(&server, &scale_path, query, &scale.to_string())
        .await
        .ok();
    assert_eq!(scaled["spec"]["replicas"], 4);
    let absent = path.replace("/x", "/y/status");
    let absent = apply(
        &server,
        &absent,
        "fieldManager=ctl",
        &status.to_string().replace("\"x\"", "\"y\""),
    )
    .await;
    assert_eq!(absent.status, 404);
}

#[tokio::test(start_paused = true)]
async fn values_that_do_not_fit_their_type_cannot_be_converted() {
    let server = TestServer::start().await;
    for (fields, why) in [
        (
            r#""metadata":{"name":"x"},"binaryData":{"a":"!"}"#,
            "error decoding from json: illegal base64 data at input byte 0",
        ),
        (
            r#""metadata":{"name":"x","creationTimestamp":"x"}"#,
            r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#,
        ),
    ] {
        let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap",{fields}}}"#);
        let (code, _, message) = apply(&server, PATH, "fieldManager=one", &body)
            .await
            .failure();
        assert_eq!(code, 500);
        assert_eq!(
            message,
            format!(
                "failed to convert new object (/x; /v1, Kind=ConfigMap) to proper version: unable to convert \
                 unstructured object to /v1, Kind=ConfigMap: {why}"
            )
        );
    }
}

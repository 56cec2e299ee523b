//! Objects that nest as deep as upstream lets them: every verb and every form of an answer takes them.

use std::sync::Arc;

use coracle_api::schema::{MAX_NESTING, from_kept_json};
use coracle_clock::Clock;
use coracle_server::{ApiServer, Config, WithoutManagedFields};
use coracle_store::MemoryStore;
use serde_json::{Value, json};

use crate::deep::deep;
use crate::support::{CONFIG_MAPS, TestServer, event, request, send};

const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const FORMS: [&str; 7] = [
    "application/json",
    "application/yaml",
    PROTOBUF,
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/yaml;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
];

/// `{"a":{"a":…1…}}`, so many levels.
fn nested(levels: usize) -> String {
    format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels))
}

/// A ControllerRevision that nests so many levels.
fn revision(name: &str, levels: usize) -> String {
    let data = nested(levels - 1);
    let (kind, version) = ("ControllerRevision", "apps/v1");
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"name":"{name}"}},"revision":1,"data":{data}}}"#
    )
}

/// Gets an object and its list in every form.
async fn show(server: &TestServer, list: &str, name: &str) {
    for path in [
        format!("{list}/{name}"),
        format!("{list}?fieldSelector=metadata.name%3D{name}"),
    ] {
        for form in FORMS {
            let form = match path.contains('?') {
                true => form.replace("PartialObjectMetadata", "PartialObjectMetadataList"),
                false => form.to_owned(),
            };
            for query in ["includeObject=Object", "pretty=1"] {
                let mark = if path.contains('?') { '&' } else { '?' };
                let asked = format!("{path}{mark}{query}");
                let answer = server.get_accepting(&asked, &form).await;
                assert!(answer.status.is_success(), "{path} as {form}");
                let size = answer.body.len();
                assert!(size < 10 << 20, "{size} bytes of {path} as {form}, {query}");
            }
        }
    }
}

#[test]
fn every_verb_takes_objects_of_any_depth() {
    deep(async || {
        let server = TestServer::start().await;
        let mut watch = server.watch(&format!("{REVISIONS}?watch=1")).await;
        let own = format!("{REVISIONS}/a");
        for media in ["application/json", "application/yaml"] {
            let (deepest, deeper) = (revision("b", MAX_NESTING), revision("b", MAX_NESTING + 1));
            let dry = format!("{REVISIONS}?dryRun=All");
            send(&server, "POST", &dry, media, deepest).await.ok();
            let answer = send(&server, "POST", REVISIONS, media, deeper).await;
            let (code, reason, message) = answer.failure();
            assert_eq!((code, reason.as_str()), (400, "BadRequest"));
            assert!(message.contains("exceeded max depth"), "{message}");
        }
        // The owners of its fields nest five levels more than the fields.
        let most = revision("a", MAX_NESTING - 5);
        send(&server, "POST", REVISIONS, "application/json", most.clone())
            .await
            .ok();
        let data: Value = from_kept_json(nested(MAX_NESTING - 6).as_bytes()).expect("JSON");
        assert!(server.get(&own).await.ok()["data"] == data);
        show(&server, REVISIONS, "a").await;
        assert_eq!(watch.event().await, event("ADDED", "a"));

        // Updates, of what is the same but for a number.
        let second = most.replace(r#""revision":1"#, r#""revision":2"#);
        send(&server, "PUT", &own, "application/json", second.clone())
            .await
            .ok();
        let message = server.get_accepting(&own, PROTOBUF).await.body;
        send(&server, "PUT", &own, PROTOBUF, message).await.ok();
        let labels = |value: &str| json!({"metadata": {"labels": {"a": value}}});
        server.merge(&own, labels("1")).await.ok();
        let strategic = "application/strategic-merge-patch+json";
        server.patch(&own, strategic, labels("2")).await.ok();
        let json_patch = "application/json-patch+json";
        let add = json!([{"op": "add", "path": "/metadata/labels/a", "value": "3"}]);
        server.patch(&own, json_patch, add).await.ok();
        for _ in 0..4 {
            assert_eq!(watch.event().await, event("MODIFIED", "a"));
        }

        // A patch may not make it deeper.
        let deeper = json!([{"op": "move", "from": "/data", "path": "/metadata/annotations"},
            {"op": "add", "path": "/data", "value": {}}, {"op": "move", "from": "/metadata/annotations", "path": "/data/b"}]);
        let (code, _, _) = server.patch(&own, json_patch, deeper).await.failure();
        assert_eq!(code, 422);

        // Owners of its fields.
        let applied = |by: &str| format!("{own}?fieldManager={by}");
        let apply = "application/apply-patch+yaml";
        send(&server, "PATCH", &applied("one"), apply, second.clone())
            .await
            .ok();
        let other = second.replace("1}", "3}");
        let answer = send(&server, "PATCH", &applied("two"), apply, other.clone()).await;
        let (code, reason, message) = answer.failure();
        assert_eq!((code, reason.as_str()), (409, "Conflict"));
        assert!(message.ends_with(&".a".repeat(MAX_NESTING - 6)));
        let force = format!("{}&force=true", applied("two"));
        let (code, _, message) = send(&server, "PATCH", &force, apply, other).await.failure();
        assert_eq!(code, 422);
        assert!(message.contains("field is immutable"));
        show(&server, REVISIONS, "a").await;

        server.delete(&own).await.ok();
        send(&server, "PATCH", &applied("one"), apply, most)
            .await
            .ok();
        server.delete(REVISIONS).await.ok();
        assert_eq!(server.get(&own).await.failure().0, 404);
    });
}

#[test]
fn owners_of_any_depth_are_kept_and_left_out() {
    deep(async || {
        let server = TestServer::start().await;
        let levels = MAX_NESTING - 5;
        let fields = format!("{}{{}}{}", "{\"f:a\":".repeat(levels), "}".repeat(levels));
        let body = format!(
            r#"{{"metadata":{{"name":"x","managedFields":[{{"manager":"m","operation":"Update","apiVersion":"v1",
            "fieldsType":"FieldsV1","fieldsV1":{fields}}}]}},"data":{{"a":"1"}}}}"#
        );
        send(&server, "POST", CONFIG_MAPS, "application/json", body)
            .await
            .ok();
        show(&server, CONFIG_MAPS, "x").await;
        let own = format!("{CONFIG_MAPS}/x");
        let owners = |object: Value| object["metadata"]["managedFields"].as_array().map(Vec::len);
        assert_eq!(owners(server.get(&own).await.ok()), Some(2));
        // Components of this process are not shown them, and leave them as they are.
        let ask = async |method: &str, path: &str, body: Option<Value>| {
            let mut request = request(method, path, "application/json", body);
            request.extensions_mut().insert(WithoutManagedFields);
            server.send(request).await.ok()
        };
        let mut object = ask("GET", &own, None).await;
        assert_eq!(owners(object.clone()), None);
        let list = ask("GET", CONFIG_MAPS, None).await;
        assert_eq!(owners(list["items"][0].clone()), None);
        assert_eq!(list["items"][0]["data"]["a"], "1");
        object["data"]["b"] = "2".into();
        assert_eq!(owners(ask("PUT", &own, Some(object)).await), None);
        assert_eq!(owners(server.get(&own).await.ok()), Some(2));
    });
}

#[test]
fn a_watch_leaves_owners_out_for_components() {
    deep(async || {
        let server = TestServer::start().await;
        let watched = format!("{CONFIG_MAPS}?watch=1");
        let mut watches = Vec::new();
        for accept in ["application/json", FORMS[5]] {
            let mut request = request("GET", &watched, "", None);
            request.extensions_mut().insert(WithoutManagedFields);
            let accept = accept.parse().expect("a header");
            request.headers_mut().insert("accept", accept);
            watches.push(server.watch_by(request).await);
        }
        server.config_map("x", json!({"a": "1"})).await;
        server
            .merge(&format!("{CONFIG_MAPS}/x"), json!({"data": {"b": "2"}}))
            .await
            .ok();
        server.delete(&format!("{CONFIG_MAPS}/x")).await.ok();
        for watch in &mut watches {
            for kind in ["ADDED", "MODIFIED", "DELETED"] {
                let event = watch.next().await.expect("an event");
                assert_eq!(event["type"], kind);
                let metadata = &event["object"]["metadata"];
                assert_eq!(metadata["labels"]["a"], "1");
                assert!(metadata.get("managedFields").is_none(), "{metadata}");
            }
        }
    });
}

#[test]
fn a_definition_of_any_depth_is_checked_and_kept() {
    deep(async || {
        let server = TestServer::start().await;
        // Each schema is two levels; above the first are five, and the last is one.
        let levels = (MAX_NESTING - 6) / 2;
        let definition = |inner: &str, rule: &str| {
            let (open, close) = (
                format!(r#"{{"type":"object"{rule},"properties":{{"a":"#),
                "}}".repeat(levels),
            );
            let schema = format!("{}{inner}{close}", open.repeat(levels));
            format!(
                r#"{{"metadata":{{"name":"as.example.com"}},"spec":{{"group":"example.com","scope":"Cluster",
                "names":{{"plural":"as","kind":"A"}},"versions":[{{"name":"v1","served":true,"storage":true,
                "schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#
            )
        };
        let leaf = r#"{"type":"string"}"#;
        let json = "application/json";
        let mut wrong: Vec<String> = (0..2_000)
            .map(|n| format!(r#""b{n}":{{"type":"x"}}"#))
            .collect();
        wrong.push(r#""c":{"type":"string"}"#.to_owned());
        let wrong = format!(
            r#"{{"type":"object","properties":{{{}}}}}"#,
            wrong.join(",")
        );
        let answer = send(&server, "POST", DEFINITIONS, json, definition(&wrong, "")).await;
        assert_eq!(answer.status, 400, "two levels more than there may be");
        let wrong = wrong.replacen(r#"{"type":"object","properties":"#, "", 1);
        let wrong = definition(r#"{"type":"string"}"#, "").replacen(
            r#""a":"#,
            &format!("{},\"a\":", &wrong[1..wrong.len() - 2]),
            3,
        );
        let answer = send(&server, "POST", DEFINITIONS, json, wrong).await;
        assert_eq!(answer.failure().0, 422);
        send(&server, "POST", DEFINITIONS, json, definition(leaf, ""))
            .await
            .ok();
        show(&server, DEFINITIONS, "as.example.com").await;
        let own = format!("{DEFINITIONS}/as.example.com");
        let labels = json!({"metadata": {"labels": {"a": "1"}}});
        server.merge(&own, labels).await.ok();
        let applied = definition(leaf, "").replacen(
            '{',
            r#"{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","#,
            1,
        );
        let path = format!("{own}?fieldManager=m&force=true");
        send(
            &server,
            "PATCH",
            &path,
            "application/apply-patch+yaml",
            applied,
        )
        .await
        .ok();
        server.delete(&own).await.ok();
    });
}

#[test]
fn what_nests_is_read_again_after_a_restart() {
    deep(async || {
        let clock = Clock::fake(1);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let body = revision("a", MAX_NESTING);
        let kept = store.clone();
        let server = TestServer::start_with(|config| config.store = kept).await;
        send(&server, "POST", REVISIONS, "application/json", body)
            .await
            .ok();
        server.api.stop();
        let api = ApiServer::start(Config::new(store, clock)).await;
        let server = TestServer {
            api: api.expect("all that is stored is read"),
        };
        show(&server, REVISIONS, "a").await;
    });
}

#[test]
fn thousands_of_findings_in_the_depths_are_an_answer() {
    deep(async || {
        let server = TestServer::start().await;
        let levels = MAX_NESTING - 2;
        let many: Vec<String> = (0..100_000).map(|n| format!(r#""x{n}":1"#)).collect();
        let body = |value: usize| {
            let inner = many.join(",").replace(":1", &format!(":{value}"));
            let data = format!(
                "{}{{{inner}}}{}",
                "{\"a\":".repeat(levels),
                "}".repeat(levels)
            );
            format!(
                r#"{{"kind":"ControllerRevision","apiVersion":"apps/v1","metadata":{{"name":"a"}},"revision":1,"data":{data}}}"#
            )
        };
        let apply = "application/apply-patch+yaml";
        let by = |manager: &str| format!("{REVISIONS}/a?fieldManager={manager}");
        send(&server, "PATCH", &by("one"), apply, body(1))
            .await
            .ok();
        let answer = send(&server, "PATCH", &by("two"), apply, body(2)).await;
        assert!(answer.body.len() < 16 << 20);
        assert_eq!(answer.failure().0, 409);
    });
}

#[test]
fn a_long_place_that_an_operation_has_no_use_for_is_no_depth() {
    deep(async || {
        let server = TestServer::start().await;
        server.config_map("x", json!({})).await;
        let patch =
            json!([{"op": "add", "path": "/data", "value": 1, "from": "/a".repeat(1_000_000)}]);
        let path = format!("{CONFIG_MAPS}/x");
        let answer = server
            .patch(&path, "application/json-patch+json", patch)
            .await;
        assert_eq!(answer.failure().0, 422);
    });
}

use serde_json::json;

use crate::support::{CONFIG_MAPS, PODS, TestServer, request};

#[tokio::test(start_paused = true)]
async fn what_was_written_is_read_back() {
    let server = TestServer::start().await;
    let made = server.config_map("x", json!({"g": "1"})).await;
    let read = server.get(&format!("{CONFIG_MAPS}/x")).await.ok();
    assert_eq!(read, made);
    assert_eq!(
        (read["kind"].as_str(), read["apiVersion"].as_str()),
        (Some("ConfigMap"), Some("v1"))
    );
    assert_eq!(
        read["metadata"]["creationTimestamp"],
        "2030-01-01T00:00:00Z"
    );
}

#[tokio::test(start_paused = true)]
async fn absent_objects_are_not_found() {
    let server = TestServer::start().await;
    let (code, reason, message) = server.get(&format!("{CONFIG_MAPS}/none")).await.failure();
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (404, "NotFound", r#"configmaps "none" not found"#)
    );
}

#[tokio::test(start_paused = true)]
async fn list_items_have_no_type_and_are_sorted() {
    let server = TestServer::start().await;
    for name in ["b", "a", "c"] {
        server.config_map(name, json!({})).await;
    }
    let list = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(list["kind"], "ConfigMapList");
    let items = list["items"].as_array().expect("items");
    let names: Vec<&str> = items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(
        items
            .iter()
            .all(|item| item.get("kind").is_none() && item.get("apiVersion").is_none())
    );
}

#[tokio::test(start_paused = true)]
async fn selectors_choose_by_labels_and_fields() {
    let server = TestServer::start().await;
    server.config_map("a", json!({"g": "1"})).await;
    server.config_map("b", json!({"g": "2"})).await;
    for (query, expected) in [
        ("labelSelector=g%3D1", vec!["a"]),
        ("labelSelector=g%20in%20(1,2)", vec!["a", "b"]),
        ("labelSelector=g!%3D1", vec!["b"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
    ] {
        let list = server.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        let items = list["items"].as_array().expect("items");
        let names: Vec<&str> = items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names, expected, "{query}");
    }
    for (path, code) in [
        (PODS, 200),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles", 200),
        ("/api/v1/namespaces", 400),
        ("/api/v1/nodes", 400),
        ("/apis/resource.k8s.io/v1/resourceslices", 400),
    ] {
        let query = "fieldSelector=metadata.namespace%3Dx";
        let answer = server.get(&format!("{path}?{query}")).await;
        assert_eq!(answer.status, code, "{path}");
    }
    let (code, _, message) = server
        .get(&format!("{CONFIG_MAPS}?fieldSelector=bogus%3D1"))
        .await
        .failure();
    assert_eq!(code, 400);
    assert!(message.contains("is not a known field selector"));
}

#[tokio::test(start_paused = true)]
async fn pages_belong_together_whatever_happens_between_them() {
    let server = TestServer::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.config_map(name, json!({})).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(
        (
            first["items"].as_array().map(Vec::len),
            &first["metadata"]["remainingItemCount"]
        ),
        (Some(2), &json!(3))
    );
    server.delete(&format!("{CONFIG_MAPS}/d")).await.ok();
    server.config_map("c2", json!({})).await;
    let mut token = first["metadata"]["continue"]
        .as_str()
        .expect("a token")
        .to_owned();
    let mut names = Vec::new();
    while !token.is_empty() {
        let page = server
            .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
            .await
            .ok();
        assert_eq!(
            page["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        for item in page["items"].as_array().expect("items") {
            names.push(
                item["metadata"]["name"]
                    .as_str()
                    .expect("a name")
                    .to_owned(),
            );
        }
        token = page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
    }
    assert_eq!(names, ["c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn of_several_mistakes_the_one_is_told_that_upstream_meets_first() {
    let server = TestServer::start().await;
    let watched = "/api/v1/watch/namespaces/default/configmaps/a";
    for (path, query, code, begins) in [
        (
            CONFIG_MAPS,
            "limit=x&labelSelector=%3D1",
            400,
            "strconv.ParseInt",
        ),
        (
            CONFIG_MAPS,
            "labelSelector=%3D1&fieldSelector=a&resourceVersionMatch=Bad",
            400,
            "found '='",
        ),
        (
            CONFIG_MAPS,
            "fieldSelector=a&resourceVersionMatch=Bad",
            400,
            "invalid selector: 'a'",
        ),
        (
            CONFIG_MAPS,
            "fieldSelector=zz%3D1&resourceVersionMatch=Bad",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid",
        ),
        (
            CONFIG_MAPS,
            "fieldSelector=zz%3D1,bogus%3D2",
            400,
            "\"bogus\" is not a known field selector",
        ),
        (
            CONFIG_MAPS,
            "continue=e30&resourceVersion=x",
            400,
            "invalid continue token",
        ),
        (
            watched,
            "fieldSelector=metadata.name%3Db",
            400,
            "fieldSelector metadata.name doesn't match requested name",
        ),
    ] {
        let answer = server.get(&format!("{path}?{query}")).await;
        let (status, _, message) = answer.failure();
        assert_eq!(status, code, "{query}: {message}");
        assert!(message.starts_with(begins), "{query}: {message}");
    }
    server.config_map("a", json!({})).await;
    server.config_map("b", json!({})).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let both = format!("{CONFIG_MAPS}?continue={token}&resourceVersion=x");
    let (_, _, message) = server.get(&both).await.failure();
    assert_eq!(
        message,
        "specifying resource version is not allowed when using continue"
    );
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_never_comes_is_a_timeout() {
    let server = TestServer::start().await;
    let answer = server
        .get(&format!(
            "{CONFIG_MAPS}?resourceVersion=99999&resourceVersionMatch=Exact"
        ))
        .await;
    let (code, reason, message) = answer.failure();
    assert_eq!((code, reason.as_str()), (504, "Timeout"));
    assert!(message.starts_with("Timeout: Too large resource version: 99999"));
}

#[tokio::test(start_paused = true)]
async fn tables_and_partial_metadata_are_shown_on_request() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let table = server
        .get_accepting(
            CONFIG_MAPS,
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        )
        .await
        .ok();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "x");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let partial = server.get_accepting(CONFIG_MAPS, accept).await.ok();
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0].get("data").is_none());
    assert_eq!(
        server
            .get_accepting(CONFIG_MAPS, "text/html")
            .await
            .failure()
            .0,
        406
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_has_no_table() {
    let server = TestServer::start().await;
    server.pod("x", None).await;
    let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let question = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "x"},
        "deleteOptions": {"dryRun": ["All"]},
    });
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    for (path, body) in [
        (review, question),
        (&format!("{PODS}/x/eviction"), eviction),
    ] {
        for (accept, code) in [(table.to_owned(), 406), (format!("{table},*/*"), 201)] {
            let mut asked = request("POST", path, "application/json", Some(body.clone()));
            let value = accept.parse().expect("a header");
            asked.headers_mut().insert("accept", value);
            let answer = server.send(asked).await;
            assert_eq!(answer.status, code, "{path} {accept}");
        }
    }
    for path in ["/apis", "/api/v1"] {
        let answer = server.get_accepting(path, table).await;
        assert_eq!(answer.status, 406, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn yaml_and_protobuf_are_written_for_those_who_want_nothing_else() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let yaml = server.get_accepting(&path, "application/yaml").await;
    let yaml = String::from_utf8_lossy(&yaml.body).into_owned();
    assert!(yaml.starts_with("apiVersion: v1\n"), "{yaml}");
    assert!(yaml.contains("\nkind: ConfigMap\nmetadata:\n"), "{yaml}");
    let protobuf = server
        .get_accepting(&path, "application/vnd.kubernetes.protobuf")
        .await;
    assert_eq!(&protobuf.body[..4], b"k8s\0");
    assert_eq!(
        protobuf.headers["content-type"],
        "application/vnd.kubernetes.protobuf"
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_methods_are_told_apart() {
    let server = TestServer::start().await;
    assert_eq!(
        server
            .get("/api/v1/namespaces/default/things")
            .await
            .failure()
            .0,
        404
    );
    assert_eq!(server.put(CONFIG_MAPS, json!({})).await.failure().0, 405);
    assert_eq!(
        server.get("/apis/none.example.com/v1/things").await.body,
        "404 page not found\n"
    );
}

#[tokio::test(start_paused = true)]
async fn heads_are_only_for_documents_and_proxies() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    server.pod("waiting", None).await;
    for (path, code) in [
        (CONFIG_MAPS, 405),
        (&format!("{CONFIG_MAPS}/x"), 405),
        (&format!("{CONFIG_MAPS}?watch=1"), 405),
        (&format!("{PODS}/waiting/log"), 405),
        // Refused by the proxy itself, which such requests get to.
        (&format!("{PODS}/waiting/proxy/"), 400),
        ("/api", 405),
        ("/apis/apps/v1", 405),
        ("/version", 405),
        ("/apis", 200),
        ("/apis/apps", 200),
        ("/livez", 200),
        ("/metrics", 200),
        ("/openapi/v2", 200),
    ] {
        let answer = server.send(request("HEAD", path, "", None)).await;
        assert_eq!(answer.status, code, "{path}");
    }
    let options = request("OPTIONS", &format!("{PODS}/waiting/proxy/"), "", None);
    assert_eq!(server.send(options).await.status, 400);
    let options = request("OPTIONS", CONFIG_MAPS, "", None);
    assert_eq!(server.send(options).await.status, 405);
}

#[tokio::test(start_paused = true)]
async fn openapi_documents_come_in_the_form_that_is_asked_for() {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    let server = TestServer::start().await;
    for (accept, status, content_type) in [
        (PROTOBUF, 200, PROTOBUF),
        (
            "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
            200,
            PROTOBUF,
        ),
        ("application/json", 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/vnd.kubernetes.protobuf", 406, ""),
    ] {
        let mut asked = request("GET", "/openapi/v3/api/v1", "", None);
        let value = accept.parse().expect("a header");
        asked.headers_mut().insert("accept", value);
        let answer = server.send(asked).await;
        assert_eq!(answer.status, status, "{accept}");
        let found = answer.headers.get("content-type");
        let found = found.and_then(|value| value.to_str().ok());
        assert_eq!(found.unwrap_or_default(), content_type, "{accept}");
    }
}

#[tokio::test(start_paused = true)]
async fn health_and_version_are_answered() {
    let server = TestServer::start().await;
    for path in ["/livez", "/readyz", "/healthz", "/readyz/ping"] {
        assert_eq!(server.get(path).await.body, "ok", "{path}");
    }
    let verbose = server.get("/readyz?verbose").await;
    assert_eq!(
        verbose.body,
        "[+]ping ok\n[+]etcd ok\n[+]informer-sync ok\n[+]shutdown ok\nreadyz check passed\n"
    );
    let excluded = server.get("/livez?verbose&exclude=ping&exclude=b&exclude=a");
    assert_eq!(
        excluded.await.body,
        "[+]ping excluded: ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \
         \"a\",\"b\"\nlivez check passed\n"
    );
    for path in ["/livez/", "/livez/none", "/healthz/shutdown"] {
        let answer = server.get(path).await;
        let text = "404 page not found\n";
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (404, text.as_bytes())
        );
    }
    assert_eq!(server.get("/version").await.ok()["minor"], "36");
    let metrics = server.get("/metrics").await.body;
    let metrics = String::from_utf8_lossy(&metrics);
    assert!(metrics.contains("apiserver_request_total"));
    // A scraper takes each series once.
    let mut series = std::collections::HashSet::new();
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    for sample in samples.filter_map(|line| line.rsplit_once(' ')) {
        assert!(series.insert(sample.0), "{} twice", sample.0);
    }
    server.api.start_draining();
    let failed = server.get("/readyz").await;
    assert_eq!(failed.status, 500);
    assert_eq!(
        failed.body,
        "[+]ping ok\n[+]etcd ok\n[+]informer-sync ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n"
    );
    let why = server.get("/readyz/shutdown").await;
    assert_eq!(
        why.body,
        "internal server error: process is shutting down\n"
    );
    assert_eq!(
        server.get("/readyz?exclude=shutdown").await.body,
        "ok",
        "what is excluded does not fail"
    );
    assert_eq!(server.get("/livez").await.status, 200);
    let slis = server.get("/metrics/slis").await.body;
    let slis = String::from_utf8_lossy(&slis);
    for line in [
        r#"kubernetes_healthcheck{name="shutdown",type="readyz"} 0"#,
        r#"kubernetes_healthchecks_total{name="shutdown",status="error",type="readyz"} 1"#,
        r#"kubernetes_healthchecks_total{name="shutdown",status="success",type="readyz"} 2"#,
    ] {
        assert!(slis.lines().any(|found| found == line), "{line} in {slis}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_says_what_it_is_and_since_when() {
    let server = TestServer::start().await;
    let up = std::time::Duration::from_secs(3661);
    tokio::time::advance(up).await;
    let kubectl = server
        .get_accepting("/statusz", "application/json, */*")
        .await;
    assert_eq!(kubectl.headers["content-type"], "text/plain; charset=utf-8");
    let text = String::from_utf8_lossy(&kubectl.body).into_owned();
    assert_eq!(server.get("/statusz").await.body, text);
    assert!(text.contains("\nStarted: Tue Jan  1 00:00:00 UTC 2030\nUp: 1 hr 01 min 01 sec\n"));
    assert!(text.contains("\nBinary version: 1.36.2\nEmulation version: 1.36\n"));
    let object = ";g=config.k8s.io;v=v1beta1;as=Statusz";
    for format in ["application/json", "application/yaml"] {
        let accept = format!("{format}{object}");
        let answer = server.get_accepting("/statusz", &accept).await;
        assert_eq!(answer.headers["content-type"], accept.as_str());
        let status: serde_json::Value = serde_saphyr::from_slice(&answer.body).expect("YAML");
        assert_eq!(status["kind"], "Statusz");
        assert_eq!(status["startTime"], "2030-01-01T00:00:00Z");
        assert_eq!(status["uptimeSeconds"], 3661);
    }
    let protobuf = format!("application/vnd.kubernetes.protobuf{object}");
    for accept in ["application/json", &protobuf, "text/html"] {
        let refused = server.get_accepting("/statusz", accept).await.failure();
        assert_eq!(refused.0, 406, "{accept}");
        let types = "application/vnd.kubernetes.protobuf, text/plain";
        assert!(refused.2.ends_with(types), "{}", refused.2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_has_no_log() {
    let server = TestServer::start().await;
    server.pod("waiting", None).await;
    let answer = server.get(&format!("{PODS}/waiting/log")).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers.get("content-type"), None);
    assert!(answer.body.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_the_control_plane_say_whether_they_work() {
    let server = TestServer::start().await;
    let path = "/api/v1/componentstatuses";
    server
        .api
        .add_component("scheduler", Box::new(|| Err("gone".to_owned())));
    let healthy = json!({"type": "Healthy", "status": "True", "message": "ok"});
    let list = server.get(path).await.ok();
    let shown: Vec<_> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| (&item["metadata"]["name"], &item["conditions"]))
        .collect();
    let failed = json!([{"type": "Healthy", "status": "False", "error": "gone"}]);
    assert_eq!(
        shown,
        [
            (&json!("etcd-0"), &json!([healthy])),
            (&json!("scheduler"), &failed)
        ]
    );
    let chosen = format!("{path}?fieldSelector=metadata.name%3Dscheduler");
    let chosen = server.get(&chosen).await.ok();
    assert_eq!(chosen["items"].as_array().map(Vec::len), Some(1));
    let one = server.get(&format!("{path}/etcd-0")).await;
    assert_eq!(
        one.warnings(),
        ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]
    );
    assert_eq!(one.ok()["kind"], "ComponentStatus");
    let message = server.get(&format!("{path}/none")).await.failure().2;
    assert_eq!(message, "componentstatuses \"none\" not found");
    assert_eq!(
        server.delete(&format!("{path}/etcd-0")).await.failure().0,
        405
    );
}

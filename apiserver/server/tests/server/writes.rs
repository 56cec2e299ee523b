use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, PODS, TestServer};

#[tokio::test(start_paused = true)]
async fn names_are_generated_and_taken_names_refused() {
    let server = TestServer::start().await;
    let made = server
        .post(CONFIG_MAPS, json!({"metadata": {"generateName": "g-"}}))
        .await
        .ok();
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("g-") && name.len() == 7);
    server.config_map("x", json!({})).await;
    let (code, reason, message) = server
        .post(CONFIG_MAPS, json!({"metadata": {"name": "x"}}))
        .await
        .failure();
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "AlreadyExists", r#"configmaps "x" already exists"#)
    );
}

#[tokio::test(start_paused = true)]
async fn objects_need_a_namespace_that_is_there() {
    let server = TestServer::start().await;
    let (code, _, message) = server
        .post(
            "/api/v1/namespaces/none/configmaps",
            json!({"metadata": {"name": "x"}}),
        )
        .await
        .failure();
    assert_eq!(
        (code, message.as_str()),
        (404, r#"namespaces "none" not found"#)
    );
    let elsewhere = json!({"metadata": {"name": "x", "namespace": "other"}});
    let (code, _, message) = server.post(CONFIG_MAPS, elsewhere).await.failure();
    assert_eq!(code, 400);
    assert_eq!(
        message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test(start_paused = true)]
async fn broken_rules_are_reported_with_their_fields() {
    let server = TestServer::start().await;
    let answer = server
        .post(
            CONFIG_MAPS,
            json!({"metadata": {"name": "Bad"}, "data": {"a b": "1"}}),
        )
        .await;
    assert_eq!(answer.failure().0, 422);
    let fields: Vec<String> = answer.json()["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .map(|cause| cause["field"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(fields, ["metadata.name", "data[a b]"]);
}

#[tokio::test(start_paused = true)]
async fn stale_updates_are_conflicts() {
    let server = TestServer::start().await;
    let mut object = server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    object["data"] = json!({"a": "2"});
    let updated = server.put(&path, object.clone()).await.ok();
    assert_ne!(
        updated["metadata"]["resourceVersion"],
        object["metadata"]["resourceVersion"]
    );
    let (code, reason, message) = server.put(&path, object).await.failure();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(
        message,
        r#"Operation cannot be fulfilled on configmaps "x": the object has been modified; please apply your changes to the latest version and try again"#
    );
}

#[tokio::test(start_paused = true)]
async fn updates_that_change_nothing_keep_the_revision() {
    let server = TestServer::start().await;
    let object = server.config_map("x", json!({})).await;
    let again = server
        .put(&format!("{CONFIG_MAPS}/x"), object.clone())
        .await
        .ok();
    assert_eq!(again, object);
}

#[tokio::test(start_paused = true)]
async fn all_three_patches_are_applied() {
    let server = TestServer::start().await;
    server.config_map("x", json!({"g": "1"})).await;
    let path = format!("{CONFIG_MAPS}/x");
    server
        .merge(
            &path,
            json!({"data": {"m": "1"}, "metadata": {"labels": {"g": null}}}),
        )
        .await
        .ok();
    let operations = json!([{"op": "add", "path": "/data/j", "value": "1"}]);
    server
        .patch(&path, "application/json-patch+json", operations)
        .await
        .ok();
    let strategic = json!({"data": {"s": "1"}});
    let object = server
        .patch(&path, "application/strategic-merge-patch+json", strategic)
        .await
        .ok();
    assert_eq!(
        object["data"],
        json!({"a": "1", "m": "1", "j": "1", "s": "1"})
    );
    assert!(object["metadata"].get("labels").is_none());
    assert_eq!(
        server
            .patch(&path, "text/plain", json!({}))
            .await
            .failure()
            .0,
        415
    );
}

#[tokio::test(start_paused = true)]
async fn concurrent_patches_all_arrive() {
    let server = TestServer::start().await;
    server.config_map("x", json!({})).await;
    let path = format!("{CONFIG_MAPS}/x");
    let patches = (0..5).map(|number| {
        let path = path.as_str();
        let server = &server;
        async move {
            server
                .merge(path, json!({"data": {format!("k{number}"): "1"}}))
                .await
        }
    });
    for answer in futures::future::join_all(patches).await {
        answer.ok();
    }
    assert_eq!(
        server.get(&path).await.ok()["data"]
            .as_object()
            .map(|data| data.len()),
        Some(6)
    );
}

#[tokio::test(start_paused = true)]
async fn dry_runs_store_nothing() {
    let server = TestServer::start().await;
    let answer = server
        .post(
            &format!("{CONFIG_MAPS}?dryRun=All"),
            json!({"metadata": {"name": "x"}}),
        )
        .await;
    assert_eq!(answer.ok()["metadata"]["name"], "x");
    assert_eq!(
        server.get(&format!("{CONFIG_MAPS}/x")).await.failure().0,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_dropped_warned_of_or_refused() {
    let server = TestServer::start().await;
    let body = |name: &str| json!({"metadata": {"name": name}, "bogus": 1});
    let warned = server.post(CONFIG_MAPS, body("a")).await;
    assert_eq!(warned.warnings(), [r#"299 - "unknown field \"bogus\"""#]);
    assert!(warned.ok().get("bogus").is_none());
    let ignored = server
        .post(&format!("{CONFIG_MAPS}?fieldValidation=Ignore"), body("b"))
        .await;
    assert!(ignored.warnings().is_empty());
    let (code, _, message) = server
        .post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), body("c"))
        .await
        .failure();
    assert_eq!(code, 400);
    assert!(
        message.ends_with(r#"strict decoding error: unknown field "bogus""#),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn fields_of_features_that_are_off_are_forgotten() {
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let server = TestServer::start().await;
    let lease = json!({
        "metadata": {"name": "a"}, "spec": {"holderIdentity": "a", "preferredHolder": "b"},
    });
    let made = server.post(LEASES, lease).await.ok();
    assert_eq!(made["spec"], json!({"holderIdentity": "a"}));
    let more = json!({"spec": {"holderIdentity": "c", "strategy": "OldestEmulationVersion"}});
    let changed = server.merge(&format!("{LEASES}/a"), more).await.ok();
    assert_eq!(changed["spec"], json!({"holderIdentity": "c"}));
}

#[tokio::test(start_paused = true)]
async fn status_and_spec_are_written_apart() {
    let server = TestServer::start().await;
    let pod = server.pod("x", Some("n1")).await;
    let path = format!("{PODS}/x");
    let mut changed = pod.clone();
    changed["status"]["phase"] = "Running".into();
    let main = server.put(&path, changed.clone()).await.ok();
    assert_eq!(main["status"]["phase"], "Pending");
    changed["metadata"]["resourceVersion"] = Value::Null;
    changed["spec"]["nodeName"] = "n2".into();
    let status = server.put(&format!("{path}/status"), changed).await.ok();
    assert_eq!(
        (
            status["status"]["phase"].as_str(),
            status["spec"]["nodeName"].as_str()
        ),
        (Some("Running"), Some("n1"))
    );
}

#[tokio::test(start_paused = true)]
async fn deployments_are_scaled_and_count_their_generations() {
    let server = TestServer::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "i:1"}]}});
    let spec =
        json!({"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template});
    let made = server
        .post(
            deployments,
            json!({"metadata": {"name": "x"}, "spec": spec}),
        )
        .await
        .ok();
    assert_eq!(made["metadata"]["generation"], 1);
    let scale = server.get(&format!("{deployments}/x/scale")).await.ok();
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!(2), &json!("app=x"))
    );
    let scaled = server
        .merge(
            &format!("{deployments}/x/scale"),
            json!({"spec": {"replicas": 3}}),
        )
        .await
        .ok();
    assert_eq!(scaled["spec"]["replicas"], 3);
    let after = server.get(&format!("{deployments}/x")).await.ok();
    assert_eq!(
        (&after["spec"]["replicas"], &after["metadata"]["generation"]),
        (&json!(3), &json!(2))
    );
    server
        .merge(
            &format!("{deployments}/x"),
            json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await
        .ok();
    assert_eq!(
        server.get(&format!("{deployments}/x")).await.ok()["metadata"]["generation"],
        2
    );
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_once() {
    let server = TestServer::start().await;
    server.pod("x", None).await;
    let binding = json!({"metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(
        server
            .post(&format!("{PODS}/x/binding"), binding.clone())
            .await
            .status,
        201
    );
    let pod = server.get(&format!("{PODS}/x")).await.ok();
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, _, message) = server
        .post("/api/v1/namespaces/default/bindings", binding)
        .await
        .failure();
    assert_eq!(code, 409);
    assert!(
        message.ends_with(r#"pod x is already assigned to node "n1""#),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn pods_run_as_a_service_account_with_its_files() {
    let server = TestServer::start().await;
    let pod = server.pod("x", None).await;
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    let path = &pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"];
    assert_eq!(path, "/var/run/secrets/kubernetes.io/serviceaccount");
    let spec = json!({"serviceAccountName": "none", "containers": [{"name": "a", "image": "i"}]});
    let (code, _, message) = server
        .post(PODS, json!({"metadata": {"name": "y"}, "spec": spec}))
        .await
        .failure();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        r#"pods "y" is forbidden: error looking up service account default/none: serviceaccount "none" not found"#
    );
}

#[tokio::test(start_paused = true)]
async fn accounts_give_pods_their_pull_secrets_and_bound_the_others() {
    let server = TestServer::start().await;
    let account = json!({
        "metadata": {"name": "tight", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "good"}], "imagePullSecrets": [{"name": "pull"}],
    });
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.post(accounts, account).await.ok();
    let make = async |name: &str, changes: Value| {
        let container = json!({"name": "a", "image": "i"});
        let mut spec = json!({"serviceAccountName": "tight", "containers": [container]});
        for (key, value) in changes.as_object().expect("an object") {
            spec[key] = value.clone();
        }
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        server.post(PODS, pod).await
    };
    let pod = make("given", json!({})).await.ok();
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let own = json!({"serviceAccountName": "default", "imagePullSecrets": [{"name": "own"}]});
    let pod = make("own", own).await.ok();
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "own"}]));
    let volume = json!({"volumes": [{"name": "v", "secret": {"secretName": "bad"}}]});
    let (code, _, message) = make("volume", volume).await.failure();
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            "pods \"volume\" is forbidden: volume with secret.secretName=\"bad\" is not allowed because service \
             account tight does not reference that secret"
        )
    );
    let pulls = json!({"imagePullSecrets": [{"name": "own"}]});
    let (code, _, message) = make("pulls", pulls).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.contains("imagePullSecrets[0].name=\"own\""),
        "{message}"
    );
    // Nor do they come later.
    let reference = json!([{"secretRef": {"name": "bad"}}]);
    let debug = json!({"name": "d", "image": "i", "envFrom": reference, "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always", "terminationMessagePath": "/dev/termination-log", "resources": {}});
    let path = format!("{PODS}/given/ephemeralcontainers");
    let patch = json!({"spec": {"ephemeralContainers": [debug]}});
    let (code, _, message) = server.merge(&path, patch).await.failure();
    assert_eq!(code, 403);
    assert!(
        message.contains("ephemeral container d with envFrom referencing"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn services_get_addresses_and_give_them_back() {
    let server = TestServer::start().await;
    let services = "/api/v1/namespaces/default/services";
    let body = |name: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 80}]}});
    server.post(services, body("a")).await.ok();
    let (code, _, message) = server.post(services, body("b")).await.failure();
    assert_eq!(code, 422);
    assert!(
        message.ends_with("failed to allocate IP 10.96.7.7: provided IP is already allocated"),
        "{message}"
    );
    server.delete(&format!("{services}/a")).await.ok();
    server.post(services, body("b")).await.ok();
    let free =
        json!({"metadata": {"name": "c"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let made = server.post(services, free).await.ok();
    assert!(
        made["spec"]["clusterIP"]
            .as_str()
            .is_some_and(|ip| ip.starts_with("10.96."))
    );
    assert!(
        made["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .is_some_and(|port| (30_000..=32_767).contains(&port))
    );
}

#[tokio::test(start_paused = true)]
async fn yaml_bodies_are_read() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: \"1\"\n";
    let mut request = crate::support::request("POST", CONFIG_MAPS, "application/yaml", None);
    *request.body_mut() = http_body_util::Full::new(bytes::Bytes::from(yaml));
    assert_eq!(server.send(request).await.ok()["data"], json!({"a": "1"}));
}

#[tokio::test(start_paused = true)]
async fn a_bound_pod_gets_the_zone_of_its_node() {
    let server = TestServer::start().await;
    let (zone, region) = (
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
    );
    let labels = json!({zone: "z", region: "r", "a": "b"});
    let node = json!({"metadata": {"name": "n", "labels": labels}});
    server.post("/api/v1/nodes", node).await.ok();
    server.pod("x", None).await;
    let bind =
        |node: &str| json!({"metadata": {"name": "x"}, "target": {"kind": "Node", "name": node}});
    let path = format!("{PODS}/x/binding");
    server.post(&path, bind("n")).await.ok();
    let bound = server.get(&format!("{PODS}/x")).await.ok();
    assert_eq!(bound["metadata"]["labels"], json!({zone: "z", region: "r"}));
    let made = server.pod("y", Some("n")).await;
    assert_eq!(made["metadata"]["labels"][zone], "z");
    let elsewhere = server.pod("z", Some("unknown")).await;
    assert!(elsewhere["metadata"]["labels"].get(zone).is_none());
}

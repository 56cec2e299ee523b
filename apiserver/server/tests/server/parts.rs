//! What of an object's metadata may change with its status and with its other subresources, kind by kind as upstream.

use serde_json::{Value, json};

use crate::support::{PODS, TestServer};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// A label, an annotation, a finalizer and an owner.
fn metadata() -> Value {
    json!({
        "labels": {"l": "1"},
        "annotations": {"a": "1"},
        "finalizers": ["example.com/f"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "o", "uid": "1"}],
    })
}

/// Which of [`metadata`] an object has.
fn found(object: &Value) -> String {
    let metadata = &object["metadata"];
    [
        ("l", &metadata["labels"]["l"]),
        ("a", &metadata["annotations"]["a"]),
        ("f", &metadata["finalizers"][0]),
        ("o", &metadata["ownerReferences"][0]),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_null())
    .map(|(letter, _)| letter)
    .collect()
}

#[tokio::test(start_paused = true)]
async fn what_comes_with_a_status_is_kept_or_not_by_the_kind() {
    let server = TestServer::start().await;
    let pods = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"selector": {"matchLabels": {"x": "y"}}, "template": pods});
    let apps = "/apis/apps/v1/namespaces/default";
    for (path, spec, kept) in [
        (format!("{apps}/replicasets"), set.clone(), "lafo"),
        (format!("{apps}/deployments"), set, "afo"),
        ("/api/v1/nodes".to_owned(), json!({}), "lafo"),
        (PODS.to_owned(), pods["spec"].clone(), "laf"),
        (
            "/apis/apiregistration.k8s.io/v1/apiservices".to_owned(),
            json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}),
            "",
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattachments".to_owned(),
            json!({"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}),
            "",
        ),
        (
            "/apis/networking.k8s.io/v1/servicecidrs".to_owned(),
            json!({"cidrs": ["203.0.113.0/28"]}),
            "",
        ),
    ] {
        let name = match path.ends_with("apiservices") {
            true => "v1.example.com",
            false => "x",
        };
        let object = json!({"metadata": {"name": name}, "spec": spec});
        server.post(&path, object).await.ok();
        let status = format!("{path}/{name}/status");
        let body = json!({"metadata": metadata()});
        let answer = server.merge(&status, body).await.ok();
        assert_eq!(found(&answer), kept, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_of_addresses_takes_its_status_from_every_update() {
    let server = TestServer::start().await;
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let condition = |reason: &str| json!([{"type": "T", "status": "True", "reason": reason, "message": "m", "lastTransitionTime": "2024-01-02T03:04:05Z"}]);
    let range = json!({
        "metadata": {"name": "x"},
        "spec": {"cidrs": ["203.0.113.0/28"]},
        "status": {"conditions": condition("Created")},
    });
    let made = server.post(ranges, range).await.ok();
    assert_eq!(made["status"]["conditions"], condition("Created"));
    let body = json!({"status": {"conditions": condition("Changed")}});
    let changed = server.merge(&format!("{ranges}/x"), body).await.ok();
    assert_eq!(changed["status"]["conditions"], condition("Changed"));
}

#[tokio::test(start_paused = true)]
async fn neither_debugging_nor_resizing_changes_metadata() {
    let server = TestServer::start().await;
    server.pod("x", None).await;
    let debugger = json!([{"name": "d", "image": "i"}]);
    for (part, spec) in [
        (
            "ephemeralcontainers",
            json!({"ephemeralContainers": debugger}),
        ),
        ("resize", json!({})),
    ] {
        let path = format!("{PODS}/x/{part}");
        let body = json!({"metadata": metadata(), "spec": spec});
        let pod = server.patch(&path, STRATEGIC, body).await.ok();
        assert_eq!(found(&pod), "", "{part}");
        assert_eq!(pod["spec"]["ephemeralContainers"][0]["name"], "d");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_does_not_say_what_it_is_about_is_about_what_it_was() {
    let server = TestServer::start().await;
    server.pod("x", None).await;
    let path = format!("{PODS}/x/status");
    let condition = |kind: &str, seen: Value| json!({"type": kind, "status": "True", "observedGeneration": seen});
    let status = |seen: Value, conditions: Value| json!({"status": {"observedGeneration": seen, "conditions": conditions}});
    let first = status(
        json!(3),
        json!([
            condition("A", json!(1)),
            condition("A", json!(2)),
            condition("B", json!(3))
        ]),
    );
    server.merge(&path, first).await.ok();
    let next = status(
        json!(null),
        json!([
            condition("B", json!(null)),
            condition("A", json!(7)),
            condition("A", json!(null)),
            condition("C", json!(null))
        ]),
    );
    let pod = server.merge(&path, next).await.ok();
    assert_eq!(pod["status"]["observedGeneration"], 3);
    let seen: Vec<&Value> = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|condition| &condition["observedGeneration"])
        .collect();
    assert_eq!(seen, [&json!(3), &json!(7), &json!(2), &json!(null)]);
}

#[tokio::test(start_paused = true)]
async fn finalizing_a_namespace_replaces_all_but_its_status() {
    let server = TestServer::start().await;
    let namespace = json!({"metadata": {"name": "x", "labels": {"was": "1"}}});
    server.post("/api/v1/namespaces", namespace).await.ok();
    let path = "/api/v1/namespaces/x/finalize";
    let body = |finalizers: Value| {
        json!({
            "kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": "x", "labels": {"is": "1"}},
            "spec": {"finalizers": finalizers}, "status": {"phase": "Terminating"},
        })
    };
    let (code, _, message) = server
        .put(path, body(json!(["a.b/c", "none"])))
        .await
        .failure();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "Namespace \"x\" is invalid: spec.finalizers[1]: Invalid value: \"none\": name is neither a standard finalizer \
         name nor is it fully qualified"
    );
    let finalizers = json!(["a.b/c", "orphan", "kubernetes"]);
    let namespace = server.put(path, body(finalizers.clone())).await.ok();
    assert_eq!(namespace["spec"]["finalizers"], finalizers);
    assert_eq!(namespace["status"]["phase"], "Active");
    let labels = json!({"is": "1", "kubernetes.io/metadata.name": "x"});
    assert_eq!(namespace["metadata"]["labels"], labels);
}

#[tokio::test(start_paused = true)]
async fn a_balancers_addresses_are_looked_at_and_go_with_it() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/services";
    for (name, kind) in [("lb", "LoadBalancer"), ("plain", "ClusterIP")] {
        let spec = json!({"type": kind, "ports": [{"port": 80}]});
        let service = json!({"metadata": {"name": name}, "spec": spec});
        server.post(path, service).await.ok();
    }
    let status = |points: Value| json!({"status": {"loadBalancer": {"ingress": points}}});
    for (name, points, finding) in [
        (
            "plain",
            json!([{"ip": "192.0.2.1"}]),
            "ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        ),
        (
            "lb",
            json!([{"ip": "192.0.2.01"}]),
            "ingress[0].ip: Invalid value: \"192.0.2.01\": must not have leading 0s",
        ),
        (
            "lb",
            json!([{"hostname": "a.b", "ipMode": "VIP"}]),
            "ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            "lb",
            json!([{"ip": "192.0.2.1", "ipMode": "X"}]),
            "ingress[0].ipMode: Unsupported value: \"X\": supported values: \"Proxy\", \"VIP\"",
        ),
        (
            "lb",
            json!([{"hostname": "192.0.2.1"}]),
            "ingress[0].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address",
        ),
    ] {
        let answer = server
            .merge(&format!("{path}/{name}/status"), status(points))
            .await;
        let (code, _, message) = answer.failure();
        assert_eq!(code, 422);
        assert_eq!(
            message,
            format!("Service \"{name}\" is invalid: status.loadBalancer.{finding}")
        );
    }
    let points = json!([{"ip": "192.0.2.1"}, {"hostname": "a.b"}]);
    let service = server
        .merge(&format!("{path}/lb/status"), status(points))
        .await
        .ok();
    let shown = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "a.b"}]);
    assert_eq!(service["status"]["loadBalancer"]["ingress"], shown);
    let plain = json!({"spec": {"type": "ClusterIP"}});
    let service = server.merge(&format!("{path}/lb"), plain).await.ok();
    assert_eq!(service["status"], json!({"loadBalancer": {}}));
}

#[tokio::test(start_paused = true)]
async fn the_port_for_checks_goes_when_traffic_may_go_anywhere() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/services";
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let service = json!({"metadata": {"name": "lb"}, "spec": spec});
    let service = server.post(path, service).await.ok();
    assert!(service["spec"]["healthCheckNodePort"].is_i64());
    let mut changed = service.clone();
    changed["spec"]["externalTrafficPolicy"] = "Cluster".into();
    let service = server.put(&format!("{path}/lb"), changed).await.ok();
    assert!(service["spec"]["healthCheckNodePort"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_claims_resizing_has_known_states() {
    let server = TestServer::start().await;
    let path = "/api/v1/namespaces/default/persistentvolumeclaims";
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "x"}, "spec": spec});
    server.post(path, claim).await.ok();
    let status = |states: Value| json!({"status": {"allocatedResourceStatuses": states}});
    let path = format!("{path}/x/status");
    for (states, finding) in [
        (
            json!({"storage": "None"}),
            "Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\", \
             \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
        ),
        (
            json!({"cpu": "NodeResizePending"}),
            "Unsupported value: \"cpu\": supported values: \"storage\"",
        ),
    ] {
        let (_, _, message) = server.merge(&path, status(states)).await.failure();
        let expected = "PersistentVolumeClaim \"x\" is invalid: status.allocatedResourceStatuses: ";
        assert_eq!(message, format!("{expected}{finding}"));
    }
    let known = json!({"storage": "NodeResizePending", "example.com/x": "NodeResizePending"});
    server.merge(&path, status(known)).await.ok();
}

#[tokio::test(start_paused = true)]
async fn counts_of_pods_make_sense() {
    let server = TestServer::start().await;
    let labels = json!({"a": "b"});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let spec = json!({"selector": {"matchLabels": labels}, "template": template});
    let more = "cannot be greater than status.replicas";
    let least = "must be greater than or equal to 0";
    for (plural, kind, others) in [
        (
            "deployments",
            "Deployment",
            ["updatedReplicas", "readyReplicas", "availableReplicas"],
        ),
        (
            "replicasets",
            "ReplicaSet",
            ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        ),
    ] {
        let path = format!("/apis/apps/v1/namespaces/default/{plural}");
        let set = json!({"metadata": {"name": "x"}, "spec": spec});
        server.post(&path, set).await.ok();
        let status = json!({"status": {"replicas": -1}});
        let path = format!("{path}/x/status");
        let (code, _, message) = server.merge(&path, status).await.failure();
        // What is not said counts as none.
        let others = others.map(|field| format!("status.{field}: Invalid value: 0: {more}"));
        let others = others.join(", ");
        let findings = format!("[status.replicas: Invalid value: -1: {least}, {others}]");
        let expected = format!("{kind}.apps \"x\" is invalid: {findings}");
        assert_eq!((code, message), (422, expected));
    }
    let path = "/apis/apps/v1/namespaces/default/deployments/x/status";
    let status = json!({"status": {"collisionCount": -1}});
    let (_, _, message) = server.merge(path, status).await.failure();
    let finding = format!("status.collisionCount: Invalid value: -1: {least}");
    assert_eq!(
        message,
        format!("Deployment.apps \"x\" is invalid: {finding}")
    );
    for (count, code) in [(json!(1), 200), (json!(1), 200), (json!(null), 422)] {
        let status = json!({"status": {"collisionCount": count}});
        assert_eq!(server.merge(path, status).await.status, code);
    }
}

//! Kubelets as the server sees them: they read what their pods name, and write what is theirs.

use coracle_server::Identity;
use serde_json::{Value, json};

use crate::support::{Answer, PODS, TestServer, send_as};

const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

async fn as_node(
    server: &TestServer,
    node: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let identity = Identity::new(format!("system:node:{node}"), ["system:nodes"]);
    send_as(server, &identity, method, path, body).await
}

/// Two registered nodes, each with a pod that names a Secret of its own.
async fn two_nodes() -> TestServer {
    let server = TestServer::start().await;
    for name in ["one", "two"] {
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        let made = as_node(&server, name, "POST", NODES, Some(node)).await;
        assert_eq!(made.status, 201, "{:?}", made.body);
        let secret = json!({"metadata": {"name": name}});
        server
            .post("/api/v1/namespaces/default/secrets", secret)
            .await
            .ok();
        let pod = json!({"metadata": {"name": name}, "spec": {
            "nodeName": name, "containers": [{"name": "a", "image": "example.com/app:1"}],
            "volumes": [{"name": "s", "secret": {"secretName": name}}],
        }});
        server.post(PODS, pod).await.ok();
    }
    server
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_reads_what_its_pods_name_from_the_moment_they_are_bound() {
    let server = two_nodes().await;
    let secret = |name: &str| format!("/api/v1/namespaces/default/secrets/{name}");
    let own = as_node(&server, "one", "GET", &secret("one"), None).await;
    assert_eq!(own.status, 200);
    let other = as_node(&server, "one", "GET", &secret("two"), None).await;
    assert_eq!(
        other.failure().2,
        r#"secrets "two" is forbidden: User "system:node:one" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'one' and this object"#
    );
    let delete = json!({"gracePeriodSeconds": 0});
    server
        .delete_with(&format!("{PODS}/one"), delete)
        .await
        .ok();
    let gone = as_node(&server, "one", "GET", &secret("one"), None).await;
    assert_eq!(gone.status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_writes_what_is_its_own() {
    let server = two_nodes().await;
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    let status = json!({"status": {"phase": "Running"}});
    let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "Node", "name": "one", "uid": uid, "controller": true}]);
    let uid = server.get(&format!("{NODES}/one")).await.ok()["metadata"]["uid"].clone();
    let mirror = |uid: &str, volumes: Value| {
        json!({
            "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": owner(uid)},
            "spec": {"nodeName": "one", "volumes": volumes, "containers": [{"name": "a", "image": "example.com/app:1"}]},
        })
    };
    let uid = uid.as_str().unwrap_or_default();
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "two"}});
    for (method, path, body, refusal) in [
        (
            "PATCH",
            format!("{NODES}/one/status"),
            json!({"status": {"nodeInfo": {"machineID": "m"}}}),
            "",
        ),
        (
            "PATCH",
            format!("{NODES}/two/status"),
            json!({"status": {}}),
            r#"node "one" is not allowed to modify node "two""#,
        ),
        (
            "PATCH",
            format!("{NODES}/one"),
            json!({"metadata": {"labels": {"disk": "ssd"}}}),
            "",
        ),
        (
            "PATCH",
            format!("{NODES}/one"),
            json!({"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}}),
            "is not allowed to modify labels: node-role.kubernetes.io/x",
        ),
        (
            "PATCH",
            format!("{NODES}/one"),
            json!({"spec": {"taints": null}}),
            r#"node "one" is not allowed to modify taints"#,
        ),
        ("POST", LEASES.to_owned(), lease("one"), ""),
        (
            "POST",
            LEASES.to_owned(),
            lease("two"),
            "can only access node lease with the same name as the requesting node",
        ),
        ("PATCH", format!("{PODS}/one/status"), status.clone(), ""),
        (
            "PATCH",
            format!("{PODS}/two/status"),
            status,
            r#"node "one" can only update pod status for pods with spec.nodeName set to itself"#,
        ),
        (
            "DELETE",
            format!("{PODS}/two"),
            json!({}),
            r#"node "one" can only delete pods with spec.nodeName set to itself"#,
        ),
        (
            "POST",
            format!("{PODS}/two/eviction"),
            eviction,
            "node one can only evict pods with spec.nodeName set to itself",
        ),
        (
            "POST",
            PODS.to_owned(),
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "one", "containers": [{"name": "a", "image": "example.com/app:1"}]}}),
            r#"pod does not have "kubernetes.io/config.mirror" annotation, node "one" can only create mirror pods"#,
        ),
        (
            "POST",
            PODS.to_owned(),
            mirror("wrong", json!([])),
            &format!("node one UID mismatch: expected wrong got {uid}"),
        ),
        (
            "POST",
            PODS.to_owned(),
            mirror(uid, json!([{"name": "s", "secret": {"secretName": "two"}}])),
            "a mirror pod may not reference secrets",
        ),
        (
            "POST",
            PODS.to_owned(),
            mirror(uid, json!([{"name": "c", "configMap": {"name": "two"}}])),
            r#"node "one" can not create pods that reference configmaps"#,
        ),
        ("POST", PODS.to_owned(), mirror(uid, json!([])), ""),
    ] {
        let answer = as_node(&server, "one", method, &path, Some(body)).await;
        match refusal {
            "" => assert!(
                answer.status.is_success(),
                "{method} {path}: {:?}",
                answer.body
            ),
            why => {
                let (code, reason, message) = answer.failure();
                assert_eq!(
                    (code, reason.as_str()),
                    (403, "Forbidden"),
                    "{method} {path}: {message}"
                );
                assert!(message.ends_with(why), "{method} {path}: {message}");
            }
        }
    }
}

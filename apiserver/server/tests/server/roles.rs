//! Roles as their users see them: what the default ones allow, and what nobody can give away.

use coracle_server::authz::rbac;
use coracle_server::{ApiServer, Identity};
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, TestServer, request, send_as};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test(start_paused = true)]
async fn everybody_reads_what_is_public_and_users_may_discover() {
    let server = TestServer::start().await;
    let (nobody, jane) = (Identity::anonymous(), Identity::new("jane", ["devs"]));
    for (path, anonymous, user) in [
        ("/healthz", 200, 200),
        ("/livez", 200, 200),
        ("/readyz", 200, 200),
        ("/version", 200, 200),
        ("/healthz/ping", 403, 403),
        ("/api", 403, 200),
        ("/apis", 403, 200),
        ("/apis/apps/v1", 403, 200),
        ("/openapi/v2", 403, 200),
        ("/metrics", 403, 403),
        ("/api/v1/namespaces", 403, 403),
    ] {
        for (identity, expected) in [(&nobody, anonymous), (&jane, user)] {
            let answer = send_as(&server, identity, "GET", path, None).await;
            assert_eq!(answer.status, expected, "{} {path}", identity.user);
        }
    }
}

/// A namespace's `RoleBinding` or a `ClusterRoleBinding` of jane to a new role with `rules`.
async fn grant(server: &TestServer, cluster: bool, name: &str, rules: Value) {
    let (scope, role, binding, kind) = match cluster {
        true => ("", "clusterroles", "clusterrolebindings", "ClusterRole"),
        false => ("/namespaces/default", "roles", "rolebindings", "Role"),
    };
    let metadata = json!({"name": name});
    let role_path = format!("{RBAC}{scope}/{role}");
    let made = json!({"metadata": metadata, "rules": rules});
    server.post(&role_path, made).await.ok();
    let bound = json!({
        "metadata": metadata,
        "roleRef": {"apiGroup": rbac::GROUP, "kind": kind, "name": name},
        "subjects": [{"kind": "User", "name": "jane"}],
    });
    server
        .post(&format!("{RBAC}{scope}/{binding}"), bound)
        .await
        .ok();
}

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({"verbs": verbs, "apiGroups": [group], "resources": resources})
}

#[tokio::test(start_paused = true)]
async fn who_may_only_change_objects_creates_none() {
    let server = TestServer::start().await;
    let jane = Identity::new("jane", ["devs"]);
    let verbs = ["patch", "update"];
    let rules = json!([
        rule(&verbs, "", &["configmaps"]),
        rule(&verbs, "coordination.k8s.io", &["leases"]),
    ]);
    grant(&server, false, "changer", rules).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "1"}});
    let apply = async |query: &str| {
        let path = format!("{CONFIG_MAPS}/x?fieldManager=m{query}");
        let mut asked = request(
            "PATCH",
            &path,
            "application/apply-patch+yaml",
            Some(map.clone()),
        );
        asked.extensions_mut().insert(jane.clone());
        server.send_as_is(asked).await
    };
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/x";
    let body = json!({"metadata": {"name": "x"}, "spec": {}});
    let put = async || send_as(&server, &jane, "PUT", lease, Some(body.clone())).await;
    for (refused, resource) in [
        (apply("").await, "configmaps"),
        (apply("&dryRun=All").await, "configmaps"),
        (put().await, "leases.coordination.k8s.io"),
    ] {
        let (code, reason, message) = refused.failure();
        assert_eq!((code, reason.as_str()), (403, "Forbidden"));
        assert_eq!(message, format!("{resource} \"x\" is forbidden: "));
    }
    server.post(CONFIG_MAPS, map.clone()).await.ok();
    assert_eq!(apply("").await.status, 200, "it is there");
    server.delete(&format!("{CONFIG_MAPS}/x")).await.ok();
    let rules = json!([
        rule(&["create"], "", &["configmaps"]),
        rule(&["create"], "coordination.k8s.io", &["leases"]),
    ]);
    grant(&server, false, "creator", rules).await;
    assert_eq!(apply("").await.status, 201);
    assert_eq!(put().await.status, 201);
}

/// Who may write all kinds of roles and bindings, and read config maps of `default`.
async fn role_writer() -> (TestServer, Identity) {
    let server = TestServer::start().await;
    let kinds = [
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
    ];
    let verbs = ["get", "create", "update", "patch", "delete"];
    grant(
        &server,
        true,
        "writer",
        json!([rule(&verbs, rbac::GROUP, &kinds)]),
    )
    .await;
    grant(
        &server,
        false,
        "reader",
        json!([rule(&["get"], "", &["configmaps"])]),
    )
    .await;
    (server, Identity::new("jane", ["devs"]))
}

const NOT_HELD: &str = r#"user "jane" (groups=["devs" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:"#;

#[tokio::test(start_paused = true)]
async fn nobody_gives_more_than_they_have() {
    let (server, jane) = role_writer().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let elsewhere = format!("{RBAC}/namespaces/kube-public/roles");
    let cluster_roles = format!("{RBAC}/clusterroles");
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let own = json!([rule(&["get"], "", &["configmaps"])]);
    let more = json!([rule(&["get", "list"], "", &["configmaps"])]);
    server.post(&roles, role("mine", own.clone())).await.ok();
    let attempts = [
        ("POST", roles.clone(), role("same", own.clone()), 201),
        ("POST", roles.clone(), role("more", more.clone()), 403),
        (
            "POST",
            format!("{roles}?dryRun=All"),
            role("more", more.clone()),
            403,
        ),
        (
            "POST",
            format!("{roles}?dryRun=All"),
            role("dry", own.clone()),
            201,
        ),
        // A right in one namespace is none in another, nor everywhere.
        ("POST", elsewhere, role("same", own.clone()), 403),
        (
            "POST",
            cluster_roles.clone(),
            role("same", own.clone()),
            403,
        ),
        (
            "PUT",
            format!("{roles}/mine"),
            role("mine", more.clone()),
            403,
        ),
        (
            "PUT",
            format!("{roles}/new"),
            role("new", more.clone()),
            403,
        ),
        (
            "PATCH",
            format!("{roles}/mine"),
            json!({"rules": more}),
            403,
        ),
        (
            "PATCH",
            format!("{roles}/mine"),
            json!({"metadata": {"labels": {"a": "b"}}}),
            200,
        ),
        // Whoever only lets the garbage collector do its work gives nothing.
        (
            "PATCH",
            format!("{cluster_roles}/cluster-admin"),
            json!({"metadata": {"finalizers": ["a.example/b"]}}),
            200,
        ),
        (
            "PATCH",
            format!("{cluster_roles}/cluster-admin"),
            json!({"metadata": {"labels": {"a": "b"}}}),
            403,
        ),
        (
            "POST",
            cluster_roles,
            json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}),
            403,
        ),
    ];
    for (method, path, body, expected) in attempts {
        let answer = send_as(&server, &jane, method, &path, Some(body)).await;
        assert_eq!(
            answer.status, expected,
            "{method} {path}: {:?}",
            answer.body
        );
        if expected == 403 {
            let message = answer.failure().2;
            let aggregation = "must have cluster-admin privileges to use the aggregationRule";
            assert!(
                message.contains(NOT_HELD) || message.ends_with(aggregation),
                "{message}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_binds_more_than_they_have_without_the_right_to_bind() {
    let (server, jane) = role_writer().await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let to = |name: &str, kind: &str, role: &str| {
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac::GROUP, "kind": kind, "name": role},
            "subjects": [{"kind": "User", "name": "joe"}],
        })
    };
    let bind = |path: String, body: Value| {
        let (server, jane) = (&server, &jane);
        async move { send_as(server, jane, "POST", &path, Some(body)).await }
    };
    let own = bind(bindings.clone(), to("own", "Role", "reader")).await;
    assert_eq!(own.status, 201);
    let all = bind(bindings.clone(), to("all", "ClusterRole", "cluster-admin")).await;
    assert_eq!(
        all.failure().2,
        format!(
            "rolebindings.{} \"all\" is forbidden: {NOT_HELD}\n{{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}}\n{{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}}",
            rbac::GROUP
        )
    );
    let everywhere = format!("{RBAC}/clusterrolebindings");
    let all = bind(
        everywhere.clone(),
        to("all", "ClusterRole", "cluster-admin"),
    )
    .await;
    assert_eq!(all.status, 403);
    let missing = bind(bindings.clone(), to("lost", "Role", "lost")).await;
    let (code, reason, message) = missing.failure();
    assert_eq!((code, reason.as_str()), (404, "NotFound"));
    assert_eq!(
        message,
        format!("rolebindings.{} \"lost\" not found", rbac::GROUP)
    );
    // With the right to bind one role, that one is bound.
    let one = json!([{
        "verbs": ["bind"], "apiGroups": [rbac::GROUP], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"],
    }]);
    grant(&server, false, "binder", one).await;
    let all = bind(bindings, to("all", "ClusterRole", "cluster-admin")).await;
    assert_eq!(all.status, 201);
    // In its namespace, not everywhere.
    let all = bind(everywhere, to("all", "ClusterRole", "cluster-admin")).await;
    assert_eq!(all.status, 403);
}

#[tokio::test(start_paused = true)]
async fn who_may_escalate_a_role_writes_what_they_like_into_it() {
    let (server, jane) = role_writer().await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let body =
        |name: &str| json!({"metadata": {"name": name}, "rules": [rule(&["*"], "*", &["*"])]});
    let one = json!([{
        "verbs": ["escalate"], "apiGroups": [rbac::GROUP], "resources": ["roles"], "resourceNames": ["one"],
    }]);
    grant(&server, false, "escalator", one).await;
    server
        .post(&roles, json!({"metadata": {"name": "one"}, "rules": []}))
        .await
        .ok();
    server
        .post(&roles, json!({"metadata": {"name": "two"}, "rules": []}))
        .await
        .ok();
    for (name, expected) in [("one", 200), ("two", 403)] {
        let path = format!("{roles}/{name}");
        let answer = send_as(&server, &jane, "PUT", &path, Some(body(name))).await;
        assert_eq!(answer.status, expected, "{name}");
    }
}

/// Every role and binding with its version.
async fn versions(server: &TestServer) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for plural in [
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
    ] {
        let list = server.get(&format!("{RBAC}/{plural}")).await.ok();
        for item in list["items"].as_array().expect("a list") {
            let text = |field: &str| {
                item["metadata"][field]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            all.push((text("name"), text("resourceVersion")));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_second_start_writes_only_what_is_missing() {
    let server = TestServer::start().await;
    let again = async |api: &ApiServer| api.bootstrap_roles().await.expect("roles are made");
    let before = versions(&server).await;
    again(&server.api).await;
    assert_eq!(versions(&server).await, before);
    let role = |name: &str| format!("{RBAC}/clusterroles/{name}");
    server.delete(&role("system:discovery")).await.ok();
    server
        .merge(
            &role("system:kube-dns"),
            json!({"rules": [rule(&["get"], "", &["pods"])]}),
        )
        .await
        .ok();
    let mine = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    server.merge(&role("system:heapster"), mine).await.ok();
    let basic = format!("{RBAC}/clusterrolebindings/system:basic-user");
    server.merge(&basic, json!({"subjects": []})).await.ok();
    again(&server.api).await;
    let jane = Identity::new("jane", ["devs"]);
    assert_eq!(
        send_as(&server, &jane, "GET", "/api", None).await.status,
        200
    );
    let dns = server.get(&role("system:kube-dns")).await.ok();
    // Missing rules come back one verb and one resource at a time, beside what somebody added.
    assert_eq!(dns["rules"].as_array().map(Vec::len), Some(1 + 4));
    let heapster = server.get(&role("system:heapster")).await.ok();
    assert_eq!(heapster["rules"], json!([]));
    let subjects = &server.get(&basic).await.ok()["subjects"];
    assert_eq!(subjects[0]["name"], "system:authenticated");
}

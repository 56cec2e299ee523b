use serde_json::{Value, json};

use super::*;

/// A policy of `(part, key, rest of the object)`.
fn rbac(objects: &[(Part, &str, Value)]) -> Rbac {
    let rbac = Rbac::default();
    for (part, key, value) in objects {
        set(&rbac, *part, key, value.clone());
    }
    rbac
}

fn set(rbac: &Rbac, part: Part, key: &str, mut value: Value) {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    value["metadata"] = json!({"name": name, "namespace": namespace});
    let object = Object::from_value(value).expect("an object");
    rbac.policy.write().set(part, key, Some(&object));
}

fn rules(verbs: &str, resources: &str) -> Value {
    json!({"rules": [{"apiGroups": [""], "resources": [resources], "verbs": [verbs]}]})
}

fn binding(kind: &str, role: &str, subjects: Value) -> Value {
    json!({"roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}, "subjects": subjects})
}

fn jane() -> Identity {
    Identity::new("jane", ["devs"])
}

fn ask(rbac: &Rbac, identity: &Identity, verb: &str, namespace: &str) -> Decision {
    rbac.decide(&Attributes {
        namespace,
        ..Attributes::resource(identity, verb, "", "pods")
    })
}

fn no() -> Decision {
    Decision::NoOpinion(String::new())
}

#[test]
fn bindings_reach_as_far_as_their_kind() {
    let rbac = rbac(&[
        (Part::ClusterRoles, "reader", rules("get", "pods")),
        (Part::Roles, "a/writer", rules("update", "pods")),
        (
            Part::RoleBindings,
            "a/write",
            binding("Role", "writer", json!([{"kind": "User", "name": "jane"}])),
        ),
        (
            Part::RoleBindings,
            "b/read",
            binding(
                "ClusterRole",
                "reader",
                json!([{"kind": "Group", "name": "devs"}]),
            ),
        ),
        (
            Part::ClusterRoleBindings,
            "robots",
            binding(
                "ClusterRole",
                "reader",
                json!([{"kind": "User", "name": "joe"}, {"kind": "ServiceAccount", "name": "r2", "namespace": "d2"}]),
            ),
        ),
    ]);
    let allowed = |reason: &str| Decision::Allow(format!("RBAC: allowed by {reason}"));
    assert_eq!(
        ask(&rbac, &jane(), "update", "a"),
        allowed(r#"RoleBinding "write/a" of Role "writer" to User "jane""#)
    );
    assert_eq!(
        ask(&rbac, &jane(), "get", "b"),
        allowed(r#"RoleBinding "read/b" of ClusterRole "reader" to Group "devs""#)
    );
    for (verb, namespace) in [("update", "b"), ("update", ""), ("get", "a"), ("get", "")] {
        assert_eq!(
            ask(&rbac, &jane(), verb, namespace),
            no(),
            "{verb} {namespace}"
        );
    }
    let robot = Identity::component("system:serviceaccount:d2:r2");
    for namespace in ["", "a", "elsewhere"] {
        assert_eq!(
            ask(&rbac, &robot, "get", namespace),
            allowed(
                r#"ClusterRoleBinding "robots" of ClusterRole "reader" to ServiceAccount "r2/d2""#
            )
        );
    }
}

#[test]
fn accounts_of_a_role_binding_are_in_its_namespace() {
    let rbac = rbac(&[
        (Part::Roles, "a/r", rules("get", "pods")),
        (
            Part::RoleBindings,
            "a/b",
            binding(
                "Role",
                "r",
                json!([{"kind": "ServiceAccount", "name": "x"}]),
            ),
        ),
        (
            Part::ClusterRoleBindings,
            "nobody",
            binding(
                "ClusterRole",
                "r",
                json!([{"kind": "ServiceAccount", "name": "x"}]),
            ),
        ),
    ]);
    let own = Identity::component("system:serviceaccount:a:x");
    assert_eq!(
        ask(&rbac, &own, "get", "a"),
        Decision::Allow(
            r#"RBAC: allowed by RoleBinding "b/a" of Role "r" to ServiceAccount "x/a""#.to_owned()
        )
    );
    let other = Identity::component("system:serviceaccount:b:x");
    assert_eq!(ask(&rbac, &other, "get", "a"), no());
}

#[test]
fn changed_and_deleted_objects_count_no_more() {
    let everyone = json!([{"kind": "Group", "name": "devs"}, {"kind": "User", "name": "jane"}]);
    let rbac = rbac(&[
        (Part::Roles, "a/r", rules("get", "pods")),
        (Part::RoleBindings, "a/b", binding("Role", "r", everyone)),
    ]);
    assert!(matches!(
        ask(&rbac, &jane(), "get", "a"),
        Decision::Allow(_)
    ));
    set(&rbac, Part::Roles, "a/r", rules("list", "pods"));
    assert_eq!(ask(&rbac, &jane(), "get", "a"), no());
    assert!(matches!(
        ask(&rbac, &jane(), "list", "a"),
        Decision::Allow(_)
    ));
    let others = json!([{"kind": "User", "name": "joe"}]);
    set(
        &rbac,
        Part::RoleBindings,
        "a/b",
        binding("Role", "r", others),
    );
    assert_eq!(ask(&rbac, &jane(), "list", "a"), no());
    let joe = Identity::new("joe", ["devs"]);
    assert!(matches!(ask(&rbac, &joe, "list", "a"), Decision::Allow(_)));
    rbac.policy.write().set(Part::RoleBindings, "a/b", None);
    assert_eq!(ask(&rbac, &joe, "list", "a"), no());
    assert!(rbac.policy.read().is_empty_but_for_roles());
}

#[test]
fn a_binding_without_its_role_is_named_beside_what_others_allow() {
    let me = json!([{"kind": "User", "name": "jane"}]);
    let rbac = rbac(&[
        (Part::ClusterRoles, "reader", rules("get", "pods")),
        (
            Part::ClusterRoleBindings,
            "a",
            binding("ClusterRole", "gone", me.clone()),
        ),
        (
            Part::ClusterRoleBindings,
            "b",
            binding("ClusterRole", "reader", me.clone()),
        ),
        (Part::RoleBindings, "n/c", binding("Role", "lost", me)),
    ]);
    assert!(matches!(
        ask(&rbac, &jane(), "get", "n"),
        Decision::Allow(_)
    ));
    assert_eq!(
        ask(&rbac, &jane(), "delete", ""),
        Decision::NoOpinion(
            r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#.to_owned()
        )
    );
    assert_eq!(
        ask(&rbac, &jane(), "delete", "n"),
        Decision::NoOpinion(
            r#"RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "lost" not found]"#
                .to_owned()
        )
    );
}

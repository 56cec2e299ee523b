use serde_json::{Value, json};

use super::{cluster_role, cluster_role_binding, role, role_binding};
use crate::{FieldErrors, Object, Resource};

fn findings(resource: &Resource, value: Value) -> Vec<String> {
    let mut object = Object::from_value(value).expect("an object");
    resource.strategy.default(&mut object);
    let mut errors = FieldErrors::default();
    resource.strategy.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_are_about_resources_or_about_urls() {
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
    let urls = json!({"nonResourceURLs": ["/healthz"], "verbs": ["get"]});
    assert!(findings(&role::RESOURCE, json!({"rules": [pods]})).is_empty());
    assert!(findings(&cluster_role::RESOURCE, json!({"rules": [pods, urls]})).is_empty());
    assert_eq!(
        findings(&role::RESOURCE, json!({"rules": [urls]})),
        [
            "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs"
        ]
    );
    assert_eq!(
        findings(&role::RESOURCE, json!({"rules": [{}]})),
        [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ]
    );
}

#[test]
fn subjects_have_the_group_of_their_kind() {
    let role = json!({"kind": "ClusterRole", "name": "view"});
    let bind = |subject: Value| json!({"roleRef": role, "subjects": [subject]});
    let user = json!({"kind": "User", "name": "jane"});
    let account = json!({"kind": "ServiceAccount", "name": "s"});
    assert!(findings(&role_binding::RESOURCE, bind(user)).is_empty());
    assert!(findings(&role_binding::RESOURCE, bind(account.clone())).is_empty());
    assert_eq!(
        findings(&cluster_role_binding::RESOURCE, bind(account)),
        ["subjects[0].namespace: Required value"]
    );
    assert_eq!(
        findings(
            &role_binding::RESOURCE,
            bind(json!({"kind": "Group", "apiGroup": "x"}))
        ),
        [
            "subjects[0].name: Required value",
            "subjects[0].name: Invalid value: \"\": group name cannot be empty",
            "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
        ]
    );
}

#[test]
fn a_binding_keeps_its_role() {
    let bound = |name: &str| {
        let role = json!({"apiGroup": super::GROUP, "kind": "ClusterRole", "name": name});
        Object::from_value(json!({"roleRef": role})).expect("an object")
    };
    let mut errors = FieldErrors::default();
    let strategy = role_binding::RESOURCE.strategy;
    strategy.validate_update(&bound("view"), &bound("view"), &mut errors);
    assert!(errors.is_empty());
    strategy.validate_update(&bound("edit"), &bound("view"), &mut errors);
    let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: cannot change roleRef"
        ]
    );
}

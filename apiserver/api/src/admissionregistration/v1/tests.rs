use serde_json::{Value, json};

use super::{
    mutating_admission_policy, validating_admission_policy, validating_admission_policy_binding,
    validating_webhook_configuration,
};
use crate::{FieldErrors, Object, Resource};

fn findings(resource: &Resource, value: Value) -> Vec<String> {
    let mut object = Object::from_value(value).expect("an object");
    resource.strategy.default(&mut object);
    let mut errors = FieldErrors::default();
    resource.strategy.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn hook(more: Value) -> Vec<String> {
    let mut hook = json!({
        "name": "a.example.com",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com/x"},
    });
    let fields = more.as_object().expect("an object").clone();
    hook.as_object_mut().expect("an object").extend(fields);
    findings(
        &validating_webhook_configuration::RESOURCE,
        json!({"webhooks": [hook]}),
    )
}

#[test]
fn a_webhook_says_where_it_is() {
    assert_eq!(hook(json!({})), Vec::<String>::new());
    assert_eq!(
        hook(json!({"clientConfig": {"url": "http://u@/x?q#f"}})),
        [
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
            "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
            "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
        ]
    );
    let service = json!({"name": "s", "namespace": "n", "path": "a//B"});
    assert_eq!(
        hook(json!({"clientConfig": {"service": service}}))[..2],
        [
            "webhooks[0].clientConfig.service.path: Invalid value: \"a//B\": must start with a '/'",
            "webhooks[0].clientConfig.service.path: Invalid value: \"a//B\": segment[0] may not be empty",
        ]
    );
}

#[test]
fn no_resource_of_a_rule_is_part_of_another() {
    let resources = |list: &[&str]| {
        let rule = json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": list});
        hook(json!({"rules": [rule]}))
    };
    assert!(resources(&["pods", "pods/*", "*/scale"]).is_empty());
    assert_eq!(
        resources(&["pods/*", "pods/log"]),
        [
            "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log"
        ]
    );
    assert_eq!(
        resources(&["*", "pods"]),
        [
            "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources"
        ]
    );
}

#[test]
fn policies_say_what_they_are_about_and_what_they_do() {
    assert_eq!(
        findings(&validating_admission_policy::RESOURCE, json!({"spec": {}})),
        [
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
    let rule = json!({"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "variables": [{"name": "if", "expression": "1"}],
        "mutations": [{"patchType": "JSONPatch"}],
        "reinvocationPolicy": "Never",
    });
    assert_eq!(
        findings(&mutating_admission_policy::RESOURCE, json!({"spec": spec})),
        [
            "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier",
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        ]
    );
}

#[test]
fn a_binding_denies_or_warns() {
    let bind = |spec: Value| {
        findings(
            &validating_admission_policy_binding::RESOURCE,
            json!({"spec": spec}),
        )
    };
    assert!(bind(json!({"policyName": "p", "validationActions": ["Deny", "Audit"]})).is_empty());
    assert_eq!(
        bind(json!({"policyName": "p", "paramRef": {}, "validationActions": []})),
        [
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Required value",
            "spec.validationActions: Required value: at least one validation action is required",
        ]
    );
}

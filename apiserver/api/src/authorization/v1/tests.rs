use serde_json::{Value, json};

use super::{local_subject_access_review, self_subject_access_review, subject_access_review};
use crate::{FieldErrors, Object, Resource};

fn findings(resource: &Resource, metadata: Value, spec: Value) -> Vec<String> {
    let object = json!({"metadata": metadata, "spec": spec});
    let object = Object::from_value(object).expect("an object");
    let mut errors = FieldErrors::default();
    resource.strategy.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_question_is_about_somebody_and_something() {
    let pods = json!({"verb": "get", "resource": "pods"});
    let sar = &subject_access_review::RESOURCE;
    assert!(
        findings(
            sar,
            json!({}),
            json!({"user": "u", "resourceAttributes": pods})
        )
        .is_empty()
    );
    assert_eq!(
        findings(sar, json!({"name": "x"}), json!({})),
        [
            "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            "metadata: Invalid value: {\"name\":\"x\"}: must be empty",
        ]
    );
    let both =
        json!({"resourceAttributes": pods, "nonResourceAttributes": {"path": "/", "verb": "get"}});
    assert_eq!(
        findings(&self_subject_access_review::RESOURCE, json!({}), both),
        [
            "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/\",\"Verb\":\"get\"}: cannot be specified in combination with resourceAttributes"
        ]
    );
}

#[test]
fn a_local_question_stays_in_its_namespace() {
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "b"});
    assert_eq!(
        findings(
            &local_subject_access_review::RESOURCE,
            json!({"namespace": "a"}),
            json!({"user": "u", "resourceAttributes": pods})
        ),
        ["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"]
    );
}

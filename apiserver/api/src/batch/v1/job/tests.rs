use super::*;
use crate::field_errors::FieldError;

fn job(spec: Value) -> Object {
    let mut object = Object::from_value(json!({
        "metadata": {"name": "x", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]}}},
    }))
    .expect("an object");
    if let Value::Object(more) = spec {
        object.map_mut("spec").extend(more);
    }
    Job.default(&mut object);
    Job.prepare_for_create(&mut object);
    Job.read_back().expect("a job has labels of its template")(&mut object);
    object
}

fn texts(check: impl FnOnce(&mut FieldErrors)) -> Vec<String> {
    let mut errors = FieldErrors::default();
    check(&mut errors);
    errors.iter().map(FieldError::to_string).collect()
}

fn findings(object: &Object) -> Vec<String> {
    texts(|errors| Job.validate(object, errors))
}

#[test]
fn a_small_job_gets_a_selector_of_its_own() {
    let object = job(json!({}));
    assert_eq!(findings(&object), Vec::<String>::new());
    assert_eq!(
        object.at("spec.selector").value(),
        Some(&json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}))
    );
    assert_eq!(
        object.at("metadata.labels").value(),
        object.at("spec.template.metadata.labels").value()
    );
}

#[test]
fn accepted_and_refused_side_by_side() {
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 4});
        for (key, value) in more.as_object().expect("a map") {
            spec[key] = value.clone();
        }
        findings(&job(spec))
    };
    assert!(indexed(json!({})).is_empty());
    assert!(indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0-1"}]}})).is_empty());
    assert_eq!(
        indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0-9"}]}})),
        [
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0-9\": error parsing succeededIndexes: too \
             large index: \"9\""
        ]
    );
    assert_eq!(
        findings(&job(json!({"maxFailedIndexes": 1}))),
        [
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ]
    );
    assert_eq!(
        findings(&job(json!({"managedBy": "me"}))),
        [
            "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")"
        ]
    );
}

#[test]
fn what_has_ended_stays_ended() {
    let mut old = job(json!({}));
    let ended = json!([
        {"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"},
    ]);
    let time = "2024-01-02T03:04:05Z";
    old.set(
        "status",
        json!({"conditions": ended, "startTime": time, "completionTime": time, "succeeded": 1}),
    );
    let mut new = old.clone();
    assert!(texts(|errors| Job.validate_status_update(&new, &old, errors)).is_empty());
    new.set("status", json!({"startTime": time}));
    let found = texts(|errors| Job.validate_status_update(&new, &old, errors));
    assert_eq!(
        found,
        [
            "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
            "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter",
            "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ]
    );
}

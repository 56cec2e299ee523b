use serde_json::{Value, json};

use super::certificate_signing_request::RESOURCE;
use crate::{FieldErrors, Object, Requester};

/// A request of the right shape, in PEM, in base64.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

fn csr(spec: Value) -> Object {
    let mut object =
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": {"request": REQUEST, "signerName": "a.b/c", "usages": ["any"]}}))
            .expect("an object");
    if let Value::Object(more) = spec {
        object.map_mut("spec").extend(more);
    }
    object
}

fn texts(errors: &FieldErrors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn findings(spec: Value) -> Vec<String> {
    let mut errors = FieldErrors::default();
    RESOURCE.strategy.validate(&csr(spec), &mut errors);
    texts(&errors)
}

#[test]
fn a_request_names_its_signer_and_its_use() {
    assert_eq!(findings(json!({})), Vec::<String>::new());
    assert_eq!(
        findings(json!({"request": "AAAA", "usages": null, "signerName": "a/b/c"})),
        [
            "spec.request: Invalid value: \"AAAA\": PEM block type must be CERTIFICATE REQUEST",
            "spec.usages: Required value",
            "spec.signerName: Invalid value: \"a/b/c\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ]
    );
    assert_eq!(
        findings(json!({"signerName": "x/y", "usages": ["any", "any"], "expirationSeconds": 1})),
        [
            "spec.usages[1]: Duplicate value: \"any\"",
            "spec.signerName: Invalid value: \"x\": should be a domain with at least two segments separated by dots",
            "spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)",
        ]
    );
}

#[test]
fn who_asks_is_taken_from_the_request() {
    let mut object = csr(json!({"username": "root", "extra": {"a": ["b"]}}));
    let request = Requester {
        user: "jane",
        uid: "",
        groups: &["devs".to_owned()],
        extra: &[],
        now: "2030-01-01T00:00:00Z",
        subresource: "",
    };
    RESOURCE
        .strategy
        .record_request(&mut object, None, &request);
    let spec = object.at("spec");
    assert_eq!(spec.key("username").str(), "jane");
    assert_eq!(spec.key("groups").value(), Some(&json!(["devs"])));
    assert!(!spec.key("extra").exists());
}

#[test]
fn approval_is_said_once_and_only_where_it_is_asked_for() {
    let approved = |extra: &[&str]| {
        let conditions: Vec<Value> = extra
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect();
        let mut object = csr(json!({}));
        object.set("status.conditions", conditions);
        object
    };
    let check = |new: &[&str], old: &[&str]| {
        let (mut through_status, mut through_approval) = Default::default();
        let (new, old) = (approved(new), approved(old));
        let strategy = RESOURCE.strategy;
        strategy.validate_status_update(&new, &old, &mut through_status);
        strategy.validate_subresource_update("approval", &new, &old, &mut through_approval);
        (texts(&through_status), texts(&through_approval))
    };
    let none = Vec::<String>::new();
    assert_eq!(
        check(&["Approved"], &[]),
        (
            vec![
                "status.conditions: Forbidden: updates may not add a condition of type \"Approved\""
                    .to_owned()
            ],
            none.clone()
        )
    );
    assert_eq!(
        check(&["Approved", "Failed"], &["Approved"]),
        (none.clone(), none)
    );
    assert_eq!(
        check(&["Approved", "Denied"], &["Approved"]).1,
        [
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"
        ]
    );
    assert_eq!(
        check(&[], &["Approved"]).1,
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
}

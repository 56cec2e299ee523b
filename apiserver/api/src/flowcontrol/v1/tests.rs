use serde_json::{Value, json};

use super::{flow_schema, priority_level_configuration};
use crate::{FieldErrors, Object, Resource};

fn findings(resource: &Resource, name: &str, spec: Value) -> Vec<String> {
    let value = json!({"metadata": {"name": name}, "spec": spec});
    let mut object = Object::from_value(value).expect("an object");
    resource.strategy.default(&mut object);
    let mut errors = FieldErrors::default();
    resource.strategy.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_schema_says_who_may_use_which_level() {
    let schema =
        |rule: Value| json!({"priorityLevelConfiguration": {"name": "x"}, "rules": [rule]});
    let find = |rule: Value| findings(&flow_schema::RESOURCE, "x", schema(rule));
    let urls = json!([{"verbs": ["get"], "nonResourceURLs": ["/x/*"]}]);
    let jane = json!({"kind": "User", "user": {"name": "jane"}});
    assert!(find(json!({"subjects": [jane], "nonResourceRules": urls})).is_empty());
    assert_eq!(
        find(json!({"subjects": [{"kind": "Group", "user": {"name": "jane"}}]})),
        [
            "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
            "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
        ]
    );
    let urls = json!([{"verbs": ["*", "get"], "nonResourceURLs": ["x", "/*/y"]}]);
    assert_eq!(
        find(json!({"subjects": [jane], "nonResourceRules": urls})),
        [
            "spec.rules[0].nonResourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
            "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/*/y\": wildcard can only do suffix matching",
        ]
    );
}

#[test]
fn the_schema_that_catches_all_stays_as_it_is() {
    let found = findings(
        &flow_schema::RESOURCE,
        "catch-all",
        json!({"priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10000}),
    );
    assert_eq!(
        found,
        [
            "spec: Invalid value: {\"PriorityLevelConfiguration\":{\"Name\":\"catch-all\"},\"MatchingPrecedence\":10000,\"DistinguisherMethod\":null,\"Rules\":null}: spec of 'catch-all' must equal the fixed value"
        ]
    );
}

#[test]
fn a_level_that_queues_says_how() {
    let level =
        |response: Value| json!({"type": "Limited", "limited": {"limitResponse": response}});
    let find = |response: Value| {
        findings(
            &priority_level_configuration::RESOURCE,
            "x",
            level(response),
        )
    };
    assert!(find(json!({"type": "Reject"})).is_empty());
    assert!(find(json!({"type": "Queue", "queuing": {}})).is_empty());
    assert_eq!(
        find(json!({"type": "Queue", "queuing": {"queues": 4, "handSize": 9}})),
        [
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 9: should not be greater than queues (4)"
        ]
    );
    assert_eq!(
        find(json!({"type": "Queue", "queuing": {"queues": 1024, "handSize": 7}})),
        [
            "spec.limited.limitResponse.queuing.handSize: Invalid value: 7: required entropy bits of deckSize 1024 and handSize 7 should not be greater than 60"
        ]
    );
}

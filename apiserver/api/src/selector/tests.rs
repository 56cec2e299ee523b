//! Tests of selectors; the expectations are an upstream server's answers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn label_selectors_choose_what_upstream_chooses() {
    let objects = [
        ("a", json!({"g": "1"})),
        ("b", json!({"g": "2", "h": ""})),
        ("c", json!({"g": "10"})),
    ];
    let cases = [
        ("", "abc"),
        ("g", "abc"),
        ("!g", ""),
        ("a/b=c", ""),
        ("g in (,1)", "a"),
        ("g in (1,2)", "ab"),
        ("g notin (1)", "bc"),
        ("g notin (1),g", "bc"),
        ("g!=1", "bc"),
        ("g,h", "b"),
        ("g=1", "a"),
        ("g = 1 , t != x", "a"),
        ("g>1,g<11", "bc"),
        ("h in ()", "b"),
        ("h==", "b"),
        ("in=1", ""),
        ("notin in (1)", ""),
    ];
    for (text, expected) in cases {
        let selector: LabelSelector = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        let chosen: String = objects
            .iter()
            .filter(|(_, labels)| selector.matches_labels(labels))
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(chosen, expected, "{text}");
        let again: LabelSelector = selector
            .to_string()
            .parse()
            .expect("the display form parses");
        assert_eq!(again.to_string(), selector.to_string());
    }
}

#[test]
fn label_selectors_are_refused_in_upstreams_words() {
    let cases = [
        (
            ",",
            "found ',', expected: !, identifier, or 'end of string'",
        ),
        (
            "=1",
            "found '=', expected: !, identifier, or 'end of string'",
        ),
        (
            "exists(g)",
            "unable to parse requirement: found '(', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "g 1",
            "unable to parse requirement: found '1', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "g in (1",
            "unable to parse requirement: found '', expected: ',' or ')'",
        ),
        ("g=1 t=x", "found 't', expected: ',' or 'end of string'"),
        ("g=a b", "found 'b', expected: ',' or 'end of string'"),
        (
            "g>=1",
            "unable to parse requirement: found '=', expected: identifier",
        ),
        ("g,", "found '', expected: identifier after ','"),
    ];
    for (text, message) in cases {
        assert_eq!(
            text.parse::<LabelSelector>().expect_err(text).to_string(),
            message,
            "{text}"
        );
    }
    let long = format!("{}=1", "a".repeat(64));
    let message = long.parse::<LabelSelector>().expect_err(&long).to_string();
    assert_eq!(
        message,
        format!(
            "unable to parse requirement: <nil>: Invalid value: \"{}\": name part must be no more than 63 bytes",
            "a".repeat(64)
        )
    );
    let parts = "a/b/c=d"
        .parse::<LabelSelector>()
        .expect_err("too many parts")
        .to_string();
    assert!(
        parts.starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"
        ),
        "{parts}"
    );
    let value = "g in (-)"
        .parse::<LabelSelector>()
        .expect_err("a bad value")
        .to_string();
    assert!(
        value.starts_with(
            "unable to parse requirement: values[0][g]: Invalid value: \"-\": a valid label"
        ),
        "{value}"
    );
}

#[test]
fn selector_objects_say_the_same_as_texts() {
    let selector = LabelSelector::from_object(&json!({
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]},
            {"key": "d", "operator": "DoesNotExist"}
        ]
    }))
    .expect("a valid selector");
    assert_eq!(selector.to_string(), "a=1,b=2,c in (x,y),!d");
    assert!(selector.matches_labels(&json!({"a": "1", "b": "2", "c": "y"})));
    assert!(!selector.matches_labels(&json!({"a": "1", "b": "2", "c": "y", "d": ""})));
    assert!(
        !LabelSelector::from_object(&Value::Null)
            .expect("null")
            .matches_labels(&json!({"a": "1"}))
    );
    assert!(
        LabelSelector::from_object(&json!({}))
            .expect("empty")
            .matches_labels(&Value::Null)
    );
    let error =
        LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "X"}]}));
    assert_eq!(
        error.expect_err("no operator").to_string(),
        "\"X\" is not a valid label selector operator"
    );
}

#[test]
fn field_selectors_choose_and_refuse() {
    let fields = |field: &str| match field {
        "metadata.name" => Some("a,b=c"),
        "status.phase" => Some("Running"),
        _ => None,
    };
    let cases = [
        ("", true),
        ("status.phase=Running", true),
        ("status.phase==Running,", true),
        ("status.phase!=Running", false),
        (r"metadata.name=a\,b\=c", true),
        ("spec.nodeName=", true),
        ("spec.nodeName!=", false),
    ];
    for (text, expected) in cases {
        let selector: FieldSelector = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.matches(fields), expected, "{text}");
        assert_eq!(selector.to_string().parse(), Ok(selector), "{text}");
    }
    let exact: FieldSelector = "metadata.name=x,spec.nodeName!=y".parse().expect("valid");
    assert_eq!(
        (exact.exact("metadata.name"), exact.exact("spec.nodeName")),
        (Some("x"), None)
    );
    let refused = [
        (
            "metadata.name in (a)",
            "invalid selector: 'metadata.name in (a)'; can't understand 'metadata.name in (a)'",
        ),
        (
            r"a=\x",
            r"invalid field selector: invalid escape sequence: \x",
        ),
        (
            "a=b=c",
            "invalid field selector: unescaped character in value: 61",
        ),
    ];
    for (text, message) in refused {
        assert_eq!(
            text.parse::<FieldSelector>().expect_err(text).to_string(),
            message
        );
    }
}

#[test]
fn a_field_selector_reads_back_what_it_shows() {
    let text = r"=(\\,=,==";
    let selector: FieldSelector = text.parse().expect("well-formed");
    assert_eq!(selector.to_string().parse(), Ok(selector));
}

proptest! {
    #[test]
    fn any_text_is_a_selector_or_refused(text in "[a-z0-9=!(),<> /\\\\é-]{0,24}") {
        if let Ok(selector) = text.parse::<LabelSelector>() {
            let again = selector.to_string().parse::<LabelSelector>();
            prop_assert_eq!(again.map(|again| again.to_string()), Ok(selector.to_string()));
        }
        if let Ok(selector) = text.parse::<FieldSelector>() {
            prop_assert_eq!(selector.to_string().parse::<FieldSelector>(), Ok(selector));
        }
    }
}

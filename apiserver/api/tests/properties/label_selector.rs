//! Label selectors against a model of sets.

use std::collections::BTreeMap;

use coracle_api::selector::LabelSelector;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A requirement: key, operator as objects name it (with `Gt` and `Lt`), values.
type Term = (String, &'static str, Vec<String>);

fn term(operators: &'static [&'static str]) -> impl Strategy<Value = Term> {
    let values = prop::collection::vec("(|a|b|1|2|10)", 1..4);
    (r"(k|l|x\.io/m)", prop::sample::select(operators), values).prop_map(
        |(key, operator, values)| {
            let values = match operator {
                "Exists" | "DoesNotExist" => Vec::new(),
                "Gt" | "Lt" => vec![values[0].len().to_string()],
                _ => values,
            };
            (key, operator, values)
        },
    )
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(r"(k|l|x\.io/m)", "(|a|b|1|2|10|-1)", 0..4)
}

fn meets(labels: &BTreeMap<String, String>, (key, operator, values): &Term) -> bool {
    let label = labels.get(key);
    let number = |text: &String| text.parse::<i64>().ok();
    match *operator {
        "In" => label.is_some_and(|label| values.contains(label)),
        "NotIn" => label.is_none_or(|label| !values.contains(label)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => label
            .and_then(number)
            .is_some_and(|label| Some(label) > number(&values[0])),
        _ => label
            .and_then(number)
            .is_some_and(|label| Some(label) < number(&values[0])),
    }
}

/// One of the ways to write a requirement.
fn written((key, operator, values): &Term, style: usize, space: &str) -> String {
    let list = values.join(&format!("{space},{space}"));
    let equal = ["=", "=="][style % 2];
    match (*operator, &values[..]) {
        ("In", [one]) if style < 2 => format!("{key}{space}{equal}{space}{one}"),
        ("NotIn", [one]) if style < 2 => format!("{key}{space}!={space}{one}"),
        ("In", _) => format!("{key} in {space}({space}{list}{space})"),
        ("NotIn", _) => format!("{key}{space} notin({list})"),
        ("Exists", _) => format!("{space}{key}{space}"),
        ("DoesNotExist", _) => format!("!{space}{key}"),
        ("Gt", _) => format!("{key}{space}>{list}"),
        _ => format!("{key}<{space}{list}"),
    }
}

/// Between two commas upstream's parser skips one empty value and keeps one: a run of three is not told from two.
fn tellable(terms: &[Term]) -> bool {
    terms
        .iter()
        .all(|(_, _, values)| values.len() < 2 || values.iter().all(|value| !value.is_empty()))
}

proptest! {
    #[test]
    fn what_is_parsed_matches_as_it_says(
        terms in prop::collection::vec(term(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]), 0..4),
        labels in labels(),
        style in 0_usize..4,
        space in "[ \t]{0,2}",
    ) {
        prop_assume!(tellable(&terms));
        let texts: Vec<_> = terms.iter().map(|term| written(term, style, &space)).collect();
        let text = texts.join(",");
        let selector: LabelSelector = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let expected = terms.iter().all(|term| meets(&labels, term));
        prop_assert_eq!(selector.matches_labels(&json!(labels)), expected, "{}", text);
        let again: LabelSelector = selector.to_string().parse().expect("its display form parses");
        prop_assert_eq!(again.matches_labels(&json!(labels)), expected);
    }

    #[test]
    fn objects_match_as_they_say(
        required in labels(),
        terms in prop::collection::vec(term(&["In", "NotIn", "Exists", "DoesNotExist"]), 0..4),
        labels in labels(),
    ) {
        let required: BTreeMap<_, _> = required.into_iter().filter(|(_, value)| value != "-1").collect();
        let expressions: Vec<Value> = terms
            .iter()
            .map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}))
            .collect();
        let object = json!({"matchLabels": required, "matchExpressions": expressions});
        let selector = LabelSelector::from_object(&object).expect("valid");
        let expected = required.iter().all(|(key, value)| labels.get(key) == Some(value))
            && terms.iter().all(|term| meets(&labels, term));
        prop_assert_eq!(selector.matches_labels(&json!(labels)), expected, "{}", object);
        let text = selector.to_string();
        if tellable(&terms) {
            let parsed: LabelSelector = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
            prop_assert_eq!(parsed.matches_labels(&json!(labels)), expected, "{}", text);
        }
    }
}

//! Field selectors and their escapes.

use coracle_api::selector::FieldSelector;
use proptest::prelude::*;

/// A value with a backslash before what has a meaning.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        if matches!(character, '\\' | ',' | '=') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// A field, whether it must be equal, and the value.
fn term() -> impl Strategy<Value = (String, bool, String)> {
    (
        "[a-z]{1,3}(\\.[a-z]{1,3})?",
        any::<bool>(),
        "([a-z ]|\\\\|,|=|!|é){0,6}",
    )
}

proptest! {
    #[test]
    fn escaped_values_are_read_as_they_were(terms in prop::collection::vec(term(), 1..4), double in any::<bool>()) {
        let sign = |equal: bool| match (equal, double) {
            (true, true) => "==",
            (true, false) => "=",
            (false, _) => "!=",
        };
        let text = |(field, equal, value): &(String, bool, String)| format!("{field}{}{}", sign(*equal), escaped(value));
        let texts: Vec<_> = terms.iter().map(text).collect();
        let selector: FieldSelector = texts.join(",").parse().expect("escaped");
        let read: Vec<_> = selector
            .requirements()
            .iter()
            .map(|term| (term.field.clone(), term.equal, term.value.clone()))
            .collect();
        let mut sorted = terms.clone();
        sorted.sort_by_cached_key(text);
        prop_assert_eq!(&read, &sorted);
        for (field, _, value) in &terms {
            let lookup = |asked: &str| (asked == field).then_some(value.as_str());
            let expected = terms.iter().all(|(other, equal, wanted)| {
                (lookup(other).unwrap_or_default() == wanted) == *equal
            });
            prop_assert_eq!(selector.matches(lookup), expected);
        }
    }

    #[test]
    fn values_with_bare_signs_or_other_escapes_are_refused(before in "[a-z]{0,3}", after in "[a-z]{0,3}", other in "[a-z0!]") {
        let bare = format!("a={before}x={after}");
        prop_assert!(bare.parse::<FieldSelector>().is_err(), "{}", bare);
        let escape = format!("a={before}\\{other}{after}");
        prop_assert!(escape.parse::<FieldSelector>().is_err(), "{}", escape);
        let open = format!("a={before}\\");
        prop_assert!(open.parse::<FieldSelector>().is_err(), "{}", open);
    }
}

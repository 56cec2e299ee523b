use coracle_api::selector::{FieldSelector, LabelSelector, Operator, Requirement};

/// A label selector's display form means the same, and a requirement matches as its operator says.
pub(crate) fn label_selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(selector) = text.parse::<LabelSelector>() else {
        return;
    };
    let shown = selector.to_string();
    assert_eq!(shown.parse(), Ok(selector.clone()), "{text:?}");
    for requirement in selector.requirements() {
        let given = requirement.values().iter().map(String::as_str);
        for label in given.chain(["", "a", "1"]).map(Some).chain([None]) {
            assert_opposite(requirement, label);
        }
    }
}

/// Of two opposite operators exactly one matches.
fn assert_opposite(requirement: &Requirement, label: Option<&str>) {
    let opposite = match requirement.operator() {
        Operator::In | Operator::Equals | Operator::DoubleEquals => Operator::NotIn,
        Operator::NotIn | Operator::NotEquals => Operator::In,
        Operator::Exists => Operator::DoesNotExist,
        Operator::DoesNotExist => Operator::Exists,
        Operator::GreaterThan | Operator::LessThan => return,
    };
    let values = requirement.values().clone();
    let opposite = Requirement::new(requirement.key(), opposite, values).expect("as valid");
    assert_ne!(
        requirement.matches(label),
        opposite.matches(label),
        "{requirement} and {opposite} of {label:?}"
    );
}

/// A field selector's display form means the same.
pub(crate) fn field_selector(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(selector) = text.parse::<FieldSelector>() else {
        return;
    };
    assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
    for requirement in selector.requirements() {
        let one: FieldSelector = {
            let operator = if requirement.equal { "=" } else { "!=" };
            let value = escaped(&requirement.value);
            let text = format!("{}{operator}{value}", requirement.field);
            text.parse().expect("an escaped value parses")
        };
        assert_eq!(one.matches(|_| Some(&requirement.value)), requirement.equal);
    }
}

/// A value with a backslash before what has a meaning, as `fields.EscapeValue` does it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace(',', r"\,")
        .replace('=', r"\=")
}

//! Rules that several kinds of the group share: names, lists, selectors, configurations.

use serde_json::Value;

use crate::cel::{self, Environment, Type};
use crate::field_errors::ErrorType;
use crate::validation::names;
use crate::validation::selectors::label_key;
use crate::{At, FieldErrors};

/// Most bytes of a CEL expression.
const MOST_EXPRESSION: usize = 10 * 1024;
/// Most bytes of a driver's parameters.
pub(super) const MOST_PARAMETERS: usize = 10 * 1024;
/// Most selectors, and most configurations, of anything.
pub(super) const MOST_ITEMS: usize = 32;
/// Most characters of the part of a qualified name after its domain.
const MOST_ID: usize = 32;

/// What a taint may do; `None` has no effect.
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Checks every item of a list that is not longer than `most`, and nothing of one that is.
pub(super) fn each(
    at: &At<'_>,
    most: usize,
    errors: &mut FieldErrors,
    mut check: impl FnMut(&At<'_>, &mut FieldErrors),
) {
    if at.len() > most {
        errors.too_many(at, most);
        return;
    }
    for item in at.items() {
        check(&item, errors);
    }
}

/// Like [`each`]; and no two items have the same key.
pub(super) fn each_once(
    at: &At<'_>,
    most: usize,
    errors: &mut FieldErrors,
    key: impl Fn(&At<'_>) -> String,
    check: impl FnMut(&At<'_>, &mut FieldErrors),
) {
    each(at, most, errors, check);
    if at.len() > most {
        return;
    }
    let mut seen: Vec<String> = Vec::new();
    for item in at.items() {
        let key = key(&item);
        if seen.contains(&key) {
            let shown = Some(Value::from(key.as_str()));
            errors.push(ErrorType::Duplicate, item.path(), shown, "");
        }
        seen.push(key);
    }
}

/// The name of a driver: a domain of up to 63 characters.
pub(super) fn driver(at: &At<'_>, errors: &mut FieldErrors) {
    let name = at.str();
    if name.is_empty() {
        errors.required(at, "");
        return;
    }
    if name.len() > 63 {
        errors.too_long(at, 63);
    }
    for why in names::dns1123_subdomain(&name.to_lowercase()) {
        errors.invalid(at, why);
    }
}

/// The name of a pool: one or more domains with slashes between.
pub(super) fn pool(at: &At<'_>, errors: &mut FieldErrors) {
    let name = at.str();
    if name.is_empty() {
        errors.required(at, "");
        return;
    }
    if name.len() > 253 {
        errors.too_long(at, 253);
    }
    for part in name.split('/') {
        for why in names::dns1123_subdomain(part) {
            errors.push(ErrorType::Invalid, at.path(), Some(part.into()), why);
        }
    }
}

/// An attribute's or a capacity's name: an identifier, after a domain if it is not the driver's own.
pub(super) fn qualified(at: &At<'_>, errors: &mut FieldErrors) {
    qualified_text(at.str(), at.path(), errors);
}

/// The same for a key, whose findings name the map.
pub(super) fn qualified_text(name: &str, path: &str, errors: &mut FieldErrors) {
    let mut bad = |detail: &str| {
        errors.push(ErrorType::Invalid, path, Some("".into()), detail);
    };
    let (domain, id) = match name.split('/').collect::<Vec<_>>()[..] {
        [id] => (None, id),
        [domain, id] => (Some(domain), id),
        _ => return,
    };
    match domain {
        Some("") => bad("the domain must not be empty"),
        Some(domain) => {
            let value = Value::from(domain);
            driver(&At::root(&value, path), errors);
        }
        None => {}
    }
    if id.is_empty() && domain.is_some() {
        let detail = "the name must not be empty";
        errors.push(ErrorType::Invalid, path, Some("".into()), detail);
        return;
    }
    if id.len() > MOST_ID {
        let detail = format!("may not be more than {MOST_ID} bytes");
        errors.push(ErrorType::TooLong, path, None, detail);
    }
    let mut letters = id.chars();
    let legal = letters
        .next()
        .is_some_and(|c| c == '_' || c.is_ascii_alphabetic())
        && letters.all(|c| c == '_' || c.is_ascii_alphanumeric());
    if !legal {
        errors.push(
            ErrorType::Invalid,
            path,
            Some(id.into()),
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
             characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
             '[A-Za-z_][A-Za-z0-9_]*')",
        );
    }
}

/// A qualified name that has a domain.
pub(super) fn fully_qualified(at: &At<'_>, errors: &mut FieldErrors) {
    qualified(at, errors);
    if !at.str().contains('/') {
        errors.invalid(
            at,
            "a fully qualified name must be a domain and a name separated by a slash",
        );
    }
}

/// Selectors of devices.
pub(super) fn selectors(at: &At<'_>, errors: &mut FieldErrors) {
    each(at, MOST_ITEMS, errors, |selector, errors| {
        let cel = selector.key("cel");
        let expression = cel.key("expression");
        if !cel.exists() {
            errors.required(&cel, "");
        } else if expression.str().len() > MOST_EXPRESSION {
            errors.too_long(&expression, MOST_EXPRESSION);
        } else if let Err(error) = cel::check_result(
            expression.str(),
            &Environment::device(),
            &[Type::Bool],
            "bool",
        ) {
            let shown = Some(Value::from(expression.str()));
            errors.push(
                ErrorType::Invalid,
                expression.path(),
                shown,
                error.to_string(),
            );
        }
    });
}

/// A configuration: parameters that only their driver understands.
pub(super) fn opaque(config: &At<'_>, errors: &mut FieldErrors) {
    let opaque = config.key("opaque");
    if !opaque.exists() {
        errors.required(&opaque, "");
        return;
    }
    driver(&opaque.key("driver"), errors);
    object(&opaque.key("parameters"), MOST_PARAMETERS, errors);
}

/// A JSON object of any kind, of up to `most` bytes.
pub(super) fn object(at: &At<'_>, most: usize, errors: &mut FieldErrors) {
    match at.value() {
        None => errors.required(at, ""),
        Some(value) if value.to_string().len() > most => errors.too_long(at, most),
        Some(Value::Object(_)) => {}
        Some(_) => {
            let shown = Some(Value::from("<value omitted>"));
            let detail = "must be a valid JSON object";
            errors.push(ErrorType::Invalid, at.path(), shown, detail);
        }
    }
}

/// Which taints are put up with.
pub(super) fn tolerations(at: &At<'_>, errors: &mut FieldErrors) {
    for toleration in at.items() {
        let (key, value) = (toleration.key("key"), toleration.key("value"));
        if !key.is_empty() {
            label_key(&key, errors);
        }
        let operator = toleration.key("operator");
        match operator.str() {
            "Exists" if !value.is_empty() => {
                errors.invalid(&value, "must be empty for operator `Exists`");
            }
            "Exists" => {}
            "Equal" => errors.text(&value, names::label_value),
            "" => errors.required(&operator, ""),
            _ => errors.not_supported(&operator, &["Equal", "Exists"]),
        }
        let effect = toleration.key("effect");
        if !effect.is_empty() {
            errors.one_of(&effect, EFFECTS);
        }
    }
}

/// Conditions that a device waits for, or gives up at.
pub(super) fn binding_conditions(at: &At<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 4;
    let (wanted, failed) = (
        at.key("bindingConditions"),
        at.key("bindingFailureConditions"),
    );
    each(&wanted, MOST, errors, label_key);
    each(&failed, MOST, errors, label_key);
    let mut duplicates = |list: &At<'_>| {
        let mut seen: Vec<&str> = Vec::new();
        for item in list.items() {
            if seen.contains(&item.str()) {
                errors.duplicate(&item);
            }
            seen.push(item.str());
        }
    };
    duplicates(&wanted);
    duplicates(&failed);
    for item in failed.items() {
        if wanted.items().any(|other| other.str() == item.str()) {
            errors.invalid(
                &item,
                "bindingFailureConditions must not overlap with bindingConditions",
            );
        }
    }
    if wanted.is_empty() && !failed.is_empty() {
        errors.invalid(
            &wanted,
            "bindingConditions are required to use bindingFailureConditions",
        );
    }
    if failed.is_empty() && !wanted.is_empty() {
        errors.invalid(
            &failed,
            "bindingFailureConditions are required to use bindingConditions",
        );
    }
}

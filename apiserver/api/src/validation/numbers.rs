//! Ports, counts and modes.

use crate::{At, FieldErrors};

/// Reports a number that is not a port.
pub fn port(at: &At<'_>, errors: &mut FieldErrors) {
    if !(1..=65_535).contains(&at.as_i64().unwrap_or(0)) {
        number_invalid(at, "must be between 1 and 65535, inclusive", errors);
    }
}

/// Reports a port that is neither a number nor the name of a port.
pub fn port_or_name(at: &At<'_>, errors: &mut FieldErrors) {
    match at.as_str() {
        Some(name) => {
            for message in super::names::port_name(name) {
                errors.invalid(at, message);
            }
        }
        None => port(at, errors),
    }
}

/// Reports a number below zero.
pub fn non_negative(at: &At<'_>, errors: &mut FieldErrors) {
    if at.as_i64().is_some_and(|number| number < 0) {
        errors.invalid(at, "must be greater than or equal to 0");
    }
}

/// Reports a file mode outside 0 to 0777.
pub fn file_mode(at: &At<'_>, errors: &mut FieldErrors) {
    if at.as_i64().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        errors.invalid(
            at,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

/// Reports a number outside `from..=to`, when there is one.
pub fn within(at: &At<'_>, from: i64, to: i64, errors: &mut FieldErrors) {
    if at
        .as_i64()
        .is_some_and(|number| !(from..=to).contains(&number))
    {
        errors.invalid(at, format!("must be between {from} and {to}, inclusive"));
    }
}

/// An invalid number; an absent one is shown as Go's zero.
pub(crate) fn number_invalid(at: &At<'_>, detail: &str, errors: &mut FieldErrors) {
    let value = at.value().cloned().unwrap_or_else(|| 0.into());
    errors.push(
        crate::field_errors::ErrorType::Invalid,
        at.path(),
        Some(value),
        detail,
    );
}

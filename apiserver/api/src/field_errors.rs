//! Validation findings, worded and coded as upstream's `field.ErrorList`.

use serde_json::Value;

use crate::object::{At, Object};
use crate::schema::{show_empties, size};

/// What is wrong with a field; the `reason` of a Status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueNotSupported`.
    NotSupported,
    /// `FieldValueForbidden`.
    Forbidden,
    /// `FieldValueDuplicate`.
    Duplicate,
    /// `FieldValueTooLong`.
    TooLong,
    /// `FieldValueTooMany`.
    TooMany,
    /// `FieldValueTypeInvalid`.
    TypeInvalid,
    /// `FieldValueNotFound`.
    NotFound,
    /// `InternalError`.
    Internal,
}

impl ErrorType {
    /// The machine-readable reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorType,
    /// Where: `spec.containers[0].name`.
    pub field: String,
    /// The offending value, when the message shows one.
    pub value: Option<Value>,
    /// The rest of the message.
    pub detail: String,
}

impl FieldError {
    /// The message of the cause: `Invalid value: -1: must be greater than or equal to 0`.
    pub fn body(&self) -> String {
        let shown = match (self.kind, &self.value) {
            (
                ErrorType::Required
                | ErrorType::Forbidden
                | ErrorType::TooLong
                | ErrorType::Internal,
                _,
            )
            | (_, None) => self.kind.text().to_owned(),
            (_, Some(value)) => format!("{}: {}", self.kind.text(), go_value(value)),
        };
        if self.detail.is_empty() {
            shown
        } else {
            format!("{shown}: {}", self.detail)
        }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A value as Go's `%#v`-like formatting in `field.Error` prints it.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

/// A text as Go's `%q` prints it.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '\0'..='\x1f' | '\x7f' => quoted += &format!("\\x{:02x}", u32::from(character)),
            ' '..='~' => quoted.push(character),
            other => {
                // What follows another character is escaped only if it cannot be printed.
                let is_printable = format!("a{other}").escape_debug().nth(2).is_none();
                match u32::from(other) {
                    _ if is_printable => quoted.push(other),
                    code @ 0..=0xffff => quoted += &format!("\\u{code:04x}"),
                    code => quoted += &format!("\\U{code:08x}"),
                }
            }
        }
    }
    quoted.push('"');
    quoted
}

/// How many bytes the findings of one validation may take together: what nests thousands of levels has long paths, and
/// each level of it a value. There is always room for one.
const MAX_SHOWN: usize = 16 * 1024 * 1024;

/// The findings of one validation, in the order in which they were made; past 16 MiB of them no more are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors {
    errors: Vec<FieldError>,
    /// About how many bytes they take.
    bytes: usize,
}

impl FieldErrors {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// The findings.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.errors.iter()
    }

    /// Number of findings.
    pub fn len(&self) -> usize {
        self.errors.len()
    }

    /// Shows lists and maps that `object` was given as empty as such, where they are absent by now.
    pub fn show_empties(&mut self, object: &Object) {
        for error in &mut self.errors {
            if let Some(value) = &mut error.value {
                show_empties(value, &error.field, object.empties());
            }
        }
    }

    /// Adds a finding.
    pub fn push(
        &mut self,
        kind: ErrorType,
        field: &str,
        value: Option<Value>,
        detail: impl Into<String>,
    ) {
        if self.is_full() {
            return;
        }
        let detail = detail.into();
        let shown = value.as_ref().map_or(0, |value| size(value, MAX_SHOWN));
        self.bytes += field.len() + detail.len() + shown;
        self.errors.push(FieldError {
            kind,
            field: field.to_owned(),
            value,
            detail,
        });
    }

    /// Whether no more are taken, so that there is no need to put another one together.
    fn is_full(&self) -> bool {
        self.bytes >= MAX_SHOWN
    }

    /// Adds a finding about a place; `value` and `detail` are asked for what it shows if there is room for it.
    fn push_at(
        &mut self,
        kind: ErrorType,
        at: &At<'_>,
        value: impl FnOnce() -> Option<Value>,
        detail: impl Into<String>,
    ) {
        if !self.is_full() {
            self.push(kind, at.path(), value(), detail);
        }
    }

    /// The value is missing.
    pub fn required(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.push_at(ErrorType::Required, at, || None, detail);
    }

    /// The value is not acceptable.
    pub fn invalid(&mut self, at: &At<'_>, detail: impl Into<String>) {
        let value = || Some(at.value().cloned().unwrap_or(Value::Null));
        self.push_at(ErrorType::Invalid, at, value, detail);
    }

    /// The value is not acceptable; the message shows it as `shown`.
    pub fn invalid_as(&mut self, at: &At<'_>, shown: Value, detail: impl Into<String>) {
        self.push_at(ErrorType::Invalid, at, || Some(shown), detail);
    }

    /// The value may not be set.
    pub fn forbidden(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.push_at(ErrorType::Forbidden, at, || None, detail);
    }

    /// The value occurs twice.
    pub fn duplicate(&mut self, at: &At<'_>) {
        self.push_at(ErrorType::Duplicate, at, || at.value().cloned(), "");
    }

    /// What the value names is not there.
    pub fn not_found(&mut self, at: &At<'_>) {
        let value = || Some(at.value().cloned().unwrap_or_else(|| Value::from("")));
        self.push_at(ErrorType::NotFound, at, value, "");
    }

    /// There are more than `most` items.
    pub fn too_many(&mut self, at: &At<'_>, most: usize) {
        let detail = format!("must have at most {most} items");
        let count = || Some(Value::from(at.len()));
        self.push_at(ErrorType::TooMany, at, count, detail);
    }

    /// The value has more than `most` bytes.
    pub fn too_long(&mut self, at: &At<'_>, most: usize) {
        let detail = format!("may not be more than {most} bytes");
        self.push_at(ErrorType::TooLong, at, || None, detail);
    }

    /// Reports a text that is none of `supported`; an absent one counts as empty.
    pub fn one_of(&mut self, at: &At<'_>, supported: &[&str]) {
        if !supported.contains(&at.str()) {
            self.not_supported(at, supported);
        }
    }

    /// Applies `check` to the text here; a message it returns is an invalid value.
    pub fn text(&mut self, at: &At<'_>, check: impl Fn(&str) -> Vec<String>) {
        for message in check(at.str()) {
            let text = || Some(Value::from(at.str()));
            self.push_at(ErrorType::Invalid, at, text, message);
        }
    }

    /// The value is none of `supported`, which are listed in this order (upstream mostly sorts them).
    pub fn not_supported(&mut self, at: &At<'_>, supported: &[&str]) {
        let value = || Some(at.value().cloned().unwrap_or_else(|| Value::from("")));
        let list: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        let detail = format!("supported values: {}", list.join(", "));
        self.push_at(ErrorType::NotSupported, at, value, detail);
    }

    /// Applies `check` to every key of the map at `at`; a message it returns is an invalid value.
    pub fn each_key(&mut self, at: At<'_>, check: impl Fn(&str) -> Vec<String>) {
        for (key, entry) in at.entries() {
            for message in check(key) {
                let key = || Some(Value::from(key));
                self.push_at(ErrorType::Invalid, &entry, key, message);
            }
        }
    }

    /// Reports a value that differs from the old one.
    pub fn immutable(&mut self, new: &At<'_>, old: &At<'_>) {
        if new.value() != old.value() {
            self.invalid(new, "field is immutable");
        }
    }

    /// Reports each of the dotted `fields`, texts held by value, that differs; an absent one is the same as an empty one.
    pub fn unchanged_texts(&mut self, new: &Object, old: &Object, fields: &[&str]) {
        for field in fields {
            let (new, old) = (new.at(field), old.at(field));
            if new.str() != old.str() {
                self.invalid_as(&new, new.str().into(), "field is immutable");
            }
        }
    }

    /// Reports each of the dotted `fields` that differs between the two objects.
    pub fn unchanged(&mut self, new: &Object, old: &Object, fields: &[&str]) {
        for field in fields {
            if new.at(field).value() != old.at(field).value() {
                self.invalid(&new.at(field), "field is immutable");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_quotes_them() {
        let cases = [
            ("a'\"\\", r#""a'\"\\""#),
            ("\u{1}\n\u{7f}", r#""\x01\n\x7f""#),
            ("\u{e9}\u{301}", "\"\u{e9}\u{301}\""),
            ("\u{200b}", r#""\u200b""#),
            ("\u{301}e", "\"\u{301}e\""),
            ("\u{a0}\u{e000} 語 🎉", "\"\\u00a0\\ue000 語 🎉\""),
            ("\0\x07\x08\x0b\x0c\r\t", r#""\x00\a\b\v\f\r\t""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ];
        for (text, quoted) in cases {
            assert_eq!(go_quote(text), quoted);
        }
    }
}

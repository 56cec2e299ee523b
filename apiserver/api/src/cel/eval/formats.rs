//! Named formats of text, and what is wrong with a text by one of them. Upstream: `format.go`.

use std::sync::LazyLock;

use regex::Regex;

use super::run::Budget;
use super::url::Url;
use super::value::Value;
use super::{EvalError, Outcome};
use crate::field_errors::go_quote;
use crate::validation::names::{
    dns1035_label, dns1123_label, dns1123_subdomain, label_value, qualified_name,
};

/// A format: its name in expressions, and what is wrong with a text by it.
#[derive(Debug)]
pub struct Format {
    name: &'static str,
    problems: fn(&str) -> Vec<String>,
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

const ALL: &[Format] = &[
    Format {
        name: "dns1123Label",
        problems: dns1123_label,
    },
    Format {
        name: "dns1123Subdomain",
        problems: dns1123_subdomain,
    },
    Format {
        name: "dns1035Label",
        problems: dns1035_label,
    },
    Format {
        name: "qualifiedName",
        problems: qualified_name,
    },
    Format {
        name: "dns1123LabelPrefix",
        problems: |text| dns1123_label(&as_prefix(text)),
    },
    Format {
        name: "dns1123SubdomainPrefix",
        problems: |text| dns1123_subdomain(&as_prefix(text)),
    },
    Format {
        name: "dns1035LabelPrefix",
        problems: |text| dns1035_label(&as_prefix(text)),
    },
    Format {
        name: "labelValue",
        problems: label_value,
    },
    Format {
        name: "uri",
        problems: uri,
    },
    Format {
        name: "uuid",
        problems: |text| unless(is_uuid(text), "does not match the UUID format"),
    },
    Format {
        name: "byte",
        problems: |text| unless(is_base64(text), "invalid base64"),
    },
    Format {
        name: "date",
        problems: |text| unless(is_date(text), "invalid date"),
    },
    Format {
        name: "datetime",
        problems: |text| unless(is_date_time(text), "invalid datetime"),
    },
];

fn named(name: &str) -> Option<&'static Format> {
    ALL.iter().find(|format| format.name == name)
}

/// Whether `format.NAME` is a function.
pub(super) fn knows(name: &str) -> bool {
    name == "named" || named(name).is_some()
}

/// What a function of formats comes to; `None` if it is none, or does not take the values.
pub(super) fn call<'a>(
    name: &str,
    values: &[Value<'a>],
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    match (name, values) {
        ("format.named", [Value::String(name)]) => {
            let found = named(name.as_str()).map(Value::Format);
            Some(Ok(Value::optional(found)))
        }
        ("validate", [Value::Format(format), Value::String(text)]) => {
            // Formats are patterns, whose cost is linear in the text.
            if let Err(error) = budget.bytes(4 * text.as_str().len()) {
                return Some(Err(error));
            }
            Some(Ok(validated(format, text.as_str())))
        }
        (name, []) => {
            let found = named(name.strip_prefix("format.")?);
            let found = found.map(Value::Format);
            Some(found.ok_or_else(EvalError::overload))
        }
        _ => None,
    }
}

fn validated<'a>(format: &Format, text: &str) -> Value<'a> {
    let problems = (format.problems)(text);
    let problems = problems.into_iter().map(Value::text);
    let problems: Vec<_> = problems.collect();
    Value::optional((!problems.is_empty()).then(|| Value::list(problems)))
}

fn unless(good: bool, why: &str) -> Vec<String> {
    match good {
        true => Vec::new(),
        false => vec![why.to_owned()],
    }
}

/// A name's beginning may end with a dash. Upstream: `maskTrailingDash`.
fn as_prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut kept = rest.to_owned();
            kept.pop();
            kept.push('a');
            kept
        }
        _ => text.to_owned(),
    }
}

fn uri(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["parse \"\": empty url".to_owned()];
    }
    match Url::parse(text) {
        Some(_) => Vec::new(),
        None => vec![format!("parse {}: invalid URI for request", go_quote(text))],
    }
}

/// Dashes may be missing.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((digits, after)) = rest.split_at_checked(length) else {
            return false;
        };
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// Padded, not empty, and with any bits in what the padding leaves over.
fn is_base64(text: &str) -> bool {
    let bare = text.trim_end_matches('=');
    let padding = text.len() - bare.len();
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    !bare.is_empty() && padding <= 2 && text.len().is_multiple_of(4) && bare.bytes().all(is_digit)
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    bytes.len() == 10
        && (bytes[4], bytes[7]) == (b'-', b'-')
        && digits(0..4)
        && digits(5..7)
        && digits(8..10)
        && text.parse::<jiff::civil::Date>().is_ok()
}

/// As `strfmt.IsDateTime` looks at it: the offset may be any.
fn is_date_time(text: &str) -> bool {
    static TIME: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new("^([0-9]{2}):([0-9]{2}):([0-9]{2})(?:.[0-9]+)?(?:z|[+-][0-9]{2}:[0-9]{2})$").ok()
    });
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(time), Some(pattern)) = (parts.next(), parts.next(), TIME.as_ref())
    else {
        return false;
    };
    is_date(date)
        && pattern
            .captures(time)
            .is_some_and(|found| &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59")
}

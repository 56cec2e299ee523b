//! Legal names: `k8s.io/apimachinery/pkg/util/validation`.

use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::kinds::NameRule;
use crate::{At, FieldErrors};

const LABEL_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035_FORM: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// What is wrong with an object's name, or (as a `prefix`) with its `generateName`.
pub fn object_name(rule: NameRule, name: &str, prefix: bool) -> Vec<String> {
    // A generated name may end in a dash before its suffix is there.
    let masked = match name.strip_suffix('-') {
        Some(stem) if prefix && !stem.is_empty() => format!("{stem}a"),
        _ => name.to_owned(),
    };
    match rule {
        NameRule::Subdomain => dns1123_subdomain(&masked),
        NameRule::Label => dns1123_label(&masked),
        NameRule::Label1035 => dns1035_label(&masked),
        NameRule::PathSegment => path_segment(name, prefix),
        NameRule::Address => address(name),
    }
}

/// An RFC 1123 label: lower case, up to 63 characters.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut found = too_long(value, 63);
    if !is_label(value) {
        found.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            form_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                 start and end with an alphanumeric character",
                LABEL_FORM,
                &["my-name", "123-abc"],
            )
        });
    }
    found
}

/// An RFC 1123 subdomain: labels with dots between, up to 253 characters.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut found = too_long(value, 253);
    if !is_subdomain(value) {
        found.push(form_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN_FORM,
            &["example.com"],
        ));
    }
    found
}

/// An RFC 1035 label: begins with a letter, up to 63 characters.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut found = too_long(value, 63);
    if !(is_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        found.push(form_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            LABEL_1035_FORM,
            &["my-name", "abc-123"],
        ));
    }
    found
}

/// `*.` and a subdomain.
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut found = too_long(value, 253);
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        found.push(form_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN_FORM}"),
            &["*.example.com"],
        ));
    }
    found
}

/// An IP address in the one form in which it names an object.
fn address(name: &str) -> Vec<String> {
    let value = serde_json::Value::from(name);
    let mut errors = crate::FieldErrors::default();
    super::address::canonical_ip(&crate::At::root(&value, ""), &mut errors);
    errors.iter().map(|error| error.detail.clone()).collect()
}

/// A name that can stand in a path.
pub fn path_segment(value: &str, prefix: bool) -> Vec<String> {
    if !prefix && (value == "." || value == "..") {
        return vec![format!("may not be '{value}'")];
    }
    let illegal = ["/", "%"].into_iter().filter(|text| value.contains(text));
    illegal
        .map(|text| format!("may not contain '{text}'"))
        .collect()
}

/// A qualified name such as `example.com/name`: label keys, condition types, taint keys.
pub fn qualified_name(value: &str) -> Vec<String> {
    const SHAPE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character";
    let mut found = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        ["", name] => {
            found.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            found.extend(
                dns1123_subdomain(prefix)
                    .into_iter()
                    .map(|message| format!("prefix part {message}")),
            );
            name
        }
        _ => {
            let shape = format!("a qualified name {SHAPE}");
            let message = form_message(&shape, QUALIFIED_FORM, &["MyName", "my.name", "123-abc"]);
            return vec![
                message
                    + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            ];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        found.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_qualified_part(name) {
        let shape = format!("name part {SHAPE}");
        found.push(form_message(
            &shape,
            QUALIFIED_FORM,
            &["MyName", "my.name", "123-abc"],
        ));
    }
    found
}

/// Reports a text that is no path with a domain before it, such as `example.com/controller`.
pub fn domain_prefixed_path(at: &At<'_>, errors: &mut FieldErrors) {
    const PATH_FORM: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
    let text = at.str();
    if text.is_empty() {
        return errors.required(at, "");
    }
    let (domain, path) = match text.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => (domain, path),
        _ => {
            return errors.invalid(
                at,
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
            );
        }
    };
    let mut bad = |value: &str, detail: String| {
        errors.push(
            ErrorType::Invalid,
            at.path(),
            Some(Value::from(value)),
            detail,
        );
    };
    for message in dns1123_subdomain(domain) {
        bad(domain, message);
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(legal) {
        bad(
            path,
            format!("Invalid path (regex used for validation is '{PATH_FORM}')"),
        );
    }
}

/// A label's value: empty, or like the last part of a qualified name.
pub fn label_value(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    if value.len() > 63 {
        found.push("must be no more than 63 bytes".to_owned());
    }
    if !value.is_empty() && !is_qualified_part(value) {
        found.push(form_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    found
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Vec<String> {
    let mut found = too_long(value, 253);
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        found.push(form_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    found.extend(path_part(value));
    found
}

/// A name that becomes a file: neither `.` nor `..` nor beginning with `..`.
fn path_part(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// An environment variable's name: any printable ASCII but `=`.
pub fn env_var_name(value: &str) -> Vec<String> {
    if !value.is_empty()
        && value
            .bytes()
            .all(|b| (0x20..0x7f).contains(&b) && b != b'=')
    {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned(),
    ]
}

/// The name of a container's port.
pub fn port_name(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    if value.len() > 15 {
        found.push("must be no more than 15 characters".to_owned());
    }
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        found.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}

/// The reason of a condition: one word, or several with `,` or `:` between.
pub fn condition_reason(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let legal = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'));
    if legal {
        return Vec::new();
    }
    vec![form_message(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &[
            "my_name",
            "MY_NAME",
            "MyName",
            "ReasonA,ReasonB",
            "ReasonA:ReasonB",
        ],
    )]
}

/// The name of a header of an http probe.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty()
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    {
        return Vec::new();
    }
    vec![form_message(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

fn too_long(value: &str, most: usize) -> Vec<String> {
    if value.len() > most {
        vec![format!("must be no more than {most} characters")]
    } else {
        Vec::new()
    }
}

fn form_message(message: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{message} (e.g. {} regex used for validation is '{form}')",
        examples.join(" or ").trim_end()
    )
}

fn is_label(value: &str) -> bool {
    let alphanumeric =
        |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    alphanumeric(value.bytes().next())
        && alphanumeric(value.bytes().last())
        && value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

fn is_qualified_part(value: &str) -> bool {
    let alphanumeric = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    alphanumeric(value.bytes().next())
        && alphanumeric(value.bytes().last())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule, and a text to judge by it.
    type Case<'a> = (fn(&str) -> Vec<String>, &'a str);

    #[test]
    fn texts_are_upstreams() {
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
              and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_subdomain("a_b"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
              must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            qualified_name(""),
            [
                "name part must be non-empty",
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ]
        );
    }

    #[test]
    fn generated_names_may_end_in_a_dash() {
        assert!(object_name(NameRule::Label, "web-", true).is_empty());
        assert!(!object_name(NameRule::Label, "web-", false).is_empty());
    }

    #[test]
    fn accepted_and_rejected_side_by_side() {
        let accepted: &[Case<'_>] = &[
            (qualified_name, "example.com/My_name"),
            (label_value, ""),
            (config_key, "a.b_c-D"),
            (env_var_name, "A.b-c"),
            (port_name, "http-2"),
            (dns1035_label, "a1"),
        ];
        for (rule, value) in accepted {
            assert_eq!(rule(value), Vec::<String>::new(), "{value}");
        }
        let rejected: &[Case<'_>] = &[
            (qualified_name, "a/b/c"),
            (label_value, "-a"),
            (config_key, "..a"),
            (env_var_name, "A=B"),
            (port_name, "123"),
            (dns1035_label, "1a"),
        ];
        for (rule, value) in rejected {
            assert_eq!(rule(value).len(), 1, "{value}");
        }
    }
}

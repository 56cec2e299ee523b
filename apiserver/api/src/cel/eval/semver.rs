//! Semantic versions. Upstream: `semverlib.go`, over `github.com/blang/semver/v4`, whose words errors have.

use std::cmp::Ordering;
use std::rc::Rc;

use super::run::Budget;
use super::value::Value;
use super::{EvalError, Outcome};
use crate::field_errors::go_quote;

/// A version. What is built of it does not count when versions are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    /// Major, minor, patch.
    numbers: [u64; 3],
    /// What makes it come before its release; nothing in a release.
    before: Vec<Part>,
}

/// Numbers come before names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Name(String),
}

/// What a function makes of versions, or texts of them; `None` if it does not take them.
pub(super) fn call<'a>(
    name: &str,
    values: &[Value<'a>],
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    let (text, normalize) = match values {
        [Value::String(text)] => (text.as_str(), false),
        [Value::String(text), Value::Bool(normalize)] => (text.as_str(), *normalize),
        [Value::Semver(version)] => return part(name, version),
        [Value::Semver(version), Value::Semver(other)] => return compared(name, version, other),
        _ => return None,
    };
    if !matches!(name, "semver" | "isSemver") {
        return None;
    }
    if let Err(error) = budget.bytes(text.len()) {
        return Some(Err(error));
    }
    let parsed = match normalize {
        true => normalized(text).and_then(|text| Semver::parse(&text)),
        false => Semver::parse(text),
    };
    Some(match (name, parsed) {
        ("isSemver", parsed) => Ok(Value::Bool(parsed.is_ok())),
        (_, Ok(version)) => Ok(Value::Semver(Rc::new(version))),
        (_, Err(why)) => Err(EvalError::new(why)),
    })
}

fn part<'a>(name: &str, version: &Semver) -> Option<Outcome<'a>> {
    let at = match name {
        "major" => 0,
        "minor" => 1,
        "patch" => 2,
        _ => return None,
    };
    // As Go converts it.
    Some(Ok(Value::Int(version.numbers[at] as i64)))
}

fn compared<'a>(name: &str, version: &Semver, other: &Semver) -> Option<Outcome<'a>> {
    let order = version.order(other);
    Some(Ok(match name {
        "compareTo" => Value::Int(order as i64),
        "isGreaterThan" => Value::Bool(order == Ordering::Greater),
        "isLessThan" => Value::Bool(order == Ordering::Less),
        _ => return None,
    }))
}

impl Semver {
    /// Which comes first. Builds do not count.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let released = match (self.before.is_empty(), other.before.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.before.cmp(&other.before),
        };
        self.numbers.cmp(&other.numbers).then(released)
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, before) = match rest.split_once('-') {
            Some((patch, before)) => (patch, Some(before)),
            None => (rest, None),
        };
        let numbers = [
            number(major, "major")?,
            number(minor, "minor")?,
            number(patch, "patch")?,
        ];
        let before = before.map(|before| before.split('.').map(before_release).collect());
        let before = before.transpose()?.unwrap_or_default();
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            if !part.bytes().all(is_of_name) {
                let shown = go_quote(part);
                return Err(format!(
                    "Invalid character(s) found in build meta data {shown}"
                ));
            }
        }
        Ok(Self { numbers, before })
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_leading_zeros(text: &str) -> bool {
    text.len() > 1 && text.starts_with('0')
}

fn number(text: &str, name: &str) -> Result<u64, String> {
    if !is_number(text) {
        let shown = go_quote(text);
        return Err(format!(
            "Invalid character(s) found in {name} number {shown}"
        ));
    }
    if has_leading_zeros(text) {
        let name = format!("{}{}", name[..1].to_ascii_uppercase(), &name[1..]);
        let shown = go_quote(text);
        return Err(format!(
            "{name} number must not contain leading zeroes {shown}"
        ));
    }
    unsigned(text)
}

/// Digits as `strconv.ParseUint` reads them.
fn unsigned(text: &str) -> Result<u64, String> {
    let why = match text.is_empty() {
        true => "invalid syntax",
        false => "value out of range",
    };
    let wrong = |_| format!("strconv.ParseUint: parsing {}: {why}", go_quote(text));
    text.parse().map_err(wrong)
}

fn before_release(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if is_number(text) {
        if has_leading_zeros(text) {
            let shown = go_quote(text);
            return Err(format!(
                "Numeric PreRelease version must not contain leading zeroes {shown}"
            ));
        }
        return unsigned(text).map(Part::Number);
    }
    match text.bytes().all(is_of_name) {
        true => Ok(Part::Name(text.to_owned())),
        false => Err(format!(
            "Invalid character(s) found in prerelease {}",
            go_quote(text)
        )),
    }
}

/// Without a `v` and leading zeros, and with three numbers. Upstream: `normalizeAndParse`.
fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            if part.len() < 2 {
                return part.to_owned();
            }
            let rest = part.trim_start_matches('0');
            match rest.starts_with(|first: char| first.is_ascii_digit()) {
                true => rest.to_owned(),
                false => format!("0{rest}"),
            }
        })
        .collect();
    if parts.len() < 3 {
        let last = parts.last().map_or("", String::as_str);
        if last.contains(['+', '-']) {
            let why = "short version cannot contain PreRelease/Build meta data";
            return Err(why.to_owned());
        }
        parts.resize(3, "0".to_owned());
    }
    Ok(parts.join("."))
}

//! Functions of text.

use regex::{Regex, RegexBuilder};

use super::run::Budget;
use super::value::{Text, Value};
use super::{EvalError, Outcome, convert};

/// How large a compiled pattern may be, in bytes.
const PATTERN_SIZE: usize = 256 << 10;
/// How long a pattern may be, in bytes.
const PATTERN_LENGTH: usize = 4096;

/// Compiles a pattern. Patterns take a time that is linear in the text.
pub(super) fn pattern(text: &str) -> Result<Regex, EvalError> {
    if text.len() > PATTERN_LENGTH {
        return Err(EvalError::new("the pattern is too long"));
    }
    let built = RegexBuilder::new(text)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(4 * PATTERN_SIZE)
        .nest_limit(100)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => EvalError::new("the pattern is too large"),
        _ => EvalError::new(format!("error parsing regexp: {text:?}")),
    })
}

/// What a function makes of a text and its arguments; `None` if it does not take them.
pub(super) fn call<'a>(
    name: &str,
    values: &[Value<'a>],
    compiled: Option<&Regex>,
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    let (Value::String(subject), arguments) = values.split_first()? else {
        return None;
    };
    let cost: usize = values.iter().filter_map(Value::as_str).map(str::len).sum();
    if let Err(error) = budget.bytes(cost) {
        return Some(Err(error));
    }
    if let "matches" | "find" | "findAll" = name {
        return matched(name, subject.as_str(), arguments, compiled, budget);
    }
    let truth = |value: bool| Some(Ok(Value::Bool(value)));
    let text = |value: String| Some(Ok(Value::text(value)));
    let whole = subject.as_str();
    match (name, arguments) {
        ("contains", [Value::String(part)]) => truth(whole.contains(part.as_str())),
        ("startsWith", [Value::String(part)]) => truth(whole.starts_with(part.as_str())),
        ("endsWith", [Value::String(part)]) => truth(whole.ends_with(part.as_str())),
        ("charAt", [Value::Int(at)]) => Some(char_at(whole, *at)),
        ("indexOf" | "lastIndexOf", [Value::String(part), rest @ ..]) => {
            index_of(name, whole, part.as_str(), rest)
        }
        ("lowerAscii", []) => text(whole.to_ascii_lowercase()),
        ("upperAscii", []) => text(whole.to_ascii_uppercase()),
        ("trim", []) => text(whole.trim().to_owned()),
        ("reverse", []) => text(whole.chars().rev().collect()),
        ("strings.quote", []) => text(crate::field_errors::go_quote(whole)),
        ("replace", [Value::String(from), Value::String(to), rest @ ..]) => {
            let most = match rest {
                [] => usize::MAX,
                [Value::Int(most)] => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => return None,
            };
            Some(replace(whole, from.as_str(), to.as_str(), most, budget))
        }
        ("split", [Value::String(by), rest @ ..]) => {
            let most = match rest {
                [] => -1,
                [Value::Int(most)] => *most,
                _ => return None,
            };
            Some(split(whole, by.as_str(), most, budget))
        }
        ("substring", [Value::Int(from), rest @ ..]) => {
            let to = match rest {
                [] => None,
                [Value::Int(to)] => Some(*to),
                _ => return None,
            };
            Some(substring(whole, *from, to))
        }
        ("format", [Value::List(list)]) => {
            let items: Vec<Value<'a>> = list.iter().collect();
            Some(format(whole, &items, budget))
        }
        _ => None,
    }
}

fn matched<'a>(
    name: &str,
    subject: &str,
    arguments: &[Value<'a>],
    compiled: Option<&Regex>,
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    let (Value::String(wanted), rest) = arguments.split_first()? else {
        return None;
    };
    let most = match rest {
        [] => -1,
        [Value::Int(most)] if name == "findAll" => *most,
        _ => return None,
    };
    let built;
    let regex = match compiled {
        Some(regex) => regex,
        None => {
            // What compiling costs at most.
            if let Err(error) = budget.spend(100 + wanted.as_str().len() * 20) {
                return Some(Err(error));
            }
            built = match pattern(wanted.as_str()) {
                Ok(regex) => regex,
                Err(error) => return Some(Err(error)),
            };
            &built
        }
    };
    // Upstream's estimate: the text times a quarter of the pattern.
    let cost = (1 + subject.len() / 10).saturating_mul(1 + wanted.as_str().len() / 4);
    if let Err(error) = budget.spend(cost) {
        return Some(Err(error));
    }
    Some(Ok(match name {
        "matches" => Value::Bool(regex.is_match(subject)),
        "find" => Value::text(regex.find(subject).map_or("", |found| found.as_str())),
        _ => {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let found = regex.find_iter(subject).take(most);
            let found: Vec<_> = found.map(|found| Value::text(found.as_str())).collect();
            if let Err(error) = budget.spend(found.len()) {
                return Some(Err(error));
            }
            Value::list(found)
        }
    }))
}

fn char_at<'a>(text: &str, at: i64) -> Outcome<'a> {
    let count = text.chars().count() as i64;
    if at < 0 || at > count {
        return Err(EvalError::new(format!("index out of range: {at}")));
    }
    let found = text.chars().nth(at as usize);
    Ok(Value::text(found.map(String::from).unwrap_or_default()))
}

/// Where `part` is, in characters, or -1.
fn index_of<'a>(name: &str, text: &str, part: &str, rest: &[Value<'_>]) -> Option<Outcome<'a>> {
    let count = text.chars().count();
    let bound = match rest {
        [] => None,
        [Value::Int(bound)] => match usize::try_from(*bound) {
            Ok(bound) if bound <= count => Some(bound),
            _ => {
                let why = format!("index out of range: {bound}");
                return Some(Err(EvalError::new(why)));
            }
        },
        _ => return None,
    };
    let byte = |characters: usize| {
        let at = text.char_indices().nth(characters);
        at.map_or(text.len(), |(at, _)| at)
    };
    let found = match name {
        "indexOf" => {
            let from = byte(bound.unwrap_or(0));
            text[from..].find(part).map(|at| from + at)
        }
        _ => {
            let last = byte(bound.unwrap_or(count));
            let end = last.saturating_add(part.len()).min(text.len());
            let end = (end..=text.len()).find(|at| text.is_char_boundary(*at));
            text[..end.unwrap_or(text.len())].rfind(part)
        }
    };
    let at = found.map_or(-1, |at| text[..at].chars().count() as i64);
    Some(Ok(Value::Int(at)))
}

fn replace<'a>(text: &str, from: &str, to: &str, most: usize, budget: &mut Budget) -> Outcome<'a> {
    let times = text.matches(from).take(most).count();
    budget.bytes(times.saturating_mul(to.len()))?;
    Ok(Value::text(text.replacen(from, to, times)))
}

fn split<'a>(text: &str, by: &str, most: i64, budget: &mut Budget) -> Outcome<'a> {
    let most = match most {
        0 => return Ok(Value::list(Vec::new())),
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let parts: Vec<Value<'a>> = match by {
        "" => {
            let mut parts: Vec<String> = text.chars().map(String::from).collect();
            if parts.len() > most {
                let tail = parts.split_off(most - 1).concat();
                parts.push(tail);
            }
            parts.into_iter().map(Value::text).collect()
        }
        by => text.splitn(most, by).map(Value::text).collect(),
    };
    budget.spend(parts.len())?;
    Ok(Value::list(parts))
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Outcome<'a> {
    let count = text.chars().count() as i64;
    let to = to.unwrap_or(count);
    for bound in [from, to] {
        if !(0..=count).contains(&bound) {
            return Err(EvalError::new(format!("index out of range: {bound}")));
        }
    }
    if from > to {
        return Err(EvalError::new(format!(
            "invalid substring range. start: {from}, end: {to}"
        )));
    }
    let part = text.chars().skip(from as usize).take((to - from) as usize);
    Ok(Value::text(part.collect::<String>()))
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o` and `%%`.
fn format<'a>(text: &str, items: &[Value<'_>], budget: &mut Budget) -> Outcome<'a> {
    let mut out = String::new();
    let mut items = items.iter();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut precision = None;
        let verb = loop {
            match characters.next() {
                Some('.') => precision = Some(0_usize),
                Some(digit) if digit.is_ascii_digit() => {
                    let digit = digit as usize - '0' as usize;
                    precision = precision.map(|before| (before * 10 + digit).min(100));
                }
                other => break other,
            }
        };
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let wrong = || EvalError::new("could not parse formatting clause");
        let (verb, item) = (verb.ok_or_else(wrong)?, items.next());
        let item = item.ok_or_else(|| EvalError::new("index out of range"))?;
        let piece = piece(verb, item, precision, budget).ok_or_else(wrong)??;
        budget.bytes(piece.len())?;
        out.push_str(&piece);
    }
    Ok(Value::text(out))
}

fn piece(
    verb: char,
    item: &Value<'_>,
    precision: Option<usize>,
    budget: &mut Budget,
) -> Option<Result<String, EvalError>> {
    let places = precision.unwrap_or(6);
    Some(Ok(match (verb, item) {
        ('s', item) => return Some(listed(item, budget)),
        ('d', Value::Int(_) | Value::Uint(_) | Value::Double(_)) => convert::shown(item),
        ('f', Value::Double(value)) => format!("{value:.places$}"),
        ('e', Value::Double(value)) => format!("{value:.places$e}"),
        ('b', Value::Int(value)) => format!("{value:b}"),
        ('b', Value::Uint(value)) => format!("{value:b}"),
        ('b', Value::Bool(value)) => i32::from(*value).to_string(),
        ('x', Value::Int(value)) => format!("{value:x}"),
        ('x', Value::Uint(value)) => format!("{value:x}"),
        ('X', Value::Int(value)) => format!("{value:X}"),
        ('X', Value::Uint(value)) => format!("{value:X}"),
        ('o', Value::Int(value)) => format!("{value:o}"),
        ('o', Value::Uint(value)) => format!("{value:o}"),
        ('x' | 'X', Value::String(Text::Borrowed(_) | Text::Made(_)) | Value::Bytes(_)) => {
            let bytes = match item {
                Value::Bytes(bytes) => bytes.to_vec(),
                other => other.as_str()?.as_bytes().to_vec(),
            };
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            let digits: String = digits.collect();
            if verb == 'X' {
                digits.to_uppercase()
            } else {
                digits
            }
        }
        _ => return None,
    }))
}

/// Text of any value, lists and maps with what is in them.
fn listed(value: &Value<'_>, budget: &mut Budget) -> Result<String, EvalError> {
    budget.spend(1)?;
    Ok(match value {
        Value::List(list) => {
            let mut items = Vec::new();
            for item in list.iter() {
                items.push(listed(&item, budget)?);
            }
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for (key, value) in map.entries() {
                entries.push(format!(
                    "{}: {}",
                    listed(&key, budget)?,
                    listed(&value, budget)?
                ));
            }
            entries.sort();
            format!("{{{}}}", entries.join(", "))
        }
        other => {
            let shown = convert::shown(other);
            budget.bytes(shown.len())?;
            shown
        }
    })
}

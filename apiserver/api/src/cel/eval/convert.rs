//! From one type to another, and values as text.

use std::str::FromStr;

use super::run::Budget;
use super::value::{Text, Value};
use super::{EvalError, Outcome, time};

/// `int(value)` and its like; `None` if there is no such function for the value.
pub(super) fn convert<'a>(
    name: &str,
    value: &Value<'a>,
    budget: &mut Budget,
) -> Option<Outcome<'a>> {
    if let Value::String(text) = value
        && let Err(error) = budget.bytes(text.as_str().len())
    {
        return Some(Err(error));
    }
    let range = |name: &str| Err(EvalError::new(format!("{name} overflow")));
    Some(match (name, value) {
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Value::Type(value.type_name())),
        ("bool", Value::Bool(_))
        | ("int", Value::Int(_))
        | ("uint", Value::Uint(_))
        | ("double", Value::Double(_))
        | ("string", Value::String(_))
        | ("bytes", Value::Bytes(_))
        | ("timestamp", Value::Timestamp(_))
        | ("duration", Value::Duration(_)) => Ok(value.clone()),
        ("bool", Value::String(text)) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(EvalError::new(
                "type conversion error from 'string' to 'bool'",
            )),
        },
        ("int", Value::Uint(value)) => {
            i64::try_from(*value).map_or_else(|_| range("integer"), |value| Ok(Value::Int(value)))
        }
        ("int", Value::Double(value)) => match value.trunc() {
            whole if whole > -9.223_372_036_854_776e18 && whole < 9.223_372_036_854_776e18 => {
                Ok(Value::Int(whole as i64))
            }
            _ => range("integer"),
        },
        ("int", Value::Timestamp(value)) => Ok(Value::Int(value.as_second())),
        ("int", Value::String(text)) => parsed::<i64>(text, "int").map(Value::Int),
        ("uint", Value::Int(value)) => u64::try_from(*value).map_or_else(
            |_| range("unsigned integer"),
            |value| Ok(Value::Uint(value)),
        ),
        ("uint", Value::Double(value)) => match value.trunc() {
            whole if (0.0..1.844_674_407_370_955e19).contains(&whole) => {
                Ok(Value::Uint(whole as u64))
            }
            _ => range("unsigned integer"),
        },
        ("uint", Value::String(text)) => parsed::<u64>(text, "uint").map(Value::Uint),
        ("double", Value::Int(value)) => Ok(Value::Double(*value as f64)),
        ("double", Value::Uint(value)) => Ok(Value::Double(*value as f64)),
        ("double", Value::String(text)) => parsed::<f64>(text, "double").map(Value::Double),
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_str().as_bytes().into())),
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err(EvalError::new(
                "invalid UTF-8 in bytes, cannot convert to string",
            )),
        },
        ("string", Value::Null | Value::List(_) | Value::Map(_) | Value::Optional(_)) => {
            return None;
        }
        ("string", value) => Ok(Value::text(shown(value))),
        ("timestamp", Value::Int(seconds)) => time::from_seconds(*seconds),
        ("timestamp", Value::String(text)) => time::timestamp(text.as_str()),
        ("duration", Value::String(text)) => time::duration(text.as_str()),
        _ => return None,
    })
}

fn parsed<T: FromStr>(text: &Text<'_>, name: &str) -> Result<T, EvalError> {
    let error = || {
        EvalError::new(format!(
            "type conversion error from 'string' to '{name}': {:?}",
            text.as_str()
        ))
    };
    text.as_str().parse().map_err(|_| error())
}

/// A value as text; of lists and maps, what they are.
pub(super) fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => double(*value),
        Value::String(text) => text.as_str().to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(value) => value.to_string(),
        Value::Duration(value) => time::shown(value),
        Value::Type(name) => (*name).to_owned(),
        Value::Quantity(value) => value.to_string(),
        Value::Ip(value) => value.to_string(),
        Value::Cidr(address, bits) => format!("{address}/{bits}"),
        Value::Url(url) => match url.scheme.is_empty() {
            true => url.path.clone(),
            false => format!("{}://{}{}", url.scheme, url.host, url.path),
        },
        Value::List(_)
        | Value::Map(_)
        | Value::Optional(_)
        | Value::Semver(_)
        | Value::Format(_) => value.type_name().to_owned(),
    }
}

/// A number as Go's shortest form has it.
fn double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

//! Points and lengths of time.

use coracle_clock::Timestamp;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::value::Value;
use super::{EvalError, Outcome};

fn overflow(what: &str) -> EvalError {
    EvalError::new(format!("{what} overflow"))
}

/// RFC 3339, as upstream takes it.
pub(super) fn timestamp<'a>(text: &str) -> Outcome<'a> {
    let bytes = text.as_bytes();
    let zoned = text.ends_with(['Z', 'z']) || {
        let tail = bytes.len().checked_sub(6).and_then(|at| bytes.get(at..));
        tail.is_some_and(|tail| matches!(tail[0], b'+' | b'-') && tail[3] == b':')
    };
    let separated = bytes
        .get(10)
        .is_some_and(|byte| matches!(byte, b'T' | b't'));
    let parsed = text
        .parse::<Timestamp>()
        .ok()
        .filter(|_| zoned && separated);
    parsed.map(Value::Timestamp).ok_or_else(|| {
        EvalError::new(format!(
            "type conversion error: {text:?} is no RFC 3339 timestamp"
        ))
    })
}

pub(super) fn from_seconds<'a>(seconds: i64) -> Outcome<'a> {
    let found = Timestamp::from_second(seconds).map(Value::Timestamp);
    found.map_err(|_| overflow("timestamp"))
}

/// Go's form: `1h30m`, `-1.5s`, `0`.
pub(super) fn duration<'a>(text: &str) -> Outcome<'a> {
    let nanos = crate::duration::parse(text).map_err(EvalError::new)?;
    Ok(Value::Duration(SignedDuration::from_nanos(nanos)))
}

/// Seconds, as upstream writes a length of time.
pub(super) fn shown(value: &SignedDuration) -> String {
    let nanos = value.as_nanos();
    let (whole, part) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    let sign = if nanos < 0 { "-" } else { "" };
    match part {
        0 => format!("{sign}{whole}s"),
        part => format!(
            "{sign}{whole}.{}s",
            format!("{part:09}").trim_end_matches('0')
        ),
    }
}

pub(super) fn add<'a>(left: &Value<'_>, right: &Value<'_>) -> Outcome<'a> {
    match (left, right) {
        (Value::Duration(a), Value::Duration(b)) => {
            let sum = a.checked_add(*b).map(Value::Duration);
            sum.ok_or_else(|| overflow("duration"))
        }
        (Value::Timestamp(at), Value::Duration(by))
        | (Value::Duration(by), Value::Timestamp(at)) => {
            let sum = at.checked_add(*by).map(Value::Timestamp);
            sum.map_err(|_| overflow("timestamp"))
        }
        _ => Err(EvalError::overload()),
    }
}

pub(super) fn subtract<'a>(left: &Value<'_>, right: &Value<'_>) -> Outcome<'a> {
    match (left, right) {
        (Value::Duration(a), Value::Duration(b)) => {
            let found = a.checked_sub(*b).map(Value::Duration);
            found.ok_or_else(|| overflow("duration"))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Value::Duration(a.duration_since(*b))),
        (Value::Timestamp(at), Value::Duration(by)) => {
            let found = at.checked_sub(*by).map(Value::Timestamp);
            found.map_err(|_| overflow("timestamp"))
        }
        _ => Err(EvalError::overload()),
    }
}

/// `getHours()` and its like; `None` if there is no such function for these values.
pub(super) fn part<'a>(name: &str, values: &[Value<'_>]) -> Option<Outcome<'a>> {
    let whole = |value: i128| Some(Ok(Value::Int(i64::try_from(value).unwrap_or(i64::MAX))));
    match values {
        [Value::Duration(value)] => {
            let nanos = value.as_nanos();
            match name {
                "getHours" => whole(nanos / 3_600_000_000_000),
                "getMinutes" => whole(nanos / 60_000_000_000),
                "getSeconds" => whole(nanos / 1_000_000_000),
                "getMilliseconds" => whole(nanos / 1_000_000),
                _ => None,
            }
        }
        [Value::Timestamp(at)] => field(name, at, Offset::UTC),
        [Value::Timestamp(at), Value::String(zone)] => match offset(zone.as_str()) {
            Some(offset) => field(name, at, offset),
            None => Some(Err(EvalError::new(format!(
                "unknown time zone {}",
                zone.as_str()
            )))),
        },
        _ => None,
    }
}

/// `UTC`, or hours and minutes; zones with names are not known here.
fn offset(zone: &str) -> Option<Offset> {
    if matches!(zone, "" | "UTC") {
        return Some(Offset::UTC);
    }
    let (sign, digits) = match zone.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

fn field<'a>(name: &str, at: &Timestamp, offset: Offset) -> Option<Outcome<'a>> {
    let at: DateTime = at.to_zoned(TimeZone::fixed(offset)).datetime();
    let value = match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    };
    Some(Ok(Value::Int(value)))
}

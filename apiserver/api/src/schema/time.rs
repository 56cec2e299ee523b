//! Time stamps in the forms that the API accepts and writes.

use jiff::{Timestamp, civil, fmt::strtime, tz};

/// RFC 3339 to whole seconds, in UTC.
pub(super) fn seconds(text: &str) -> Result<String, String> {
    let time = parse(text, "2006-01-02T15:04:05Z07:00")?;
    Ok(format(time, "%Y-%m-%dT%H:%M:%SZ"))
}

/// RFC 3339 to microseconds, in UTC.
pub(super) fn micros(text: &str) -> Result<String, String> {
    let time = parse(text, "2006-01-02T15:04:05.000000Z07:00")?;
    Ok(format(time, "%Y-%m-%dT%H:%M:%S.%6fZ"))
}

fn format(time: Timestamp, form: &str) -> String {
    let civil = tz::TimeZone::UTC.to_datetime(time);
    strtime::format(form, civil).unwrap_or_else(|_| time.to_string())
}

/// Reads as Go's `time.Parse` does, part by part, so that errors name the part that didn't fit.
fn parse(text: &str, layout: &str) -> Result<Timestamp, String> {
    let fail = |rest: &str, part: &str| {
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}")
    };
    let out_of_range = |part: &str| format!("parsing time {text:?}: {part} out of range");
    let mut rest = text;
    let mut digits = |count: usize, part: &str, before: &str| -> Result<i16, String> {
        if !before.is_empty() {
            rest = rest
                .strip_prefix(before)
                .ok_or_else(|| fail(rest, before))?;
        }
        let number = rest
            .get(..count)
            .filter(|head| head.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number
            .and_then(|head| head.parse().ok())
            .ok_or_else(|| fail(rest, part))?;
        rest = &rest[count..];
        Ok(number)
    };
    let year = digits(4, "2006", "")?;
    let month = digits(2, "01", "-")?;
    let day = digits(2, "02", "-")?;
    let hour = digits(2, "15", "T")?;
    let minute = digits(2, "04", ":")?;
    let second = digits(2, "05", ":")?;
    let mut nanosecond = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if count > 0 {
            let digits: String = fraction[..count]
                .chars()
                .chain("000000000".chars())
                .take(9)
                .collect();
            nanosecond = digits.parse().unwrap_or(0);
            rest = &fraction[count..];
        }
    }
    let offset = offset(rest).ok_or_else(|| fail(rest, "Z07:00"))?;
    let range = |value: i16, range: std::ops::RangeInclusive<i16>, part: &str| {
        if range.contains(&value) {
            Ok(value as i8)
        } else {
            Err(out_of_range(part))
        }
    };
    let month = range(month, 1..=12, "month")?;
    let day = range(day, 1..=31, "day")?;
    let hour = range(hour, 0..=23, "hour")?;
    let minute = range(minute, 0..=59, "minute")?;
    let second = range(second, 0..=59, "second")?;
    let civil = civil::DateTime::new(year, month, day, hour, minute, second, nanosecond)
        .map_err(|_| out_of_range("day"))?;
    offset.to_timestamp(civil).map_err(|_| out_of_range("year"))
}

fn offset(text: &str) -> Option<tz::Offset> {
    if text == "Z" {
        return Some(tz::Offset::UTC);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    if hours.len() != 2
        || minutes.len() != 2
        || !rest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b':')
    {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

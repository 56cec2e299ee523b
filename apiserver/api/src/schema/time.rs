//! Time stamps in the forms that the API accepts and writes.

use jiff::{Timestamp, civil, fmt::strtime, tz};

/// RFC 3339 to whole seconds, in UTC; the error is what Go says.
pub fn seconds(text: &str) -> Result<String, String> {
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
    let mut parts = Parts {
        text,
        layout,
        rest: text,
    };
    let year = parts.number("", "2006", 0..=9999)?;
    let month = parts.number("-", "01", 1..=12)?;
    let day = parts.number("-", "02", 0..=99)?;
    let hour = parts.number("T", "15", 0..=23)?;
    let minute = parts.number(":", "04", 0..=59)?;
    let second = parts.number(":", "05", 0..=59)?;
    let nanosecond = if layout.contains(".000000") {
        parts.six_digits()?
    } else {
        parts.any_fraction()
    };
    let offset = parts.offset()?;
    if !parts.rest.is_empty() {
        return Err(parts.failed(&format!("extra text: {:?}", parts.rest)));
    }
    let small = |value: i16| i8::try_from(value).unwrap_or(i8::MAX);
    let civil = civil::DateTime::new(
        year,
        small(month),
        small(day),
        small(hour),
        small(minute),
        small(second),
        nanosecond,
    )
    .map_err(|_| parts.failed("day out of range"))?;
    let time = offset.to_timestamp(civil);
    time.map_err(|_| parts.failed("year out of range"))
}

/// A text that is read part by part.
struct Parts<'a> {
    text: &'a str,
    layout: &'a str,
    rest: &'a str,
}

impl Parts<'_> {
    fn failed(&self, why: &str) -> String {
        format!("parsing time {:?}: {why}", self.text)
    }

    fn mismatch(&self, rest: &str, part: &str) -> String {
        format!(
            "parsing time {:?} as {:?}: cannot parse {rest:?} as {part:?}",
            self.text, self.layout
        )
    }

    /// As many digits as `part` has, after `before`.
    fn number(
        &mut self,
        before: &str,
        part: &str,
        range: std::ops::RangeInclusive<i16>,
    ) -> Result<i16, String> {
        let rest = self.rest.strip_prefix(before);
        let rest = rest.ok_or_else(|| self.mismatch(self.rest, before))?;
        let number = rest
            .get(..part.len())
            .filter(|head| head.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|head| head.parse().ok())
            .ok_or_else(|| self.mismatch(rest, part))?;
        if !range.contains(&number) {
            let name = match part {
                "01" => "month",
                "15" => "hour",
                "04" => "minute",
                _ => "second",
            };
            return Err(self.failed(&format!("{name} out of range")));
        }
        self.rest = &rest[part.len()..];
        Ok(number)
    }

    /// The digits after a point or comma, if there are any.
    fn fraction(&self) -> &str {
        let digits = self.rest.strip_prefix(['.', ',']).unwrap_or_default();
        let count = digits.bytes().take_while(u8::is_ascii_digit).count();
        &digits[..count]
    }

    /// Nanoseconds of a fraction, which the layout does not name but Go accepts.
    fn any_fraction(&mut self) -> i32 {
        let digits = self.fraction();
        if digits.is_empty() {
            return 0;
        }
        let nanoseconds: String = digits.chars().chain("000000000".chars()).take(9).collect();
        self.rest = &self.rest[1 + digits.len()..];
        nanoseconds.parse().unwrap_or(0)
    }

    /// Nanoseconds of a fraction of exactly six digits.
    fn six_digits(&mut self) -> Result<i32, String> {
        let digits = self.fraction().get(..6);
        let microseconds = digits.and_then(|digits| digits.parse::<i32>().ok());
        let microseconds = microseconds.ok_or_else(|| self.mismatch(self.rest, ".000000"))?;
        self.rest = &self.rest[7..];
        Ok(microseconds * 1000)
    }

    /// `Z`, or a sign, hours and minutes.
    fn offset(&mut self) -> Result<tz::Offset, String> {
        const PART: &str = "Z07:00";
        let rest = self.rest;
        if let Some(after) = rest.strip_prefix('Z') {
            self.rest = after;
            return Ok(tz::Offset::UTC);
        }
        let mismatch = || self.mismatch(rest, PART);
        let head = rest.get(..PART.len()).ok_or_else(mismatch)?;
        let sign = match head.as_bytes()[0] {
            b'+' => 1,
            b'-' => -1,
            _ => return Err(mismatch()),
        };
        let number = |digits: Option<&str>| {
            let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            digits.and_then(|digits| digits.parse::<i32>().ok())
        };
        let (hours, minutes) = match (number(head.get(1..3)), number(head.get(4..6))) {
            (Some(hours), Some(minutes)) if head.as_bytes()[3] == b':' => (hours, minutes),
            _ => return Err(mismatch()),
        };
        if hours > 24 {
            return Err(self.failed("time zone offset hour out of range"));
        }
        if minutes > 60 {
            return Err(self.failed("time zone offset minute out of range"));
        }
        let offset = tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60));
        self.rest = &rest[PART.len()..];
        offset.map_err(|_| self.failed("time zone offset hour out of range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let cases = [
            ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05.999Z", "2024-01-02T03:04:05Z"),
            ("2024-01-02T03:04:05,5+01:30", "2024-01-02T01:34:05Z"),
        ];
        for (given, written) in cases {
            assert_eq!(seconds(given).as_deref(), Ok(written), "{given}");
        }
        let micro = "2024-01-02T03:04:05.000001Z";
        assert_eq!(micros(micro).as_deref(), Ok(micro));
    }

    #[test]
    fn errors_name_the_part_that_does_not_fit() {
        let whole = "2006-01-02T15:04:05Z07:00";
        let cases = [
            ("2024-13-02T03:04:05Z", "month out of range".to_owned()),
            ("2024-02-30T03:04:05Z", "day out of range".to_owned()),
            ("2024-01-02T24:99:05Z", "hour out of range".to_owned()),
            ("2024-01-02T03:04:05Z2", "extra text: \"2\"".to_owned()),
            (
                "2024-01-02T03:04:05+25:00",
                "time zone offset hour out of range".to_owned(),
            ),
        ];
        for (given, why) in cases {
            assert_eq!(
                seconds(given),
                Err(format!("parsing time {given:?}: {why}"))
            );
        }
        let given = "2024-01-02 03:04:05Z";
        let why =
            format!("parsing time {given:?} as {whole:?}: cannot parse \" 03:04:05Z\" as \"T\"");
        assert_eq!(seconds(given), Err(why));
    }

    #[test]
    fn micro_times_have_exactly_six_digits() {
        let layout = "2006-01-02T15:04:05.000000Z07:00";
        for (given, rest, part) in [
            ("2024-01-02T03:04:05Z", "Z", ".000000"),
            ("2024-01-02T03:04:05.1Z", ".1Z", ".000000"),
            ("2024-01-02T03:04:05.1234567Z", "7Z", "Z07:00"),
        ] {
            let why =
                format!("parsing time {given:?} as {layout:?}: cannot parse {rest:?} as {part:?}");
            assert_eq!(micros(given), Err(why));
        }
    }
}

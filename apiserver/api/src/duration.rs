//! Lengths of time as Go reads and writes them: `1h30m`, `-1.5s`, `0`.
//!
//! Upstream's API, its configuration files and its messages all have them in this form (Go's package `time`).

use crate::field_errors::go_quote;

/// Units by name, in nanoseconds.
const UNITS: &[(&str, i128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Digits that are read of a fraction; further ones are below a nanosecond of an hour.
const FRACTION_DIGITS: usize = 18;

/// Nanoseconds, as `time.ParseDuration` reads them; the error is Go's text.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (part, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && part.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", go_quote(text)));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, unit) = known.ok_or_else(|| {
            format!(
                "time: unknown unit {} in duration {}",
                go_quote(unit),
                go_quote(text)
            )
        })?;
        let part = &part[..part.len().min(FRACTION_DIGITS)];
        let scale = 10_i128.pow(part.len() as u32);
        // A number of u64 times an hour fits by far.
        let whole = i128::from(number(whole).ok_or_else(invalid)?);
        let part = i128::from(number(part).ok_or_else(invalid)?);
        nanos += whole * unit + part * unit / scale;
        if nanos > i128::from(i64::MAX) + 1 {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(sign * nanos).map_err(|_| invalid())
}

/// As `Duration.String` writes nanoseconds: `1h0m0s`, `1.5s`, `20ms`, `0s`.
pub fn shown(nanos: i64) -> String {
    let (sign, left) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    match left {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{left}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(left, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(left, 1_000_000)),
        _ => {
            let seconds = left / 1_000_000_000;
            let rest = decimal(left % 60_000_000_000, 1_000_000_000);
            match (seconds / 3600, seconds / 60 % 60) {
                (0, 0) => format!("{sign}{rest}s"),
                (0, minutes) => format!("{sign}{minutes}m{rest}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

/// The digits at the start, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text.split_at(end.unwrap_or(text.len()))
}

/// No digits are 0.
fn number(digits: &str) -> Option<u64> {
    match digits {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

/// `value` in `unit`, a power of ten, without zeros at the end.
fn decimal(value: u64, unit: u64) -> String {
    let places = unit.ilog10() as usize;
    let text = format!("{}.{:0places$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5 * SECOND),
            ("+5s", 5 * SECOND),
            ("-100ms", -SECOND / 10),
            ("1h2m3.5s", 3723 * SECOND + SECOND / 2),
            (".5s", SECOND / 2),
            ("1.s", SECOND),
            ("1.5h", 5400 * SECOND),
            ("2us3µs4μs", 9_000),
            ("0.9999999999999999999999ns", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn what_is_read_is_written_in_its_shortest_form() {
        for (text, nanos, form) in [
            ("1h30m", 5400 * SECOND, "1h30m0s"),
            ("0", 0, "0s"),
            ("-1.5s", -3 * SECOND / 2, "-1.5s"),
            ("1.5ms", 1_500_000, "1.5ms"),
            ("250us", 250_000, "250µs"),
            ("61s", 61 * SECOND, "1m1s"),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
            assert_eq!(shown(nanos), form);
        }
    }

    #[test]
    fn what_is_no_duration_gets_gos_words() {
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("s", "time: invalid duration \"s\""),
            ("1..5s", "time: missing unit in duration \"1..5s\""),
            ("3", "time: missing unit in duration \"3\""),
            ("1.5.3s", "time: missing unit in duration \"1.5.3s\""),
            ("1day", "time: unknown unit \"day\" in duration \"1day\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
            ("3000000h", "time: invalid duration \"3000000h\""),
            (
                "99999999999999999999s",
                "time: invalid duration \"99999999999999999999s\"",
            ),
        ] {
            assert_eq!(parse(text), Err(error.to_owned()));
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (7_000_000, "7ms"),
            (SECOND, "1s"),
            (1_594_000_000, "1.594s"),
            (60 * SECOND, "1m0s"),
            (62_050_000_000, "1m2.05s"),
            (3600 * SECOND, "1h0m0s"),
            (-90 * SECOND, "-1m30s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(shown(nanos), text);
        }
    }
}

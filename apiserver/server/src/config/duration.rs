//! Lengths of time as Go writes them.

use std::time::Duration;

/// Reads `1h30m`, `0.5s`, `-1s` or `0`: nanoseconds.
pub fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut all: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') || whole.len() > 18 {
            return None;
        }
        let part = part.get(..part.len().min(15))?;
        let digits = |text: &str| match text {
            "" => Some(0),
            text => text.parse::<i128>().ok(),
        };
        let scale = 10_i128.pow(part.len() as u32);
        all += digits(whole)? * unit + digits(part)? * unit / scale;
        rest = after;
    }
    i64::try_from(sign * all).ok()
}

/// As Go's `Duration.String` writes it.
pub fn shown(nanos: i64) -> String {
    let (sign, left) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = |left: u64, unit: u64| {
        let places = unit.ilog10() as usize;
        let text = format!("{}.{:0places$}", left / unit, left % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match left {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{left}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(left, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(left, 1_000_000)),
        _ => {
            let seconds = left / 1_000_000_000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = fraction(left % 60_000_000_000, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{rest}s"),
                (0, minutes) => format!("{sign}{minutes}m{rest}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{rest}s"),
            }
        }
    }
}

/// A length of time that is not negative.
pub(super) fn positive(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

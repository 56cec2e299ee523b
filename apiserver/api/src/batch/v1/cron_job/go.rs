//! How Go reads numbers and durations, and what it says of those that it can't read.

/// `strconv.Atoi`.
pub(super) fn atoi(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let error = |what: &str| format!("strconv.Atoi: parsing {text:?}: {what}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error("invalid syntax"));
    }
    text.parse().map_err(|_| error("value out of range"))
}

/// `time.ParseDuration`: whether a text such as `1h30m` is a duration.
pub(super) fn duration(text: &str) -> Result<(), String> {
    let invalid = || Err(format!("time: invalid duration {text:?}"));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return invalid();
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        if !rest.starts_with(|c: char| c == '.' || c.is_ascii_digit()) {
            return invalid();
        }
        let end = rest
            .find(|c: char| c != '.' && !c.is_ascii_digit())
            .unwrap_or(rest.len());
        // A second point ends the number, and is no unit.
        let end = match rest.match_indices('.').nth(1) {
            Some((second, _)) if second < end => second,
            _ => end,
        };
        let (number, tail) = rest.split_at(end);
        if number == "." {
            return invalid();
        }
        let unit_end = tail
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => {
                return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
            }
        };
        seconds += format!("0{number}").parse::<f64>().unwrap_or(f64::INFINITY) * factor;
        if seconds > i64::MAX as f64 / 1e9 {
            return invalid();
        }
        rest = tail;
    }
    Ok(())
}

//! Schedules in cron's notation, and time zones, judged as upstream's libraries judge them.

use super::go;
use crate::{At, FieldErrors, duration};

/// The names of the time zone database; which offsets they stand for is the controller's matter.
static TIME_ZONES: &str = include_str!("time_zones.txt");

/// The values that one of the five fields may have.
struct Bounds {
    least: i64,
    most: i64,
    names: &'static [&'static str],
    /// The number of the first name.
    first: i64,
}

const FIELDS: [Bounds; 5] = [
    Bounds::numbers(0, 59),
    Bounds::numbers(0, 23),
    Bounds::numbers(1, 31),
    Bounds {
        least: 1,
        most: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
        first: 1,
    },
    Bounds {
        least: 0,
        most: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        first: 0,
    },
];

impl Bounds {
    const fn numbers(least: i64, most: i64) -> Self {
        Self {
            least,
            most,
            names: &[],
            first: 0,
        }
    }

    fn number(&self, text: &str) -> Result<i64, String> {
        let lower = text.to_lowercase();
        match self.names.iter().position(|name| *name == lower) {
            Some(index) => Ok(self.first + index as i64),
            None => number(text),
        }
    }
}

/// Says what is wrong with a schedule.
pub fn check(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("empty spec string".to_owned());
    }
    let mut rest = text;
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (zone, schedule) = text.split_once(' ').unwrap_or((text, ""));
        let zone = zone.split_once('=').map_or("", |(_, zone)| zone);
        location(zone).map_err(|error| format!("provided bad location {zone}: {error}"))?;
        rest = schedule.trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    for (text, bounds) in fields.iter().zip(&FIELDS) {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn descriptor(text: &str) -> Result<(), String> {
    const KNOWN: &[&str] = &[
        "@yearly",
        "@annually",
        "@monthly",
        "@weekly",
        "@daily",
        "@midnight",
        "@hourly",
    ];
    if KNOWN.contains(&text) {
        return Ok(());
    }
    match text.strip_prefix("@every ") {
        Some(length) => duration::parse(length)
            .map(drop)
            .map_err(|error| format!("failed to parse duration {text}: {error}")),
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

/// `*`, `5`, `1-5`, each perhaps with a step: `*/2`.
fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match ends[..] {
        ["*" | "?", ..] => (bounds.least, bounds.most),
        [one] => {
            let one = bounds.number(one)?;
            (one, one)
        }
        [low, high] => (bounds.number(low)?, bounds.number(high)?),
        [low, ..] => {
            bounds.number(low)?;
            return Err(format!("too many hyphens: {text}"));
        }
        [] => return Err(format!("too many hyphens: {text}")),
    };
    let mut step = 1;
    match parts[..] {
        [_] => {}
        [_, every] => {
            step = number(every)?;
            if ends.len() == 1 {
                end = bounds.most;
            }
        }
        _ => return Err(format!("too many slashes: {text}")),
    }
    let (least, most) = (bounds.least, bounds.most);
    if start < least {
        Err(format!(
            "beginning of range ({start}) below minimum ({least}): {text}"
        ))
    } else if end > most {
        Err(format!(
            "end of range ({end}) above maximum ({most}): {text}"
        ))
    } else if start > end {
        Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ))
    } else if step == 0 {
        Err(format!("step of range should be a positive number: {text}"))
    } else {
        Ok(())
    }
}

fn number(text: &str) -> Result<i64, String> {
    match go::atoi(text) {
        Err(error) => Err(format!("failed to parse int from {text}: {error}")),
        Ok(number) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(number),
    }
}

/// Reports a name that is no time zone.
pub fn time_zone(at: &At<'_>, errors: &mut FieldErrors) {
    let Some(name) = at.as_str() else {
        return;
    };
    if name.is_empty() {
        return errors.invalid(at, "timeZone must be nil or non-empty string");
    }
    let legal = |part: &str| {
        (1..=14).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.starts_with('-')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_+".contains(&b))
    };
    if !name.split('/').all(legal) {
        return errors.invalid(at, format!("unknown time zone {name}"));
    }
    if name.eq_ignore_ascii_case("Local") {
        errors.invalid(
            at,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    }
    if let Err(error) = location(name) {
        errors.invalid(at, error);
    }
}

/// `time.LoadLocation`.
fn location(name: &str) -> Result<(), String> {
    if matches!(name, "" | "UTC" | "Local") || TIME_ZONES.lines().any(|zone| zone == name) {
        return Ok(());
    }
    if name.starts_with('/') || name.contains('\\') || name.split('/').any(|part| part == "..") {
        return Err("time: invalid location name".to_owned());
    }
    Err(format!("unknown time zone {name}"))
}

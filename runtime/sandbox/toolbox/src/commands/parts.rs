//! Counts of `head` and `tail`, sizes and times as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::failure::Failure;
use crate::options::Options;

/// How much of a stream is meant.
#[derive(Clone, Copy)]
pub enum Count {
    Lines(u64),
    Bytes(u64),
    /// From the line of this number on.
    FromLine(u64),
    /// From the byte of this number on.
    FromByte(u64),
}

/// What is still to come of a [`Count`].
pub struct Counted {
    left: u64,
    lines: bool,
}

impl Count {
    /// For `head`, which knows no "from".
    pub fn counted(self) -> Counted {
        match self {
            Self::Lines(left) | Self::FromLine(left) => Counted { left, lines: true },
            Self::Bytes(left) | Self::FromByte(left) => Counted { left, lines: false },
        }
    }
}

impl Counted {
    /// How many of `bytes` belong to it.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        if !self.lines {
            let taken = bytes
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= taken as u64;
            return taken;
        }
        for (at, byte) in bytes.iter().enumerate() {
            if self.left == 0 {
                return at;
            }
            self.left -= u64::from(*byte == b'\n');
        }
        bytes.len()
    }

    pub fn is_zero(&self) -> bool {
        self.left == 0
    }
}

/// Reads `-n N`, `-c N`, `-N`, `+N` and their kin.
pub fn head_or_tail_count(args: &[String], spec: &str) -> Result<(Count, Options), Failure> {
    let mut given: Vec<String> = args.to_vec();
    // The old form: `-5`.
    for arg in &mut given {
        let digits = arg.strip_prefix('-').unwrap_or_default();
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            *arg = format!("-n{digits}");
        }
    }
    let long = [
        ("lines", 'n'),
        ("bytes", 'c'),
        ("follow", 'f'),
        ("quiet", 'q'),
    ];
    let options = Options::read(&given, spec, &long)?;
    let number = |text: &str| -> Result<(u64, bool), Failure> {
        let from = text.starts_with('+');
        let digits = text.trim_start_matches(['+', '-']);
        let (digits, unit) = match digits.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1 << 10),
            None => match digits.strip_suffix('M') {
                Some(digits) => (digits, 1 << 20),
                None => (digits, 1),
            },
        };
        let number: u64 = digits
            .parse()
            .map_err(|_| Failure::usage(format!("{text}: not a number")))?;
        Ok((number.saturating_mul(unit), from))
    };
    let count = match (options.value('c'), options.value('n')) {
        (Some(bytes), _) => match number(bytes)? {
            (n, true) => Count::FromByte(n),
            (n, false) => Count::Bytes(n),
        },
        (None, Some(lines)) => match number(lines)? {
            (n, true) => Count::FromLine(n),
            (n, false) => Count::Lines(n),
        },
        (None, None) => Count::Lines(10),
    };
    Ok((count, options))
}

/// `1.5K`, `23M`.
pub fn human(bytes: u64) -> String {
    const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut size = bytes as f64;
    let mut unit = ' ';
    for next in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if size < 10.0 {
        format!("{size:.1}{unit}")
    } else {
        format!("{size:.0}{unit}")
    }
}

/// A moment of the calendar, in UTC.
pub struct Calendar {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
    pub day_of_year: u32,
    pub unix: i64,
    pub nanos: u32,
}

pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
pub const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Calendar {
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::of_unix(
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            since.subsec_nanos(),
        )
    }

    pub fn of_unix(unix: i64, nanos: u32) -> Self {
        let days = unix.div_euclid(86_400);
        let second_of_day = unix.rem_euclid(86_400) as u32;
        let (year, month, day) = date_of(days);
        let day_of_year = (days - days_before(year, 1, 1)) as u32 + 1;
        Self {
            year,
            month,
            day,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year,
            unix,
            nanos,
        }
    }
}

/// The proleptic Gregorian date of a day counted from 1970-01-01. Years are counted from March here, so that the leap
/// day is the last one.
fn date_of(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * from_march + 2) / 5 + 1) as u32;
    let month = (if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    }) as u32;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`date_of`].
fn days_before(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (i64::from(month) + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

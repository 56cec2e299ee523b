//! What a request for a log asks for.

use std::time::Duration;

use coracle_clock::Timestamp;

/// The options of `/containerLogs`, named as in the API's `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is written later, until the run ends.
    pub follow: bool,
    /// Of the run before.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last so many lines (of those that are there at the beginning).
    pub tail_lines: Option<u64>,
    /// End after so many bytes, perhaps in the middle of a line.
    pub limit_bytes: Option<u64>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines from this moment on.
    pub since_time: Option<Timestamp>,
    /// Only `Stdout` or `Stderr`.
    pub stream: Option<&'static str>,
}

/// An option that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {value:?} of {option}: {expected}")]
pub struct InvalidOption {
    option: String,
    value: String,
    expected: &'static str,
}

impl LogOptions {
    /// From the query of a URL. Options that are not known are left to newer kubelets.
    pub fn parse(query: &str) -> Result<Self, InvalidOption> {
        let mut options = Self::default();
        for (name, value) in pairs(query) {
            let invalid = |expected| InvalidOption {
                option: name.clone(),
                value: value.clone(),
                expected,
            };
            let count = || {
                value
                    .parse::<u64>()
                    .map_err(|_| invalid("expected a number of 0 or more"))
            };
            match name.as_str() {
                _ if value.is_empty() => {}
                "follow" => options.follow = truth(&value),
                "previous" => options.previous = truth(&value),
                "timestamps" => options.timestamps = truth(&value),
                "tailLines" => options.tail_lines = Some(count()?),
                "limitBytes" => options.limit_bytes = Some(count()?),
                "sinceSeconds" => options.since_seconds = Some(count()?),
                "sinceTime" => {
                    let time = value
                        .parse()
                        .map_err(|_| invalid("expected a time in RFC 3339"))?;
                    options.since_time = Some(time);
                }
                "stream" => {
                    options.stream = match value.as_str() {
                        "All" => None,
                        "Stdout" => Some("stdout"),
                        "Stderr" => Some("stderr"),
                        _ => return Err(invalid("expected All, Stdout or Stderr")),
                    }
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// The moment from which lines are shown, if any.
    pub(super) fn since(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = self.since_seconds.map(|seconds| {
            // More seconds than there were is the beginning of time.
            now.checked_sub(Duration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        });
        seconds.or(self.since_time)
    }
}

/// As Go's `strconv.ParseBool` reads it.
fn truth(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
}

/// Undoes percent-encoding; what is not validly encoded stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|two| std::str::from_utf8(two).ok());
        if let Some(byte) = digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

//! What a manifest may say about how an http container is served, by annotations of its pod.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_cri::RuntimeError;

/// Requests that are answered at once.
const CONCURRENCY: &str = "coracle.dev/http-concurrency";
/// Requests that wait for their turn.
const QUEUE: &str = "coracle.dev/http-queue";
/// From a request to the head of its answer.
const TIMEOUT: &str = "coracle.dev/http-timeout";
/// How long a body may stand still.
const IDLE_TIMEOUT: &str = "coracle.dev/http-idle-timeout";
/// How long a connection may be open without a request.
const HEAD_TIMEOUT: &str = "coracle.dev/http-head-timeout";
/// Requests that one instance answers before it is dropped.
const INSTANCE_REQUESTS: &str = "coracle.dev/http-instance-requests";
/// Requests that one instance answers at once.
const INSTANCE_CONCURRENCY: &str = "coracle.dev/http-instance-concurrency";
/// How long an instance without requests is kept.
const INSTANCE_IDLE: &str = "coracle.dev/http-instance-idle";

/// The most that the annotations can ask for.
const MAX_CONCURRENCY: u64 = 10_000;
const MAX_QUEUE: u64 = 100_000;
const MAX_INSTANCE_REQUESTS: u64 = 1_000_000;
const MAX_INSTANCE_CONCURRENCY: u64 = 1000;
const MAX_INSTANCE_IDLE: Duration = Duration::from_secs(3600);

/// How an http container is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Instances at once, memory permitting.
    pub(super) concurrency: u64,
    /// Requests that wait for one; more are refused.
    pub(super) queue: usize,
    /// From the head of a request to that of its answer, waiting included.
    pub(super) timeout: Option<Duration>,
    /// How long a body may make no progress, whoever is to blame.
    pub(super) idle: Option<Duration>,
    /// How long a connection may be open without a request.
    pub(super) head: Option<Duration>,
    /// How often an instance is used, where its world allows more than once.
    pub(super) reuse: Reuse,
}

/// How often an instance of `wasi:http` 0.3 is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "p3"),
    expect(dead_code, reason = "read anyway: a bad value is an error")
)]
pub(super) struct Reuse {
    /// Requests before it is dropped; with 1 each request has an instance of its own.
    pub(super) requests: u64,
    /// Requests at once.
    pub(super) at_once: u64,
    /// How long it is kept without a request.
    pub(super) idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 128,
            queue: 1024,
            // As long as the guest itself waits for others when it sets no time-out.
            timeout: Some(Duration::from_secs(600)),
            idle: Some(Duration::from_secs(600)),
            head: Some(Duration::from_secs(60)),
            reuse: Reuse {
                requests: 1,
                at_once: 16,
                idle: Duration::from_secs(1),
            },
        }
    }
}

impl Settings {
    /// Reads the annotations; one that cannot be read is an error that names it.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Result<Self, RuntimeError> {
        let mut settings = Self::default();
        let get = |name: &'static str| annotations.get(name).map(|text| (name, text.trim()));
        if let Some((name, text)) = get(CONCURRENCY) {
            settings.concurrency = number(name, text, 1, MAX_CONCURRENCY)?;
        }
        if let Some((name, text)) = get(QUEUE) {
            settings.queue = number(name, text, 0, MAX_QUEUE)? as usize;
        }
        if let Some((name, text)) = get(TIMEOUT) {
            settings.timeout = timeout(name, text)?;
        }
        if let Some((name, text)) = get(IDLE_TIMEOUT) {
            settings.idle = timeout(name, text)?;
        }
        if let Some((name, text)) = get(HEAD_TIMEOUT) {
            settings.head = timeout(name, text)?;
        }
        let reuse = &mut settings.reuse;
        if let Some((name, text)) = get(INSTANCE_REQUESTS) {
            reuse.requests = number(name, text, 1, MAX_INSTANCE_REQUESTS)?;
        }
        if let Some((name, text)) = get(INSTANCE_CONCURRENCY) {
            reuse.at_once = number(name, text, 1, MAX_INSTANCE_CONCURRENCY)?;
        }
        if let Some((name, text)) = get(INSTANCE_IDLE) {
            let kept = timeout(name, text)?.unwrap_or_default();
            if kept > MAX_INSTANCE_IDLE {
                return Err(RuntimeError::Start(format!(
                    "annotation {name}: {text:?} is more than an hour, and instances hold memory"
                )));
            }
            reuse.idle = kept;
        }
        Ok(settings)
    }
}

fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, RuntimeError> {
    let number = text.parse().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| {
            RuntimeError::Start(format!(
                "annotation {name}: {text:?} is no number from {least} to {most}"
            ))
        })
}

/// A duration; 0 for none.
fn timeout(name: &str, text: &str) -> Result<Option<Duration>, RuntimeError> {
    match duration(text) {
        Some(Duration::ZERO) => Ok(None),
        Some(duration) => Ok(Some(duration)),
        None => Err(RuntimeError::Start(format!(
            "annotation {name}: {text:?} is no duration such as 500ms, 30s, 1m30s or 2h (0 for none)"
        ))),
    }
}

/// A duration as Kubernetes writes it: numbers with the units h, m, s and ms.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let milliseconds: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
        sum = sum.checked_add(Duration::from_millis(part))?;
        rest = after;
    }
    // A century is for ever, and no clock overflows by it.
    let century = Duration::from_secs(100 * 366 * 24 * 3600);
    (!text.is_empty() && sum <= century).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Settings, String> {
        let annotations = BTreeMap::from([(name.to_owned(), text.to_owned())]);
        Settings::read(&annotations).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_written_as_elsewhere_in_kubernetes() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("250ms", Some(250)),
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1d", None),
            ("1sé", None),
            ("99999999999999999999s", None),
            ("9999999999h", None),
        ] {
            let duration = duration(text).map(|duration| duration.as_millis());
            assert_eq!(duration, milliseconds, "{text}");
        }
    }

    #[test]
    fn annotations_change_one_thing_each() {
        assert_eq!(read("other", "x"), Ok(Settings::default()));
        assert_eq!(read(CONCURRENCY, "8").unwrap().concurrency, 8);
        assert_eq!(read(QUEUE, "0").unwrap().queue, 0);
        let timeout = read(TIMEOUT, " 5s ").unwrap().timeout;
        assert_eq!(timeout, Some(Duration::from_secs(5)));
        assert_eq!(read(IDLE_TIMEOUT, "0").unwrap().idle, None);
        assert_eq!(read(HEAD_TIMEOUT, "0").unwrap().head, None);
        let reuse = |name, text| read(name, text).unwrap().reuse;
        assert_eq!(reuse("other", "x").requests, 1);
        assert_eq!(reuse(INSTANCE_REQUESTS, "128").requests, 128);
        assert_eq!(reuse(INSTANCE_CONCURRENCY, "1").at_once, 1);
        assert_eq!(reuse(INSTANCE_IDLE, "0").idle, Duration::ZERO);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, text) in [
            (CONCURRENCY, "0"),
            (CONCURRENCY, "many"),
            (CONCURRENCY, "10001"),
            (QUEUE, "-1"),
            (TIMEOUT, "30"),
            (IDLE_TIMEOUT, "soon"),
            (HEAD_TIMEOUT, "1"),
            (INSTANCE_REQUESTS, "0"),
            (INSTANCE_CONCURRENCY, "1001"),
            (INSTANCE_IDLE, "61m"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.contains(name) && error.contains(text), "{error}");
        }
    }
}

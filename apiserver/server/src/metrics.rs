//! A handful of numbers in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Series kept; requests beyond them are counted under `other`.
const MAX_SERIES: usize = 2000;

/// Counters of requests and watches.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Labels, Series>>,
    watches: AtomicI64,
    in_flight: AtomicI64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    resource: String,
    code: u16,
}

#[derive(Clone, Debug, Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl Metrics {
    /// Counts one finished request. `resource` is empty for paths that name none.
    pub(crate) fn request(&self, verb: &'static str, resource: &str, code: u16, took: Duration) {
        let mut requests = self.requests.lock();
        let mut labels = Labels {
            verb,
            resource: resource.to_owned(),
            code,
        };
        if requests.len() >= MAX_SERIES && !requests.contains_key(&labels) {
            labels.resource = "other".to_owned();
        }
        let series = requests.entry(labels).or_default();
        let seconds = took.as_secs_f64();
        series.count += 1;
        series.seconds += seconds;
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// A watch began.
    pub(crate) fn watch_started(&self) {
        self.watches.fetch_add(1, Ordering::Relaxed);
    }

    /// A watch ended.
    pub(crate) fn watch_ended(&self) {
        self.watches.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request is being handled; dropping the guard ends it.
    pub(crate) fn entered(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.in_flight)
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self, objects: impl Iterator<Item = (String, usize)>) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head(
            &mut text,
            "apiserver_request_total",
            "counter",
            "Requests, by verb, resource and HTTP status.",
        );
        let requests = self.requests.lock().clone();
        for (
            Labels {
                verb,
                resource,
                code,
            },
            series,
        ) in &requests
        {
            let labels = format!("verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"");
            let _ = writeln!(text, "apiserver_request_total{{{labels}}} {}", series.count);
        }
        let name = "apiserver_request_duration_seconds";
        head(
            &mut text,
            name,
            "histogram",
            "Time until the answer was ready, by verb, resource and HTTP status.",
        );
        for (
            Labels {
                verb,
                resource,
                code,
            },
            series,
        ) in &requests
        {
            let labels = format!("verb=\"{verb}\",resource=\"{resource}\",code=\"{code}\"");
            for (bound, count) in BUCKETS.iter().zip(series.buckets) {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(
                text,
                "{name}_bucket{{{labels},le=\"+Inf\"}} {}",
                series.count
            );
            let _ = writeln!(
                text,
                "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}",
                series.seconds, series.count
            );
        }
        let gauges = [
            (
                "apiserver_longrunning_requests",
                "Open watches.",
                self.watches.load(Ordering::Relaxed),
            ),
            (
                "apiserver_current_inflight_requests",
                "Requests being handled.",
                self.in_flight.load(Ordering::Relaxed),
            ),
        ];
        for (name, help, value) in gauges {
            head(&mut text, name, "gauge", help);
            let _ = writeln!(text, "{name} {value}");
        }
        head(
            &mut text,
            "apiserver_storage_objects",
            "gauge",
            "Stored objects, by resource.",
        );
        for (resource, count) in objects {
            let _ = writeln!(
                text,
                "apiserver_storage_objects{{resource=\"{resource}\"}} {count}"
            );
        }
        text
    }
}

/// See [`Metrics::entered`].
pub(crate) struct InFlight<'a>(&'a AtomicI64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_label() {
        let metrics = Metrics::default();
        metrics.request("get", "pods", 200, Duration::from_millis(2));
        metrics.request("get", "pods", 200, Duration::from_millis(20));
        let text = metrics.render(std::iter::once(("pods".to_owned(), 3)));
        assert!(
            text.contains(r#"apiserver_request_total{verb="get",resource="pods",code="200"} 2"#)
        );
        assert!(text.contains(r#"apiserver_request_duration_seconds_bucket{verb="get",resource="pods",code="200",le="0.005"} 1"#));
        assert!(text.contains(r#"apiserver_storage_objects{resource="pods"} 3"#));
    }
}

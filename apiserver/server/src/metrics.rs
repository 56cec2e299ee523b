//! A handful of numbers in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use parking_lot::Mutex;

use crate::request_info::RequestInfo;

/// Upper bounds of the duration buckets, in seconds: upstream's, and some below for answers that take less.
const BUCKETS: [f64; 26] = [
    0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0,
    4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// Series kept; requests beyond them are counted under `other`.
const MAX_SERIES: usize = 2000;

/// Counters of requests and watches, by the names and labels of upstream's.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(About, u16), Series>>,
    watches: AtomicI64,
    reading: AtomicI64,
    writing: AtomicI64,
}

/// What a request is about, in the words of upstream's labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct About {
    verb: &'static str,
    scope: &'static str,
    dry_run: &'static str,
    /// Group, version, resource and subresource, with slashes between; empty for paths that name no resource.
    what: String,
}

impl About {
    /// Reads it off a request.
    pub(crate) fn of(method: &Method, info: &RequestInfo, headers: &HeaderMap) -> Self {
        let media = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let applies = media.is_some_and(|media| media.starts_with(b"application/apply-patch"));
        let verb = match (info.verb, info.subresource.as_str()) {
            (_, "proxy" | "exec" | "attach" | "portforward") => "CONNECT",
            ("list", _) => "LIST",
            ("watch", _) => "WATCH",
            ("deletecollection", _) => "DELETECOLLECTION",
            ("patch", _) if applies => "APPLY",
            _ => match *method {
                Method::GET => "GET",
                Method::HEAD => "HEAD",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                _ => "other",
            },
        };
        if !info.is_resource {
            return Self {
                verb,
                ..Self::default()
            };
        }
        let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let dry_run = match info.query.has("dryRun") {
            true => "All",
            false => "",
        };
        let parts = [
            info.group.as_str(),
            &info.version,
            &info.resource,
            &info.subresource,
        ];
        Self {
            verb,
            scope,
            dry_run,
            what: parts.join("/"),
        }
    }

    /// The labels but for `code`.
    fn labels(&self) -> String {
        let mut parts = self.what.splitn(4, '/');
        let mut next = || parts.next().unwrap_or_default();
        let (group, version, resource, subresource) = (next(), next(), next(), next());
        format!(
            "component=\"apiserver\",dry_run=\"{}\",group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",\
             verb=\"{}\",version=\"{}\"",
            self.dry_run,
            escape(group),
            escape(resource),
            self.scope,
            escape(subresource),
            self.verb,
            escape(version)
        )
    }
}

/// A label's value as Prometheus reads it.
fn escape(text: &str) -> String {
    text.replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

#[derive(Clone, Debug, Default)]
struct Series {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

impl Series {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.seconds += other.seconds;
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
    }
}

impl Metrics {
    /// Counts one finished request.
    pub(crate) fn request(&self, mut about: About, code: u16, took: Duration) {
        // Only names that are served become labels: paths are the client's to choose.
        if code == 404 {
            about.what.clear();
        }
        let mut requests = self.requests.lock();
        let mut key = (about, code);
        if requests.len() >= MAX_SERIES && !requests.contains_key(&key) {
            key.0.what = "//other/".to_owned();
        }
        let series = requests.entry(key).or_default();
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

    /// A request is being handled, which may write or not; dropping the guard ends it.
    pub(crate) fn entered(&self, writes: bool) -> InFlight<'_> {
        let count = match writes {
            true => &self.writing,
            false => &self.reading,
        };
        count.fetch_add(1, Ordering::Relaxed);
        InFlight(count)
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self, objects: impl Iterator<Item = (String, usize)>) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        let requests = self.requests.lock().clone();
        let name = "apiserver_request_total";
        head(&mut text, name, "counter", "Requests answered.");
        let mut durations: BTreeMap<&About, Series> = BTreeMap::new();
        for ((about, code), series) in &requests {
            let labels = about.labels();
            let _ = writeln!(text, "{name}{{code=\"{code}\",{labels}}} {}", series.count);
            durations.entry(about).or_default().add(series);
        }
        let name = "apiserver_request_duration_seconds";
        head(
            &mut text,
            name,
            "histogram",
            "Time until the answer was ready.",
        );
        for (about, series) in durations {
            let labels = about.labels();
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
        let count = |count: &AtomicI64| count.load(Ordering::Relaxed);
        let name = "apiserver_longrunning_requests";
        head(&mut text, name, "gauge", "Open watches.");
        let watches = count(&self.watches);
        let _ = writeln!(
            text,
            "{name}{{component=\"apiserver\",verb=\"WATCH\"}} {watches}"
        );
        let name = "apiserver_current_inflight_requests";
        head(&mut text, name, "gauge", "Requests being handled.");
        for (kind, number) in [
            ("mutating", count(&self.writing)),
            ("readOnly", count(&self.reading)),
        ] {
            let _ = writeln!(text, "{name}{{request_kind=\"{kind}\"}} {number}");
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

    fn about(method: &Method, path: &str) -> About {
        let info = RequestInfo::parse(method, &path.parse().expect("a path"));
        About::of(method, &info, &HeaderMap::new())
    }

    #[test]
    fn requests_are_counted_by_label() {
        let metrics = Metrics::default();
        let get = about(
            &Method::GET,
            "/api/v1/namespaces/a/pods/x/status?dryRun=All",
        );
        metrics.request(get.clone(), 200, Duration::from_millis(2));
        metrics.request(get.clone(), 200, Duration::from_millis(20));
        metrics.request(get, 409, Duration::from_millis(2));
        let unknown = about(&Method::GET, "/apis/a\"b/v1/c");
        metrics.request(unknown, 404, Duration::ZERO);
        let text = metrics.render(std::iter::once(("pods".to_owned(), 3)));
        let labels = "component=\"apiserver\",dry_run=\"All\",group=\"\",resource=\"pods\",scope=\"resource\",\
                      subresource=\"status\",verb=\"GET\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",{labels}}} 2\n"),
            format!("apiserver_request_total{{code=\"409\",{labels}}} 1\n"),
            format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 2\n"),
            format!("apiserver_request_duration_seconds_count{{{labels}}} 3\n"),
            "apiserver_storage_objects{resource=\"pods\"} 3\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(!text.contains("a\\\"b"), "{text}");
    }

    #[test]
    fn verbs_and_scopes_are_those_of_upstream() {
        for (method, path, verb, scope) in [
            (Method::GET, "/api/v1/pods", "LIST", "cluster"),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?watch=1",
                "WATCH",
                "namespace",
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/pods",
                "POST",
                "namespace",
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/pods/x/exec",
                "CONNECT",
                "resource",
            ),
            (
                Method::DELETE,
                "/api/v1/nodes",
                "DELETECOLLECTION",
                "cluster",
            ),
            (Method::GET, "/api/v1/nodes/x", "GET", "resource"),
            (Method::GET, "/livez", "GET", ""),
            (Method::TRACE, "/livez", "other", ""),
        ] {
            let about = about(&method, path);
            assert_eq!((about.verb, about.scope), (verb, scope), "{method} {path}");
        }
    }
}

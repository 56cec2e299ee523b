//! What was served, in numbers.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Counters since the start, for whoever shows them; shared with the proxy.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Answers by the first digit of their status.
    answers: [AtomicU64; 5],
    plain_connections: AtomicU64,
    tls_connections: AtomicU64,
    /// Endpoints that could not be reached, or closed a new connection.
    unreached: AtomicU64,
}

impl Metrics {
    pub(crate) fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        if let Some(answers) = self.answers.get(class) {
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn connected(&self, is_tls: bool) {
        let connections = match is_tls {
            true => &self.tls_connections,
            false => &self.plain_connections,
        };
        connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unreached(&self) {
        self.unreached.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let head = |text: &mut String, name: &str, help: &str| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        };
        let name = "coracle_ingress_requests_total";
        head(
            &mut text,
            name,
            "Requests to Ingresses that were answered, by the class of the status.",
        );
        for (class, answers) in (1..).zip(&self.answers) {
            let _ = writeln!(text, "{name}{{code=\"{class}xx\"}} {}", get(answers));
        }
        let name = "coracle_ingress_connections_total";
        head(
            &mut text,
            name,
            "Connections of clients to the ports of Ingresses.",
        );
        for (scheme, connections) in [
            ("http", &self.plain_connections),
            ("https", &self.tls_connections),
        ] {
            let _ = writeln!(text, "{name}{{scheme=\"{scheme}\"}} {}", get(connections));
        }
        let name = "coracle_ingress_endpoint_failures_total";
        head(
            &mut text,
            name,
            "Endpoints that could not be reached for a request.",
        );
        let _ = writeln!(text, "{name} {}", get(&self.unreached));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_shown() {
        let metrics = Metrics::default();
        for status in [200, 204, 404, 503, 999] {
            metrics.answered(StatusCode::from_u16(status).expect("a status"));
        }
        metrics.connected(true);
        metrics.unreached();
        let text = metrics.render();
        for line in [
            "coracle_ingress_requests_total{code=\"1xx\"} 0",
            "coracle_ingress_requests_total{code=\"2xx\"} 2",
            "coracle_ingress_requests_total{code=\"4xx\"} 1",
            "coracle_ingress_requests_total{code=\"5xx\"} 1",
            "coracle_ingress_connections_total{scheme=\"http\"} 0",
            "coracle_ingress_connections_total{scheme=\"https\"} 1",
            "coracle_ingress_endpoint_failures_total 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}

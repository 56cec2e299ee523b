//! What went through Services, in Prometheus' text format.

use std::fmt::Write;

use coracle_client::ObjectKey;
use coracle_network::{ACCEPT_WAITS, RefusedFlow, ServiceTraffic};

/// Services that are shown. Those without any traffic are not, so this is about as many as are in use.
const SHOWN: usize = 2_000;

type Count = fn(&ServiceTraffic) -> u64;

/// Name, type, help, value.
const FIGURES: [(&str, &str, &str, Count); 5] = [
    (
        "coracle_service_connections_total",
        "counter",
        "TCP connections to the Service that an endpoint took.",
        |traffic| traffic.connections,
    ),
    (
        "coracle_service_connections_open",
        "gauge",
        "TCP connections to the Service that are open.",
        |traffic| traffic.open,
    ),
    (
        "coracle_service_endpoint_refusals_total",
        "counter",
        "Endpoints of the Service that did not take a TCP connection.",
        |traffic| traffic.passed_over,
    ),
    (
        "coracle_service_receive_bytes_total",
        "counter",
        "Bytes from clients to endpoints of the Service.",
        |traffic| traffic.received_bytes,
    ),
    (
        "coracle_service_transmit_bytes_total",
        "counter",
        "Bytes from endpoints of the Service to clients.",
        |traffic| traffic.sent_bytes,
    ),
];

/// The traffic of Services, of which there may be any number, in any order.
pub(crate) fn render(mut all: Vec<(ObjectKey, ServiceTraffic)>) -> String {
    all.retain(|(_, traffic)| traffic.is_any());
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let omitted = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    let services: Vec<(String, ServiceTraffic)> = all
        .into_iter()
        .map(|(key, traffic)| (labels(&key), traffic))
        .collect();
    let mut text = String::new();
    for (name, kind, help, value) in FIGURES {
        head(&mut text, name, kind, help);
        for (labels, traffic) in &services {
            figure(&mut text, name, labels, value(traffic));
        }
    }
    let name = "coracle_service_connections_refused_total";
    let help = "TCP connections to the Service that nobody took, by the reason.";
    head(&mut text, name, "counter", help);
    for (labels, traffic) in &services {
        for (reason, count) in RefusedFlow::ALL.iter().zip(traffic.refused) {
            let labels = format!("{labels},reason=\"{}\"", reason.name());
            figure(&mut text, name, &labels, count);
        }
    }
    let name = "coracle_service_connections_reset_total";
    let help = "TCP connections to the Service that ended with a reset, by who reset them.";
    head(&mut text, name, "counter", help);
    for (labels, traffic) in &services {
        let ends = [
            ("client", traffic.reset_by_clients),
            ("endpoint", traffic.reset_by_endpoints),
        ];
        for (end, count) in ends {
            let labels = format!("{labels},by=\"{end}\"");
            figure(&mut text, name, &labels, count);
        }
    }
    let name = "coracle_service_accept_wait_seconds";
    let help = "How long TCP connections to the Service waited until a pod accepted them.";
    head(&mut text, name, "histogram", help);
    for (labels, traffic) in &services {
        waits(&mut text, name, labels, traffic);
    }
    let name = "coracle_service_metrics_omitted";
    let help = "Services with traffic that are not shown, because there are too many.";
    head(&mut text, name, "gauge", help);
    let _ = writeln!(text, "{name} {omitted}");
    text
}

/// Names of objects have no letter that would have to be escaped.
fn labels(key: &ObjectKey) -> String {
    format!("namespace=\"{}\",service=\"{}\"", key.namespace, key.name)
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn figure(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

fn waits(text: &mut String, name: &str, labels: &str, traffic: &ServiceTraffic) {
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (bound, count) in ACCEPT_WAITS.iter().zip(traffic.waits) {
        below += count;
        let labels = format!("{labels},le=\"{}\"", bound.as_secs_f64());
        figure(text, &bucket, &labels, below);
    }
    let all = traffic.waits.iter().sum();
    figure(text, &bucket, &format!("{labels},le=\"+Inf\""), all);
    let waited = traffic.waited.as_secs_f64();
    let _ = writeln!(text, "{name}_sum{{{labels}}} {waited}");
    figure(text, &format!("{name}_count"), labels, all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{key, traffic};

    #[test]
    fn a_service_with_traffic_has_its_figures_and_one_without_has_none() {
        let all = vec![
            (key("web"), traffic()),
            (key("idle"), ServiceTraffic::default()),
        ];
        let text = render(all);
        assert!(!text.contains("idle"), "{text}");
        for line in [
            "coracle_service_connections_total{namespace=\"default\",service=\"web\"} 4",
            "coracle_service_connections_open{namespace=\"default\",service=\"web\"} 1",
            "coracle_service_endpoint_refusals_total{namespace=\"default\",service=\"web\"} 3",
            "coracle_service_receive_bytes_total{namespace=\"default\",service=\"web\"} 8",
            "coracle_service_transmit_bytes_total{namespace=\"default\",service=\"web\"} 9",
            "coracle_service_connections_refused_total{namespace=\"default\",service=\"web\",reason=\"no-endpoints\"} 1",
            "coracle_service_connections_refused_total{namespace=\"default\",service=\"web\",reason=\"no-port\"} 0",
            "coracle_service_connections_refused_total{namespace=\"default\",service=\"web\",reason=\"policy\"} 2",
            "coracle_service_connections_reset_total{namespace=\"default\",service=\"web\",by=\"client\"} 1",
            "coracle_service_accept_wait_seconds_bucket{namespace=\"default\",service=\"web\",le=\"0.0001\"} 1",
            "coracle_service_accept_wait_seconds_bucket{namespace=\"default\",service=\"web\",le=\"+Inf\"} 3",
            "coracle_service_accept_wait_seconds_sum{namespace=\"default\",service=\"web\"} 2.5",
            "coracle_service_accept_wait_seconds_count{namespace=\"default\",service=\"web\"} 3",
            "coracle_service_metrics_omitted 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn no_more_services_are_shown_than_a_scraper_bears() {
        let busy = ServiceTraffic {
            connections: 1,
            ..ServiceTraffic::default()
        };
        let all = (0..SHOWN + 5).map(|number| (key(&format!("s{number:05}")), busy));
        let text = render(all.collect());
        let shown = text
            .lines()
            .filter(|line| line.starts_with("coracle_service_connections_total{"));
        assert_eq!(shown.count(), SHOWN);
        assert!(text.contains("coracle_service_metrics_omitted 5\n"));
    }
}

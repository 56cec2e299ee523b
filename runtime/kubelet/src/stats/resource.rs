//! `/metrics/resource`: what autoscaling and `kubectl top` are made from.
//!
//! Names, labels and units: `pkg/kubelet/metrics/collectors/resource_metrics.go` of `k8s.io/kubernetes`. There is no
//! swap.

use coracle_cri::ContainerStats;

use super::page::Page;
use super::{NodeSample, PodSample};

/// The page.
pub(super) fn page(sample: &NodeSample) -> String {
    let mut page = Page::default();
    containers(&mut page, sample);
    node(&mut page, sample);
    pods(&mut page, sample);
    for (name, help) in [
        ("resource_scrape_error", "[STABLE]"),
        ("scrape_error", "[ALPHA] (Deprecated since 1.29.0)"),
    ] {
        let help =
            format!("{help} 1 if there was an error while getting container metrics, 0 otherwise");
        page.family(name, "gauge", &help);
        page.figure(name, &[], 0, None);
    }
    page.finish()
}

type OfContainer = fn(&ContainerStats) -> String;

fn containers(page: &mut Page, sample: &NodeSample) {
    let families: [(&str, &str, &str, OfContainer); 3] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
            |found| found.cpu.used.as_secs_f64().to_string(),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the container in bytes",
            |found| found.memory.working_set.to_string(),
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "[STABLE] Start time of the container since unix epoch in seconds",
            |found| (found.started_at.as_millisecond() as f64 / 1000.0).to_string(),
        ),
    ];
    for (name, kind, help, value) in families {
        page.family(name, kind, help);
        for pod in &sample.pods {
            for found in &pod.stats.containers {
                let labels: [(&str, &str); 3] = [
                    ("container", found.id.name.as_str()),
                    ("namespace", &pod.namespace),
                    ("pod", &pod.name),
                ];
                // The start of a container is not a sample.
                let at = (name != "container_start_time_seconds").then_some(pod.stats.at);
                page.figure(name, &labels, value(found), at);
            }
        }
    }
}

fn node(page: &mut Page, sample: &NodeSample) {
    let at = Some(sample.at);
    if let Some(cpu) = sample.cpu {
        let name = "node_cpu_usage_seconds_total";
        let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
        page.family(name, "counter", help);
        page.figure(name, &[], cpu.as_secs_f64(), at);
    }
    if let Some(memory) = sample.memory {
        let name = "node_memory_working_set_bytes";
        let help = "[STABLE] Current working set of the node in bytes";
        page.family(name, "gauge", help);
        page.figure(name, &[], memory, at);
    }
}

type OfPod = fn(&PodSample) -> String;

fn pods(page: &mut Page, sample: &NodeSample) {
    let families: [(&str, &str, &str, OfPod); 2] = [
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            |pod| pod.stats.cpu.as_secs_f64().to_string(),
        ),
        (
            "pod_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the pod in bytes",
            |pod| pod.stats.working_set.to_string(),
        ),
    ];
    for (name, kind, help, value) in families {
        page.family(name, kind, help);
        for pod in &sample.pods {
            let labels: [(&str, &str); 2] =
                [("namespace", pod.namespace.as_str()), ("pod", &pod.name)];
            page.figure(name, &labels, value(pod), Some(pod.stats.at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn figures_have_the_names_that_scrapers_look_for() {
        let page = page(&sample());
        let labels = "{container=\"app\",namespace=\"default\",pod=\"web\"}";
        for line in [
            format!("container_cpu_usage_seconds_total{labels} 1.5 1893456010000"),
            format!("container_memory_working_set_bytes{labels} 3145728 1893456010000"),
            format!("container_start_time_seconds{labels} 1893456000"),
            "node_cpu_usage_seconds_total 8 1893456010000".to_owned(),
            "node_memory_working_set_bytes 104857600 1893456010000".to_owned(),
            "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web\"} 2 1893456010000"
                .to_owned(),
            "pod_memory_working_set_bytes{namespace=\"default\",pod=\"web\"} 5242880 1893456010000"
                .to_owned(),
            "resource_scrape_error 0".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}

//! `/metrics/cadvisor`: the figures of containers under the names that dashboards know from cAdvisor.
//!
//! Only those that a wasm guest has: there are no page faults, no devices, no processes.

use coracle_cri::ContainerStats;

use super::page::Page;
use super::{NodeSample, PodSample};

/// The page.
pub(super) fn page(sample: &NodeSample) -> String {
    let mut page = Page::default();
    for (name, kind, help, value) in CONTAINERS {
        let mut figures = Vec::new();
        let mut wholes = Vec::new();
        for pod in &sample.pods {
            wholes.extend(whole(name, pod).map(|value| (pod, value)));
            for found in &pod.stats.containers {
                figures.extend(value(pod, found).map(|value| (pod, found, value)));
            }
        }
        if figures.is_empty() && wholes.is_empty() {
            continue;
        }
        page.family(name, kind, help);
        for (pod, value) in wholes {
            let id = format!("/kubepods/pod{}", pod.uid);
            let labels: [(&str, &str); 6] = [
                ("container", ""),
                ("id", id.as_str()),
                ("image", ""),
                ("name", ""),
                ("namespace", &pod.namespace),
                ("pod", &pod.name),
            ];
            page.figure(name, &labels, value, Some(pod.stats.at));
        }
        for (pod, found, value) in figures {
            container(&mut page, name, pod, found, &value);
        }
    }
    for (name, kind, help, value) in NETWORK {
        if sample.pods.is_empty() {
            continue;
        }
        page.family(name, kind, help);
        for pod in &sample.pods {
            let id = format!("/kubepods/pod{}", pod.uid);
            let labels: [(&str, &str); 4] = [
                ("id", id.as_str()),
                ("interface", "eth0"),
                ("namespace", &pod.namespace),
                ("pod", &pod.name),
            ];
            page.figure(name, &labels, value(pod), Some(pod.stats.at));
        }
    }
    for (name, help, value) in [
        (
            "machine_cpu_cores",
            "Number of logical CPU cores.",
            sample.cores,
        ),
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            sample.memory_capacity,
        ),
    ] {
        page.family(name, "gauge", help);
        page.figure(name, &[], value, None);
    }
    page.finish()
}

fn container(page: &mut Page, name: &str, pod: &PodSample, found: &ContainerStats, value: &str) {
    let container = found.id.name.as_str();
    let id = format!(
        "/kubepods/pod{}/{container}/{}",
        pod.uid, found.restart_count
    );
    let image = pod.images.get(container).map_or("", String::as_str);
    let mut labels = vec![("container", container)];
    if name == "container_cpu_usage_seconds_total" {
        labels.push(("cpu", "total"));
    }
    let more: [(&str, &str); 5] = [
        ("id", id.as_str()),
        ("image", image),
        ("name", container),
        ("namespace", &pod.namespace),
        ("pod", &pod.name),
    ];
    labels.extend(more);
    page.figure(name, &labels, value, Some(pod.stats.at));
}

/// What is told of a pod as a whole: what bounds it.
fn whole(name: &str, pod: &PodSample) -> Option<u64> {
    let (stats, limit) = (&pod.stats, pod.stats.cpu_limit_millis);
    match name {
        "container_cpu_cfs_throttled_periods_total" => limit.map(|_| stats.throttled_periods),
        "container_spec_cpu_period" => limit.map(|_| 100_000),
        "container_spec_cpu_quota" => limit.map(|limit| limit.saturating_mul(100)),
        "container_spec_memory_limit_bytes" => stats.memory_limit,
        _ => None,
    }
}

type OfContainer = fn(&PodSample, &ContainerStats) -> Option<String>;

/// Name, type, meaning and value, by name.
const CONTAINERS: &[(&str, &str, &str, OfContainer)] = &[
    (
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        "Number of throttled period intervals.",
        |_, found| {
            found
                .cpu
                .limit_millis
                .map(|_| found.cpu.throttled_periods.to_string())
        },
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Total time duration the container has been throttled.",
        |_, found| {
            let seconds = found.cpu.throttled.as_secs_f64();
            found.cpu.limit_millis.map(|_| seconds.to_string())
        },
    ),
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        |_, found| Some(found.cpu.used.as_secs_f64().to_string()),
    ),
    (
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        |pod, found| {
            let mut disks = pod.files.containers.iter();
            let disk = disks.find(|disk| disk.name == found.id.name)?;
            Some((disk.writable_layer.bytes + disk.logs.bytes).to_string())
        },
    ),
    (
        "container_last_seen",
        "gauge",
        "Last time a container was seen by the exporter",
        |pod, _| Some(pod.stats.at.as_second().to_string()),
    ),
    (
        "container_memory_max_usage_bytes",
        "gauge",
        "Maximum memory usage recorded in bytes",
        |_, found| Some(found.memory.peak.to_string()),
    ),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |_, found| Some(found.memory.working_set.to_string()),
    ),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set in bytes.",
        |_, found| Some(found.memory.working_set.to_string()),
    ),
    (
        "container_spec_cpu_period",
        "gauge",
        "CPU period of the container.",
        |_, found| found.cpu.limit_millis.map(|_| "100000".to_owned()),
    ),
    (
        "container_spec_cpu_quota",
        "gauge",
        "CPU quota of the container.",
        |_, found| {
            found
                .cpu
                .limit_millis
                .map(|limit| limit.saturating_mul(100).to_string())
        },
    ),
    (
        "container_spec_memory_limit_bytes",
        "gauge",
        "Memory limit for the container.",
        |_, found| Some(found.memory.limit.unwrap_or(0).to_string()),
    ),
    (
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds.",
        |_, found| Some(found.started_at.as_second().to_string()),
    ),
];

type OfPod = fn(&PodSample) -> u64;

const NETWORK: &[(&str, &str, &str, OfPod)] = &[
    (
        "container_network_receive_bytes_total",
        "counter",
        "Cumulative count of bytes received",
        |pod| pod.stats.network.received_bytes,
    ),
    (
        "container_network_receive_packets_dropped_total",
        "counter",
        "Cumulative count of packets dropped while receiving",
        |pod| pod.stats.network.dropped_datagrams,
    ),
    (
        "container_network_transmit_bytes_total",
        "counter",
        "Cumulative count of bytes transmitted",
        |pod| pod.stats.network.sent_bytes,
    ),
    (
        "container_sockets",
        "gauge",
        "Number of open sockets for the container.",
        |pod| pod.stats.network.sockets,
    ),
];

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn containers_and_pods_are_shown_as_cadvisor_shows_them() {
        let page = page(&sample());
        let labels = "id=\"/kubepods/poduid-1/app/2\",image=\"app:1\",name=\"app\",namespace=\"default\",pod=\"web\"}";
        let pod =
            "{id=\"/kubepods/poduid-1\",interface=\"eth0\",namespace=\"default\",pod=\"web\"}";
        for line in [
            format!(
                "container_cpu_usage_seconds_total{{container=\"app\",cpu=\"total\",{labels} 1.5 1893456010000"
            ),
            format!("container_fs_usage_bytes{{container=\"app\",{labels} 12288 1893456010000"),
            format!("container_spec_cpu_quota{{container=\"app\",{labels} 50000 1893456010000"),
            "container_spec_cpu_quota{container=\"\",id=\"/kubepods/poduid-1\",image=\"\",name=\"\",namespace=\"default\",pod=\"web\"} 80000 1893456010000".to_owned(),
            format!("container_network_transmit_bytes_total{pod} 2000 1893456010000"),
            "machine_cpu_cores 2".to_owned(),
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        let names = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut names: Vec<&str> = names.filter_map(|line| line.split(' ').next()).collect();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "each family is told once");
    }

    #[test]
    fn a_node_without_pods_has_no_empty_families() {
        let mut empty = sample();
        empty.pods.clear();
        assert!(!page(&empty).contains("container_"));
    }
}

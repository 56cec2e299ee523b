//! The text form that Prometheus reads, and the kubelet's own page of it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use coracle_clock::Timestamp;

use super::network::{self, PodNetwork};
use super::{NodeSample, VolumeSample};

/// The media type of such pages.
pub(super) const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of figures.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// Begins a family, whose figures follow.
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One figure; labels in the order of their names, and the time if it was taken at another than now.
    pub(super) fn figure(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl Display,
        at: Option<Timestamp>,
    ) {
        self.0.push_str(name);
        for (index, (key, text)) in labels.iter().enumerate() {
            self.0.push(if index == 0 { '{' } else { ',' });
            self.0.push_str(key);
            self.0.push_str("=\"");
            for letter in text.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    letter => self.0.push(letter),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        match at {
            Some(at) => self.line(format_args!(" {value} {}", at.as_millisecond())),
            None => self.line(format_args!(" {value}")),
        }
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("strings take everything");
    }
}

/// `/metrics`: the kubelet about itself.
pub(super) fn own(sample: &NodeSample, networks: &[PodNetwork]) -> String {
    let mut page = Page::default();
    let name = "kubelet_node_name";
    page.family(
        name,
        "gauge",
        "[ALPHA] The node's name. The count is always 1.",
    );
    page.figure(name, &[("node", &sample.node)], 1, None);
    let name = "kubelet_running_pods";
    let help = "[ALPHA] Number of pods that have a running pod sandbox";
    page.family(name, "gauge", help);
    page.figure(name, &[], sample.pods.len(), None);
    let name = "kubelet_running_containers";
    page.family(
        name,
        "gauge",
        "[ALPHA] Number of containers currently running",
    );
    let running = sample.pods.iter().map(|pod| pod.stats.containers.len());
    let state = [("container_state", "running")];
    page.figure(name, &state, running.sum::<usize>(), None);
    if let Some(cpu) = sample.cpu {
        let name = "process_cpu_seconds_total";
        let help = "Total user and system CPU time spent in seconds.";
        page.family(name, "counter", help);
        page.figure(name, &[], cpu.as_secs_f64(), None);
    }
    if let Some(memory) = sample.memory {
        let name = "process_resident_memory_bytes";
        page.family(name, "gauge", "Resident memory size in bytes.");
        page.figure(name, &[], memory, None);
    }
    network::figures(&mut page, networks);
    claims(&mut page, sample);
    page.finish()
}

/// What a claim's family is called and means, and how it is read from a volume.
type ClaimFigure = (&'static str, &'static str, fn(&VolumeSample) -> Option<u64>);

/// The volumes behind claims, one figure each however many pods share it.
fn claims(page: &mut Page, sample: &NodeSample) {
    let mut claims = BTreeMap::new();
    for pod in &sample.pods {
        for volume in &pod.files.volumes {
            if let Some(claim) = &volume.claim {
                claims.insert((&pod.namespace, claim), volume);
            }
        }
    }
    let families: [ClaimFigure; 6] = [
        (
            "available_bytes",
            "Number of available bytes in the volume",
            |v| v.on.map(|on| on.available),
        ),
        ("capacity_bytes", "Capacity in bytes of the volume", |v| {
            v.on.map(|on| on.capacity)
        }),
        ("inodes", "Maximum number of inodes in the volume", |v| {
            v.on.map(|on| on.inodes)
        }),
        ("inodes_free", "Number of free inodes in the volume", |v| {
            v.on.map(|on| on.inodes_free)
        }),
        ("inodes_used", "Number of used inodes in the volume", |v| {
            Some(v.inodes_used)
        }),
        ("used_bytes", "Number of used bytes in the volume", |v| {
            Some(v.used)
        }),
    ];
    for (name, help, figure) in families {
        let name = format!("kubelet_volume_stats_{name}");
        let mut is_begun = false;
        for ((namespace, claim), volume) in &claims {
            let Some(value) = figure(volume) else {
                continue;
            };
            if !std::mem::replace(&mut is_begun, true) {
                page.family(&name, "gauge", &format!("[ALPHA] {help}"));
            }
            let labels = [
                ("namespace", namespace.as_str()),
                ("persistentvolumeclaim", claim.as_str()),
            ];
            page.figure(&name, &labels, value, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.figure("a", &[("b", "x\"y\\z\n")], 1.5, None);
        assert_eq!(page.finish(), "a{b=\"x\\\"y\\\\z\\n\"} 1.5\n");
    }

    #[test]
    fn the_kubelet_counts_what_runs() {
        let page = own(&sample(), &[]);
        assert!(page.contains("\nkubelet_running_pods 1\n"), "{page}");
        let containers = "\nkubelet_running_containers{container_state=\"running\"} 1\n";
        assert!(page.contains(containers), "{page}");
        let labels = "{namespace=\"default\",persistentvolumeclaim=\"disk\"}";
        for figure in [
            "used_bytes{} 2048",
            "inodes_free{} 60",
            "capacity_bytes{} 9000",
        ] {
            let figure = format!("\nkubelet_volume_stats_{}\n", figure.replace("{}", labels));
            assert!(page.contains(&figure), "{figure} {page}");
        }
    }
}

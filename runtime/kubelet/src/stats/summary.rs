//! `/stats/summary`: everything in one document.
//!
//! Its shape: `k8s.io/kubelet/pkg/apis/stats/v1alpha1`. What does not exist here – page faults, swap, pressure stalls,
//! processes – is absent, and so is what nobody has measured yet, such as the rates of the first answer.

use std::collections::HashMap;

use coracle_clock::Timestamp;
use coracle_cri::{ContainerStats, DiskUsage};
use serde_json::{Map, Value, json};

use super::rates::Whose;
use super::{NodeSample, PodSample, VolumeSample};

/// The document; with `is_brief` only processors and memory.
pub(super) fn page(sample: &NodeSample, rates: &HashMap<Whose, u64>, is_brief: bool) -> Value {
    let pages = Pages {
        sample,
        rates,
        is_brief,
    };
    let pods: Vec<Value> = sample.pods.iter().map(|pod| pages.pod(pod)).collect();
    json!({"node": pages.node(), "pods": pods})
}

struct Pages<'a> {
    sample: &'a NodeSample,
    rates: &'a HashMap<Whose, u64>,
    is_brief: bool,
}

impl Pages<'_> {
    fn node(&self) -> Value {
        let sample = self.sample;
        let mut node = Map::new();
        node.insert("nodeName".to_owned(), sample.node.as_str().into());
        let pods = json!({
            "name": "pods",
            "startTime": time(sample.started_at),
            "cpu": self.cpu(
                sample.pods.iter().map(|pod| nanos(pod.stats.cpu)).sum(),
                self.sum_of_pods(),
                sample.at,
            ),
            "memory": memory(
                sample.pods.iter().map(|pod| pod.stats.working_set).sum(),
                Some(sample.memory_capacity),
                sample.at,
            ),
        });
        node.insert("systemContainers".to_owned(), json!([pods]));
        node.insert("startTime".to_owned(), time(sample.started_at));
        if let Some(cpu) = sample.cpu {
            let rate = self.rates.get(&Whose::Node).copied();
            node.insert("cpu".to_owned(), self.cpu(nanos(cpu), rate, sample.at));
        }
        if let Some(used) = sample.memory {
            let memory = memory(used, Some(sample.memory_capacity), sample.at);
            node.insert("memory".to_owned(), memory);
        }
        if let (false, Some(disk)) = (self.is_brief, sample.disk) {
            let fs = |used| {
                json!({
                    "time": time(sample.at),
                    "availableBytes": disk.available,
                    "capacityBytes": disk.capacity,
                    "usedBytes": used,
                })
            };
            let used = disk.capacity.saturating_sub(disk.available);
            node.insert("fs".to_owned(), fs(used));
            node.insert("runtime".to_owned(), json!({"imageFs": fs(sample.images)}));
        }
        Value::Object(node)
    }

    fn pod(&self, pod: &PodSample) -> Value {
        let stats = &pod.stats;
        let containers = stats.containers.iter();
        let containers: Vec<Value> = containers.map(|found| self.container(pod, found)).collect();
        let rate = self.rates.get(&Whose::Pod(pod.uid.clone())).copied();
        let mut document = Map::from_iter([
            (
                "podRef".to_owned(),
                json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}),
            ),
            ("startTime".to_owned(), time(stats.created_at)),
            ("containers".to_owned(), containers.into()),
            ("cpu".to_owned(), self.cpu(nanos(stats.cpu), rate, stats.at)),
            (
                "memory".to_owned(),
                memory(stats.working_set, stats.memory_limit, stats.at),
            ),
        ]);
        if self.is_brief {
            return Value::Object(document);
        }
        let traffic = json!({
            "name": "eth0",
            "rxBytes": stats.network.received_bytes,
            "rxErrors": stats.network.dropped_datagrams,
            "txBytes": stats.network.sent_bytes,
            "txErrors": 0,
        });
        let mut network = traffic.as_object().cloned().unwrap_or_default();
        network.insert("time".to_owned(), time(stats.at));
        network.insert("interfaces".to_owned(), json!([traffic]));
        document.insert("network".to_owned(), Value::Object(network));
        let mut files = DiskUsage::default();
        for disk in &pod.files.containers {
            files.bytes += disk.writable_layer.bytes + disk.logs.bytes;
            files.inodes += disk.writable_layer.inodes + disk.logs.inodes;
        }
        for volume in pod.files.volumes.iter().filter(|v| v.is_ephemeral) {
            files.bytes += volume.used;
            files.inodes += volume.inodes_used;
        }
        if !pod.files.volumes.is_empty() {
            let volumes = pod.files.volumes.iter();
            let volumes: Vec<Value> = volumes.map(|found| volume(pod, found)).collect();
            document.insert("volume".to_owned(), volumes.into());
        }
        document.insert("ephemeral-storage".to_owned(), self.files(files));
        Value::Object(document)
    }

    fn container(&self, pod: &PodSample, found: &ContainerStats) -> Value {
        let name = &found.id.name;
        let whose = Whose::Container(pod.uid.clone(), name.clone(), found.restart_count);
        let rate = self.rates.get(&whose).copied();
        let at = pod.stats.at;
        let mut document = Map::from_iter([
            ("name".to_owned(), name.as_str().into()),
            ("startTime".to_owned(), time(found.started_at)),
            ("cpu".to_owned(), self.cpu(nanos(found.cpu.used), rate, at)),
            (
                "memory".to_owned(),
                memory(found.memory.working_set, found.memory.limit, at),
            ),
        ]);
        let disk = pod.files.containers.iter().find(|disk| disk.name == *name);
        if let (false, Some(disk)) = (self.is_brief, disk) {
            document.insert("rootfs".to_owned(), self.files(disk.writable_layer));
            document.insert("logs".to_owned(), self.files(disk.logs));
        }
        Value::Object(document)
    }

    fn cpu(&self, used: u64, rate: Option<u64>, at: Timestamp) -> Value {
        let mut cpu = Map::from_iter([("time".to_owned(), time(at))]);
        if let Some(rate) = rate {
            cpu.insert("usageNanoCores".to_owned(), rate.into());
        }
        cpu.insert("usageCoreNanoSeconds".to_owned(), used.into());
        Value::Object(cpu)
    }

    /// The rate of all pods together, once any of them has one.
    fn sum_of_pods(&self) -> Option<u64> {
        let pods = self.sample.pods.iter();
        let rates = pods.filter_map(|pod| self.rates.get(&Whose::Pod(pod.uid.clone())));
        let rates: Vec<u64> = rates.copied().collect();
        (!rates.is_empty()).then(|| rates.iter().sum())
    }

    /// Files of a pod, on the file system that the images are on.
    fn files(&self, used: DiskUsage) -> Value {
        let mut fs = Map::from_iter([("time".to_owned(), time(self.sample.at))]);
        if let Some(disk) = self.sample.disk {
            fs.insert("availableBytes".to_owned(), disk.available.into());
            fs.insert("capacityBytes".to_owned(), disk.capacity.into());
        }
        fs.insert("usedBytes".to_owned(), used.bytes.into());
        fs.insert("inodesUsed".to_owned(), used.inodes.into());
        Value::Object(fs)
    }
}

/// One volume, as of when it was counted.
fn volume(pod: &PodSample, found: &VolumeSample) -> Value {
    let mut document = Map::from_iter([
        ("time".to_owned(), time(pod.files.at)),
        ("name".to_owned(), found.name.as_str().into()),
        ("usedBytes".to_owned(), found.used.into()),
        ("inodesUsed".to_owned(), found.inodes_used.into()),
    ]);
    if let Some(on) = found.on {
        for (name, value) in [
            ("availableBytes", on.available),
            ("capacityBytes", on.capacity),
            ("inodes", on.inodes),
            ("inodesFree", on.inodes_free),
        ] {
            document.insert(name.to_owned(), value.into());
        }
    }
    if let Some(claim) = &found.claim {
        let reference = json!({"name": claim, "namespace": pod.namespace});
        document.insert("pvcRef".to_owned(), reference);
    }
    Value::Object(document)
}

fn memory(used: u64, limit: Option<u64>, at: Timestamp) -> Value {
    let mut memory = Map::from_iter([("time".to_owned(), time(at))]);
    if let Some(limit) = limit {
        let available = limit.saturating_sub(used);
        memory.insert("availableBytes".to_owned(), available.into());
    }
    for name in ["usageBytes", "workingSetBytes", "rssBytes"] {
        memory.insert(name.to_owned(), used.into());
    }
    Value::Object(memory)
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// In whole seconds, as `metav1.Time` is written.
fn time(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn the_document_has_upstreams_shape() {
        let whose = Whose::Container("uid-1".to_owned(), "app".to_owned(), 2);
        let rates = HashMap::from([(whose, 250_000_000)]);
        let page = page(&sample(), &rates, false);
        let time = "2030-01-01T00:00:10Z";
        assert_eq!(
            page["node"]["memory"],
            json!({
                "time": time, "availableBytes": 924 << 20, "usageBytes": 100 << 20,
                "workingSetBytes": 100 << 20, "rssBytes": 100 << 20,
            })
        );
        assert_eq!(page["node"]["fs"]["usedBytes"], 600);
        assert_eq!(page["node"]["runtime"]["imageFs"]["usedBytes"], 77);
        let pod = &page["pods"][0];
        assert_eq!(
            pod["podRef"],
            json!({"name": "web", "namespace": "default", "uid": "uid-1"})
        );
        assert_eq!(
            pod["containers"][0]["cpu"],
            json!({"time": time, "usageNanoCores": 250_000_000, "usageCoreNanoSeconds": 1_500_000_000})
        );
        assert_eq!(pod["containers"][0]["logs"]["usedBytes"], 8192);
        assert_eq!(pod["network"]["interfaces"][0]["txBytes"], 2000);
        // Logs, the root, and the volume that ends with the pod.
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 13312);
        assert_eq!(
            pod["volume"][1],
            json!({
                "time": time, "name": "data", "pvcRef": {"name": "disk", "namespace": "default"},
                "usedBytes": 2048, "availableBytes": 5000, "capacityBytes": 9000,
                "inodes": 100, "inodesFree": 60, "inodesUsed": 5,
            })
        );
        assert!(pod["volume"][0].get("pvcRef").is_none());
        // Nothing is said of what has no limit.
        assert!(pod["memory"].get("availableBytes").is_none());
    }

    #[test]
    fn a_brief_document_has_processors_and_memory_alone() {
        let page = page(&sample(), &HashMap::new(), true);
        let pod = &page["pods"][0];
        for absent in ["network", "ephemeral-storage", "volume"] {
            assert!(pod.get(absent).is_none(), "{absent}");
        }
        assert!(page["node"].get("fs").is_none());
        assert!(pod["containers"][0].get("rootfs").is_none());
        assert!(pod["containers"][0]["cpu"].get("usageNanoCores").is_none());
    }
}

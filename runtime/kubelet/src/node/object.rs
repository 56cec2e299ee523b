//! The Node as a value: labels, addresses, resources, conditions.

use std::collections::BTreeMap;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Map, Value, json};

use crate::eviction::Resource;
use crate::kubelet::KubeletConfig;
use crate::resources::shown;

/// What this kubelet can do of that which upstream's 1.36 has nodes declare, in its order
/// (`component-helpers/nodedeclaredfeatures`): kubelets of its minor version have all of these by default.
const DECLARED_FEATURES: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// The Node as it is created, its status included.
pub(super) fn new(config: &KubeletConfig, now: Timestamp) -> Node {
    let ranges = ranges(config);
    Node {
        metadata: ObjectMeta {
            name: Some(config.node.clone()),
            labels: Some(labels(config)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: ranges.first().cloned(),
            pod_cidrs: Some(ranges),
            ..NodeSpec::default()
        }),
        status: Some(status(None, config, &[], now)),
    }
}

/// The patch that gives a Node which stands already the labels and the pod range of this kubelet.
/// Other labels, taints and `unschedulable` are the user's.
pub(super) fn registration(stored: &Node, config: &KubeletConfig) -> Option<Value> {
    let have = stored.metadata.labels.as_ref();
    let missing: Map<String, Value> = labels(config)
        .into_iter()
        .filter(|(key, value)| have.and_then(|have| have.get(key)) != Some(value))
        .map(|(key, value)| (key, Value::String(value)))
        .collect();
    let mut patch = Map::new();
    if !missing.is_empty() {
        patch.insert("metadata".into(), json!({"labels": missing}));
    }
    // A range that was set is never changed (the API refuses it).
    if stored
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_cidr.as_ref())
        .is_none()
    {
        let ranges = ranges(config);
        patch.insert(
            "spec".into(),
            json!({"podCIDR": ranges.first(), "podCIDRs": ranges}),
        );
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The node's share of the pods' addresses, of each family that they have.
fn ranges(config: &KubeletConfig) -> Vec<String> {
    let second = config.second_pod_range.map(|range| range.to_string());
    [config.pod_range.to_string()]
        .into_iter()
        .chain(second)
        .collect()
}

/// The status to report after `old`, of a node that is short of `pressure`.
pub(super) fn status(
    old: Option<&NodeStatus>,
    config: &KubeletConfig,
    pressure: &[Resource],
    now: Timestamp,
) -> NodeStatus {
    let resources = resources(config);
    NodeStatus {
        addresses: Some(
            config
                .node_addresses()
                .iter()
                .map(|ip| address("InternalIP", &ip.to_string()))
                .chain([address("Hostname", &config.node)])
                .collect(),
        ),
        capacity: Some(resources.clone()),
        allocatable: Some(resources),
        conditions: Some(conditions(old, pressure, now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: 10250 }),
        }),
        node_info: Some(info(old, config)),
        declared_features: Some(DECLARED_FEATURES.map(str::to_owned).to_vec()),
        ..NodeStatus::default()
    }
}

/// Whether anything but the time of the heartbeat has changed.
pub(super) fn differs(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let Some(old) = old else { return true };
    let still = |status: &NodeStatus| {
        let mut status = NodeStatus {
            // Others write these.
            volumes_attached: None,
            volumes_in_use: None,
            images: status.images.clone().filter(|images| !images.is_empty()),
            ..status.clone()
        };
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    // As JSON, where an absent list and an empty one are the same after a round trip.
    serde_json::to_value(still(old)).ok() != serde_json::to_value(still(new)).ok()
}

/// The labels that the kubelet gives its node.
pub(crate) fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        label("kubernetes.io/hostname", &config.node),
        label("kubernetes.io/os", "linux"),
        label("kubernetes.io/arch", architecture()),
    ])
}

/// As Go names it. Guests are wasm whatever the host is; the label says what upstream's tools look
/// for on a host.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress {
        type_: kind.to_owned(),
        address: address.to_owned(),
    }
}

fn resources(config: &KubeletConfig) -> BTreeMap<String, Quantity> {
    let capacity = config.capacity;
    let cpu = match capacity.cpu_millis % 1000 {
        0 => (capacity.cpu_millis / 1000).to_string(),
        _ => format!("{}m", capacity.cpu_millis),
    };
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu)),
        ("memory".to_owned(), Quantity(shown(capacity.memory))),
        (
            "ephemeral-storage".to_owned(),
            Quantity(shown(capacity.ephemeral_storage)),
        ),
        ("pods".to_owned(), Quantity(capacity.pods.to_string())),
    ])
}

fn info(old: Option<&NodeStatus>, config: &KubeletConfig) -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let known = old
        .and_then(|old| old.node_info.clone())
        .filter(|known| !known.kernel_version.is_empty());
    // They are the same as long as this process runs on this host, so they are read once per boot.
    let boot = read("/proc/sys/kernel/random/boot_id");
    if let Some(known) = known
        && known.boot_id == boot
        && known.kubelet_version == config.version
    {
        return known;
    }
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: boot,
        container_runtime_version: "wasmtime://48".into(),
        kernel_version: Some(read("/proc/sys/kernel/osrelease"))
            .filter(|release| !release.is_empty())
            .unwrap_or_else(|| std::env::consts::OS.to_owned()),
        // Deprecated upstream and required by the schema.
        kube_proxy_version: String::new(),
        kubelet_version: config.version.clone(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: "Coracle".into(),
        system_uuid: read("/etc/machine-id"),
        swap: None,
    }
}

/// The kubelet's conditions, in upstream's words; those of others are kept.
fn conditions(
    old: Option<&NodeStatus>,
    pressure: &[Resource],
    now: Timestamp,
) -> Vec<NodeCondition> {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let mut kept: Vec<NodeCondition> = old
        .and_then(|old| old.conditions.clone())
        .unwrap_or_default();
    let memory = if pressure.contains(&Resource::Memory) {
        (
            "True",
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        )
    } else {
        (
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        )
    };
    let disk = if pressure.contains(&Resource::Disk) {
        (
            "True",
            "KubeletHasDiskPressure",
            "kubelet has disk pressure",
        )
    } else {
        (
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        )
    };
    let own = [
        (Resource::Memory.condition(), memory.0, memory.1, memory.2),
        (Resource::Disk.condition(), disk.0, disk.1, disk.2),
        (
            "PIDPressure",
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
        (
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status",
        ),
    ];
    let mut conditions: Vec<NodeCondition> = own
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let old = kept
                .iter()
                .position(|c| c.type_ == kind)
                .map(|index| kept.remove(index));
            let since = old
                .filter(|old| old.status == status)
                .and_then(|old| old.last_transition_time);
            NodeCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            }
        })
        .collect();
    conditions.splice(0..0, kept);
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::Capacity;

    fn config() -> KubeletConfig {
        KubeletConfig {
            node: "coracle".into(),
            pod_range: "10.240.0.0/18".parse().expect("a range"),
            second_pod_range: None,
            host_network: Vec::new(),
            defaults: crate::PodDefaults {
                cluster_domain: "cluster.local".into(),
                cluster_dns: vec![[10, 96, 0, 10].into()],
                resolv_conf: "/nonexistent".into(),
                pods_directory: "/pods".into(),
            },
            data_directory: "/data".into(),
            capacity: Capacity {
                cpu_millis: 2000,
                memory: 8 << 30,
                ephemeral_storage: 1000,
                pods: 110,
            },
            image_collection: crate::ImageCollection::default(),
            version: "v1.36.2+coracle".into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_new_node_is_ready_and_can_be_scheduled_to() {
        let node = new(&config(), at(100));
        let status = node.status.expect("a status");
        let ready = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "Ready")
            .expect("a condition");
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_deref()),
            ("True", Some("KubeletReady"))
        );
        let amounts = status.allocatable.expect("resources");
        assert_eq!(
            (amounts["cpu"].0.as_str(), amounts["memory"].0.as_str()),
            ("2", "8Gi")
        );
        assert_eq!(
            status.addresses.expect("addresses")[0].address,
            "10.240.0.1"
        );
        assert_eq!(
            node.spec.and_then(|spec| spec.pod_cidr).as_deref(),
            Some("10.240.0.0/18")
        );
    }

    #[test]
    fn a_node_of_both_families_says_so_and_so_do_its_pods() {
        let config = KubeletConfig {
            second_pod_range: Some("fd00:10:240::/64".parse().expect("a range")),
            host_network: vec!["trusted".into()],
            ..config()
        };
        let node = new(&config, at(100));
        let addresses = node.status.and_then(|status| status.addresses);
        let addresses: Vec<String> = addresses
            .into_iter()
            .flatten()
            .map(|address| format!("{} {}", address.type_, address.address))
            .collect();
        let both = ["InternalIP 10.240.0.1", "InternalIP fd00:10:240::1"];
        assert_eq!(addresses[..2], both);
        let ranges = node.spec.and_then(|spec| spec.pod_cidrs);
        let both = ["10.240.0.0/18", "fd00:10:240::/64"];
        assert_eq!(ranges, Some(both.map(str::to_owned).to_vec()));
        let pod = [10, 240, 0, 7].into();
        assert_eq!(config.both_as_text(pod), "10.240.0.7,fd00:10:240::7");

        let asks = |namespace: &str, host_network: bool| -> bool {
            let pod = json!({
                "metadata": {"name": "p", "namespace": namespace},
                "spec": {"hostNetwork": host_network, "containers": []},
            });
            config.is_on_host(&serde_json::from_value(pod).expect("a pod"))
        };
        assert!(asks("trusted", true) && !asks("trusted", false) && !asks("default", true));
    }

    #[test]
    fn only_a_change_is_reported_before_its_time() {
        let first = status(None, &config(), &[], at(100));
        let later = status(Some(&first), &config(), &[], at(110));
        assert!(!differs(Some(&first), &later), "a heartbeat is no change");
        let short = status(Some(&first), &config(), &[Resource::Disk], at(110));
        assert!(differs(Some(&first), &short), "it has disk pressure");
        let since = |status: &NodeStatus| {
            status.conditions.as_ref().expect("some")[0]
                .last_transition_time
                .clone()
        };
        assert_eq!(since(&first), since(&later));

        let mut lost = first.clone();
        for condition in lost.conditions.iter_mut().flatten() {
            condition.status = "Unknown".into();
        }
        let back = status(Some(&lost), &config(), &[], at(200));
        assert!(
            differs(Some(&lost), &back),
            "the control plane had given the node up"
        );
        assert_eq!(since(&back), Some(Time(at(200))));
    }

    #[test]
    fn a_node_that_was_registered_before_comes_to_declare_its_features() {
        let new = status(None, &config(), &[], at(100));
        let declared = new.declared_features.clone().expect("features");
        assert!(declared.contains(&"RestartAllContainersOnContainerExits".to_owned()));
        assert!(declared.is_sorted());
        let before = NodeStatus {
            declared_features: None,
            ..new.clone()
        };
        assert!(differs(Some(&before), &new));
    }

    #[test]
    fn a_node_that_stands_keeps_what_users_gave_it() {
        let mut stored = new(&config(), at(1));
        assert_eq!(registration(&stored, &config()), None);
        let labels = stored.metadata.labels.as_mut().expect("labels");
        labels.insert("disk".into(), "ssd".into());
        labels.remove("kubernetes.io/os");
        let patch = registration(&stored, &config()).expect("a label is missing");
        assert_eq!(
            patch,
            json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}})
        );
    }
}

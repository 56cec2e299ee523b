//! Requests and limits of a container as numbers.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::kubelet::Capacity;

/// What a container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Thousandths of a core that it is scheduled with, at least 1.
    pub(crate) cpu_request_millis: u64,
    /// Thousandths of a core that it may use.
    pub(crate) cpu_limit_millis: Option<u64>,
    /// Bytes that it may use.
    pub(crate) memory_limit: Option<u64>,
}

impl Resources {
    /// Of a container's spec; a quantity that cannot be read counts as absent (the API refuses it).
    pub(crate) fn of(container: &Container) -> Self {
        let (requests, limits) = maps(container);
        let cpu = |map| amount(map, "cpu").map(|quantity| unsigned(quantity.milli_value()));
        Self {
            cpu_request_millis: cpu(requests).or_else(|| cpu(limits)).unwrap_or(1).max(1),
            cpu_limit_millis: cpu(limits),
            memory_limit: amount(limits, "memory").map(|quantity| unsigned(quantity.value())),
        }
    }
}

/// Thousandths of a core that `container` of a pod is scheduled with. Those that ask for nothing share what the pod
/// as a whole asks for beyond the others, as they would below the pod's cgroup.
pub(crate) fn cpu_weight(spec: &PodSpec, container: &Container) -> u64 {
    let asked = |container: &Container| {
        let (requests, limits) = maps(container);
        amount(requests, "cpu").or_else(|| amount(limits, "cpu"))
    };
    let whole = pod_amount(spec, |whole| whole.requests.as_ref(), "cpu");
    let (Some(whole), None) = (whole, asked(container)) else {
        return Resources::of(container).cpu_request_millis;
    };
    let is_sidecar = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let (mut taken, mut others) = (0u64, 0u64);
    for one in spec.containers.iter().chain(sidecars) {
        match asked(one) {
            Some(own) => taken = taken.saturating_add(unsigned(own.milli_value())),
            None => others += 1,
        }
    }
    let left = unsigned(whole.milli_value()).saturating_sub(taken);
    (left / others.max(1)).max(1)
}

/// Thousandths of a core that the containers of a pod may use together, if the pod says so.
pub(crate) fn pod_cpu_limit(spec: &PodSpec) -> Option<u64> {
    let limit = pod_amount(spec, |whole| whole.limits.as_ref(), "cpu")?;
    Some(unsigned(limit.milli_value()))
}

/// What the node has, as a container of the pod without limits of its own sees it: no more than the pod has.
pub(crate) fn allocatable(spec: &PodSpec, node: Capacity) -> Capacity {
    let whole = pod_amount(spec, |whole| whole.limits.as_ref(), "memory");
    Capacity {
        cpu_millis: pod_cpu_limit(spec).unwrap_or(node.cpu_millis),
        memory: whole.map_or(node.memory, |limit| unsigned(limit.value())),
        ..node
    }
}

fn pod_amount<'a>(
    spec: &'a PodSpec,
    map: impl FnOnce(&'a ResourceRequirements) -> Amounts<'a>,
    name: &str,
) -> Option<Quantity> {
    amount(map(spec.resources.as_ref()?), name)
}

/// Bytes that the containers of a pod may use together: what the pod says as a whole, or else the sum of its parts when every
/// container has a limit. Sidecars run beside the others, init containers one after the other before.
pub(crate) fn pod_memory_limit(spec: &PodSpec) -> Option<u64> {
    if let Some(limit) = pod_amount(spec, |whole| whole.limits.as_ref(), "memory") {
        return Some(unsigned(limit.value()));
    }
    let limit = |container: &Container| Resources::of(container).memory_limit;
    let (mut sidecars, mut starting) = (0u64, 0u64);
    for container in spec.init_containers.iter().flatten() {
        let limit = limit(container)?;
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = sidecars.saturating_add(limit);
        } else {
            starting = starting.max(sidecars.saturating_add(limit));
        }
    }
    let mut main = spec.containers.iter();
    let together = main.try_fold(sidecars, |sum, container| {
        Some(sum.saturating_add(limit(container)?))
    })?;
    Some(together.max(starting))
}

/// What a pod is promised on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Thousandths of a core.
    pub(crate) cpu_millis: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Bytes of disk.
    pub(crate) ephemeral_storage: u64,
}

impl Requests {
    /// Of a pod: its containers run together; init containers one after the other, beside the sidecars
    /// started before them; the larger of the two counts (upstream's `PodRequests`, which the scheduler
    /// counts with too).
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(spec) = pod.spec.as_ref() else {
            return Self::default();
        };
        let of = Self::of_container;
        let (mut sidecars, mut starting) = (Self::default(), Self::default());
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars = sidecars.plus(&of(container));
                starting = starting.max(&sidecars);
            } else {
                starting = starting.max(&sidecars.plus(&of(container)));
            }
        }
        let main = spec.containers.iter().map(of);
        let together = main.fold(sidecars, |sum, requests| sum.plus(&requests));
        let mut total = together.max(&starting);
        if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            // What is said for the pod as a whole counts instead of the sum of its parts.
            let said = Self::of_amounts(Some(whole));
            if whole.contains_key("cpu") {
                total.cpu_millis = said.cpu_millis;
            }
            if whole.contains_key("memory") {
                total.memory = said.memory;
            }
        }
        total.plus(&Self::of_amounts(spec.overhead.as_ref()))
    }

    /// Of one container.
    pub(crate) fn of_container(container: &Container) -> Self {
        let resources = container.resources.as_ref();
        resources.map(Self::of_requirements).unwrap_or_default()
    }

    fn of_requirements(resources: &ResourceRequirements) -> Self {
        Self::of_amounts(resources.requests.as_ref())
    }

    fn of_amounts(map: Amounts<'_>) -> Self {
        let value = |name| amount(map, name).map_or(0, |quantity| unsigned(quantity.value()));
        Self {
            cpu_millis: amount(map, "cpu").map_or(0, |cpu| unsigned(cpu.milli_value())),
            memory: value("memory"),
            ephemeral_storage: value("ephemeral-storage"),
        }
    }

    /// Both together.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What is left without the other.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn max(&self, other: &Self) -> Self {
        self.with(other, u64::max)
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_millis: join(self.cpu_millis, other.cpu_millis),
            memory: join(self.memory, other.memory),
            ephemeral_storage: join(self.ephemeral_storage, other.ephemeral_storage),
        }
    }
}

/// The value of a downward API resource such as `limits.memory`, divided by `divisor` and rounded up;
/// a container without the limit has what the node has. `None` when there is no such resource.
pub(crate) fn field(
    container: &Container,
    resource: &str,
    divisor: Option<&str>,
    allocatable: &Capacity,
) -> Option<String> {
    let (requests, limits) = maps(container);
    let (map, name) = match resource.split_once('.')? {
        ("limits", name) => (limits, name),
        ("requests", name) => (requests, name),
        _ => return None,
    };
    let is_limit = resource.starts_with("limits.");
    // A limit of nothing is none (upstream's `MergeContainerResourceLimits`).
    let amount = amount(map, name).filter(|amount| !is_limit || !amount.is_zero());
    let default = |of_node: u64| if is_limit { of_node } else { 0 };
    let divisor = divisor
        .and_then(|text| text.parse::<Quantity>().ok())
        .filter(|divisor| !divisor.is_zero());
    let in_bytes = |of_node: u64| {
        let value = amount.map_or(default(of_node), |quantity| unsigned(quantity.value()));
        (
            value,
            divisor.map_or(1, |divisor| unsigned(divisor.value())),
        )
    };
    let (value, divisor) = match name {
        "cpu" => {
            let of_node = default(allocatable.cpu_millis);
            let value = amount.map_or(of_node, |quantity| unsigned(quantity.milli_value()));
            (
                value,
                divisor.map_or(1000, |divisor| unsigned(divisor.milli_value())),
            )
        }
        "memory" => in_bytes(allocatable.memory),
        "ephemeral-storage" => in_bytes(allocatable.ephemeral_storage),
        name if name.starts_with("hugepages-") => in_bytes(0),
        _ => return None,
    };
    Some(value.div_ceil(divisor.max(1)).to_string())
}

/// A number of bytes as a quantity, in the canonical form, which the server would make of it anyway.
pub(crate) fn shown(count: u64) -> String {
    let units = [
        (1u64 << 40, "Ti"),
        (1 << 30, "Gi"),
        (1 << 20, "Mi"),
        (1 << 10, "Ki"),
    ];
    let fits = units
        .iter()
        .find(|(size, _)| count > 0 && count.is_multiple_of(*size));
    fits.map_or_else(
        || count.to_string(),
        |(size, unit)| format!("{}{unit}", count / size),
    )
}

type Amounts<'a> = Option<&'a BTreeMap<String, ApiQuantity>>;

fn maps(container: &Container) -> (Amounts<'_>, Amounts<'_>) {
    let resources = container.resources.as_ref();
    (
        resources.and_then(|r| r.requests.as_ref()),
        resources.and_then(|r| r.limits.as_ref()),
    )
}

fn amount(map: Amounts<'_>, name: &str) -> Option<Quantity> {
    map?.get(name)?.0.parse().ok()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NODE: Capacity = Capacity {
        cpu_millis: 4000,
        memory: 1 << 30,
        ephemeral_storage: 1 << 40,
        pods: 10,
    };

    fn container(resources: serde_json::Value) -> Container {
        serde_json::from_value(json!({"name": "c", "resources": resources})).expect("valid")
    }

    #[test]
    fn limits_stand_in_for_requests() {
        let with_limits = Resources::of(&container(
            json!({"limits": {"cpu": "500m", "memory": "32Mi"}}),
        ));
        assert_eq!(with_limits.cpu_request_millis, 500);
        assert_eq!(with_limits.memory_limit, Some(32 << 20));
        assert_eq!(Resources::of(&container(json!({}))).cpu_request_millis, 1);
    }

    #[test]
    fn what_a_pod_says_as_a_whole_bounds_its_containers_together() {
        let spec = |resources| -> PodSpec {
            let spec = json!({
                "resources": resources,
                "containers": [
                    {"name": "a", "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "8Mi"}}},
                    {"name": "b"}, {"name": "c"},
                ],
            });
            serde_json::from_value(spec).expect("valid")
        };
        let none = spec(json!({}));
        assert_eq!(
            (pod_memory_limit(&none), pod_cpu_limit(&none)),
            (None, None)
        );
        assert_eq!(cpu_weight(&none, &none.containers[1]), 1);
        assert_eq!(allocatable(&none, NODE), NODE);
        let whole = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "32Mi"}});
        let whole = spec(whole);
        assert_eq!(pod_memory_limit(&whole), Some(32 << 20));
        assert_eq!(pod_cpu_limit(&whole), Some(2000));
        let of_pod = Capacity {
            cpu_millis: 2000,
            memory: 32 << 20,
            ..NODE
        };
        assert_eq!(allocatable(&whole, NODE), of_pod);
        let weights = whole.containers.iter();
        let weights: Vec<u64> = weights.map(|one| cpu_weight(&whole, one)).collect();
        assert_eq!(weights, [100, 450, 450]);
    }

    #[test]
    fn a_pod_asks_for_the_larger_of_its_start_and_its_run() {
        let asking = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let spec = json!({
            "initContainers": [
                {"name": "proxy", "restartPolicy": "Always", "resources": asking("100m")},
                {"name": "setup", "resources": asking("2")},
            ],
            "containers": [{"name": "a", "resources": asking("500m")}, {"name": "b"}],
        });
        let pod = |spec: &serde_json::Value| serde_json::from_value(json!({"spec": spec}));
        let of = |spec: &serde_json::Value| Requests::of(&pod(spec).expect("a pod")).cpu_millis;
        assert_eq!(of(&spec), 2100);
        let mut small = spec.clone();
        small["initContainers"][1]["resources"] = asking("1m");
        assert_eq!(of(&small), 600);
        let mut whole = spec;
        whole["resources"] = asking("1");
        whole["overhead"] = json!({"cpu": "10m"});
        assert_eq!(of(&whole), 1010);
    }

    #[test]
    fn downward_values_are_divided_and_rounded_up() {
        let limited = container(json!({"limits": {"cpu": "1500m", "memory": "10Mi"}}));
        let read = |resource: &str, divisor| field(&limited, resource, divisor, &NODE);
        assert_eq!(read("limits.cpu", None).as_deref(), Some("2"));
        assert_eq!(read("limits.cpu", Some("1m")).as_deref(), Some("1500"));
        assert_eq!(read("limits.memory", Some("1Mi")).as_deref(), Some("10"));
        assert_eq!(read("requests.memory", None).as_deref(), Some("0"));
        assert_eq!(read("limits.disk", None), None);
        // Without a limit, or with one of nothing, there is what the node has; a request is only what was asked for.
        assert_eq!(
            read("limits.ephemeral-storage", Some("1Gi")).as_deref(),
            Some("1024")
        );
        assert_eq!(
            read("requests.ephemeral-storage", None).as_deref(),
            Some("0")
        );
        let nothing = container(json!({"limits": {"memory": "0"}}));
        let found = field(&nothing, "limits.memory", Some("1Mi"), &NODE);
        assert_eq!(found.as_deref(), Some("1024"));
    }
}

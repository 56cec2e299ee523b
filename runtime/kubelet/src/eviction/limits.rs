//! Whether a pod has more on disk than it may: upstream's `localStorageEviction`. Pure.

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use super::usage::Usage;
use crate::resources::{pod_memory_limit, shown};
use crate::volumes::volumes;

/// Whether anything of the pod is limited, so that it has to be measured.
pub(super) fn is_limited(pod: &Pod) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    let mut all = volumes(pod);
    containers.any(|container| limit(container).is_some())
        || all.any(|volume| size_limit(pod, volume).is_some() || is_memory(volume))
}

/// Why the pod is to be evicted, in upstream's words.
pub(super) fn excess(pod: &Pod, usage: &Usage) -> Option<String> {
    for volume in volumes(pod) {
        let used = usage.volumes.get(&volume.name).copied().unwrap_or(0);
        let limit = size_limit(pod, volume);
        if let Some(limit) = limit.filter(|limit| exceeds(used, limit)) {
            let name = &volume.name;
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ",
                limit.to_string()
            ));
        }
    }
    let spec = pod.spec.as_ref()?;
    let files = volumes(pod).filter(|volume| !is_memory(volume));
    let files = files.filter_map(|volume| usage.volumes.get(&volume.name));
    let total: u64 = files.chain(usage.containers.values()).sum();
    if let Some(limit) = pod_limit(pod).filter(|limit| exceeds(total, limit)) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        let used = usage.containers.get(&container.name).copied().unwrap_or(0);
        if let Some(limit) = limit(container).filter(|limit| exceeds(used, limit)) {
            let name = &container.name;
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit {:?}. ",
                limit.to_string()
            ));
        }
    }
    None
}

/// Bytes of the pod's emptyDirs of medium `Memory`, if it has any.
pub(super) fn in_memory(pod: &Pod, usage: &Usage) -> Option<u64> {
    let memory = volumes(pod).filter(|volume| is_memory(volume));
    let used = memory.map(|volume| usage.volumes.get(&volume.name).copied().unwrap_or(0));
    used.reduce(u64::saturating_add)
}

fn is_memory(volume: &Volume) -> bool {
    let medium = volume.empty_dir.as_ref().and_then(|d| d.medium.as_deref());
    medium == Some("Memory")
}

/// How large the tmpfs would be that upstream makes of an emptyDir of medium `Memory`, if it has a limit.
pub(crate) fn size_in_memory(pod: &Pod, volume: &Volume) -> Option<u64> {
    let limit = size_limit(pod, volume).filter(|_| is_memory(volume))?;
    u64::try_from(limit.value()).ok()
}

/// What an emptyDir may hold; one of medium `Memory` no more than the memory of its pod, which is the size
/// of the tmpfs that upstream makes.
fn size_limit(pod: &Pod, volume: &Volume) -> Option<Quantity> {
    let source = volume.empty_dir.as_ref()?;
    let own = source.size_limit.as_ref().and_then(|l| l.0.parse().ok());
    let own = own.filter(|limit: &Quantity| limit.value() > 0);
    let of_pod = || {
        let bytes = pod_memory_limit(pod.spec.as_ref()?).filter(|_| is_memory(volume))?;
        bytes.to_string().parse().ok()
    };
    own.or_else(of_pod)
}

fn limit(container: &Container) -> Option<Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get("ephemeral-storage")?.0.parse().ok()
}

/// What the containers that have a limit may have together; upstream counts those that have none as 0.
fn pod_limit(pod: &Pod) -> Option<Quantity> {
    let spec = pod.spec.as_ref()?;
    let bytes = |container: &Container| limit(container).map(|limit| limit.value());
    let init = spec.init_containers.iter().flatten();
    let starting = init.filter_map(bytes).max();
    let running: Vec<i64> = spec.containers.iter().filter_map(bytes).collect();
    if starting.is_none() && running.is_empty() {
        return None;
    }
    let together = running
        .iter()
        .fold(0i64, |sum, more| sum.saturating_add(*more));
    let most = together.max(starting.unwrap_or(0));
    // As one of them has it, if there is but one: `1Gi` rather than its bytes.
    let mut limited = spec.containers.iter().filter_map(limit);
    let as_said = limited.find(|limit| limit.value() == most);
    as_said.or_else(|| shown(most.unsigned_abs()).parse().ok())
}

fn exceeds(used: u64, limit: &Quantity) -> bool {
    i64::try_from(used).unwrap_or(i64::MAX) > limit.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: Value, volumes: Value) -> Pod {
        let spec = json!({"containers": containers, "volumes": volumes});
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn limited(name: &str, storage: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"ephemeral-storage": storage}}})
    }

    fn usage(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> Usage {
        let map = |list: &[(&str, u64)]| {
            list.iter()
                .map(|(name, used)| ((*name).to_owned(), *used))
                .collect()
        };
        Usage {
            volumes: map(volumes),
            containers: map(containers),
        }
    }

    #[test]
    fn a_volume_holds_no_more_than_it_may() {
        let pod = pod(
            json!([{"name": "c"}]),
            json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "emptyDir": {}}]),
        );
        assert!(is_limited(&pod));
        assert_eq!(
            excess(&pod, &usage(&[("v", 1 << 20), ("w", 1 << 40)], &[])),
            None
        );
        let why = excess(&pod, &usage(&[("v", (1 << 20) + 1)], &[])).expect("too much");
        assert_eq!(
            why,
            "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
        );
    }

    #[test]
    fn logs_roots_and_volumes_count_together() {
        let volumes = json!([
            {"name": "v", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory"}},
        ]);
        let pod = pod(
            json!([limited("a", "1Gi"), limited("b", "1Gi"), {"name": "c"}]),
            volumes,
        );
        let (half, gib) = (1u64 << 29, 1u64 << 30);
        let fits = usage(&[("v", gib), ("m", 9 * gib)], &[("a", half), ("b", half)]);
        assert_eq!(excess(&pod, &fits), None);
        let whole = usage(&[("v", gib)], &[("a", half), ("b", half), ("c", 1)]);
        assert_eq!(
            excess(&pod, &whole).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. ")
        );
        let one = usage(&[], &[("a", 1), ("b", gib + 1)]);
        assert_eq!(
            excess(&pod, &one).as_deref(),
            Some("Container b exceeded its local ephemeral storage limit \"1Gi\". ")
        );
        assert_eq!(in_memory(&pod, &fits), Some(9 * gib));
    }

    #[test]
    fn a_volume_in_memory_holds_no_more_than_the_memory_of_its_pod() {
        let memory = json!({"name": "c", "resources": {"limits": {"memory": "4Mi"}}});
        let volumes = json!([{"name": "m", "emptyDir": {"medium": "Memory"}}]);
        let tight = pod(json!([memory]), volumes.clone());
        assert_eq!(excess(&tight, &usage(&[("m", 4 << 20)], &[])), None);
        let why = excess(&tight, &usage(&[("m", 5 << 20)], &[])).expect("too much");
        assert!(why.starts_with("Usage of EmptyDir volume \"m\""), "{why}");
        let free = pod(json!([{"name": "c"}]), volumes);
        assert!(is_limited(&free), "it counts as memory");
        assert_eq!(excess(&free, &usage(&[("m", 1 << 40)], &[])), None);
    }

    #[test]
    fn what_is_not_limited_is_not_measured() {
        let plain =
            json!([{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "x"}}]);
        assert!(!is_limited(&pod(json!([{"name": "c"}]), plain)));
        assert!(is_limited(&pod(json!([limited("a", "1Gi")]), json!([]))));
        let none = pod(json!([{"name": "c"}]), json!([]));
        assert_eq!(excess(&none, &usage(&[], &[("c", 1 << 50)])), None);
    }
}

//! Whether the node is short of something, and which pod goes for it: upstream's
//! `pkg/kubelet/eviction`. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use coracle_clock::Timestamp;
use coracle_cri::ImageFs;
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::admission::REJECTED;
use crate::resources::{Requests, shown};
use crate::step::Failure;

/// The reason of a pod that was evicted.
pub(crate) const EVICTED: &str = "Evicted";

/// Bytes of memory that have to be available (`memory.available` of `evictionHard`).
pub(super) const MEMORY_AVAILABLE: u64 = 100 << 20;
/// Bytes of disk that have to be available. Upstream says 10 % of the disk; of a desk's large disk, which is
/// rarely emptier, that would evict pods for nothing.
pub(super) const DISK_AVAILABLE: u64 = 1 << 30;
/// How long a condition stays after what it tells of (`evictionPressureTransitionPeriod`).
const LASTS: Duration = Duration::from_secs(300);
/// Pods of such a priority keep the cluster alive, and are never evicted.
const CRITICAL: i32 = 2_000_000_000;

/// What a node can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// `memory.available`.
    Memory,
    /// `nodefs.available`.
    Disk,
}

impl Resource {
    /// As requests call it.
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
        }
    }

    /// The condition of the node.
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
        }
    }

    fn taint(self) -> &'static str {
        match self {
            Self::Memory => "node.kubernetes.io/memory-pressure",
            Self::Disk => "node.kubernetes.io/disk-pressure",
        }
    }
}

/// A threshold that was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) resource: Resource,
    pub(super) threshold: u64,
    pub(super) available: u64,
}

/// What the node is short of now. `memory` is what it has for pods and what they use of it.
pub(super) fn shortages(memory: Option<(u64, u64)>, disk: Option<ImageFs>) -> Vec<Shortage> {
    let memory = memory.map(|(capacity, used)| {
        let threshold = MEMORY_AVAILABLE.min(capacity / 10);
        (Resource::Memory, threshold, capacity.saturating_sub(used))
    });
    let disk = disk.filter(|disk| disk.capacity > 0).map(|disk| {
        let threshold = DISK_AVAILABLE.min(disk.capacity / 10);
        (Resource::Disk, threshold, disk.available)
    });
    memory
        .into_iter()
        .chain(disk)
        .filter(|(_, threshold, available)| available < threshold)
        .map(|(resource, threshold, available)| Shortage {
            resource,
            threshold,
            available,
        })
        .collect()
}

/// When the node was last short of each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pressure {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
}

/// Whether what was seen then still counts.
fn lasts(seen: Option<Timestamp>, now: Timestamp) -> bool {
    seen.is_some_and(|at| Duration::try_from(now - at).unwrap_or_default() < LASTS)
}

impl Pressure {
    /// Takes note of what it is short of now; whether its conditions are others than before.
    pub(super) fn note(&mut self, shortages: &[Shortage], now: Timestamp) -> bool {
        let before = [self.memory.is_some(), self.disk.is_some()];
        for shortage in shortages {
            match shortage.resource {
                Resource::Memory => self.memory = Some(now),
                Resource::Disk => self.disk = Some(now),
            }
        }
        for seen in [&mut self.memory, &mut self.disk] {
            *seen = seen.filter(|at| lasts(Some(*at), now));
        }
        before != [self.memory.is_some(), self.disk.is_some()]
    }

    /// What the node's conditions say that it is short of.
    pub(crate) fn conditions(&self, now: Timestamp) -> Vec<Resource> {
        let all = [(Resource::Memory, self.memory), (Resource::Disk, self.disk)];
        let all = all.into_iter().filter(|(_, seen)| lasts(*seen, now));
        all.map(|(resource, _)| resource).collect()
    }

    /// Why a new pod is not let in, if so: none while the disk is full, none that was promised nothing while
    /// memory is short.
    pub(crate) fn refusal(&self, pod: &Pod, now: Timestamp) -> Option<Failure> {
        let conditions = self.conditions(now);
        if conditions.is_empty() || is_critical(pod) {
            return None;
        }
        if conditions == [Resource::Memory]
            && (!is_best_effort(pod) || tolerates(pod, Resource::Memory.taint()))
        {
            return None;
        }
        let names: Vec<&str> = conditions.iter().map(|c| c.condition()).collect();
        Some(Failure {
            reason: EVICTED.to_owned(),
            message: format!("{REJECTED}The node had condition: [{}]. ", names.join(" ")),
        })
    }
}

/// A pod that could go, and what it uses of what is short.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) uid: &'a str,
    pub(super) pod: &'a Pod,
    pub(super) used: u64,
    /// What its containers use of it, by name.
    pub(super) containers: Vec<(String, u64)>,
}

/// The pod to evict and why: first those that use more than they asked for, of those the least important,
/// of those the one that is furthest beyond.
pub(super) fn victim<'a>(
    shortage: &Shortage,
    candidates: &[Candidate<'a>],
) -> Option<(&'a str, String)> {
    let resource = shortage.resource;
    let rank = |candidate: &&Candidate<'a>| {
        let requests = Requests::of(candidate.pod);
        let asked = match resource {
            Resource::Memory => requests.memory,
            Resource::Disk => requests.ephemeral_storage,
        };
        let beyond = i128::from(candidate.used) - i128::from(asked);
        (
            Reverse(beyond > 0),
            priority(candidate.pod),
            Reverse(beyond),
        )
    };
    let may_go = candidates.iter().filter(|c| !is_critical(c.pod));
    let chosen = may_go.min_by_key(rank)?;
    let name = resource.name();
    let mut message = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        shown(shortage.threshold),
        shown(shortage.available)
    );
    let spec = chosen.pod.spec.as_ref()?;
    for container in &spec.containers {
        let used = chosen.containers.iter().find(|(n, _)| *n == container.name);
        let used = used.map_or(0, |(_, used)| *used);
        let asked = asked(container, name);
        if used > asked {
            message.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {name}. ",
                container.name,
                shown(used),
                shown(asked)
            ));
        }
    }
    Some((chosen.uid, message))
}

fn asked(container: &Container, resource: &str) -> u64 {
    let requests = Requests::of_container(container);
    match resource {
        "memory" => requests.memory,
        _ => requests.ephemeral_storage,
    }
}

fn priority(pod: &Pod) -> i32 {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.priority).unwrap_or(0)
}

/// Static pods, and those that keep the cluster alive.
pub(super) fn is_critical(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let source = annotations.and_then(|all| all.get("kubernetes.io/config.source"));
    source.is_some_and(|source| source != "api") || priority(pod) >= CRITICAL
}

fn is_best_effort(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    let said = |container: &Container| {
        let resources = container.resources.as_ref();
        let maps = resources.map(|r| [r.requests.as_ref(), r.limits.as_ref()]);
        let mut maps = maps.into_iter().flatten().flatten();
        maps.any(|map| map.contains_key("cpu") || map.contains_key("memory"))
    };
    !containers.into_iter().any(said)
}

fn tolerates(pod: &Pod, taint: &str) -> bool {
    let spec = pod.spec.as_ref();
    let mut all = spec
        .into_iter()
        .flat_map(|s| s.tolerations.iter().flatten());
    all.any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or("NoSchedule");
        let exists = toleration.operator.as_deref() == Some("Exists");
        (key == taint || key.is_empty() && exists) && effect == "NoSchedule"
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const GI: u64 = 1 << 30;

    fn pod(priority: i32, requests: Value) -> Pod {
        let container = json!({"name": "c", "resources": {"requests": requests}});
        let spec = json!({"priority": priority, "containers": [container]});
        serde_json::from_value(json!({"spec": spec})).expect("a pod")
    }

    fn disk(available: u64) -> Option<ImageFs> {
        Some(ImageFs {
            capacity: 100 * GI,
            available,
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_node_is_short_of_what_is_nearly_used_up() {
        assert_eq!(shortages(Some((8 * GI, 7 * GI)), disk(2 * GI)), []);
        assert_eq!(shortages(None, None), []);
        let found = shortages(Some((8 * GI, 8 * GI - 1)), disk(GI - 1));
        let names: Vec<_> = found.iter().map(|s| s.resource).collect();
        assert_eq!(names, [Resource::Memory, Resource::Disk]);
        assert_eq!(found[0].available, 1);
        let small = Some(ImageFs {
            capacity: GI,
            available: GI / 5,
        });
        assert_eq!(
            shortages(None, small),
            [],
            "of a small disk less has to be free"
        );
    }

    #[test]
    fn a_condition_outlasts_its_cause() {
        let mut pressure = Pressure::default();
        assert!(!pressure.note(&[], at(0)));
        let short = shortages(None, disk(1));
        assert!(pressure.note(&short, at(10)));
        assert!(!pressure.note(&short, at(20)));
        assert_eq!(pressure.conditions(at(319)), [Resource::Disk]);
        assert!(!pressure.note(&[], at(319)));
        assert!(pressure.note(&[], at(320)));
        assert_eq!(pressure.conditions(at(320)), []);
    }

    #[test]
    fn under_pressure_only_those_that_do_not_add_to_it_are_let_in() {
        let (mut memory, mut full) = (Pressure::default(), Pressure::default());
        memory.note(&shortages(Some((8 * GI, 8 * GI)), None), at(0));
        full.note(&shortages(None, disk(1)), at(0));
        let (best_effort, asking) = (pod(0, json!({})), pod(0, json!({"memory": "1Mi"})));
        let why = memory.refusal(&best_effort, at(1)).expect("refused");
        assert_eq!(why.reason, "Evicted");
        let message = why.message.strip_prefix(REJECTED).expect("a refusal");
        assert_eq!(message, "The node had condition: [MemoryPressure]. ");
        assert_eq!(memory.refusal(&asking, at(1)), None);
        assert!(full.refusal(&asking, at(1)).is_some());
        assert_eq!(full.refusal(&pod(CRITICAL, json!({})), at(1)), None);
        assert_eq!(full.refusal(&asking, at(301)), None);
        let mut tolerant = best_effort;
        let all = json!([{"operator": "Exists"}]);
        tolerant.spec.as_mut().expect("a spec").tolerations =
            serde_json::from_value(all).expect("tolerations");
        assert_eq!(memory.refusal(&tolerant, at(1)), None);
    }

    #[test]
    fn who_is_beyond_its_requests_and_least_important_goes_first() {
        let asks = json!({"ephemeral-storage": "1Gi", "memory": "1Gi"});
        let pods = [
            ("frugal", pod(-10, asks.clone()), GI),
            ("important", pod(10, json!({})), 9 * GI),
            ("a little beyond", pod(0, asks.clone()), 2 * GI),
            ("far beyond", pod(0, asks), 5 * GI),
            ("critical", pod(CRITICAL, json!({})), 99 * GI),
        ];
        let mut candidates: Vec<Candidate<'_>> = pods
            .iter()
            .map(|(uid, pod, used)| Candidate {
                uid,
                pod,
                used: *used,
                containers: vec![("c".to_owned(), *used)],
            })
            .collect();
        for resource in [Resource::Disk, Resource::Memory] {
            let shortage = Shortage {
                resource,
                threshold: GI,
                available: GI / 2,
            };
            let mut order = Vec::new();
            let mut left = candidates.clone();
            while let Some((uid, _)) = victim(&shortage, &left) {
                order.push(uid);
                left.retain(|candidate| candidate.uid != uid);
            }
            assert_eq!(
                order,
                ["far beyond", "a little beyond", "important", "frugal"]
            );
        }
        let shortage = Shortage {
            resource: Resource::Disk,
            threshold: GI,
            available: GI / 2,
        };
        let (_, message) = victim(&shortage, &candidates).expect("one goes");
        assert_eq!(
            message,
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 512Mi. \
             Container c was using 5Gi, request is 1Gi, has larger consumption of ephemeral-storage. "
        );
        candidates.retain(|candidate| candidate.uid == "critical");
        assert_eq!(victim(&shortage, &candidates), None);
    }
}

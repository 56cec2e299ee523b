//! What Pods ask for and nodes have.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};

type Quantities = BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>;

/// What a Pod that asks for nothing is scored with, so that such Pods spread too (upstream's
/// `DefaultMilliCPURequest` and `DefaultMemoryRequest`).
const ASSUMED_MILLI_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource name: CPU in thousandths, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts(BTreeMap<String, i64>);

/// No node has as much of anything: 2^46 bytes are 64 TiB. A Pod may ask for more than can be added
/// up, and what is added for a Pod has to be taken away again to the last bit; with this bound the
/// sums of 100,000 Pods stay in range.
const MOST: i64 = 1 << 46;

impl Amounts {
    /// Reads a resource list; what cannot be read counts as nothing (validation refuses it).
    pub(crate) fn of(list: &Quantities) -> Self {
        let read = |(name, quantity): (
            &String,
            &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
        )| {
            let quantity: Quantity = quantity.0.parse().ok()?;
            let amount = if name == "cpu" {
                quantity.milli_value()
            } else {
                quantity.value()
            };
            Some((name.clone(), amount.clamp(0, MOST)))
        };
        Self(list.iter().filter_map(read).collect())
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    pub(crate) fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let rest = self.0.entry(name.clone()).or_default();
            *rest = rest.saturating_sub(*amount);
        }
    }

    fn at_most(mut self, most: i64) -> Self {
        self.0
            .values_mut()
            .for_each(|amount| *amount = (*amount).min(most));
        self
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }
}

/// What a Pod counts for on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// What must be free.
    pub(crate) amounts: Amounts,
    /// CPU and memory as scored.
    pub(crate) scored: (i64, i64),
}

impl Request {
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(spec) = pod.spec.as_ref() else {
            return Self::default();
        };
        let granted = Granted::of(pod);
        let amounts = granted.total(spec, |container| granted.requests(container));
        let scored = granted.total(spec, |container| {
            let mut amounts = granted.requests(container);
            amounts
                .0
                .entry("cpu".to_owned())
                .or_insert(ASSUMED_MILLI_CPU);
            amounts
                .0
                .entry("memory".to_owned())
                .or_insert(ASSUMED_MEMORY);
            amounts
        });
        Self {
            scored: (scored.get("cpu").min(MOST), scored.get("memory").min(MOST)),
            amounts: amounts.at_most(MOST),
        }
    }
}

/// What a Pod's node says that the Pod has, while it may ask for something else: what is asked for and what it has both
/// have to be free, unless the node cannot give what is asked for (upstream's `UseStatusResources`).
struct Granted<'a> {
    status: Option<&'a PodStatus>,
    /// It asks for what it will never have there.
    is_infeasible: bool,
}

impl<'a> Granted<'a> {
    fn of(pod: &'a Pod) -> Self {
        let status = pod.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let pending = conditions.find(|condition| condition.type_ == "PodResizePending");
        Self {
            status,
            is_infeasible: pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible")),
        }
    }

    fn requests(&self, container: &Container) -> Amounts {
        let asked = container.resources.as_ref().map(of_requirements);
        let asked = asked.unwrap_or_default();
        let known = self.status.and_then(|status| {
            let init = status.init_container_statuses.iter().flatten();
            let mut all = init.chain(status.container_statuses.iter().flatten());
            all.find(|known| known.name == container.name)
        });
        match known.and_then(|known| Some((known.resources.as_ref()?, known))) {
            Some((has, known)) => self.both(asked, has, known.allocated_resources.as_ref()),
            None => asked,
        }
    }

    /// What is said for the Pod as a whole.
    fn whole(&self, requirements: &ResourceRequirements) -> Amounts {
        let asked = of_requirements(requirements);
        let known = self
            .status
            .and_then(|status| Some((status.resources.as_ref()?, status)));
        let Some((has, status)) = known else {
            return asked;
        };
        let names: Vec<String> = asked.0.keys().cloned().collect();
        let mut all = self.both(asked, has, status.allocated_resources.as_ref());
        // Of the rest its containers are counted.
        all.0.retain(|name, _| names.contains(name));
        all
    }

    fn both(
        &self,
        asked: Amounts,
        has: &ResourceRequirements,
        promised: Option<&Quantities>,
    ) -> Amounts {
        let mut all = match self.is_infeasible {
            true => Amounts::default(),
            false => asked,
        };
        all.raise_to(&of_requirements(has));
        if let Some(promised) = promised {
            all.raise_to(&Amounts::of(promised));
        }
        all
    }

    /// Containers run together; init containers one after the other, beside the sidecars started
    /// before them. What is needed is the larger of the two.
    fn total(&self, spec: &PodSpec, amounts: impl Fn(&Container) -> Amounts) -> Amounts {
        let mut together = Amounts::default();
        spec.containers
            .iter()
            .for_each(|container| together.add(&amounts(container)));
        let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&amounts(container));
                together.add(&amounts(container));
                starting.raise_to(&sidecars);
            } else {
                let mut now = amounts(container);
                now.add(&sidecars);
                starting.raise_to(&now);
            }
        }
        together.raise_to(&starting);
        if let Some(requirements) = spec.resources.as_ref() {
            // What is said for the Pod as a whole counts instead of the sum of its parts.
            together.0.extend(self.whole(requirements).0);
        }
        if let Some(overhead) = spec.overhead.as_ref() {
            together.add(&Amounts::of(overhead));
        }
        together
    }
}

fn of_requirements(requirements: &ResourceRequirements) -> Amounts {
    requirements
        .requests
        .as_ref()
        .map(Amounts::of)
        .unwrap_or_default()
}

/// A port of the host that a Pod wants to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    pub(crate) fn all_of(pod: &Pod) -> Vec<Self> {
        let Some(spec) = pod.spec.as_ref() else {
            return Vec::new();
        };
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars =
            sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let ports = spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|container| container.ports.iter().flatten());
        ports
            .filter_map(|port| {
                let number = port.host_port.filter(|number| *number > 0)?;
                Some(Self {
                    ip: port
                        .host_ip
                        .clone()
                        .filter(|ip| !ip.is_empty())
                        .unwrap_or_else(|| "0.0.0.0".to_owned()),
                    protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    port: number,
                })
            })
            .collect()
    }

    /// Whether both cannot be had on one node; the wildcard address meets every other.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let wild = |port: &Self| matches!(port.ip.as_str(), "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || wild(self) || wild(other))
    }
}

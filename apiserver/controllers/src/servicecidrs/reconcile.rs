//! Whether a range offers addresses, and whether it may go.
//!
//! Upstream: `pkg/controller/servicecidrs`. A finalizer keeps a range that is told to go until every
//! claimed address in it belongs to another range too.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::is_terminating;
use coracle_clock::Timestamp;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What keeps a range from going while it is in use.
pub(crate) const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long allocators may take to notice that a range goes.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

const READY: &str = "Ready";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) range: Arc<ServiceCIDR>,
    /// Every range, this one among them.
    pub(crate) ranges: Vec<Arc<ServiceCIDR>>,
    pub(crate) addresses: Vec<Arc<IPAddress>>,
    pub(crate) now: Timestamp,
}

/// One write, or a reason to wait.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The object's finalizers become these.
    SetFinalizers(Vec<String>),
    /// The condition takes the place of the one of its type.
    SetCondition(Box<Condition>),
    /// Allocators may not know yet that the range goes: look again.
    Wait(Duration),
}

/// Guards a range, says that it is ready, and lets it go once nobody needs it.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let range = world.range.as_ref();
    let finalizers = range.metadata.finalizers.clone().unwrap_or_default();
    let guarded = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let Some(told) = &range.metadata.deletion_timestamp else {
        let mut changes = Vec::new();
        if !guarded {
            let all = finalizers.into_iter().chain([FINALIZER.to_owned()]);
            changes.push(Change::SetFinalizers(all.collect()));
        }
        let ready = condition(world, "True", "", "Kubernetes Service CIDR is ready");
        changes.extend(ready);
        return changes;
    };
    if !guarded {
        return Vec::new();
    }
    if !may_go(world) {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                       ServiceCIDR";
        return Vec::from_iter(condition(world, "False", "Terminating", message));
    }
    let gone = Duration::try_from(world.now.duration_since(told.0)).unwrap_or_default();
    if gone < GRACE {
        return vec![Change::Wait(GRACE - gone)];
    }
    let left = finalizers.into_iter().filter(|name| name != FINALIZER);
    vec![Change::SetFinalizers(left.collect())]
}

/// The condition, unless it says so already.
fn condition(world: &World, status: &str, reason: &str, message: &str) -> Option<Change> {
    let had = ready(&world.range);
    if had.is_some_and(|had| {
        (
            had.status.as_str(),
            had.reason.as_str(),
            had.message.as_str(),
        ) == (status, reason, message)
    }) {
        return None;
    }
    let since = had.filter(|had| had.status == status);
    let now = Timestamp::from_second(world.now.as_second()).unwrap_or(world.now);
    Some(Change::SetCondition(Box::new(Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.map_or(Time(now), |since| since.last_transition_time.clone()),
        observed_generation: None,
    })))
}

fn ready(range: &ServiceCIDR) -> Option<&Condition> {
    let conditions = range.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == READY)
}

/// Whether every claimed address would still belong to a range.
fn may_go(world: &World) -> bool {
    let range = world.range.as_ref();
    let others: Vec<&ServiceCIDR> = world
        .ranges
        .iter()
        .map(Arc::as_ref)
        .filter(|other| other.metadata.name != range.metadata.name)
        .collect();
    let inside_another = |net: &IpNet| {
        others.iter().any(|other| {
            let holds = |wider: &IpNet| wider.contains(net);
            nets(other).any(|wider| holds(&wider) && outlives(other, &wider, range, net))
        })
    };
    let orphaned = |address: IpAddr| {
        let own = nets(range).find(|net| net.contains(&address));
        own.is_some_and(|own| {
            !others.iter().any(|other| {
                nets(other).any(|net| net.contains(&address) && outlives(other, &net, range, &own))
            })
        })
    };
    nets(range).all(|net| inside_another(&net)) || !claimed(&world.addresses).any(orphaned)
}

/// Whether `other` is there when `range` is gone. Of two that are both told to go the wider one stays longer, so that
/// they do not rely on each other; upstream does not look.
fn outlives(other: &ServiceCIDR, wider: &IpNet, range: &ServiceCIDR, net: &IpNet) -> bool {
    let rank = |object: &ServiceCIDR, net: &IpNet| (net.prefix_len(), object.metadata.name.clone());
    !is_terminating(other) || rank(other, wider) < rank(range, net)
}

/// The addresses that the API server's allocator claimed.
fn claimed(addresses: &[Arc<IPAddress>]) -> impl Iterator<Item = IpAddr> + '_ {
    let ours = addresses.iter().filter(|address| is_claimed(address));
    ours.filter_map(|address| address.metadata.name.as_deref()?.parse().ok())
}

/// Whether the API server's allocator claimed it.
pub(crate) fn is_claimed(address: &IPAddress) -> bool {
    let labels = address.metadata.labels.as_ref();
    labels.is_some_and(|labels| {
        labels
            .get(MANAGED_BY.0)
            .is_some_and(|by| by == MANAGED_BY.1)
    })
}

/// Whether an address lies in the range.
pub(crate) fn holds(range: &ServiceCIDR, address: IpAddr) -> bool {
    nets(range).any(|net| net.contains(&address))
}

/// Whether two ranges have addresses in common.
pub(crate) fn overlap(one: &ServiceCIDR, other: &ServiceCIDR) -> bool {
    nets(one).any(|net| nets(other).any(|wider| wider.contains(&net) || net.contains(&wider)))
}

fn nets(range: &ServiceCIDR) -> impl Iterator<Item = IpNet> + '_ {
    let cidrs = range
        .spec
        .iter()
        .flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| cidr.parse().ok())
}

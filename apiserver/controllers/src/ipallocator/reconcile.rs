//! Whether a Service and the claims of its addresses agree.
//!
//! Upstream: `pkg/registry/core/service/ipallocator/controller/repairip.go`.
//!
//! ```text
//! Service a [10.96.0.7] ◀──▶ IPAddress 10.96.0.7 [services default/a]     as it should be
//! Service a [10.96.0.7] ───▶ nothing                                      claimed anew
//! Service a [10.96.0.7] ───▶ IPAddress 10.96.0.7 [somebody else]          claimed anew, or told: both have it
//!              nothing  ◀─── IPAddress 10.96.0.7 [services default/a]     given back after a grace
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{ObjectKey, is_terminating};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::servicecidrs::reconcile::{holds, is_claimed};

/// How long a claim may be without its Service: the one that made it may be about to be written, or to give it back.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// All that a round about a Service may know.
#[derive(Clone, Debug)]
pub(crate) struct ServiceWorld {
    pub(crate) service: Arc<Service>,
    /// The claims of its addresses, by name.
    pub(crate) claims: BTreeMap<String, Arc<IPAddress>>,
    /// The Services that those claims name.
    pub(crate) holders: Vec<Arc<Service>>,
    pub(crate) ranges: Vec<Arc<ServiceCIDR>>,
}

/// All that a round about a claim may know.
#[derive(Clone, Debug)]
pub(crate) struct ClaimWorld {
    pub(crate) claim: Arc<IPAddress>,
    /// The Service that the claim names.
    pub(crate) service: Option<Arc<Service>>,
    /// For how long this process has seen that nobody needs it.
    pub(crate) idle_for: Duration,
}

/// One write, or what to tell alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Repair {
    /// Nobody claims the address that the Service has.
    Claim(Box<IPAddress>),
    /// The claim names somebody else, or the wrong family.
    Replace {
        old: Arc<IPAddress>,
        new: Box<IPAddress>,
    },
    /// The claim is nobody's.
    GiveBack,
    /// Nothing can be done without the user.
    Tell,
}

/// A repair and what is told about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) repair: Repair,
    pub(crate) reason: &'static str,
    /// Empty: nothing is told.
    pub(crate) message: String,
}

/// Looks at each address of a Service.
pub(crate) fn reconcile_service(world: &ServiceWorld) -> Vec<Finding> {
    let service = world.service.as_ref();
    if is_terminating(service) {
        return Vec::new();
    }
    let found = addresses(service).map(|text| look_at(world, service, text));
    found.flatten().collect()
}

fn look_at(world: &ServiceWorld, service: &Service, text: &str) -> Option<Finding> {
    let key = ObjectKey::of(service);
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!("Cluster IP {text} is not a valid IP; please recreate Service");
        return tell("ClusterIPNotValid", message);
    };
    let family = family(address);
    if !world.ranges.iter().any(|range| holds(range, address)) {
        let message = format!(
            "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
        );
        return tell("ClusterIPOutOfRange", message);
    }
    let name = address.to_string();
    let Some(claim) = world.claims.get(&name) else {
        return Some(Finding {
            repair: Repair::Claim(Box::new(claim_of(&name, family, &key))),
            reason: "ClusterIPNotAllocated",
            message: format!("Cluster IP [{family}]: {address} is not allocated; repairing"),
        });
    };
    let replace = |message: String| {
        Some(Finding {
            repair: Repair::Replace {
                old: Arc::clone(claim),
                new: Box::new(claim_of(&name, family, &key)),
            },
            reason: "ClusterIPNotAllocated",
            message,
        })
    };
    let wrong = format!(
        "the ClusterIP [{family}]: {address} for Service {key} has a wrong reference; repairing"
    );
    match parent(claim) {
        None => replace(wrong),
        Some(parent) if parent == key => match has_labels(claim, family) {
            true => None,
            false => replace(String::new()),
        },
        Some(parent) => {
            let holder = world
                .holders
                .iter()
                .find(|held| ObjectKey::of(held.as_ref()) == parent);
            match holder.is_some_and(|holder| addresses(holder).any(|held| held == name)) {
                true => tell(
                    "ClusterIPAlreadyAllocated",
                    format!(
                        "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
                    ),
                ),
                false => replace(wrong),
            }
        }
    }
}

fn tell(reason: &'static str, message: String) -> Option<Finding> {
    Some(Finding {
        repair: Repair::Tell,
        reason,
        message,
    })
}

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is in use, or not ours to judge.
    Keep,
    /// Nobody needs it; it goes after this time, unless somebody comes.
    Wait(Duration),
    /// It goes.
    Drop(Finding),
}

/// Looks at a claim that the allocator made.
pub(crate) fn reconcile_claim(world: &ClaimWorld) -> Verdict {
    let claim = world.claim.as_ref();
    if !is_claimed(claim) || is_terminating(claim) {
        return Verdict::Keep;
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let drop = |reason: &'static str, message: String| {
        Verdict::Drop(Finding {
            repair: Repair::GiveBack,
            reason,
            message,
        })
    };
    let Some(key) = parent(claim) else {
        let message = format!(
            "IPAddress {name} appears to have been modified, not referencing a Service {}: cleaning up",
            reference_text(claim)
        );
        return drop("IPAddressNotAllocated", message);
    };
    let used = world
        .service
        .as_deref()
        .map(|service| addresses(service).any(|held| held == name));
    if used == Some(true) {
        return Verdict::Keep;
    }
    if world.idle_for < GRACE {
        return Verdict::Wait(GRACE - world.idle_for);
    }
    match used {
        None => drop(
            "IPAddressNotAllocated",
            format!("IPAddress: {name} for Service {key} appears to have leaked: cleaning up"),
        ),
        Some(_) => drop(
            "IPAddressWrongReference",
            format!("IPAddress: {name} for Service {key} has a wrong reference; cleaning up"),
        ),
    }
}

/// The addresses that a Service has of its own.
pub(crate) fn addresses(service: &Service) -> impl Iterator<Item = &str> {
    let spec = service.spec.as_ref();
    let spec = spec.filter(|spec| spec.type_.as_deref() != Some("ExternalName"));
    let listed = spec.and_then(|spec| spec.cluster_ips.as_deref());
    let listed = listed.unwrap_or_default().iter().map(String::as_str);
    listed.filter(|address| !address.is_empty() && *address != "None")
}

/// The Service that a claim names; `None` if it names something else.
pub(crate) fn parent(claim: &IPAddress) -> Option<ObjectKey> {
    let parent = &claim.spec.parent_ref;
    let of_service =
        parent.group.as_deref().unwrap_or_default().is_empty() && parent.resource == "services";
    of_service.then(|| {
        let namespace = parent.namespace.clone().unwrap_or_default();
        ObjectKey::new(namespace, parent.name.clone())
    })
}

/// A reference as Go prints it.
fn reference_text(claim: &IPAddress) -> String {
    let parent = &claim.spec.parent_ref;
    format!(
        "&ParentReference{{Group:{},Resource:{},Namespace:{},Name:{},}}",
        parent.group.as_deref().unwrap_or_default(),
        parent.resource,
        parent.namespace.as_deref().unwrap_or_default(),
        parent.name,
    )
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn has_labels(claim: &IPAddress, family: &str) -> bool {
    let labels = claim.metadata.labels.as_ref();
    is_claimed(claim)
        && labels.is_some_and(|labels| labels.get(FAMILY).is_some_and(|f| f == family))
}

fn claim_of(name: &str, family: &str, service: &ObjectKey) -> IPAddress {
    let labels = [(FAMILY, family), MANAGED_BY];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    IPAddress {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from(labels)),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: None,
                resource: "services".to_owned(),
                namespace: Some(service.namespace.clone()),
                name: service.name.clone(),
            },
        },
    }
}

//! ClusterIPs: an address is claimed by creating its IPAddress object, and free when there is none.
//!
//! ```text
//! claim the IPAddress ──▶ write the Service ──▶ kept
//!         │ AlreadyExists: taken      │ refused ──▶ delete the IPAddress
//! ```
//!
//! So two writers never get one address, whatever they remember, and everybody can see who holds what. A crash between
//! the two writes leaves a claim without its Service: the next start takes it back, or the
//! controller `ipallocator` while the server runs on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_api::apply::FieldManager;
use coracle_api::validation::address::parse_cidr;
use coracle_api::{FieldErrors, Object, Resource};
use serde_json::json;

use super::families::Family;
use super::range::AddressRange;
use crate::metadata;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::storage::WriteError;

/// Who made a claim, in its labels.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// The family of the address, in its labels.
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// The ServiceCIDR of the cluster's own range.
const DEFAULT_RANGE: &str = "kubernetes";

/// Why an address is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("provided IP is already allocated")]
    Taken,
    #[error("the provided network does not match the current range")]
    OutOfRange,
    #[error("range is full")]
    Full,
}

/// Claims the address that is asked for, or any, for a Service. A dry run claims nothing and does not look who has it.
pub(super) async fn claim(
    server: &Server,
    own: &AddressRange,
    asked: Option<IpAddr>,
    service: &Object,
    dry_run: bool,
) -> Result<Result<IpAddr, Refusal>> {
    let ranges = ranges(server, own);
    if let Some(address) = asked {
        if !ranges.iter().any(|range| range.contains(address)) {
            return Ok(Err(Refusal::OutOfRange));
        }
        let free = dry_run || create(server, address, service).await?;
        return Ok(if free {
            Ok(address)
        } else {
            Err(Refusal::Taken)
        });
    }
    if dry_run {
        // Upstream does not look for a free one either, and shows the range itself.
        return Ok(Ok(own.at(0)));
    }
    let resource = resource(server)?;
    let cache = Arc::clone(server.storage.cache(resource)?);
    for range in &ranges {
        for address in range.candidates(server.clock()) {
            let held = cache.get(&address.to_string()).is_some();
            if !held && create(server, address, service).await? {
                return Ok(Ok(address));
            }
        }
    }
    Ok(Err(Refusal::Full))
}

/// Gives back the address that a Service held.
pub(super) async fn release(server: &Server, address: IpAddr, service: &Object) {
    let (name, Ok(resource)) = (address.to_string(), resource(server)) else {
        return;
    };
    while let Ok(Some(entry)) = server.storage.get(resource, &name).await {
        if !is_claim_of(&entry.object(), service) {
            return;
        }
        match server.storage.delete(resource, &name, entry.revision).await {
            Err(WriteError::Conflict) => {}
            Err(WriteError::Other(error)) => {
                return tracing::warn!(%error, name, "failed to give back an address");
            }
            Ok(_) => return,
        }
    }
}

/// Makes claims and Services agree: a Service without its claim gets one, a claim without its Service goes.
///
/// Where they agree already, as after every ordinary stop, nothing is written.
pub(super) async fn repair(server: &Server, services: &[Object]) {
    let Ok(resource) = resource(server) else {
        return;
    };
    let Ok(cache) = server.storage.cache(resource) else {
        return;
    };
    let mut holders: HashMap<String, &Object> = HashMap::new();
    let held = services
        .iter()
        .flat_map(|service| addresses_of(service).map(move |address| (service, address)));
    for (service, address) in held {
        let held = cache.get(&address.to_string());
        let disputed = match held {
            Some(claim) => !is_claim_of(&claim.object(), service),
            None => match create(server, address, service).await {
                Ok(created) => !created,
                Err(error) => {
                    tracing::warn!(%error, %address, "failed to claim an address");
                    continue;
                }
            },
        };
        if disputed {
            let name = format!("{}/{}", service.namespace(), service.name());
            tracing::warn!(%address, service = name, "two Services hold one address");
        } else {
            holders.insert(address.to_string(), service);
        }
    }
    for entry in cache.list("", 0).entries {
        let claim = entry.object();
        let ours = claim.at("metadata.labels").entry(MANAGED_BY.0).str() == MANAGED_BY.1;
        let in_use = holders.get(claim.name());
        if ours && !in_use.is_some_and(|service| is_claim_of(&claim, service)) {
            // Somebody who changed it meanwhile knows better; the next start looks again.
            let _ = server
                .storage
                .delete(resource, &entry.key, entry.revision)
                .await;
        }
    }
}

/// The addresses that a Service has of its own: none, one, or one of each family.
pub(super) fn addresses_of(service: &Object) -> impl Iterator<Item = IpAddr> {
    let listed = service.at("spec.clusterIPs");
    let mut found: Vec<IpAddr> = listed
        .items()
        .filter_map(|ip| ip.str().parse().ok())
        .collect();
    if found.is_empty() {
        found.extend(service.at("spec.clusterIP").str().parse::<IpAddr>());
    }
    found.into_iter()
}

/// The ranges that offer addresses of the family of `own`: those of ServiceCIDR objects that are ready and stay. Until the object `kubernetes`
/// is made, the cluster's own range counts without.
fn ranges(server: &Server, own: &AddressRange) -> Vec<AddressRange> {
    let objects = server
        .registry
        .by_plural("networking.k8s.io", "v1", "servicecidrs")
        .and_then(|resource| server.storage.cache(resource).ok())
        .map(|cache| cache.list("", 0).entries)
        .unwrap_or_default();
    let mut ranges = Vec::new();
    if !objects.iter().any(|entry| entry.name() == DEFAULT_RANGE) {
        ranges.push(own.clone());
    }
    for range in objects.iter().map(|entry| entry.object()).filter(is_ready) {
        for cidr in range.at("spec.cidrs").items() {
            if let Some((base, bits)) = parse_cidr(cidr.str())
                && let Some(range) = AddressRange::of(base, bits)
                && range.family() == own.family()
                && !ranges.contains(&range)
            {
                ranges.push(range);
            }
        }
    }
    // The cluster's own is drawn from first.
    ranges.sort_by_key(|range| range != own);
    ranges
}

/// Whether a range offers addresses; one that nobody has judged does not.
fn is_ready(range: &Object) -> bool {
    let conditions = range.at("status.conditions");
    let ready = conditions.items().any(|condition| {
        condition.key("type").str() == "Ready" && condition.key("status").str() == "True"
    });
    ready && !range.is_terminating()
}

fn resource(server: &Server) -> Result<&'static Resource> {
    server
        .registry
        .by_plural("networking.k8s.io", "v1", "ipaddresses")
        .ok_or_else(|| ApiError::internal("addresses are not served"))
}

/// What is wrong with a claim of any address by this Service, in upstream's words: it would not say whose it is.
pub(super) fn objection(server: &Server, own: &AddressRange, service: &Object) -> Option<ApiError> {
    let resource = resource(server).ok()?;
    let asked = addresses_of(service).next();
    let address = asked.or_else(|| own.candidates(server.clock()).next())?;
    let mut errors = FieldErrors::default();
    let claim = claim_of(resource, address, service);
    resource.strategy.validate(&claim, &mut errors);
    (!errors.is_empty()).then(|| ApiError::invalid(resource, claim.name(), &errors))
}

fn claim_of(resource: &Resource, address: IpAddr, service: &Object) -> Object {
    let claim = json!({
        "kind": resource.kind, "apiVersion": resource.api_version(),
        "metadata": {"name": address.to_string(), "labels": {FAMILY: Family::of(address).name(), MANAGED_BY.0: MANAGED_BY.1}},
        "spec": {"parentRef": {
            "resource": "services", "namespace": service.namespace(), "name": service.name(),
        }},
    });
    Object::from_value(claim).unwrap_or_default()
}

/// Creates the claim; `false` when there is one already.
async fn create(server: &Server, address: IpAddr, service: &Object) -> Result<bool> {
    let resource = resource(server)?;
    let mut claim = claim_of(resource, address, service);
    let now = metadata::seconds(server.clock().now());
    FieldManager::new(resource, "").update(None, &mut claim, "coracle", &now);
    metadata::prepare_create(&mut claim, resource, "", server.clock());
    let written = server
        .storage
        .create(resource, &address.to_string(), &Arc::new(claim), None)
        .await;
    match written {
        Ok(_) => Ok(true),
        Err(WriteError::Conflict) => Ok(false),
        Err(WriteError::Other(error)) => Err(error),
    }
}

fn is_claim_of(claim: &Object, service: &Object) -> bool {
    let parent = claim.at("spec.parentRef");
    parent.key("group").is_empty()
        && parent.key("resource").str() == "services"
        && parent.key("namespace").str() == service.namespace()
        && parent.key("name").str() == service.name()
}

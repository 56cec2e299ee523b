//! Names answered in process, as the Kubernetes DNS specification 1.1 says (A and AAAA records).
//!
//! | name (below the cluster domain)     | addresses                                     |
//! |-------------------------------------|-----------------------------------------------|
//! | `web.default.svc`                   | the cluster addresses, or all ready endpoints |
//! |                                     | of a headless Service                         |
//! | `db-0.db.default.svc`               | the ready endpoints with that hostname        |
//! | `10-240-0-5.db.default.svc`         | that one, if it is a ready endpoint           |
//! | `10-240-0-5.default.pod`            | the address in the name, whoever has it       |
//!
//! An ExternalName Service leads to another name. All other names below the cluster domain do not
//! exist; names elsewhere are the host's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_client::{Lister, ObjectKey};
use coracle_network::{NamespaceView, ResolveError, Resolver};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::index::{Front, Index, Tables};
use crate::upstream::Upstream;

/// How many ExternalNames may lead to one another.
const ALIASES: usize = 8;
/// How long a lookup waits for the caches' first fill before it says "try again".
const FIRST_FILL: Duration = Duration::from_secs(5);

/// What the cluster knows of a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its addresses; at least one.
    Addresses(Vec<IpAddr>),
    /// It stands for another name.
    Alias(String),
    /// It lies below the cluster domain, and has no address.
    Unknown,
    /// It does not lie below the cluster domain.
    Elsewhere,
}

/// Looks `name` (lower case, absolute, without the last dot) up.
pub(crate) fn answer(tables: &Tables, domain: &str, name: &str) -> Answer {
    let Some(below) = name.strip_suffix(domain) else {
        return Answer::Elsewhere;
    };
    if below.is_empty() {
        return Answer::Unknown;
    }
    let Some(below) = below.strip_suffix('.') else {
        return Answer::Elsewhere; // such as notcluster.local
    };
    let labels: Vec<&str> = below.split('.').collect();
    match labels[..] {
        [service, namespace, "svc"] => of_service(tables, service, namespace),
        [endpoint, service, namespace, "svc"] => {
            some(of_endpoint(tables, endpoint, service, namespace))
        }
        [address, _namespace, "pod"] => some(dashed(address).into_iter().collect()),
        _ => Answer::Unknown,
    }
}

fn some(addresses: Vec<IpAddr>) -> Answer {
    if addresses.is_empty() {
        Answer::Unknown
    } else {
        Answer::Addresses(addresses)
    }
}

fn of_service(tables: &Tables, service: &str, namespace: &str) -> Answer {
    let Some(indexed) = tables.service(&ObjectKey::new(namespace, service)) else {
        return Answer::Unknown;
    };
    match &indexed.entry.front {
        Front::ClusterIps(addresses) => some(addresses.clone()),
        Front::Headless => {
            // Clients take the first address, so that the endpoints take turns at being first.
            let mut addresses = indexed.entry.addresses.clone();
            if !addresses.is_empty() {
                let turn = indexed.next_turn() % addresses.len();
                addresses.rotate_left(turn);
            }
            some(addresses)
        }
        Front::ExternalName(target) => Answer::Alias(target.clone()),
    }
}

fn of_endpoint(tables: &Tables, endpoint: &str, service: &str, namespace: &str) -> Vec<IpAddr> {
    let Some(indexed) = tables.service(&ObjectKey::new(namespace, service)) else {
        return Vec::new();
    };
    let entry = &indexed.entry;
    if let Some(addresses) = entry.hostnames.get(endpoint) {
        return addresses.clone();
    }
    dashed(endpoint)
        .filter(|address| entry.addresses.binary_search(address).is_ok())
        .into_iter()
        .collect()
}

/// An address with dashes for dots (or colons).
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6);
    v4.or_else(|_| v6()).ok()
}

/// Answers guests' lookups from the index, and the others through the host's resolver.
pub(crate) struct Names<U> {
    index: Arc<Index>,
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    domain: String,
    upstream: U,
}

impl<U: Upstream> Names<U> {
    /// Answers names below `domain` from `index`, which the two caches fill.
    pub(crate) fn new(
        index: Arc<Index>,
        services: Lister<Service>,
        slices: Lister<EndpointSlice>,
        domain: &str,
        upstream: U,
    ) -> Self {
        Self {
            index,
            services,
            slices,
            domain: domain.trim_matches('.').to_ascii_lowercase(),
            upstream,
        }
    }

    /// Before the first fill nobody can say that a name does not exist.
    async fn filled(&self) -> bool {
        let both = async {
            self.services.synced().await;
            self.slices.synced().await;
        };
        tokio::time::timeout(FIRST_FILL, both).await.is_ok()
    }
}

#[async_trait]
impl<U: Upstream> Resolver for Names<U> {
    async fn lookup(
        &self,
        _from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let asked = name;
        let mut name = name.trim_end_matches('.').to_ascii_lowercase();
        for _ in 0..=ALIASES {
            match self.index.ask(|tables| answer(tables, &self.domain, &name)) {
                Answer::Addresses(addresses) => return Ok(addresses),
                Answer::Alias(target) => name = target,
                Answer::Elsewhere => return self.upstream.lookup(&name).await,
                Answer::Unknown if self.services.is_synced() && self.slices.is_synced() => {
                    return Err(ResolveError::NotFound(asked.to_owned()));
                }
                // Asked once more; an alias less.
                Answer::Unknown if self.filled().await => {}
                Answer::Unknown => return Err(ResolveError::Again(asked.to_owned())),
            }
        }
        tracing::debug!(asked, "too many external names lead to one another");
        Err(ResolveError::Failed(asked.to_owned()))
    }
}

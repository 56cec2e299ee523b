//! Names, for guests that ask in process and for the DNS server: both from one [zone].
//!
//! ```text
//!   guest's lookup ──▶ search suffixes (the namespace) ──▶ Names ── the pod's servers are ──┐
//!                                                                                             │
//!        the cluster's, or the host's own ◀───────────────────────────────────────────────────┤
//!        │                                                                                    │
//!        ▼                                                            any others ◀────────────┘
//!   coracle_dns::Server ──▶ zone, cache, other servers                    │
//!        ▲                                                                ▼
//!   DNS messages (the pod network, the host)                    asked over the pod's own sockets
//! ```

mod own_servers;
mod pod_network;
mod zone;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_client::Lister;
use coracle_clock::Clock;
use coracle_dns::{Kind, Lookup, LookupError, Server, Zone};
use coracle_network::{DnsConfig, NamespaceView, ResolveError, Resolver};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::index::Index;
use crate::upstream::Upstream;
pub(crate) use pod_network::attach;
pub(crate) use zone::ZoneConfig;

/// Seconds for which an answer may be kept: the default of CoreDNS's `kubernetes` plugin.
const TTL: u32 = 5;
/// How long a lookup waits for the caches' first fill before it says "try again".
const FIRST_FILL: Duration = Duration::from_secs(5);

/// The caches that fill the index.
#[derive(Clone, Default)]
pub(crate) struct Caches {
    pub(crate) services: Lister<Service>,
    pub(crate) slices: Lister<EndpointSlice>,
    pub(crate) namespaces: Lister<Namespace>,
}

impl Caches {
    fn are_filled(&self) -> bool {
        self.services.is_synced() && self.slices.is_synced() && self.namespaces.is_synced()
    }

    async fn filled(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.namespaces.synced().await;
    }
}

/// The cluster's names, out of the index.
pub(crate) struct ClusterZone {
    pub(crate) index: Arc<Index>,
    pub(crate) caches: Caches,
    pub(crate) config: ZoneConfig,
}

#[async_trait]
impl Zone for ClusterZone {
    fn lookup(&self, name: &str, kind: Kind) -> Lookup {
        let found = self
            .index
            .ask(|tables| zone::lookup(tables, &self.config, name, kind));
        // Before the first fill nobody can say that a name does not exist.
        match found {
            Lookup::NoName if !self.caches.are_filled() => Lookup::NotYet,
            found => found,
        }
    }

    fn apex(&self) -> &str {
        &self.config.domain
    }

    fn ttl(&self) -> u32 {
        TTL
    }

    async fn filled(&self) -> bool {
        tokio::time::timeout(FIRST_FILL, self.caches.filled())
            .await
            .is_ok()
    }
}

/// Answers guests' lookups.
pub(crate) struct Names<U> {
    server: Arc<Server>,
    /// The addresses of the DNS Service.
    cluster_dns: Vec<IpAddr>,
    clock: Clock,
    /// Who is asked when no name server is known: the host's resolver.
    system: U,
}

impl<U: Upstream> Names<U> {
    /// Answers as `server`, which pods know by the addresses `cluster_dns`.
    pub(crate) fn new(
        server: Arc<Server>,
        cluster_dns: Vec<IpAddr>,
        clock: Clock,
        system: U,
    ) -> Self {
        Self {
            server,
            cluster_dns,
            clock,
            system,
        }
    }

    /// Whether a pod's servers lead to us, or it has none.
    fn are_ours(&self, servers: &[IpAddr]) -> bool {
        servers.is_empty() || servers.iter().any(|ip| self.cluster_dns.contains(ip))
    }

    /// Whether the servers of a pod are others than we and those that we ask.
    fn are_others(&self, servers: &[IpAddr]) -> bool {
        if self.are_ours(servers) {
            return false;
        }
        // `dnsPolicy: Default`. The host's servers may be at addresses that pods do not reach, such
        // as its loopback, so the node asks for them.
        let hosts = self.server.upstream_servers();
        !servers
            .iter()
            .all(|ip| hosts.iter().any(|host| host.ip() == *ip))
    }
}

#[async_trait]
impl<U: Upstream> Resolver for Names<U> {
    async fn lookup(
        &self,
        from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        let absolute = name.trim_end_matches('.').to_ascii_lowercase();
        let asked = || name.to_owned();
        if self.are_others(&from.dns.servers) {
            return own_servers::lookup(from, &absolute, &self.clock).await;
        }
        // Names of the cluster are none for pods whose manifest leads past it.
        let found = match self.are_ours(&from.dns.servers) {
            true => self.server.addresses(&absolute).await,
            false => self.server.addresses_elsewhere(&absolute).await,
        };
        match found {
            Ok(addresses) => Ok(addresses),
            Err(LookupError::NotFound) => Err(ResolveError::NotFound(asked())),
            Err(LookupError::Again) => Err(ResolveError::Again(asked())),
            Err(LookupError::Failed) => Err(ResolveError::Failed(asked())),
            Err(LookupError::NoServers(name)) => self.system.lookup(&name).await,
        }
    }

    fn asks_own_servers(&self, dns: &DnsConfig) -> bool {
        self.are_others(&dns.servers)
    }
}

#[cfg(test)]
mod tests;

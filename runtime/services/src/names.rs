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

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_network::DnsConfig;
    use serde_json::json;

    use crate::fixtures::{cluster_ip, index, pod_ip, ready, service, slice, vip};

    /// Knows `example.org`, and is told every name it was asked for.
    #[derive(Default)]
    struct Outside(parking_lot::Mutex<Vec<String>>);

    #[async_trait]
    impl Upstream for Outside {
        async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
            self.0.lock().push(name.to_owned());
            match name {
                "example.org" => Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]),
                _ => Err(ResolveError::NotFound(name.to_owned())),
            }
        }
    }

    fn external(name: &str, target: &str) -> Service {
        service(
            name,
            json!({"type": "ExternalName", "externalName": target}),
        )
    }

    fn names() -> Names<Outside> {
        let ports = json!([{"name": "http", "port": 80}]);
        let db = json!({"clusterIP": "None", "ports": ports});
        let endpoints = json!([
            {"addresses": [pod_ip(1)], "hostname": "DB-0", "conditions": {"ready": true}},
            {"addresses": [pod_ip(2)], "hostname": "db-1", "conditions": {"ready": true}},
            {"addresses": [pod_ip(3)], "hostname": "db-2", "conditions": {"ready": false}},
        ]);
        let services = [
            cluster_ip("web", 5),
            service("db", db.clone()),
            service("nobody", db),
            external("out", "Example.ORG."),
            external("in", "web.default.svc.cluster.local"),
            external("ping", "pong.default.svc.cluster.local"),
            external("pong", "ping.default.svc.cluster.local"),
            external("lost", "missing.default.svc.cluster.local"),
        ];
        let index = index(
            services,
            [slice("s", "db", ports, endpoints), ready("web", 80, &[7])],
        );
        let (services, slices) = (Lister::of([]), Lister::of([]));
        Names::new(
            index,
            services,
            slices,
            "Cluster.Local.",
            Outside::default(),
        )
    }

    async fn look(names: &Names<Outside>, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let from = NamespaceView {
            pod: "default/client",
            address: pod_ip(9),
            dns: &DnsConfig::default(),
        };
        names.lookup(from, name).await.map(|mut all| {
            all.sort_unstable();
            all
        })
    }

    #[tokio::test(start_paused = true)]
    async fn names_have_the_addresses_of_the_specification() {
        let names = names();
        let web = vip(5, 80).ip();
        let known: [(&str, &[IpAddr]); 10] = [
            ("web.default.svc.cluster.local", &[web]),
            ("WEB.Default.svc.CLUSTER.local", &[web]),
            ("db.default.svc.cluster.local", &[pod_ip(1), pod_ip(2)]),
            ("db-0.db.default.svc.cluster.local", &[pod_ip(1)]),
            ("10-240-0-2.db.default.svc.cluster.local", &[pod_ip(2)]),
            ("10-240-0-7.web.default.svc.cluster.local", &[pod_ip(7)]),
            ("10-240-0-5.default.pod.cluster.local", &[pod_ip(5)]),
            ("in.default.svc.cluster.local", &[web]),
            (
                "out.default.svc.cluster.local",
                &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))],
            ),
            ("example.org", &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]),
        ];
        for (name, addresses) in known {
            assert_eq!(look(&names, name).await.as_deref(), Ok(addresses), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_below_the_cluster_domain_never_leave_the_cluster() {
        let names = names();
        for name in [
            "cluster.local",
            "svc.cluster.local",
            "default.svc.cluster.local",
            "web.other.svc.cluster.local",
            "missing.default.svc.cluster.local",
            "nobody.default.svc.cluster.local",
            "db-2.db.default.svc.cluster.local",
            "10-240-0-3.db.default.svc.cluster.local",
            "web-0.web.default.svc.cluster.local",
            "_http._tcp.web.default.svc.cluster.local",
            "not-an-address.default.pod.cluster.local",
            "lost.default.svc.cluster.local",
            "example.org.cluster.local",
        ] {
            let expected = Err(ResolveError::NotFound(name.to_owned()));
            assert_eq!(look(&names, name).await, expected, "{name}");
        }
        assert!(names.upstream.0.lock().is_empty());
        assert!(look(&names, "notcluster.local").await.is_err());
        assert_eq!(*names.upstream.0.lock(), ["notcluster.local"]);
    }

    #[tokio::test(start_paused = true)]
    async fn external_names_that_lead_in_a_circle_fail() {
        let name = "ping.default.svc.cluster.local";
        let failed = Err(ResolveError::Failed(name.to_owned()));
        assert_eq!(look(&names(), name).await, failed);
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_of_a_headless_service_take_turns_at_being_first() {
        let names = names();
        let first = || {
            names.index.ask(|tables| {
                match answer(tables, "cluster.local", "db.default.svc.cluster.local") {
                    Answer::Addresses(all) => all[0],
                    other => panic!("{other:?}"),
                }
            })
        };
        assert_ne!(first(), first());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_unknown_before_the_first_fill() {
        let name = "web.default.svc.cluster.local";
        let mut unfilled = names();
        unfilled.services = Lister::default();
        assert!(look(&unfilled, name).await.is_ok());
        let missing = "missing.default.svc.cluster.local";
        let again = Err(ResolveError::Again(missing.to_owned()));
        assert_eq!(look(&unfilled, missing).await, again);
    }
}

//! The cluster's DNS: its port on the host, its Service, its numbers.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use coracle_client::{Client, Context, ObjectClient, ObjectKey};
use coracle_dns::{HostListeners, Server};
use coracle_network::{Fabric, TcpStream};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::cli::UpArgs;
use crate::listeners::{Choice, Listen};

/// The port on the loopback address when `--dns-listen` does not say.
const HOST_PORT: u16 = 5353;
/// The port of DNS, and that of its numbers, both as with CoreDNS.
const PORT: u16 = 53;
const METRICS_PORT: u16 = 9153;
/// Requests for the numbers at once.
const SCRAPES: usize = 16;
/// How long one of them may take.
const SCRAPE_TIME: Duration = Duration::from_secs(10);
/// How soon what was deleted is made again.
const REMAKE_EVERY: Duration = Duration::from_secs(1);

/// The port on the host.
#[derive(Default)]
pub(super) struct Names {
    /// Where programs of the host ask.
    pub(super) address: Option<SocketAddr>,
    pub(super) listeners: Option<HostListeners>,
}

impl Names {
    /// Binds what the flags say: a default that is taken moves on, an explicit one is an error.
    pub(super) async fn bind(args: &UpArgs) -> Result<Self> {
        let choice = Choice {
            what: "DNS",
            flag: "--dns-listen",
            default_port: HOST_PORT,
            explicit: None,
        };
        let listeners = Listen::open(args.dns_listen, choice, HostListeners::bind).await?;
        let Some(listeners) = listeners else {
            return Ok(Self::default());
        };
        let address = listeners
            .address()
            .context("failed to read the address of DNS")?;
        let mut asked = args.dns_upstream.iter();
        if asked.any(|server| *server == address) {
            bail!("--dns-upstream {address} is this cluster's own DNS: name another server");
        }
        Ok(Self {
            address: Some(address),
            listeners: Some(listeners),
        })
    }
}

/// Serves the numbers at the port that scrapers know from CoreDNS, inside the pod network.
pub(super) fn serve_metrics(fabric: &Fabric, server: Arc<Server>) {
    let runtime = tokio::runtime::Handle::current();
    let places = Arc::new(Semaphore::new(SCRAPES));
    let handler = Arc::new(move |stream: TcpStream| {
        let Ok(place) = places.clone().try_acquire_owned() else {
            return;
        };
        let server = server.clone();
        runtime.spawn(async move {
            let _place = place;
            let answer = |request: http::Request<hyper::body::Incoming>| {
                let response = match request.uri().path() {
                    "/metrics" => http::Response::builder()
                        .header(
                            http::header::CONTENT_TYPE,
                            "text/plain; version=0.0.4; charset=utf-8",
                        )
                        .body(Full::new(bytes::Bytes::from(server.metrics()))),
                    _ => http::Response::builder().status(404).body(Full::default()),
                };
                async move { Ok::<_, Infallible>(response.expect("a valid response")) }
            };
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
            match tokio::time::timeout(SCRAPE_TIME, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a scrape of DNS ended"),
                Err(_) => tracing::debug!("a scrape of DNS took too long"),
            }
        });
    });
    for address in fabric.node_addresses() {
        fabric.set_handler(SocketAddr::new(address, METRICS_PORT), handler.clone());
    }
}

/// Makes the Service `kube-dns` at these addresses and its endpoints, and makes them again when they are deleted or no longer
/// lead to the server. The node's address in the pod network, of each family, is the one endpoint.
pub(super) async fn keep_service(
    client: Client,
    context: Context,
    addresses: Vec<IpAddr>,
    nodes: Vec<IpAddr>,
) {
    let objects = ObjectClient::new(client);
    let key = ObjectKey::new("kube-system", "kube-dns");
    let node = nodes[0];
    let service: Service = typed(service(&addresses));
    let endpoints: Endpoints = typed(endpoints(node));
    let served = |node: &IpAddr| addresses.iter().any(|ip| ip.is_ipv4() == node.is_ipv4());
    let wanted: Vec<(ObjectKey, EndpointSlice)> = nodes
        .into_iter()
        .filter(served)
        .map(|node| {
            let slice: EndpointSlice = typed(slice(node));
            (ObjectKey::of(&slice), slice)
        })
        .collect();
    let (services, all_endpoints, slices) = (
        context.lister::<Service>(),
        context.lister::<Endpoints>(),
        context.lister::<EndpointSlice>(),
    );
    let keep = async {
        tokio::join!(services.synced(), all_endpoints.synced(), slices.synced());
        loop {
            tokio::select! {
                () = services.wait_until(|all| {
                    all.get(&key).is_none_or(|found| lacks_a_family(&found, &service))
                }) => {}
                () = all_endpoints.wait_until(|all| {
                    all.get(&key).is_none_or(|found| !leads(&found, node))
                }) => {}
                () = slices.wait_until(|all| {
                    let right = |(key, slice): &(ObjectKey, EndpointSlice)| {
                        all.get(key).is_some_and(|found| same(&found, slice))
                    };
                    !wanted.iter().all(right)
                }) => {}
            }
            let made = async {
                ensure(&objects, services.get(&key).is_none(), &service).await?;
                if let Some(found) = services
                    .get(&key)
                    .filter(|found| lacks_a_family(found, &service))
                {
                    let spec = service.spec.as_ref();
                    let patch = json!({"spec": {
                        "clusterIPs": spec.and_then(|spec| spec.cluster_ips.as_ref()),
                        "ipFamilies": spec.and_then(|spec| spec.ip_families.as_ref()),
                        "ipFamilyPolicy": "PreferDualStack",
                    }});
                    objects.update(found.as_ref(), &patch).await.map(drop)?;
                }
                if let Some(found) = all_endpoints.get(&key).filter(|found| !leads(found, node)) {
                    let patch = json!({"subsets": endpoints.subsets});
                    objects.update(found.as_ref(), &patch).await.map(drop)?;
                }
                ensure(&objects, all_endpoints.get(&key).is_none(), &endpoints).await?;
                for (key, slice) in &wanted {
                    if let Some(found) = slices.get(key).filter(|found| !same(found, slice)) {
                        let patch = json!({"endpoints": slice.endpoints, "ports": slice.ports});
                        objects.update(found.as_ref(), &patch).await.map(drop)?;
                    }
                    ensure(&objects, slices.get(key).is_none(), slice).await?;
                }
                Ok::<_, coracle_client::Error>(())
            };
            if let Err(error) = made.await {
                tracing::warn!(error = error.message(), "the Service kube-dns was not made");
            }
            tokio::time::sleep(REMAKE_EVERY).await;
        }
    };
    tokio::select! {
        () = context.stop().cancelled() => {}
        () = keep => {}
    }
}

async fn ensure<K>(
    objects: &ObjectClient,
    missing: bool,
    object: &K,
) -> Result<(), coracle_client::Error>
where
    K: coracle_client::Kind,
{
    match missing {
        true => match objects.create(object).await {
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        },
        false => Ok(()),
    }
}

/// Whether a Service that was made when the cluster had one family can have both now.
fn lacks_a_family(found: &Service, wanted: &Service) -> bool {
    let addresses = |service: &Service| {
        let spec = service.spec.as_ref();
        spec.and_then(|spec| spec.cluster_ips.clone())
            .unwrap_or_default()
    };
    let (found, wanted) = (addresses(found), addresses(wanted));
    found.len() < wanted.len() && wanted.starts_with(&found)
}

/// Whether a slice leads where it should, whatever the order of its ports.
fn same(found: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let addresses = |slice: &EndpointSlice| -> Vec<String> {
        let endpoints = slice.endpoints.iter().flatten();
        endpoints
            .flat_map(|endpoint| endpoint.addresses.clone())
            .collect()
    };
    let ports = |slice: &EndpointSlice| -> BTreeSet<_> {
        let ports = slice.ports.iter().flatten();
        ports
            .map(|port| (port.name.clone(), port.protocol.clone(), port.port))
            .collect()
    };
    addresses(found) == addresses(wanted) && ports(found) == ports(wanted)
}

/// The same for Endpoints, of which all that matters is the address.
fn leads(found: &Endpoints, node: IpAddr) -> bool {
    let addresses = found
        .subsets
        .iter()
        .flatten()
        .flat_map(|subset| subset.addresses.iter().flatten());
    addresses
        .map(|address| address.ip.clone())
        .eq([node.to_string()])
}

fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).expect("the objects below are valid")
}

/// As kubeadm makes it, without a selector: no pod answers.
fn service(addresses: &[IpAddr]) -> Value {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port, "targetPort": port});
    json!({
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
            },
            "annotations": {"prometheus.io/port": METRICS_PORT.to_string(), "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": addresses[0], "clusterIPs": addresses, "type": "ClusterIP",
            "ipFamilies": addresses.iter().map(family).collect::<Vec<_>>(),
            "ipFamilyPolicy": if addresses.len() > 1 { "PreferDualStack" } else { "SingleStack" },
            "ports": [port("dns", "UDP", PORT), port("dns-tcp", "TCP", PORT), port("metrics", "TCP", METRICS_PORT)],
        },
    })
}

fn family(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

fn ports() -> Value {
    json!([
        {"name": "dns", "port": PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "port": PORT, "protocol": "TCP"},
        {"name": "metrics", "port": METRICS_PORT, "protocol": "TCP"},
    ])
}

fn endpoints(node: IpAddr) -> Value {
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true", "k8s-app": "kube-dns"});
    json!({
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "subsets": [{"addresses": [{"ip": node}], "ports": ports()}],
    })
}

fn slice(node: IpAddr) -> Value {
    let labels = json!({"kubernetes.io/service-name": "kube-dns", "k8s-app": "kube-dns"});
    let name = match node {
        IpAddr::V4(_) => "kube-dns",
        IpAddr::V6(_) => "kube-dns-ipv6",
    };
    json!({
        "metadata": {"name": name, "namespace": "kube-system", "labels": labels},
        "addressType": family(&node),
        "endpoints": [{"addresses": [node], "conditions": {"ready": true}}],
        "ports": ports(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn flags(flags: &[&str]) -> Result<UpArgs, String> {
        let line = ["coracle", "up"].iter().chain(flags);
        let cli = crate::cli::Cli::try_parse_from(line).map_err(|error| error.to_string())?;
        match cli.command {
            crate::cli::Command::Up(args) => Ok(*args),
            _ => unreachable!("the line says up"),
        }
    }

    #[test]
    fn servers_domains_and_pools_are_read_or_explained() {
        let args = flags(&[
            "--dns-upstream=192.0.2.1,[2001:db8::1]:5353",
            "--dns-stub-domain=Corp.Example.=192.0.2.2,192.0.2.3:54",
            "--load-balancer-addresses=127.0.0.1,127.0.0.5-127.0.0.7",
            "--dns-listen=off",
        ]);
        let args = args.expect("valid");
        let shown: Vec<_> = args.dns_upstream.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1:53", "[2001:db8::1]:5353"]);
        let stub = &args.dns_stub_domain[0];
        assert_eq!(
            (stub.domain.as_str(), stub.servers.len()),
            ("corp.example", 2)
        );
        assert_eq!(args.load_balancer_addresses.0.len(), 4);
        assert_eq!(args.dns_listen, Some(Listen::Off));
        for (flag, hint) in [
            ("--dns-upstream=example.org", "is no address"),
            ("--dns-stub-domain=192.0.2.2", "corp.example=192.0.2.53"),
            ("--dns-stub-domain==192.0.2.2", "corp.example=192.0.2.53"),
            ("--dns-listen=5353", "an address with its port"),
            (
                "--load-balancer-addresses=127.0.0.9-127.0.0.1",
                "ends before it begins",
            ),
            (
                "--load-balancer-addresses=10.0.0.0-10.255.255.255",
                "at most 4096",
            ),
            (
                "--load-balancer-addresses=127.0.0.1-::1",
                "different families",
            ),
        ] {
            let error = flags(&[flag]).expect_err("refused");
            assert!(error.contains(hint), "{flag}: {error}");
        }
        let args = flags(&["--load-balancer-addresses=off"]).expect("valid");
        assert!(args.load_balancer_addresses.0.is_empty());
    }

    #[tokio::test]
    async fn a_default_port_that_is_taken_moves_on_and_an_explicit_one_is_an_error() {
        let taken = tokio::net::UdpSocket::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = taken.local_addr().expect("bound").to_string();
        let args = flags(&["--dns-listen", &address]).expect("valid");
        let error = Names::bind(&args).await.err().expect("in use").to_string();
        assert!(
            error.contains(&address) && error.contains("--dns-listen"),
            "{error}"
        );
        let free = flags(&["--dns-listen=127.0.0.1:0"]).expect("valid");
        let names = Names::bind(&free).await.expect("any port");
        assert!(names.address.is_some_and(|address| address.port() != 0));
        let off = Names::bind(&flags(&["--dns-listen=off"]).expect("valid")).await;
        assert!(off.expect("nothing").listeners.is_none());
    }

    #[test]
    fn the_service_has_the_addresses_it_is_told_and_its_endpoints_serve_every_port() {
        let (address, node) = ([10, 96, 0, 10].into(), [10, 240, 0, 1].into());
        let service: Service = typed(service(&[address]));
        let slice: EndpointSlice = typed(slice(node));
        let endpoints: Endpoints = typed(endpoints(node));
        let spec = service.spec.expect("a spec");
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.10"));
        let names: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| port.name.clone())
            .collect();
        let served: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| port.name.clone())
            .collect();
        assert_eq!(names, served);
        assert!(same(&slice, &slice));
        let other: EndpointSlice = typed(super::slice([10, 240, 0, 2].into()));
        assert!(!same(&other, &slice));
        assert!(leads(&endpoints, node) && !leads(&endpoints, address));
    }

    #[test]
    fn a_cluster_of_both_families_has_both_addresses_of_dns_even_if_it_got_the_second_later() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let (four, six) = (address("10.96.0.10"), address("fd00:10:96::a"));
        let made = |addresses: &[IpAddr]| typed::<Service>(service(addresses));
        let both = made(&[six, four]);
        let spec = both.spec.clone().expect("a spec");
        assert_eq!(spec.ip_family_policy.as_deref(), Some("PreferDualStack"));
        let families = ["IPv6", "IPv4"].map(str::to_owned).to_vec();
        assert_eq!(spec.ip_families, Some(families));
        assert!(lacks_a_family(&made(&[six]), &both));
        assert!(!lacks_a_family(&both, &both));
        assert!(
            !lacks_a_family(&made(&[four]), &both),
            "the first one stays"
        );
        assert!(!lacks_a_family(&both, &made(&[six])));
        let slice: EndpointSlice = typed(slice(six));
        assert_eq!(slice.address_type, "IPv6");
    }
}

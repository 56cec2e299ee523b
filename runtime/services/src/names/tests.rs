//! Lookups as guests make them: over a pod's namespace, by its own DNS settings.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use coracle_dns::{Now, Servers, UpstreamConfig, Via};
use coracle_network::{DnsConfig, Fabric, NamespaceConfig, SocketScope};
use serde_json::json;

use super::*;
use crate::fixtures::{
    any, applied, cluster_ip, external, fabric, index, pod_ip, ready, service, slice, vip,
};

const CLUSTER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));

/// Knows `example.org`, and is told every name it was asked for.
#[derive(Default)]
struct Outside(parking_lot::Mutex<Vec<String>>);

#[async_trait]
impl Upstream for Arc<Outside> {
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.0.lock().push(name.to_owned());
        match name {
            "example.org" => Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]),
            _ => Err(ResolveError::NotFound(name.to_owned())),
        }
    }
}

struct Cluster {
    fabric: Arc<Fabric>,
    outside: Arc<Outside>,
}

/// A server of the cluster's zone that asks `upstreams` for all else.
fn server(caches: Caches, upstreams: Vec<SocketAddr>) -> Arc<Server> {
    let ports = json!([{"name": "http", "port": 80}]);
    let db = json!({"clusterIP": "None", "ports": ports});
    let endpoints = json!([
        {"addresses": [pod_ip(1)], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": [pod_ip(2)], "conditions": {"ready": true}},
    ]);
    let services = [
        cluster_ip("web", 5),
        service("db", db),
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
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("a namespace");
    index.namespace_changed(&applied(namespace));
    let zone = ClusterZone {
        index,
        caches,
        config: ZoneConfig {
            domain: "cluster.local".into(),
            servers: vec![CLUSTER_DNS],
            ranges: vec!["10.96.0.0/16".parse().expect("a range")],
        },
    };
    let upstreams = UpstreamConfig {
        servers: Servers::Fixed(upstreams),
        stub_domains: Vec::new(),
    };
    Arc::new(Server::new(Arc::new(zone), upstreams, Clock::system()))
}

fn filled() -> Caches {
    Caches {
        services: Lister::of([]),
        slices: Lister::of([]),
        namespaces: Lister::of([]),
    }
}

fn cluster(caches: Caches) -> Cluster {
    let fabric = fabric(Clock::fake(1));
    let outside = Arc::<Outside>::default();
    let server = server(caches, Vec::new());
    let names = Names::new(server, vec![CLUSTER_DNS], Clock::fake(2), outside.clone());
    fabric.set_resolver(Arc::new(names));
    Cluster { fabric, outside }
}

impl Cluster {
    /// A pod with these DNS settings.
    fn pod(
        &self,
        last: u8,
        servers: &[IpAddr],
        searches: &[&str],
        options: &[&str],
    ) -> SocketScope {
        self.pod_also_at(last, None, servers, searches, options)
    }

    /// The same, with an address of the other family.
    fn pod_also_at(
        &self,
        last: u8,
        second_address: Option<IpAddr>,
        servers: &[IpAddr],
        searches: &[&str],
        options: &[&str],
    ) -> SocketScope {
        let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        let name = format!("pod-{last}");
        let config = NamespaceConfig {
            second_address,
            dns: DnsConfig {
                servers: servers.to_vec(),
                searches: owned(searches),
                options: owned(options),
            },
            ..NamespaceConfig::new(format!("default/{name}"), pod_ip(last), name)
        };
        let namespace = self
            .fabric
            .create_namespace(config)
            .expect("a free address");
        namespace.scope()
    }

    /// A pod of `dnsPolicy: ClusterFirst`.
    fn usual_pod(&self, last: u8) -> SocketScope {
        let searches = [
            "default.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ];
        self.pod(last, &[CLUSTER_DNS], &searches, &["ndots:5"])
    }
}

async fn look(pod: &SocketScope, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let found = pod.lookup(name).await;
    found.map(|mut all| {
        all.sort_unstable();
        all
    })
}

#[tokio::test(start_paused = true)]
async fn names_of_the_cluster_and_of_the_outside_are_found() {
    let cluster = cluster(filled());
    let pod = cluster.usual_pod(9);
    let web = vip(5, 80).ip();
    let example = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let known: [(&str, &[IpAddr]); 10] = [
        ("web", &[web]),
        ("web.default", &[web]),
        ("WEB.Default.svc", &[web]),
        ("web.default.svc.CLUSTER.local.", &[web]),
        ("db", &[pod_ip(1), pod_ip(2)]),
        ("db-0.db", &[pod_ip(1)]),
        ("10-240-0-5.default.pod.cluster.local", &[pod_ip(5)]),
        ("in", &[web]),
        ("out", &[example]),
        ("example.org", &[example]),
    ];
    for (name, addresses) in known {
        assert_eq!(look(&pod, name).await.as_deref(), Ok(addresses), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_below_the_cluster_domain_never_leave_the_cluster() {
    let cluster = cluster(filled());
    let pod = cluster.pod(9, &[CLUSTER_DNS], &[], &[]);
    for name in [
        "cluster.local",
        "missing.default.svc.cluster.local",
        "lost.default.svc.cluster.local",
        "example.org.cluster.local",
    ] {
        let expected = Err(ResolveError::NotFound(name.to_owned()));
        assert_eq!(look(&pod, name).await, expected, "{name}");
    }
    assert!(cluster.outside.0.lock().is_empty());
    assert!(look(&pod, "notcluster.local").await.is_err());
    assert_eq!(*cluster.outside.0.lock(), ["notcluster.local"]);
}

#[tokio::test(start_paused = true)]
async fn external_names_that_lead_in_a_circle_fail() {
    let cluster = cluster(filled());
    let pod = cluster.usual_pod(9);
    let name = "ping.default.svc.cluster.local.";
    assert!(matches!(
        look(&pod, name).await,
        Err(ResolveError::Failed(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_unknown_before_the_first_fill() {
    let cluster = cluster(Caches::default());
    let pod = cluster.pod(9, &[], &[], &[]);
    assert!(look(&pod, "web.default.svc.cluster.local").await.is_ok());
    let missing = "missing.default.svc.cluster.local";
    let again = Err(ResolveError::Again(missing.to_owned()));
    assert_eq!(look(&pod, missing).await, again);
}

/// Answers DNS over UDP at a pod's port 53 with a zone of its own, until dropped.
fn serve_dns(pod: &SocketScope) -> tokio::task::JoinHandle<()> {
    serve_dns_at(pod, any(53))
}

fn serve_dns_at(pod: &SocketScope, address: SocketAddr) -> tokio::task::JoinHandle<()> {
    let socket = pod.bind_udp(address).expect("a free port");
    let server = server(filled(), Vec::new());
    let via = Via {
        tcp: false,
        v6: false,
        host: false,
    };
    tokio::spawn(async move {
        loop {
            let question = socket.recv().await;
            if let Now::Reply(reply) = server.now(&question.data, via) {
                let _ = socket.send_to(Bytes::from(reply), question.from);
            }
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_pods_own_name_servers_are_asked_over_its_own_sockets() {
    let cluster = cluster(filled());
    let dns = cluster.pod(53, &[], &[], &[]);
    let task = serve_dns(&dns);
    // The first one is nobody: the next one answers.
    let pod = cluster.pod(
        9,
        &[pod_ip(99), pod_ip(53)],
        &["default.svc.cluster.local"],
        &["timeout:1"],
    );
    assert_eq!(look(&pod, "web").await, Ok(vec![vip(5, 80).ip()]));
    assert!(matches!(
        look(&pod, "missing").await,
        Err(ResolveError::Again(_) | ResolveError::NotFound(_))
    ));
    assert!(cluster.outside.0.lock().is_empty());
    // None at all: silence ends.
    let alone = cluster.pod(10, &[pod_ip(54)], &[], &["timeout:1", "attempts:1"]);
    let _mute = cluster
        .pod(54, &[], &[], &[])
        .bind_udp(any(53))
        .expect("a free port");
    let again = Err(ResolveError::Again("web.test".to_owned()));
    assert_eq!(look(&alone, "web.test").await, again);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pods_own_name_servers_may_be_at_addresses_of_ipv6() {
    let cluster = cluster(filled());
    let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
    let dns = cluster.pod_also_at(53, Some(six(53)), &[], &[], &[]);
    let task = serve_dns_at(&dns, SocketAddr::new(six(53), 53));
    let searches = ["default.svc.cluster.local"];
    let pod = cluster.pod_also_at(9, Some(six(9)), &[six(53)], &searches, &[]);
    assert_eq!(look(&pod, "web").await, Ok(vec![vip(5, 80).ip()]));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_hosts_own_servers_are_asked_by_the_node_and_know_no_cluster() {
    let host: IpAddr = Ipv4Addr::LOCALHOST.into();
    let fabric = fabric(Clock::fake(1));
    let outside = Arc::<Outside>::default();
    // Nobody listens on port 1, so that the host's resolver is not there.
    let server = server(filled(), vec![SocketAddr::new(host, 1)]);
    let names = Names::new(server, vec![CLUSTER_DNS], Clock::fake(2), outside.clone());
    assert!(!names.are_others(&[host]));
    assert!(!names.are_others(&[CLUSTER_DNS, pod_ip(3)]));
    assert!(names.are_others(&[pod_ip(3)]));
    fabric.set_resolver(Arc::new(names));
    let cluster = Cluster { fabric, outside };
    let pod = cluster.pod(9, &[host], &[], &[]);
    let name = "web.default.svc.cluster.local";
    assert_eq!(
        look(&pod, name).await,
        Err(ResolveError::Again(name.to_owned()))
    );
}

/// A question for the IPv4 addresses of a name, and what the answer says.
async fn over_udp(pod: &SocketScope, to: SocketAddr, name: &str) -> coracle_dns::LookupReply {
    let own = match to.is_ipv4() {
        true => any(0),
        false => SocketAddr::from(([0u16; 8], 0)),
    };
    let socket = pod.bind_udp(own).expect("a free port");
    let question = coracle_dns::address_query(7, name, true).expect("a name");
    socket.send_to(question.into(), to).expect("sent");
    let answer = socket.recv().await;
    assert_eq!(answer.from, to);
    coracle_dns::read_addresses(7, name, true, &answer.data).expect("the answer")
}

#[tokio::test(start_paused = true)]
async fn guests_ask_at_the_nodes_address_over_udp_and_tcp() {
    use coracle_dns::LookupReply;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let cluster = cluster(filled());
    attach(&cluster.fabric, server(filled(), Vec::new()));
    let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]);
    let (pod, node) = (
        cluster.pod_also_at(9, Some(six), &[CLUSTER_DNS], &[], &[]),
        SocketAddr::new(crate::fixtures::NODE, 53),
    );
    let name = "web.default.svc.cluster.local";
    let found = LookupReply::Addresses(vec![vip(5, 80).ip()]);
    assert_eq!(over_udp(&pod, node, name).await, found);
    let newer = SocketAddr::new(crate::fixtures::NODE6, 53);
    assert_eq!(over_udp(&pod, newer, name).await, found);
    // Nobody upstream: the answer comes later, and says so.
    assert_eq!(
        over_udp(&pod, node, "example.org").await,
        LookupReply::Failed
    );
    let mut stream = pod.connect_tcp(node).await.expect("served");
    for _ in 0..2 {
        let question = coracle_dns::address_query(7, name, true).expect("a name");
        stream
            .write_u16(u16::try_from(question.len()).expect("short"))
            .await
            .expect("sent");
        stream.write_all(&question).await.expect("sent");
        let mut bytes = vec![0; stream.read_u16().await.expect("a length").into()];
        stream.read_exact(&mut bytes).await.expect("an answer");
        assert_eq!(
            coracle_dns::read_addresses(7, name, true, &bytes),
            Some(found.clone())
        );
    }
}

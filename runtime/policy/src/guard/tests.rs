use std::collections::HashMap;
use std::convert::Infallible;

use bytes::Bytes;
use coracle_client::{CancellationToken, Client, kube};
use coracle_clock::Clock;
use coracle_network::{FabricConfig, NamespaceConfig, NetError, SocketScope};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// Knows some names outside.
struct Outside(HashMap<&'static str, IpAddr>);

#[async_trait]
impl Resolver for Outside {
    async fn lookup(&self, _: NamespaceView<'_>, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let found = self.0.get(name).map(|address| vec![*address]);
        found.ok_or_else(|| ResolveError::NotFound(name.to_owned()))
    }

    fn asks_own_servers(&self, dns: &DnsConfig) -> bool {
        !dns.servers.is_empty()
    }
}

struct World {
    fabric: Arc<Fabric>,
    context: Context,
    guard: Arc<Guard>,
    denials: Arc<Denials>,
    /// The Events that were written.
    events: mpsc::Receiver<Value>,
}

impl World {
    /// A cluster whose API server has nothing but the namespace `default`.
    async fn new(namespace: Value) -> Self {
        let (written, events) = mpsc::channel(64);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (written, namespace) = (written.clone(), namespace.clone());
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let is_watch = request
                    .uri()
                    .query()
                    .is_some_and(|query| query.contains("watch"));
                let body = request
                    .into_body()
                    .collect()
                    .await
                    .expect("a body")
                    .to_bytes();
                let answer = match method {
                    Method::GET if is_watch => std::future::pending().await,
                    Method::GET => {
                        let items = match path.ends_with("/namespaces") {
                            true => json!([namespace]),
                            false => json!([]),
                        };
                        let metadata = json!({"resourceVersion": "1"});
                        Bytes::from(json!({"metadata": metadata, "items": items}).to_string())
                    }
                    _ => {
                        let event = serde_json::from_slice(&body).expect("JSON");
                        written.send(event).await.expect("the test reads");
                        body
                    }
                };
                Ok::<_, Infallible>(Response::new(Full::new(answer)))
            }
        });
        let client = Client::new(service, "default");
        let clients = Arc::new(move |_: &str| client.clone());
        let clock = Clock::fake(1);
        let context = Context::new(clients, clock.clone(), CancellationToken::new());
        let mut config = FabricConfig::new(IpAddr::from([10, 240, 0, 1]));
        config.pod_ranges = vec!["10.240.0.0/12".parse().expect("a range")];
        let fabric = Fabric::new(config, clock);
        let names = [
            ("api.example", IpAddr::from([192, 0, 2, 1])),
            ("other.example", IpAddr::from([192, 0, 2, 2])),
            (
                "web.default.svc.cluster.local",
                IpAddr::from([10, 96, 0, 9]),
            ),
            (
                "out.default.svc.cluster.local",
                IpAddr::from([192, 0, 2, 1]),
            ),
            (
                "away.default.svc.cluster.local",
                IpAddr::from([192, 0, 2, 2]),
            ),
        ];
        fabric.set_resolver(Arc::new(Outside(names.into())));
        let denials = Arc::<Denials>::default();
        let config = GuardConfig {
            cluster_domain: "cluster.local".to_owned(),
            cluster_ranges: ["10.240.0.0/12", "10.96.0.0/16"]
                .map(|range| range.parse().expect("a range"))
                .to_vec(),
            of_node: vec![IpAddr::from([10, 96, 0, 10])],
            denials: denials.clone(),
        };
        let guard = Guard::start(config, context.clone(), &fabric);
        Self {
            fabric,
            context,
            guard,
            denials,
            events,
        }
    }

    async fn ready(&self) {
        self.context.informers().synced().await;
    }

    /// A pod `default/NAME` at 10.240.0.`last`, in the API and on the network.
    fn pod(&self, name: &str, last: u8, annotations: Value) -> SocketScope {
        self.pod_also_at(name, last, annotations, None)
    }

    /// One that is at fd00:10:240::`last`, too.
    fn pod_of_both(&self, name: &str, last: u8) -> SocketScope {
        self.pod_also_at(name, last, json!({}), Some(at6(last, 0).ip()))
    }

    fn pod_also_at(
        &self,
        name: &str,
        last: u8,
        annotations: Value,
        second_address: Option<IpAddr>,
    ) -> SocketScope {
        let address = IpAddr::from([10, 240, 0, last]);
        let object = json!({
            "metadata": {
                "namespace": "default", "name": name, "uid": name, "labels": {"app": name},
                "annotations": annotations,
            },
            "spec": {"containers": []},
        });
        self.context
            .informer::<Pod>()
            .apply(serde_json::from_value(object).expect("a pod"));
        let config = NamespaceConfig::new(format!("default/{name}"), address, name);
        let namespace = self
            .fabric
            .create_namespace(NamespaceConfig {
                second_address,
                ..config
            })
            .expect("a free address");
        namespace.scope()
    }

    fn policy(&self, name: &str, spec: Value) {
        let metadata = json!({"namespace": "default", "name": name});
        let object = json!({"metadata": metadata, "spec": spec});
        self.context
            .informer::<NetworkPolicy>()
            .apply(serde_json::from_value(object).expect("a policy"));
    }
}

fn namespace(annotations: Value) -> Value {
    let labels = json!({"kubernetes.io/metadata.name": "default"});
    json!({"metadata": {"name": "default", "labels": labels, "annotations": annotations}})
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 240, 0, last], port))
}

fn at6(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, 0x10, 0x240, 0, 0, 0, 0, last.into()], port))
}

/// Sends a message, and says whether the other one gets it.
async fn reaches(from: &SocketScope, to: &coracle_network::UdpSocket) -> Result<(), NetError> {
    let socket = from.bind_udp(SocketAddr::from(([0u16; 8], 0)))?;
    socket.send_to(Bytes::from_static(b"hello"), to.local_addr())?;
    to.recv().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_no_rule_lets_through_is_denied_counted_and_told() {
    let mut world = World::new(namespace(json!({}))).await;
    world.ready().await;
    let (web, other) = (
        world.pod("web", 2, json!({})),
        world.pod("other", 3, json!({})),
    );
    let db = world.pod("db", 4, json!({}));
    let _listener = db.listen_tcp(at(4, 80), 16).expect("a free port");
    web.connect_tcp(at(4, 80))
        .await
        .expect("there is no policy");
    let from = json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
    world.policy(
        "db",
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]}),
    );
    web.connect_tcp(at(4, 80)).await.expect("let through");
    db.connect_tcp(at(4, 80))
        .await
        .expect("a pod reaches itself");
    world
        .fabric
        .dial(at(4, 80))
        .await
        .expect("the node reaches its pods");
    for _ in 0..3 {
        match other.connect_tcp(at(4, 80)).await {
            Err(NetError::Denied { reason, .. }) => {
                assert!(
                    reason.contains("network policies of this pod: db"),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.denials.ingress(), 3);
    let shown = world.denials.render();
    assert!(
        shown.contains("coracle_network_denials_total{by=\"ingress\"} 3\n"),
        "{shown}"
    );
    let event = world.events.recv().await.expect("an event");
    assert_eq!(event["reason"], "ConnectionDenied");
    assert_eq!(event["involvedObject"]["name"], "db");
    let message = event["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("labels app=other in namespace default"),
        "{message}"
    );
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert!(world.events.try_recv().is_err(), "told once");

    // What goes out is told of the pod that dials.
    world.policy("db", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    assert!(web.connect_tcp(at(4, 80)).await.is_err());
    let event = world.events.recv().await.expect("an event");
    assert_eq!(event["involvedObject"]["name"], "web");
    assert_eq!(world.denials.egress(), 1);
    // The names of the cluster are the node's, wherever they are answered.
    let dns = SocketAddr::from(([10, 96, 0, 10], 53));
    let from = IpAddr::from([10, 240, 0, 2]);
    assert_eq!(
        world.guard.on_connect(from, dns, Protocol::Udp),
        Verdict::Allow
    );
}

#[tokio::test(start_paused = true)]
async fn blocks_of_ipv6_hold_for_what_goes_over_ipv6() {
    let world = World::new(namespace(json!({}))).await;
    world.ready().await;
    let (near, excepted) = (
        world.pod_of_both("near", 2),
        world.pod_of_both("excepted", 3),
    );
    let (outside, db) = (
        world.pod_of_both("outside", 0x42),
        world.pod_of_both("db", 4),
    );
    let _six = db.listen_tcp(at6(4, 80), 16).expect("a free port");
    let _four = db.listen_tcp(at(4, 80), 16).expect("a free port");
    let inbox = db.bind_udp(at6(4, 53)).expect("a free port");
    for from in [&near, &excepted, &outside] {
        from.connect_tcp(at6(4, 80)).await.expect("no policy");
        reaches(from, &inbox).await.expect("no policy");
    }

    let block = |cidr: &str, except: &str| json!({"ipBlock": {"cidr": cidr, "except": [except]}});
    let from = block("fd00:10:240::/123", "fd00:10:240::3/128");
    let only =
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [from]}]});
    world.policy("db", only);
    near.connect_tcp(at6(4, 80)).await.expect("in the block");
    reaches(&near, &inbox).await.expect("in the block");
    for from in [&excepted, &outside] {
        let denied = from.connect_tcp(at6(4, 80)).await;
        assert!(matches!(denied, Err(NetError::Denied { .. })), "{denied:?}");
        let denied = reaches(from, &inbox).await;
        assert!(matches!(denied, Err(NetError::Denied { .. })), "{denied:?}");
    }
    // The block has no address of the other family.
    let denied = near.connect_tcp(at(4, 80)).await;
    assert!(matches!(denied, Err(NetError::Denied { .. })), "{denied:?}");
    assert_eq!((world.denials.ingress(), world.denials.egress()), (5, 0));

    // The same for who dials.
    let other = excepted.listen_tcp(at6(3, 80), 16).expect("a free port");
    let to = block("fd00:10:240::/64", "fd00:10:240::4/126");
    world.policy(
        "db",
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [to]}]}),
    );
    near.connect_tcp(other.local_addr())
        .await
        .expect("in the block");
    for to in [at6(4, 80), at(4, 80)] {
        let denied = near.connect_tcp(to).await;
        assert!(matches!(denied, Err(NetError::Denied { .. })), "{denied:?}");
    }
    db.connect_tcp(at6(4, 80))
        .await
        .expect("a pod reaches itself");
    assert_eq!(world.denials.egress(), 2);
}

#[tokio::test(start_paused = true)]
async fn until_the_policies_are_known_nobody_reaches_others() {
    let not_known = NotKnown {
        node: vec![IpAddr::from([10, 240, 0, 1])],
    };
    let verdict = |from, to| {
        not_known.on_connect(IpAddr::from([10, 240, 0, from]), at(to, 80), Protocol::Tcp)
    };
    assert!(verdict(2, 1) == Verdict::Allow && verdict(2, 2) == Verdict::Allow);
    assert_ne!(verdict(2, 4), Verdict::Allow);

    let world = World::new(namespace(json!({}))).await;
    let (web, db) = (
        world.pod("web", 2, json!({})),
        world.pod("db", 4, json!({})),
    );
    let _listener = db.listen_tcp(at(4, 80), 16).expect("a free port");
    assert!(matches!(
        web.connect_tcp(at(4, 80)).await,
        Err(NetError::Denied { .. })
    ));
    world
        .fabric
        .dial(at(4, 80))
        .await
        .expect("the node reaches its pods");
    world.ready().await;
    web.connect_tcp(at(4, 80))
        .await
        .expect("there is no policy");
}

#[tokio::test(start_paused = true)]
async fn allowed_hosts_hold_for_names_and_for_addresses() {
    let mut world = World::new(namespace(json!({}))).await;
    world.ready().await;
    let list = json!({ANNOTATION: "api.example:443, 198.51.100.0/24"});
    let plugin = world.pod("plugin", 2, list);
    let free = world.pod("free", 3, json!({}));
    let to = |text: &str| text.parse().expect("an address");
    let may = |last: u8, text: &str| {
        let from = IpAddr::from([10, 240, 0, last]);
        world.guard.on_connect(from, to(text), Protocol::Tcp) == Verdict::Allow
    };
    // Not before the name was looked up, and only the port that is meant.
    assert!(!may(2, "192.0.2.1:443"));
    plugin.lookup("api.example").await.expect("allowed");
    assert!(may(2, "192.0.2.1:443"));
    assert!(!may(2, "192.0.2.1:80"));
    assert!(!may(2, "192.0.2.2:443"));
    assert!(may(2, "198.51.100.7:80"));
    // What is inside the cluster is for network policies.
    assert!(may(2, "10.240.0.3:80") && may(2, "10.240.0.1:6443"));
    plugin
        .lookup("web.default.svc.cluster.local")
        .await
        .expect("inside");
    assert!(matches!(
        plugin.lookup("other.example").await,
        Err(ResolveError::NotFound(_))
    ));
    free.lookup("other.example")
        .await
        .expect("everybody else may");
    // The same for questions in messages, which the guest's own resolver asks.
    let (from, third) = (IpAddr::from([10, 240, 0, 2]), IpAddr::from([192, 0, 2, 3]));
    let asks = |name: &str| world.guard.on_question(from, name) == Verdict::Allow;
    assert!(asks("api.example") && asks("web.default.svc.cluster.local"));
    assert!(asks("1.2.0.192.in-addr.arpa"));
    assert!(!may(2, "192.0.2.3:443"));
    world.guard.on_answer(from, "api.example", &[third]);
    assert!(may(2, "192.0.2.3:443"));
    assert!(!asks("third.example"));
    let free = IpAddr::from([10, 240, 0, 3]);
    assert_eq!(
        world.guard.on_question(free, "third.example"),
        Verdict::Allow
    );
    assert!(may(3, "192.0.2.2:443"));
    assert_eq!(world.denials.hosts(), 6);
    let mut told = Vec::new();
    for _ in 0..6 {
        let event = world.events.recv().await.expect("an event");
        assert_eq!(event["involvedObject"]["name"], "plugin");
        told.push(event["message"].as_str().unwrap_or_default().to_owned());
    }
    assert!(
        told.iter()
            .any(|text| text.starts_with("other.example is none")),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_namespaces_list_holds_for_its_pods_and_no_pod_widens_it() {
    let world = World::new(namespace(json!({ANNOTATION: "*.example"}))).await;
    world.ready().await;
    let narrow = world.pod("narrow", 2, json!({ANNOTATION: "api.example"}));
    let wide = world.pod("wide", 3, json!({ANNOTATION: "*"}));
    let plain = world.pod("plain", 4, json!({}));
    narrow.lookup("api.example").await.expect("both allow it");
    assert!(narrow.lookup("other.example").await.is_err());
    wide.lookup("other.example").await.expect("both allow it");
    plain
        .lookup("other.example")
        .await
        .expect("the namespace allows it");
    let from = |last: u8| IpAddr::from([10, 240, 0, last]);
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], 443));
    for last in [2, 3, 4] {
        let verdict = world.guard.on_connect(from(last), elsewhere, Protocol::Tcp);
        assert_ne!(verdict, Verdict::Allow, "{last}");
    }
    let known = SocketAddr::from(([192, 0, 2, 2], 443));
    let may = |last| world.guard.on_connect(from(last), known, Protocol::Tcp) == Verdict::Allow;
    assert!(!may(2) && may(3) && may(4));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_stands_for_another_is_judged_as_that() {
    let world = World::new(namespace(json!({}))).await;
    world.ready().await;
    let plugin = world.pod("plugin", 2, json!({ANNOTATION: "api.example:443"}));
    for (name, target) in [("out", "API.example."), ("away", "other.example")] {
        let service = json!({
            "metadata": {"namespace": "default", "name": name},
            "spec": {"type": "ExternalName", "externalName": target},
        });
        let service = serde_json::from_value(service).expect("a service");
        world.context.informer::<Service>().apply(service);
    }
    let away = plugin.lookup("away.default.svc.cluster.local").await;
    assert!(matches!(away, Err(ResolveError::NotFound(_))), "{away:?}");
    let from = IpAddr::from([10, 240, 0, 2]);
    let asks = |name: &str| world.guard.on_question(from, name) == Verdict::Allow;
    assert!(asks("out.default.svc.cluster.local"));
    assert!(!asks("away.default.svc.cluster.local"));
    let to = SocketAddr::from(([192, 0, 2, 1], 443));
    let may = || world.guard.on_connect(from, to, Protocol::Tcp) == Verdict::Allow;
    assert!(!may());
    let known = plugin.lookup("out.default.svc.cluster.local").await;
    known.expect("it stands for an allowed name");
    assert!(may());
}

#[tokio::test(start_paused = true)]
async fn suffixes_that_are_tried_are_no_denials_and_own_servers_open_nothing() {
    let world = World::new(namespace(json!({}))).await;
    world.ready().await;
    let with = |name: &str, last: u8, dns: DnsConfig| {
        let list = json!({ANNOTATION: "api.example:443"});
        let address = IpAddr::from([10, 240, 0, last]);
        let object = json!({
            "metadata": {"namespace": "default", "name": name, "uid": name, "annotations": list},
            "spec": {"containers": []},
        });
        let object = serde_json::from_value(object).expect("a pod");
        world.context.informer::<Pod>().apply(object);
        let config = NamespaceConfig::new(format!("default/{name}"), address, name);
        let made = world
            .fabric
            .create_namespace(NamespaceConfig { dns, ..config });
        made.expect("a free address").scope()
    };
    let searching = DnsConfig {
        searches: vec!["lab.test".to_owned()],
        options: vec!["ndots:5".to_owned()],
        ..DnsConfig::default()
    };
    let searching = with("searching", 2, searching);
    searching.lookup("api.example").await.expect("allowed");
    assert_eq!(world.denials.hosts(), 0);
    searching.lookup("db.lab.test").await.expect_err("closed");
    searching.lookup("third.example").await.expect_err("closed");
    // Each with the suffix and without.
    assert_eq!(world.denials.hosts(), 4);

    let to = SocketAddr::from(([192, 0, 2, 1], 443));
    let may = |last: u8| {
        let from = IpAddr::from([10, 240, 0, last]);
        world.guard.on_connect(from, to, Protocol::Tcp) == Verdict::Allow
    };
    assert!(may(2));
    let own = DnsConfig {
        servers: vec![IpAddr::from([10, 240, 0, 9])],
        ..DnsConfig::default()
    };
    let own = with("own", 3, own);
    own.lookup("api.example").await.expect("allowed");
    assert!(!may(3), "the server might have said anything");
}

//! What a pick among thousands of endpoints costs, how soon everybody sees that one has moved, and what a name costs that a
//! guest asks for: one process, with the API server played by lists and watches in memory.
//!
//! ```sh
//! cargo run --release -p coracle-services --example picks -- 5000 5   # endpoints, rounds
//! ```
//!
//! Prints JSON for `coracle-bench net`: `pick`, `short` and `whole` in microseconds of one, `seen` in milliseconds. An
//! endpoint's change is a line of a watch, given to the client as the API server would; it is seen when the last of some
//! clients that stay with their endpoint is led elsewhere.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use coracle_client::{CancellationToken, Client, Context};
use coracle_clock::Clock;
use coracle_dns::{Servers, UpstreamConfig};
use coracle_network::{DnsConfig, Fabric, FabricConfig, NamespaceConfig, Protocol, Route};
use coracle_services::{Services, ServicesConfig};
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Endpoints of one slice, as upstream's controller makes them.
const OF_A_SLICE: u32 = 100;
/// Picks, and lookups, of one round.
const TIMES: u32 = 50_000;
/// How many clients have to be led elsewhere.
const PICKERS: u32 = 8;
/// How long a picker rests between two picks: nobody connects without a pause.
const REST: Duration = Duration::from_micros(20);
/// Changes of one round.
const CHANGES: u32 = 10;
/// How long a change may take before something is wrong.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = |otherwise| {
        args.next()
            .map_or(Ok(otherwise), |word| word.parse::<u32>())
    };
    let (endpoints, rounds) = (number(5000)?, number(5)?);
    let clock = Clock::system();
    let cluster = Cluster::start(endpoints, &clock).await?;
    let (mut pick, mut seen) = (Vec::new(), Vec::new());
    let (mut short, mut whole) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        pick.push(cluster.picks(&clock)?);
        short.push(cluster.names("web", &clock).await?);
        whole.push(
            cluster
                .names("web.default.svc.cluster.local", &clock)
                .await?,
        );
        for change in 0..CHANGES {
            seen.push(cluster.moves(round * CHANGES + change, &clock)?);
        }
    }
    println!(
        "{}",
        json!({"pick": pick, "seen": seen, "short": short, "whole": whole})
    );
    Ok(())
}

const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 240, 0, 2));

/// Where the Service is that takes turns, and where the one that clients stay with.
fn web() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 96, 0, 5).into(), 80)
}

fn sticky() -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 96, 0, 6).into(), 80)
}

/// A node's Services, and the hand that changes them.
struct Cluster {
    fabric: Arc<Fabric>,
    namespace: Arc<coracle_network::NetworkNamespace>,
    slices: u32,
    watches: Watches,
    _services: Services,
}

impl Cluster {
    async fn start(endpoints: u32, clock: &Clock) -> Result<Self> {
        let slices = endpoints.div_ceil(OF_A_SLICE);
        let all = (0..slices)
            .flat_map(|number| ["web", "sticky"].map(|service| slice(service, number, 0, "1")));
        let lists = HashMap::from([
            (
                "/api/v1/services",
                vec![service("web", web()), service("sticky", sticky())],
            ),
            (
                "/api/v1/namespaces",
                vec![json!({"metadata": {"name": "default"}})],
            ),
            ("/api/v1/nodes", Vec::new()),
            ("/apis/discovery.k8s.io/v1/endpointslices", all.collect()),
        ]);
        let watches = Watches::default();
        let client = server(lists, watches.clone());
        let clients = Arc::new(move |_: &str| client.clone());
        let context = Context::new(clients, clock.clone(), CancellationToken::new());
        let node = Ipv4Addr::new(10, 240, 0, 1).into();
        let fabric = Fabric::new(FabricConfig::new(node), clock.clone());
        let dns = Ipv4Addr::new(10, 96, 0, 10).into();
        let config = ServicesConfig {
            upstreams: UpstreamConfig {
                servers: Servers::Fixed(Vec::new()),
                stub_domains: Vec::new(),
            },
            ..ServicesConfig::new("here", "cluster.local")
        };
        let services = Services::start(config, context.clone(), fabric.clone());
        let namespace = fabric.create_namespace(NamespaceConfig {
            dns: DnsConfig {
                servers: vec![dns],
                searches: [
                    "default.svc.cluster.local",
                    "svc.cluster.local",
                    "cluster.local",
                ]
                .map(str::to_owned)
                .into(),
                options: vec!["ndots:5".to_owned()],
            },
            ..NamespaceConfig::new("default/client", POD, "client")
        })?;
        let cluster = Self {
            fabric,
            namespace,
            slices,
            watches,
            _services: services,
        };
        let full = async {
            while cluster.first(POD, web()).is_err() || cluster.watches.count() < 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let full = tokio::time::timeout(LIMIT, full).await;
        full.context("the caches were not filled")?;
        Ok(cluster)
    }

    /// The endpoint that a client is led to first.
    fn first(&self, client: IpAddr, to: SocketAddr) -> Result<SocketAddr> {
        match self.fabric.router().route(client, to, Protocol::Tcp) {
            Route::Endpoints(all) => Ok(all[0]),
            other => anyhow::bail!("{to} leads to {other:?}"),
        }
    }

    /// Microseconds of a pick.
    fn picks(&self, clock: &Clock) -> Result<f64> {
        let start = clock.monotonic();
        for _ in 0..TIMES {
            self.first(POD, web())?;
        }
        Ok(microseconds(start, clock) / f64::from(TIMES))
    }

    /// Microseconds of a name, as a guest asks for it: with search domains.
    async fn names(&self, name: &str, clock: &Clock) -> Result<f64> {
        let start = clock.monotonic();
        for _ in 0..TIMES {
            let addresses = self.namespace.lookup(name).await?;
            ensure!(addresses == [web().ip()], "{name} has {addresses:?}");
        }
        Ok(microseconds(start, clock) / f64::from(TIMES))
    }

    /// Milliseconds from a change until the last picker saw it.
    fn moves(&self, change: u32, clock: &Clock) -> Result<f64> {
        // Clients take turns; those who come after one another stay with endpoints that lie side by side.
        let clients = |picker| Ipv4Addr::from_bits((172 << 24) + change * 10_000 + picker).into();
        let mut held = Vec::new();
        let mut candidate = 0;
        let mut of_slice = None;
        while held.len() < PICKERS as usize {
            let client = clients(candidate);
            candidate += 1;
            let endpoint = self.first(client, sticky())?;
            let number = number_of(endpoint, self.slices);
            if *of_slice.get_or_insert(number) == number {
                held.push((client, endpoint));
            } else if held.len() < PICKERS as usize {
                (held, of_slice) = (vec![(client, endpoint)], Some(number));
            }
        }
        let number = of_slice.context("somebody stays somewhere")?;
        std::thread::scope(|scope| {
            let pickers: Vec<_> = held
                .iter()
                .map(|(client, endpoint)| {
                    scope.spawn(move || {
                        let start = clock.monotonic();
                        while self.first(*client, sticky())? == *endpoint {
                            let waited = clock.monotonic().saturating_sub(start);
                            ensure!(waited < LIMIT, "{client} still has {endpoint}");
                            std::thread::sleep(REST);
                        }
                        Ok(clock.monotonic())
                    })
                })
                .collect();
            let moved = slice("sticky", number, change + 1, &format!("{}", change + 2));
            let event = json!({"type": "MODIFIED", "object": moved});
            let start = clock.monotonic();
            self.watches.tell(&event);
            let mut last = start;
            for picker in pickers {
                let seen = picker.join().ok().context("a picker panicked")?;
                last = last.max(seen?);
            }
            Ok(last.saturating_sub(start).as_secs_f64() * 1000.0)
        })
    }
}

fn microseconds(start: Duration, clock: &Clock) -> f64 {
    clock.monotonic().saturating_sub(start).as_secs_f64() * 1e6
}

fn service(name: &str, at: SocketAddr) -> Value {
    let affinity = if name == "sticky" { "ClientIP" } else { "None" };
    let address = at.ip().to_string();
    json!({
        "metadata": {"namespace": "default", "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {
            "clusterIP": address, "clusterIPs": [address], "sessionAffinity": affinity,
            "ports": [{"name": "http", "port": at.port(), "protocol": "TCP"}],
        },
    })
}

/// A slice of a Service, with all of its endpoints at another port after each change.
fn slice(service: &str, number: u32, change: u32, revision: &str) -> Value {
    let endpoint = |index: u32| {
        let [_, _, c, d] = (number * OF_A_SLICE + index).to_be_bytes();
        json!({"addresses": [Ipv4Addr::new(10, 241, c, d)], "conditions": {"ready": true}})
    };
    let port = 1000 + change;
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "namespace": "default", "name": format!("{service}-{number}"), "uid": format!("{service}-{number}"),
            "resourceVersion": revision, "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": (0..OF_A_SLICE).map(endpoint).collect::<Vec<_>>(),
    })
}

/// Which slice has the endpoint.
fn number_of(endpoint: SocketAddr, slices: u32) -> u32 {
    let IpAddr::V4(address) = endpoint.ip() else {
        return 0;
    };
    let [_, _, c, d] = address.octets();
    (u32::from(c) * 256 + u32::from(d)) / OF_A_SLICE % slices
}

/// The watches that were opened.
#[derive(Clone, Default)]
struct Watches(Arc<Mutex<Vec<Watch>>>);

struct Watch {
    of_slices: bool,
    lines: UnboundedSender<Bytes>,
}

impl Watches {
    fn count(&self) -> usize {
        self.0.lock().len()
    }

    fn open(&self, of_slices: bool) -> UnboundedReceiver<Bytes> {
        let (lines, receiver) = unbounded();
        self.0.lock().push(Watch { of_slices, lines });
        receiver
    }

    fn tell(&self, event: &Value) {
        let line = Bytes::from(format!("{event}\n"));
        for watch in self.0.lock().iter().filter(|watch| watch.of_slices) {
            // One that has ended was opened again.
            let _ = watch.lines.unbounded_send(line.clone());
        }
    }
}

/// An API server that lists what it is given and watches what it is told.
fn server(lists: HashMap<&'static str, Vec<Value>>, watches: Watches) -> Client {
    let lists = Arc::new(lists);
    let service = tower::service_fn(
        move |request: http::Request<coracle_client::kube::client::Body>| {
            let uri = request.uri();
            let (path, query) = (uri.path(), uri.query().unwrap_or_default());
            let body = match query.contains("watch=true") {
                true => watches.open(path.ends_with("endpointslices")).boxed(),
                false => {
                    let items = lists.get(path).cloned().unwrap_or_default();
                    let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
                    stream::iter([Bytes::from(list.to_string())]).boxed()
                }
            };
            let body = StreamBody::new(body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
            async move { Ok::<_, Infallible>(http::Response::new(body)) }
        },
    );
    Client::new(service, "default")
}

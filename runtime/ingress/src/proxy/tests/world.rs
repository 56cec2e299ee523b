//! A proxy over a pod network in memory: backends are tasks, clients are streams.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use coracle_client::{CancellationToken, ObjectKey};
use coracle_clock::Clock;
use coracle_network::{
    Fabric, FabricConfig, NamespaceConfig, NetError, SocketScope, TcpListener, TcpStream,
};
use coracle_services::{AccessLog, AccessSink, DialError};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::DuplexStream;

use super::super::body::BoxError;
use super::super::{Network, Proxy};
use crate::connection::Door;
use crate::settings::Settings;
use crate::table::{Backend, Match, Table, Target};

pub(super) type TestBody = UnsyncBoxBody<Bytes, BoxError>;

pub(super) fn empty() -> TestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full(text: impl Into<Bytes>) -> TestBody {
    let body = Full::new(text.into());
    body.map_err(|never| match never {}).boxed_unsync()
}

/// The endpoints of Services by name; the port is not looked at.
#[derive(Default)]
pub(super) struct Endpoints(Mutex<HashMap<String, Vec<SocketAddr>>>);

struct Cluster {
    endpoints: Arc<Endpoints>,
    fabric: Arc<Fabric>,
}

#[async_trait]
impl Network for Cluster {
    async fn endpoints(
        &self,
        _client: IpAddr,
        service: &ObjectKey,
        port: &str,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let known = self.endpoints.0.lock();
        match known.get(&service.name) {
            None => Err(DialError::NoService(service.clone())),
            Some(_) if port != "80" => Err(DialError::NoPort {
                service: service.clone(),
                port: port.to_owned(),
            }),
            Some(none) if none.is_empty() => Err(DialError::NoEndpoints(service.clone())),
            Some(some) => Ok(some.clone()),
        }
    }

    async fn dial(&self, _service: &ObjectKey, to: SocketAddr) -> Result<TcpStream, NetError> {
        self.fabric.dial(to).await
    }
}

/// Everything that a test needs.
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) fabric: Arc<Fabric>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) door: Arc<Door>,
    endpoints: Arc<Endpoints>,
    table: Mutex<Vec<(String, Match, Arc<Target>)>>,
}

impl World {
    pub(super) fn new() -> Self {
        Self::telling(None)
    }

    /// A world whose requests are told to the sink.
    pub(super) fn telling(sink: Option<Arc<dyn AccessSink>>) -> Self {
        let clock = Clock::fake(1);
        let mut config = FabricConfig::new(Ipv4Addr::new(10, 240, 0, 1).into());
        config.pod_ranges = vec!["10.240.0.0/12".parse().expect("a range")];
        let fabric = Fabric::new(config, clock.clone());
        let endpoints = Arc::<Endpoints>::default();
        let network = Cluster {
            endpoints: endpoints.clone(),
            fabric: fabric.clone(),
        };
        let proxy = Proxy::new(clock.clone(), Arc::new(network), Arc::default());
        let proxy = Arc::new(proxy.telling(AccessLog::new(sink, clock.clone())));
        let door = Arc::new(Door {
            proxy: proxy.clone(),
            tls: None,
            port: 8080,
            stop: CancellationToken::new(),
        });
        Self {
            clock,
            fabric,
            proxy,
            door,
            endpoints,
            table: Mutex::default(),
        }
    }

    /// A world where everything goes to the Service `web`, with these settings.
    pub(super) fn with(settings: Settings) -> Self {
        let world = Self::new();
        world.route("/", "web", settings);
        world
    }

    /// Sends what is below `path` to a Service.
    pub(super) fn route(&self, path: &str, service: &str, settings: Settings) {
        let target = Target {
            ingress: Some(ObjectKey::new("default", "ing")),
            path: path.to_owned(),
            backend: Backend::Service {
                service: ObjectKey::new("default", service),
                port: "80".to_owned(),
            },
            is_http2: settings.is_http2,
            settings: Arc::new(settings),
            has_tls: true,
        };
        let mut lines = self.table.lock();
        lines.push((String::new(), Match::Prefix, Arc::new(target)));
        let mut table = Table::default();
        for (host, _, target) in lines.iter() {
            table.add(host, Match::Prefix, target);
        }
        self.proxy.replace(Arc::new(table));
    }

    /// Where everything goes.
    pub(super) fn target(&self) -> Arc<Target> {
        let lines = self.table.lock();
        lines.first().expect("a route").2.clone()
    }

    /// Says where a Service's pods are: 10.240.0.`last`, port 80.
    pub(super) fn serve_at(&self, service: &str, lasts: &[u8]) {
        let at = lasts.iter().map(|last| address(*last)).collect();
        self.endpoints.0.lock().insert(service.to_owned(), at);
    }

    /// A listener in the pod 10.240.0.`last`.
    pub(super) fn listener(&self, last: u8) -> (TcpListener, SocketScope) {
        let name = format!("pod-{last}");
        let ip = address(last).ip();
        let config = NamespaceConfig::new(format!("default/{name}"), ip, name);
        let namespace = self
            .fabric
            .create_namespace(config)
            .expect("a free address");
        let scope = namespace.scope();
        (
            scope.listen_tcp(address(last), 64).expect("a free port"),
            scope,
        )
    }

    /// A pod that answers requests by `handler`; counts its connections.
    pub(super) fn backend<F, A>(&self, last: u8, handler: F) -> Arc<AtomicUsize>
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<TestBody>> + Send + 'static,
    {
        let (listener, scope) = self.listener(last);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            let _scope = scope;
            while let Ok(stream) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let handler = handler.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = handler(request);
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let io = TokioIo::new(stream);
                    let _ = server.serve_connection_with_upgrades(io, service).await;
                });
            }
        });
        count
    }

    /// A client's connection, as bytes.
    pub(super) fn raw(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(16 << 10);
        let door = self.door.clone();
        let client = "192.0.2.7:5000".parse().expect("an address");
        tokio::spawn(async move { door.serve(far, client).await });
        near
    }

    /// A client of HTTP/1.1.
    pub(super) async fn client(&self) -> http1::SendRequest<TestBody> {
        let io = TokioIo::new(self.raw());
        let (sender, driver) = http1::handshake(io).await.expect("a connection");
        tokio::spawn(driver.with_upgrades());
        sender
    }

    /// A client of HTTP/2.
    pub(super) async fn client_http2(&self) -> http2::SendRequest<TestBody> {
        let io = TokioIo::new(self.raw());
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io)
            .await
            .expect("a connection");
        tokio::spawn(driver);
        sender
    }

    /// One request on a connection of its own: the status and the body.
    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let mut client = self.client().await;
        let answer = client.send_request(get(path)).await.expect("an answer");
        read(answer).await
    }
}

pub(super) fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 240, 0, last], 80))
}

pub(super) fn get(path: &str) -> Request<TestBody> {
    request("GET", path, empty())
}

pub(super) fn request(method: &str, path: &str, body: TestBody) -> Request<TestBody> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "web.localhost:8080");
    request.body(body).expect("a request")
}

pub(super) async fn read<B>(answer: Response<B>) -> (u16, String)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let status = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.expect("a whole body");
    let text = String::from_utf8_lossy(&bytes.to_bytes()).into_owned();
    (status, text)
}

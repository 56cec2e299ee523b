//! Ingress: HTTP from outside, by host and path, to the pods behind Services.
//!
//! Sits on the data plane between listeners of the host and the [`Fabric`](coracle_network::Fabric): it reads Ingresses and their classes, Services
//! and the Secrets that Ingresses name, and asks [`Services`] for the endpoints of each request.
//!
//! ```text
//! Ingresses, IngressClasses, Services, Secrets ──▶ controller ──▶ table, certificates     statuses, Events
//!                                                                    │
//! client ──TCP, TLS──▶ listen ──▶ connection ──▶ proxy ──asks────────┘
//!                                                  └──▶ pool ──▶ Fabric::dial ──▶ a pod's listener
//! ```
//!
//! What is decided is in pure functions: where a request goes (`table`), what the objects say (`build`), what annotations
//! mean (`settings`), what heads become (`proxy/head.rs`). What runs is bounded: connections, requests, heads, bodies by
//! annotation, what is sent ahead, and time.
//!
//! Deliberately absent: it makes no certificates itself (the binary lends it the cluster's authority), keeps no list of
//! endpoints, and buffers no bodies. The trust in `X-Forwarded-…` that clients send: none.

mod access;
mod activity;
mod build;
mod certificates;
mod connection;
mod controller;
mod listen;
mod metrics;
mod proxy;
mod settings;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use coracle_client::{Context, ObjectKey, supervise};
use coracle_network::{NetError, TcpStream};
use coracle_services::{AccessLog, DialError, Services};
use rustls::ServerConfig;
use tokio::net::TcpListener;

pub use build::{CONTROLLER, DEFAULT_CLASS};
pub use certificates::FallbackCertificates;
pub use metrics::Metrics;

use certificates::Resolver;
use connection::Door;
use controller::Controller;
use controller::status::Addresses;
use proxy::{Network, Proxy};

/// What is fixed when Ingresses begin to be served.
pub struct IngressConfig {
    /// The listener without TLS.
    pub http: Option<TcpListener>,
    /// The listener with TLS.
    pub https: Option<TcpListener>,
    /// Makes certificates for hosts whose Ingress has none.
    pub fallback: Arc<dyn FallbackCertificates>,
    /// Counts what is served.
    pub metrics: Arc<Metrics>,
    /// Has a line for each request.
    pub log: AccessLog,
}

/// Serves Ingresses until the context's stop signal, and what is under way for some seconds more.
///
/// `context` is the component's own: it may read IngressClasses, Ingresses and Secrets, and write statuses and Events.
/// Must be called within a tokio runtime, whose threads then carry the connections.
pub async fn run(config: IngressConfig, context: Context, services: Services) {
    let clock = context.clock().clone();
    let network = Arc::new(Cluster { services });
    let proxy = Arc::new(Proxy::new(clock, network, config.metrics).telling(config.log));
    let resolver = Arc::new(Resolver::new(config.fallback));
    let addresses = Addresses {
        http: config
            .http
            .as_ref()
            .and_then(|listener| listener.local_addr().ok()),
        https: config
            .https
            .as_ref()
            .and_then(|listener| listener.local_addr().ok()),
    };
    if let Some(address) = addresses.https {
        proxy.set_https_port(address.port());
    }
    let tls = server_config(resolver.clone());
    let door = |address: Option<SocketAddr>, tls: Option<Arc<ServerConfig>>| Door {
        proxy: proxy.clone(),
        tls,
        port: address.map_or(0, |address| address.port()),
        stop: context.stop().clone(),
    };
    let (http, https) = (door(addresses.http, None), door(addresses.https, Some(tls)));
    let listen = async |listener: Option<TcpListener>, door: Door| {
        if let Some(listener) = listener {
            listen::serve(listener, door).await;
        }
    };
    let (clock, stop) = (context.clock().clone(), context.stop().clone());
    let controller = supervise("ingress", clock, stop, || {
        let (context, addresses) = (context.clone(), addresses.clone());
        Controller::new(context, proxy.clone(), resolver.clone(), addresses).run()
    });
    tokio::join!(
        controller,
        listen(config.http, http),
        listen(config.https, https)
    );
}

/// TLS 1.2 and 1.3 with the certificates that `resolver` chooses; HTTP/2 for who asks for it.
fn server_config(resolver: Arc<Resolver>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of both versions")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The pod network, with the Services in it.
struct Cluster {
    services: Services,
}

#[async_trait]
impl Network for Cluster {
    async fn endpoints(
        &self,
        client: IpAddr,
        service: &ObjectKey,
        port: &str,
    ) -> Result<Vec<SocketAddr>, DialError> {
        self.services.backends(client, service, port).await
    }

    async fn dial(&self, service: &ObjectKey, to: SocketAddr) -> Result<TcpStream, NetError> {
        self.services.dial_endpoint(service, to).await
    }
}

//! One request on its way: found in the table, given to an endpoint, answered chunk by chunk.
//!
//! ```text
//! request ─▶ host, place ─▶ table ─▶ settings ─▶ endpoints in turn ─▶ head ─▶ body ─▶ connection rests
//!             400    503      404    308, 413     503 (none, all refuse) 502, 504
//! ```
//!
//! Nothing is buffered beyond a few chunks. The next endpoint is tried only while the request cannot have been acted on:
//! when no connection was made, or when one that had rested turned out to be closed and nothing was sent, or what was
//! sent was a question without a body.

pub(crate) mod body;
mod driver;
mod head;
mod pool;
mod refusal;
mod send;
#[cfg(test)]
mod tests;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coracle_client::ObjectKey;
use coracle_clock::Clock;
use coracle_network::{NetError, TcpStream};
use coracle_services::{AccessLog, DialError};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::access::Entry;
use crate::activity::Active;
use crate::metrics::Metrics;
use crate::settings::Redirect;
use crate::table::{Backend, Found, Table, Target};
use body::{Body, Held, RequestBody, Upload};
use pool::{Lease, Pool};
use refusal::Refusal;
use tunnel::Tunnel;

pub(crate) use head::{Entrance, host};

/// Requests and upgraded connections at once; more are answered with 503.
const REQUESTS: usize = 8192;

/// The cluster as the proxy needs it.
#[async_trait]
pub(crate) trait Network: Send + Sync + 'static {
    /// The endpoints of a Service's port, in the order to be tried for this client; at least one.
    /// Those of a Service of type ExternalName are the addresses of its name.
    async fn endpoints(
        &self,
        client: IpAddr,
        service: &ObjectKey,
        port: &str,
    ) -> Result<Vec<SocketAddr>, DialError>;

    /// A connection from the node to one of a Service's endpoints.
    async fn dial(&self, service: &ObjectKey, to: SocketAddr) -> Result<TcpStream, NetError>;
}

/// Answers requests by the newest table.
pub(crate) struct Proxy {
    clock: Clock,
    metrics: Arc<Metrics>,
    network: Arc<dyn Network>,
    table: RwLock<Arc<Table>>,
    pool: Arc<Pool>,
    places: Arc<Semaphore>,
    /// Where TLS is spoken; 0: nowhere.
    https_port: AtomicU16,
    log: AccessLog,
}

impl Proxy {
    pub(crate) fn new(clock: Clock, network: Arc<dyn Network>, metrics: Arc<Metrics>) -> Self {
        Self {
            log: AccessLog::new(None, clock.clone()),
            clock,
            metrics,
            network,
            table: RwLock::default(),
            pool: Arc::default(),
            places: Arc::new(Semaphore::new(REQUESTS)),
            https_port: AtomicU16::new(0),
        }
    }

    /// Tells `log` of every request.
    pub(crate) fn telling(self, log: AccessLog) -> Self {
        Self { log, ..self }
    }

    /// Routes by this table from now on.
    pub(crate) fn replace(&self, table: Arc<Table>) {
        *self.table.write() = table;
    }

    /// Says where requests may be redirected to.
    pub(crate) fn set_https_port(&self, port: u16) {
        self.https_port.store(port, Ordering::Relaxed);
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Answers one request.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        entrance: Entrance,
        active: Active,
    ) -> Response<Body> {
        let mut held = Held {
            active,
            place: None,
            entry: Entry::begin(&request, &entrance, &self.clock, &self.log),
        };
        match self.answer(request, entrance, &mut held).await {
            Ok(Answer::Response(response)) => {
                self.note(&mut held, response.status());
                response.map(|body| body.holding(held))
            }
            Ok(Answer::Tunnel(response, tunnel)) => {
                self.note(&mut held, response.status());
                let Ends {
                    client,
                    backend,
                    lease,
                    patience,
                } = *tunnel;
                let tunnel = Tunnel {
                    client,
                    backend,
                    lease,
                    patience,
                    held,
                    clock: self.clock.clone(),
                };
                tokio::spawn(tunnel.run());
                response
            }
            Err(refusal) => {
                self.note(&mut held, refusal.status);
                if let Some(entry) = &mut held.entry {
                    entry.error = Some(refusal.text.clone());
                }
                refusal.into_response().map(|body| body.holding(held))
            }
        }
    }

    fn note(&self, held: &mut Held, status: StatusCode) {
        self.metrics.answered(status);
        if let Some(entry) = &mut held.entry {
            entry.status = status.as_u16();
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        entrance: Entrance,
        held: &mut Held,
    ) -> Result<Answer, Refusal> {
        if request.method() == Method::CONNECT {
            let text = "CONNECT is not served here";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text));
        }
        let host =
            head::host(&request).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.0))?;
        let place = self.places.clone().try_acquire_owned();
        held.place = Some(place.map_err(|_| Refusal::later("too many requests are under way"))?);

        let Found { target, path } = self.find(&host.name, request.uri().path())?;
        if let Some(entry) = &mut held.entry {
            entry.ingress.clone_from(&target.ingress);
            entry.is_wanted = target.settings.access_log;
        }
        let settings = &target.settings;
        if let Some(annotation) = &settings.closed_by {
            let text = format!(
                "{} has the annotation {annotation}, which is not supported, so nobody is let in",
                of(&target)
            );
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        if let Some(response) = self.redirect(&request, &host, &entrance, &target) {
            return Ok(Answer::Response(response));
        }
        let length = request.body().size_hint().lower();
        if let Some(limit) = settings.body_limit.filter(|limit| length > *limit) {
            return Err(too_large(limit));
        }
        let endpoints = self.endpoints(&target, &entrance).await?;

        let wants_upgrade = head::upgrade(&request).is_some();
        let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        head::forward(
            &mut request,
            &host,
            &entrance,
            path.as_deref(),
            target.is_http2,
        );
        let upload = Upload::new(&self.clock);
        let request = request.map(|body| {
            RequestBody::new(body, settings.body_limit, settings.send_timeout, &upload)
        });
        let (mut response, mut lease, endpoint) =
            self.send(&target, endpoints, request, &upload).await?;
        if let Some(entry) = &mut held.entry {
            entry.endpoint = Some(endpoint);
        }

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else {
                let text = format!("{endpoint} switched protocols, which nobody asked for");
                return Err(Refusal::new(StatusCode::BAD_GATEWAY, text));
            };
            let backend = hyper::upgrade::on(&mut response);
            lease.put_apart();
            let ends = Ends {
                client,
                backend,
                lease,
                patience: settings.tunnel_timeout,
            };
            return Ok(Answer::Tunnel(switching(&response), Box::new(ends)));
        }
        head::strip(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        let patience = settings.read_timeout;
        Ok(Answer::Response(
            response.map(|body| Body::of_backend(body, patience, lease)),
        ))
    }

    fn find(&self, host: &str, path: &str) -> Result<Found, Refusal> {
        let table = self.table.read().clone();
        table.route(host, path).ok_or_else(|| {
            let text = match table.is_empty() {
                true => "no Ingress is served here so far".to_owned(),
                false => format!(
                    "no Ingress has a rule for the host {host:?} and the path {path:?}, and there is no default backend"
                ),
            };
            Refusal::new(StatusCode::NOT_FOUND, text)
        })
    }

    fn redirect(
        &self,
        request: &Request<Incoming>,
        host: &head::Host,
        entrance: &Entrance,
        target: &Target,
    ) -> Option<Response<Body>> {
        let port = self.https_port.load(Ordering::Relaxed);
        let wanted = match target.settings.ssl_redirect {
            Redirect::Never => false,
            Redirect::WithTls => target.has_tls,
            Redirect::Always => true,
        };
        if !wanted || entrance.is_tls || port == 0 {
            return None;
        }
        let name = match host.name.contains(':') {
            true => format!("[{}]", host.name),
            false => host.name.clone(),
        };
        let port = match port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let location = HeaderValue::try_from(format!("https://{name}{port}{path}")).ok()?;
        let mut response = Response::new(Body::text(""));
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, location);
        Some(response)
    }

    async fn endpoints(
        &self,
        target: &Target,
        entrance: &Entrance,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let (service, port) = match &target.backend {
            Backend::Service { service, port } => (service, port),
            Backend::Resource(name) => {
                let text = format!("{} names {name}, which is not a Service", of(target));
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
            }
        };
        let client = entrance.client_ip();
        let found = self.network.endpoints(client, service, port).await;
        found.map_err(|error| Refusal::later(format!("{}: {error}", of(target))))
    }
}

/// What a request came to.
enum Answer {
    Response(Response<Body>),
    /// The answer to an upgrade, and what carries on after it.
    Tunnel(Response<Body>, Box<Ends>),
}

struct Ends {
    client: OnUpgrade,
    backend: OnUpgrade,
    lease: Lease,
    patience: Duration,
}

/// What a target is called in answers: the Service, and by which Ingress.
fn of(target: &Target) -> String {
    let by = match &target.ingress {
        Some(ingress) => format!("ingress {ingress}"),
        None => "the default backend".to_owned(),
    };
    match &target.backend {
        Backend::Service { service, port } => format!("{by} (service {service}, port {port})"),
        Backend::Resource(_) => by,
    }
}

fn too_large(limit: u64) -> Refusal {
    let text = format!("the body of a request has {limit} bytes at most here");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// The answer that agrees to an upgrade, for the client.
fn switching(response: &Response<Incoming>) -> Response<Body> {
    let mut out = Response::new(Body::text(""));
    *out.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = out.headers_mut();
    headers.clone_from(response.headers());
    let upgrade = headers.get(header::UPGRADE).cloned();
    head::strip(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    out
}

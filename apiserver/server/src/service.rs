//! The one service: a request comes in, an answer goes out.
//!
//! ```text
//! request ▶ authenticate ▶ impersonate ▶ seats ▶ authorize ▶ documents │ health │ resource
//!                                                                   │
//!                                        get · list · watch · create · update · patch · delete
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::Registry;
use coracle_api::kinds::Subresource;
use coracle_clock::Clock;
use coracle_store::Store;
use futures::FutureExt;
use http::header::{ACCEPT_ENCODING, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::{
    Admission, AdmissionChain, CertificateApproval, CertificateSigning,
    CertificateSubjectRestriction, DefaultClass, DefaultTolerationSeconds, NamespaceLifecycle,
    NodeRestriction, PodTopologyLabels, Priority, RuntimeClassAdmission, ServiceAccountAdmission,
    StorageObjectInUseProtection, TaintNodesByCondition,
};
use crate::allocate::{Allocators, ServiceRanges};
use crate::answer::{Answer, settle};
use crate::audit::{Audit, AuditId, Source, Trail};
use crate::authn::{Authentication, AuthenticationOptions, Identity, Remarks, impersonate};
use crate::authz::node::NodeAuthorizer;
use crate::authz::rbac::Rbac;
use crate::authz::{self, Attributes as Access, Authorization, Mode};
use crate::body::{self, Body, BoxError};
use crate::cache::{Caches, StartError};
use crate::call::Call;
use crate::detached::Detached;
use crate::dialer::{ClusterDialer, NoCluster, NoNodes, NodeDialer};
use crate::flowcontrol::{self, FlowControl, Pass, Place, Route, Stats};
use crate::health::{Check, Health};
use crate::held::Cut;
use crate::metrics::{About, Metrics};
use crate::negotiate::{self, Output, Shape};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::{ApiError, Result, refusal};
use crate::storage::Storage;
use crate::subresources::{binding, connect, eviction, log, scale, token};
use crate::usage::Usages;
use crate::verbs::{create, delete, get, list, patch, update, watch};
use crate::{
    allocate, authn, components, discovery, health, limits, openapi, openid, reviews, table, usage,
};

/// Seats that priority and fairness shares out: upstream's sum for reading and writing requests.
const DEFAULT_MAX_IN_FLIGHT: usize = 600;

/// Watches, logs and tunnels open at once; more are 429.
const DEFAULT_MAX_LONG_RUNNING: usize = 8192;

/// Writes numbers of another part of the process in Prometheus' text format, as of now.
pub type MetricsSource = Arc<dyn Fn() -> String + Send + Sync>;

/// What an API server is made of.
pub struct Config {
    /// Where objects are kept.
    pub store: Arc<dyn Store>,
    /// The kinds.
    pub registry: Registry,
    /// Time and randomness.
    pub clock: Clock,
    /// Whom to believe besides in-process callers and client certificates.
    pub authentication: AuthenticationOptions,
    /// Who may do what: asked in order, after `system:masters`, who may do everything.
    pub authorizers: Vec<Mode>,
    /// Steps of admission, in order.
    pub admission: Vec<Box<dyn Admission>>,
    /// What is recorded of requests, and where.
    pub audit: Option<Arc<Audit>>,
    /// What else `/metrics` shows.
    pub further_metrics: Vec<MetricsSource>,
    /// What Services draw from.
    pub service_ranges: ServiceRanges,
    /// The way to the nodes' kubelets.
    pub dialer: Arc<dyn NodeDialer>,
    /// The way to pods, for the `proxy` subresources.
    pub cluster_dialer: Arc<dyn ClusterDialer>,
    /// Host and port that discovery tells clients to use; absent: those that they did use.
    pub public_address: Option<String>,
    /// The seats that priority and fairness shares out among requests; as many exempt ones run at once. Long-running ones
    /// are not counted.
    pub max_in_flight: usize,
    /// How many processors requests are worked at with.
    pub processors: usize,
    /// Most watches, logs and tunnels at once; each counts until its stream ends.
    pub max_long_running: usize,
}

impl Config {
    /// The usual parts over `store`: in-process callers and client certificates, nodes and roles, the admission steps of
    /// this crate, the default ranges, no nodes.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            registry: Registry::builtin(),
            clock,
            authentication: AuthenticationOptions::default(),
            authorizers: vec![Mode::Node, Mode::Rbac],
            admission: vec![
                Box::new(NamespaceLifecycle),
                Box::new(ServiceAccountAdmission),
                Box::new(NodeRestriction),
                Box::new(TaintNodesByCondition),
                Box::new(Priority),
                Box::new(DefaultTolerationSeconds),
                Box::new(DefaultClass::STORAGE),
                Box::new(StorageObjectInUseProtection),
                Box::new(RuntimeClassAdmission),
                Box::new(CertificateApproval),
                Box::new(CertificateSigning),
                Box::new(CertificateSubjectRestriction),
                Box::new(DefaultClass::INGRESS),
                Box::new(PodTopologyLabels),
            ],
            audit: None,
            further_metrics: Vec::new(),
            service_ranges: ServiceRanges::default(),
            dialer: Arc::new(NoNodes),
            cluster_dialer: Arc::new(NoCluster),
            public_address: None,
            max_in_flight: DEFAULT_MAX_IN_FLIGHT,
            processors: std::thread::available_parallelism().map_or(1, NonZero::get),
            max_long_running: DEFAULT_MAX_LONG_RUNNING,
        }
    }
}

/// An API server: one request→response service. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) server: Arc<Server>,
}

impl ApiServer {
    /// Fills the caches from the store and starts to follow it. Must be called within a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let caches = Caches::start(Arc::clone(&config.store), &config.registry).await?;
        let allocators = Allocators::new(&config.service_ranges, config.clock.clone());
        let rbac = Rbac::follow(&caches, &config.registry);
        let flow = FlowControl::follow(
            &caches,
            &config.registry,
            config.max_in_flight,
            config.processors,
            Arc::clone(&config.store),
            config.clock.clone(),
        );
        let authorization = Authorization::new(config.authorizers, &rbac, || {
            NodeAuthorizer::follow(&caches, &config.registry)
        });
        let checks = Health::default();
        let store = Arc::clone(&config.store);
        let writable = move || store.writable().map_err(|error| refusal(&error));
        checks.add_ready_check(health::STORE, Box::new(writable.clone()));
        checks.add_component("etcd-0", Box::new(writable));
        let server = Server {
            storage: Storage::new(config.store, caches, Arc::clone(&flow)),
            registry: config.registry,
            clock: config.clock,
            authentication: Authentication::new(config.authentication),
            authorization,
            rbac,
            flow,
            admission: AdmissionChain::new(config.admission),
            audit: config.audit,
            further_metrics: config.further_metrics,
            allocators,
            dialer: config.dialer,
            cluster_dialer: config.cluster_dialer,
            public_address: config.public_address,
            health: checks,
            documents: openapi::Documents::default(),
            encoded: Arc::default(),
            metrics: Metrics::default(),
            in_flight: Arc::new(Semaphore::new(config.max_in_flight)),
            long_running: Arc::new(Semaphore::new(config.max_long_running)),
            draining: AtomicBool::new(false),
            usages: Usages::default(),
            stop: CancellationToken::new(),
        };
        server.allocators.adopt(&server).await;
        let server = Arc::new(server);
        tokio::spawn(allocate::repair::run(Arc::downgrade(&server)));
        tokio::spawn(authn::note_uses(Arc::downgrade(&server)));
        if server.serves_metrics() {
            tokio::spawn(usage::run(Arc::downgrade(&server)));
        }
        Ok(Self { server })
    }

    /// The shared parts, for whoever serves documents about them.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Makes `/readyz` wait for `check` too.
    pub fn add_ready_check(&self, name: impl Into<String>, check: Check) {
        self.server.health.add_ready_check(name, check);
    }

    /// Makes a part of the control plane known as a ComponentStatus that is healthy while `check` passes.
    pub fn add_component(&self, name: impl Into<String>, check: Check) {
        self.server.health.add_component(name, check);
    }

    /// Makes `/readyz` fail from now on, so that nobody new comes; requests are still answered.
    pub fn start_draining(&self) {
        self.server.draining.store(true, Ordering::Relaxed);
    }

    /// Ends all watches. Call it after [`start_draining`](Self::start_draining), when components are done.
    pub fn stop(&self) {
        self.start_draining();
        self.server.stop.cancel();
    }

    /// Cancelled by [`stop`](Self::stop).
    pub fn stopped(&self) -> CancellationToken {
        self.server.stop.clone()
    }

    /// Answers one request. In-process callers put an [`Identity`](crate::Identity) into its extensions.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut parts, body) = request.into_parts();
        let cut = parts.extensions.remove::<Cut>();
        let started = self.server.clock.monotonic();
        let info = RequestInfo::parse(&parts.method, &parts.uri);
        let (verb, resource) = (
            info.verb,
            if info.is_resource {
                info.resource_path()
            } else {
                String::new()
            },
        );
        let accept = parts
            .headers
            .get(ACCEPT_ENCODING)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let about = About::of(&parts.method, &info, &parts.headers);
        let failed = negotiate::failure(&parts.headers, info.query.get("pretty"));
        let trail = self.trail(&mut parts, &info);
        // A bug in one handler is that request's failure, not that of others on the same connection.
        let mut body = Some(Box::pin(body));
        let caught = AssertUnwindSafe(self.admit(parts, info, &mut body))
            .catch_unwind()
            .await;
        if let Some(body) = &mut body {
            body::finish(body.as_mut()).await;
        }
        let panicked = caught.is_err();
        let mut answer = settle(caught.unwrap_or_else(|_| {
            tracing::error!(verb, resource, "a request handler panicked");
            Err(ApiError::internal(
                "this request caused apiserver to panic. Look in the logs for details",
            ))
        }));
        if let Some(trail) = trail {
            trail.answered(&mut answer, panicked);
        }
        let answer = answer.settled(failed);
        let took = self.server.clock.monotonic().saturating_sub(started);
        let code = answer.status.as_u16();
        self.server.metrics.request(about, code, took);
        tracing::debug!(target: "coracle::access", verb, resource, status = code, ?took);
        let piece = self.server.flow.piece();
        answer.into_response(accept.as_deref(), piece, cut)
    }

    /// Begins to record the request, if there is an audit.
    fn trail(&self, parts: &mut Parts, info: &RequestInfo) -> Option<Arc<Trail>> {
        let audit = self.server.audit.as_ref()?;
        let clock = self.server.clock();
        let id: Option<AuditId> = parts.extensions.remove();
        let id = id.unwrap_or_else(|| AuditId::of(&parts.headers, clock));
        let from: Option<Source> = parts.extensions.get().copied();
        let trail = audit.begin(clock, info, &parts.headers, &id, from);
        parts.extensions.insert(Arc::clone(&trail));
        Some(trail)
    }

    /// Gives the request its time, and a place among the long-running ones if it is one.
    async fn admit<B>(
        &self,
        parts: Parts,
        info: RequestInfo,
        body: &mut Option<Pin<Box<B>>>,
    ) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = &self.server;
        let writes = !matches!(parts.method, Method::GET | Method::HEAD);
        let _entered = server.metrics.entered(writes);
        if limits::is_long_running(&info) {
            let place = Arc::clone(&server.long_running).try_acquire_owned();
            let place = place.map_err(|_| ApiError::too_many_requests(1))?;
            let unhurried = info.verb != "watch";
            let mut answer = self.answer(parts, info, body, None).await?;
            answer.hold(place);
            answer.unhurried = unhurried;
            return Ok(answer);
        }
        let limit = limits::deadline(&info)?;
        let answer = self.answer(parts, info, body, Some(limit));
        let answer = tokio::time::timeout(limit, answer).await;
        answer.unwrap_or_else(|_| Err(ApiError::timed_out()))
    }

    async fn answer<B>(
        &self,
        mut parts: Parts,
        info: RequestInfo,
        body: &mut Option<Pin<Box<B>>>,
        limit: Option<Duration>,
    ) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = &self.server;
        let asking = server
            .authentication
            .authenticate(server, &mut parts)
            .await?;
        let remarks: Remarks = parts.extensions.remove().unwrap_or_default();
        if let (Some((key, value)), Some(trail)) =
            (&remarks.annotation, parts.extensions.get::<Arc<Trail>>())
        {
            trail.annotate(key, value);
        }
        let answered = self.answer_to(asking, parts, info, body, limit).await;
        match remarks.warning {
            Some(warning) => Ok(settle(answered).with_first_warnings(vec![warning.to_owned()])),
            None => answered,
        }
    }

    async fn answer_to<B>(
        &self,
        asking: Identity,
        mut parts: Parts,
        info: RequestInfo,
        body: &mut Option<Pin<Box<B>>>,
        limit: Option<Duration>,
    ) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = &self.server;
        let trail: Option<Arc<Trail>> = parts.extensions.remove();
        let recorded = trail.as_ref().map(|trail| (trail, asking.clone()));
        let acting = impersonate(&parts.headers, asking, &info, &server.authorization).await;
        if let Some((trail, asking)) = recorded {
            trail.identified(&asking, acting.as_ref().ok());
        }
        let identity = acting?;
        if limit.is_none() && info.verb != "watch" {
            return self
                .authorized(parts, info, body, identity, trail, None)
                .await;
        }
        let Some(route) = server.flow.route(&identity, &info) else {
            return Err(ApiError::internal("no flow schema matches"));
        };
        let mut answer = match self.enter(&route, &identity, &info, limit).await {
            Ok(pass) => {
                let place = Arc::new(pass);
                let own = Some(Arc::clone(&place));
                let answer = self.authorized(parts, info, body, identity, trail, own);
                let mut answer = settle(answer.await);
                // A large answer has its seats until it is sent, and a watch until its stream begins.
                answer.place = limit.is_some().then_some(place);
                answer
            }
            Err(refusal) => settle(refusal),
        };
        answer.headers.extend_from_slice(&route.headers);
        Ok(answer)
    }

    /// Waits for the request's seats; the error is the answer that there are none.
    async fn enter(
        &self,
        route: &Arc<Route>,
        identity: &Identity,
        info: &RequestInfo,
        limit: Option<Duration>,
    ) -> Result<Pass, Result<Answer>> {
        let server = &self.server;
        let pass = server
            .flow
            .enter(route, identity, info, limit, || self.stats(info));
        match pass.await.map_err(Ok)? {
            // Watches have places of their own.
            Pass::Exempt(None) if limit.is_some() => {
                let place = Arc::clone(&server.in_flight).try_acquire_owned();
                let place = place.map_err(|_| Err(ApiError::too_many_requests(1)))?;
                Ok(Pass::Exempt(Some(place)))
            }
            pass => Ok(pass),
        }
    }

    /// What is known of the objects that a request is about.
    fn stats(&self, info: &RequestInfo) -> Option<Stats> {
        let server = &self.server;
        let resource = server
            .registry
            .by_plural(&info.group, &info.version, &info.resource)?;
        server
            .storage
            .caches()
            .of(resource)
            .map(|cache| cache.stats())
    }

    async fn authorized<B>(
        &self,
        mut parts: Parts,
        info: RequestInfo,
        body: &mut Option<Pin<Box<B>>>,
        identity: Identity,
        trail: Option<Arc<Trail>>,
        place: Option<Place>,
    ) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = &self.server;
        let asked = Access::of(&identity, &info);
        let decision = server.authorization.decide(&asked).await;
        if let Some(trail) = &trail {
            trail.decided(&decision);
        }
        authz::settle(&asked, decision)?;
        if !info.is_resource {
            return self.document(&parts, &info).await;
        }
        let registry = &server.registry;
        let resource = bindings(server, &info)
            .or_else(|| registry.by_plural(&info.group, &info.version, &info.resource));
        let Some(resource) = resource else {
            return match registry.iter().any(|other| other.group == info.group) {
                true => Err(ApiError::unknown_path()),
                false => Ok(page_not_found()),
            };
        };
        check_path(&info)?;
        let subresource = self.subresource(&info, resource)?;
        check_method(&parts.method, &info, resource, subresource)?;
        let output = representation(&parts, &info, resource, subresource)?;
        if matches!(output.shape, Shape::Table(_)) {
            table::check_include(info.query.get("includeObject"))?;
        }
        let handed_on = subresource.is_some_and(|part| connect::is_connect(part.name));
        let host = handed_on.then(|| host(&parts)).flatten();
        let from: Option<Source> = parts.extensions.remove();
        let call = Call {
            info,
            identity,
            method: parts.method,
            upgrade: parts.extensions.remove(),
            headers: parts.headers,
            from: from.map(|Source(from)| from),
            host,
            output,
            resource,
            subresource,
            encoded: Arc::clone(&server.encoded),
            trail,
        };
        let answer = settle(self.dispatch(call, body, place).await);
        let deprecation = resource.deprecation.map(str::to_owned);
        Ok(answer.with_first_warnings(deprecation.into_iter().collect()))
    }

    /// Checks that the path fits the resource, and finds its subresource.
    fn subresource(
        &self,
        info: &RequestInfo,
        resource: &'static coracle_api::Resource,
    ) -> Result<Option<&'static Subresource>> {
        let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
        let has_namespace = !info.namespace.is_empty() && !is_namespace;
        let misplaced = !resource.namespaced && has_namespace
            || resource.namespaced && !has_namespace && !info.name.is_empty()
            || info.resource == "bindings" && !has_namespace
            || !info.rest.is_empty() && info.subresource != "proxy";
        if misplaced {
            return Err(ApiError::unknown_path());
        }
        if info.subresource.is_empty() {
            return Ok(None);
        }
        resource
            .subresource(&info.subresource)
            .map(Some)
            .ok_or_else(ApiError::unknown_path)
    }

    async fn dispatch<B>(
        &self,
        call: Call,
        body: &mut Option<Pin<Box<B>>>,
        place: Option<Place>,
    ) -> Result<Answer>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = &self.server;
        let name = call.subresource.map_or("", |subresource| subresource.name);
        match (name, call.info.verb) {
            ("", "get") if call.resource.group == usage::GROUP => usage::get(server, &call).await,
            ("", "list") if call.resource.group == usage::GROUP => usage::list(server, &call).await,
            ("", "get") if call.info.resource == components::PLURAL => {
                components::get(server, &call)
            }
            ("", "list") if call.info.resource == components::PLURAL => {
                components::list(server, &call)
            }
            ("", "get") => get::get(server, &call).await,
            ("", "list") => list::list(server, &call).await,
            ("", "watch") => watch::watch(server, call).await,
            ("status" | "approval" | "ephemeralcontainers" | "resize", "get") => {
                get::get(server, &call).await
            }
            ("scale", "get") => scale::get(server, &call).await,
            ("log", "get") => log::get(server, &call).await,
            (name, _) if connect::is_connect(name) => {
                let body = body.take().map_or_else(body::empty, body::streamed);
                connect::connect(server, &call, body).await
            }
            _ => {
                let body = match (body, &place) {
                    (Some(body), Some(place)) => place.aside(body::read(body.as_mut())).await?,
                    (Some(body), None) => body::read(body.as_mut()).await?,
                    (None, _) => Bytes::new(),
                };
                if let Some(trail) = &call.trail {
                    trail.body(&body, &call.headers);
                }
                // A client that goes away, or whose time is up, must not stop a write half-way: what was allocated
                // for an object would be given back although the object is there.
                let server = Arc::clone(server);
                let work = async move {
                    let _place = place;
                    write(&server, call, body).await
                };
                Detached::new(work).await
            }
        }
    }

    /// Paths that name no resource.
    async fn document(&self, parts: &Parts, info: &RequestInfo) -> Result<Answer> {
        let server = &self.server;
        if let Some(answer) = server.health.answer(info, server.is_draining()) {
            return Ok(answer);
        }
        let answer = match info.path.trim_end_matches('/') {
            "/version" => Some(Answer::value(
                StatusCode::OK,
                Output {
                    pretty: true,
                    ..Output::PLAIN
                },
                &crate::health::version(),
            )),
            "/metrics" => Some(self.metrics()),
            "/metrics/slis" => Some(server.health.slis()),
            path => path
                .strip_prefix(flowcontrol::DEBUG)
                .and_then(|name| server.flow.dump(name))
                .map(|text| Answer::text(StatusCode::OK, text)),
        };
        let answer = answer
            .or_else(|| openid::answer(server, parts, info))
            .or_else(|| discovery::answer(server, parts, info))
            .or_else(|| openapi::answer(server, parts, info));
        let Some(answer) = answer else {
            return Ok(page_not_found());
        };
        if parts.method != Method::GET
            && answer.status != StatusCode::NOT_FOUND
            && knows_methods(&info.path)
        {
            return Err(ApiError::method_not_allowed());
        }
        Ok(answer)
    }

    fn metrics(&self) -> Answer {
        let server = &self.server;
        let objects = server.registry.iter().filter_map(|resource| {
            let cache = server.storage.caches().of(resource)?;
            Some((resource.qualified(), cache.len()))
        });
        let audit = server.audit.as_ref().map(|audit| audit.metrics());
        let audit = audit.unwrap_or_default() + &server.authorization.metrics();
        let further: String = server
            .further_metrics
            .iter()
            .map(|source| source())
            .collect();
        let text = server.metrics.render(objects) + &server.flow.metrics() + &audit + &further;
        Answer::metrics(text)
    }
}

/// The requests that change something.
async fn write(server: &Arc<Server>, call: Call, body: Bytes) -> Result<Answer> {
    let name = call.subresource.map_or("", |subresource| subresource.name);
    let is_bindings = call.info.resource == "bindings";
    server.flow.breathe().await;
    match (name, call.info.verb) {
        ("", "create") if is_bindings => binding::create(server, &call, body).await,
        ("binding", "create") => binding::create(server, &call, body).await,
        ("eviction", "create") => eviction::create(server, &call, body).await,
        ("token", "create") => token::create(server, &call, body).await,
        ("", "create") if call.resource.storage == coracle_api::kinds::Storage::None => {
            reviews::create(server, &call, body).await
        }
        ("", "create") => create::create(server, &call, body).await,
        ("", "delete") => delete::delete(server, &call, body).await,
        ("", "deletecollection") => delete::delete_collection(server, &call, body).await,
        ("" | "status" | "approval" | "finalize" | "ephemeralcontainers" | "resize", "update") => {
            update::update(server, &call, body).await
        }
        ("" | "status" | "approval" | "ephemeralcontainers" | "resize", "patch") => {
            patch::patch(server, &call, body).await
        }
        ("scale", "update") => scale::put(server, &call, body).await,
        ("scale", "patch") => scale::patch(server, &call, body).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Whether the method is one of those that the path serves.
fn check_method(
    method: &Method,
    info: &RequestInfo,
    resource: &coracle_api::Resource,
    subresource: Option<&Subresource>,
) -> Result<()> {
    let is_bindings = info.resource == "bindings";
    if is_question(resource) && !info.name.is_empty() {
        // Questions have no names.
        return Err(ApiError::unknown_path());
    }
    let allowed = match subresource {
        Some(subresource) => subresource.verbs.contains(&info.verb),
        None if is_bindings => info.verb == "create" && info.name.is_empty(),
        None => resource.verbs.contains(&info.verb) && fits(info, resource),
    };
    let watches = !info.watch_prefix || *method == Method::GET;
    // Upstream has routes for these where requests are handed on, and for nothing else.
    let proxied = info.subresource == "proxy";
    let unusual = match *method {
        Method::HEAD => !proxied,
        Method::OPTIONS if proxied && subresource.is_some() => return Ok(()),
        Method::OPTIONS => true,
        _ => false,
    };
    if allowed && watches && !unusual {
        Ok(())
    } else {
        Err(ApiError::method_not_allowed())
    }
}

/// The host that the client asked: HTTP/2 says it in the URI.
fn host(parts: &Parts) -> Option<HeaderValue> {
    let asked = parts.headers.get(HOST).cloned();
    asked.or_else(|| HeaderValue::try_from(parts.uri.authority()?.as_str()).ok())
}

/// How the answer is written; first as upstream's router looks at `Accept`, then as its handlers do.
fn representation(
    parts: &Parts,
    info: &RequestInfo,
    resource: &coracle_api::Resource,
    subresource: Option<&Subresource>,
) -> Result<Output> {
    let pretty = info.query.get("pretty");
    if subresource.is_some_and(|subresource| subresource.name == "log") {
        negotiate::acceptable(&parts.headers, &["text/plain"], false)?;
        // Logs are text whatever the client accepts.
        return Ok(Output::PLAIN);
    }
    if subresource.is_some_and(|subresource| connect::is_connect(subresource.name)) {
        // Whoever answers in the end knows what it can produce.
        return Ok(Output::PLAIN);
    }
    let lists = matches!(info.verb, "list" | "watch");
    negotiate::acceptable(&parts.headers, &[], lists)?;
    if info.verb == "watch" {
        negotiate::stream(&parts.headers, pretty)
    } else {
        negotiate::output(
            &parts.headers,
            pretty,
            has_tables(info, resource, subresource),
        )
    }
}

/// Whether the answer can be a table: upstream's parts without a `TableConvertor` have none.
fn has_tables(
    info: &RequestInfo,
    resource: &coracle_api::Resource,
    subresource: Option<&Subresource>,
) -> bool {
    match subresource.map(|part| part.name) {
        Some(name) => !matches!(
            name,
            "binding" | "ephemeralcontainers" | "eviction" | "finalize" | "resize" | "token"
        ),
        // Questions and bindings are answered, not kept.
        None => info.verb != "create" || !is_question(resource) && info.resource != "bindings",
    }
}

/// Whether objects of that kind are answered and not kept.
fn is_question(resource: &coracle_api::Resource) -> bool {
    resource.storage == coracle_api::kinds::Storage::None && resource.verbs.contains(&"create")
}

/// Whether upstream serves the path by its router, which knows methods; the other documents don't look at them.
fn knows_methods(path: &str) -> bool {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    matches!(
        segments[..],
        ["api" | "version"]
            | ["api", _]
            | ["apis", _, _]
            | ["openid", "v1", "jwks"]
            | [".well-known", "openid-configuration"]
    )
}

/// What Go's server answers for paths that nothing handles.
fn page_not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Refuses names and options that no resource understands.
fn check_path(info: &RequestInfo) -> Result<()> {
    if info.name.contains('/') {
        return Err(ApiError::unknown_path());
    }
    if let "." | ".." = info.name.as_str() {
        let name = &info.name;
        return Err(ApiError::bad_request(format!(
            "Name parameter invalid: {name:?}: may not be '{name}'"
        )));
    }
    Ok(())
}

/// `bindings` is served as a way to write pods; it has no storage of its own.
fn bindings(server: &Server, info: &RequestInfo) -> Option<&'static coracle_api::Resource> {
    let asked = info.group.is_empty() && info.version == "v1" && info.resource == "bindings";
    asked
        .then(|| server.registry.by_plural("", "v1", "pods"))
        .flatten()
}

/// Whether the verb fits a collection or an object, as the path has it.
fn fits(info: &RequestInfo, resource: &coracle_api::Resource) -> bool {
    let collection = info.name.is_empty();
    // A namespaced object is created in a namespace.
    let placed = !resource.namespaced || !info.namespace.is_empty() || info.empty_namespace;
    match info.verb {
        "create" => collection && placed,
        "list" | "deletecollection" => collection,
        "watch" => true,
        _ => !collection,
    }
}

impl<B> tower::Service<Request<B>> for ApiServer
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.handle(request).await) })
    }
}

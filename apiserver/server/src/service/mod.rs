//! The one service: a request comes in, an answer goes out.
//!
//! ```text
//! request ▶ authenticate ▶ impersonate ▶ seats ▶ authorize ▶ documents │ health │ resource
//!                                                                   │
//!                                        get · list · watch · create · update · patch · delete
//! ```

mod config;
mod dispatch;
mod documents;
mod target;

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::AdmissionChain;
use crate::allocate::Allocators;
use crate::answer::{Answer, settle};
use crate::audit::{AuditId, Source, Trail};
use crate::authn::{Authentication, Identity, Remarks, impersonate};
use crate::authz::node::NodeAuthorizer;
use crate::authz::rbac::Rbac;
use crate::authz::{self, Attributes as Access, Authorization};
use crate::body::{self, Body, BoxError};
use crate::cache::{Caches, StartError};
use crate::call::{Call, Warnings};
use crate::flowcontrol::{FlowControl, Pass, Place, Route, Stats};
use crate::health::{Check, Health};
use crate::held::Cut;
use crate::items::Form;
use crate::metrics::{About, Metrics};
use crate::negotiate::{self, Shape};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::{ApiError, Result, refusal};
use crate::storage::Storage;
use crate::subresources::connect;
use crate::usage::Usages;
use crate::{allocate, authn, health, limits, openapi, table, usage};

pub use config::{Config, MetricsSource};
use target::Target;

/// In the extensions of a request of the same process: objects are shown without the owners of their fields.
///
/// Upstream's components drop `managedFields` when they take objects into their caches: they are half of many objects,
/// and nobody there looks at them. They are also the one part of most kinds that nests as deep as its author likes. A
/// write without them leaves them as they are.
#[derive(Clone, Copy, Debug)]
pub struct WithoutManagedFields;

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
            started: config.clock.now(),
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
            Some(warning) => Ok(settle(answered).with_warnings(vec![warning.to_owned()])),
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
            return documents::answer(server, &parts, &info);
        }
        let Some(Target {
            resource,
            subresource,
        }) = target::find(server, &parts.method, &info)?
        else {
            return Ok(documents::page_not_found());
        };
        let output = target::representation(&parts, &info, resource, subresource)?;
        if matches!(output.shape, Shape::Table(_)) {
            table::check_include(info.query.get("includeObject"))?;
        }
        let handed_on = subresource.is_some_and(|part| connect::is_connect(part.name));
        let host = handed_on.then(|| target::host(&parts)).flatten();
        let from: Option<Source> = parts.extensions.remove();
        let form = match parts.extensions.remove::<WithoutManagedFields>() {
            Some(_) => Form::WithoutManagedFields,
            None => Form::Whole,
        };
        let warnings = Arc::new(Warnings::default());
        let call = Call {
            info,
            identity,
            method: parts.method,
            upgrade: parts.extensions.remove(),
            headers: parts.headers,
            from: from.map(|Source(from)| from),
            host,
            output,
            form,
            resource,
            subresource,
            encoded: Arc::clone(&server.encoded),
            trail,
            warnings: Arc::clone(&warnings),
        };
        call.warn(resource.deprecation.map(str::to_owned));
        let answer = settle(dispatch::dispatch(server, call, body, place).await);
        Ok(answer.with_warnings(warnings.take()))
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

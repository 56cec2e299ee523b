//! What every request needs: store, caches, kinds, clock and the stages of the pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_api::{Object, Registry, Resource};
use coracle_clock::{Clock, Timestamp};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::AdmissionChain;
use crate::allocate::Allocators;
use crate::audit::Audit;
use crate::authn::Authentication;
use crate::authz::Authorization;
use crate::authz::rbac::Rbac;
use crate::cache::Entry;
use crate::dialer::{ClusterDialer, NodeDialer};
use crate::encoded::Encoded;
use crate::flowcontrol::FlowControl;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::service::MetricsSource;
use crate::status::Result;
use crate::storage::{self, Storage};
use crate::usage::Usages;

/// The parts of an API server, shared by all its requests.
pub struct Server {
    pub(crate) storage: Storage,
    pub(crate) registry: Registry,
    pub(crate) clock: Clock,
    /// When it began.
    pub(crate) started: Timestamp,
    pub(crate) authentication: Authentication,
    pub(crate) authorization: Authorization,
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) flow: Arc<FlowControl>,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) further_metrics: Vec<MetricsSource>,
    pub(crate) admission: AdmissionChain,
    pub(crate) allocators: Allocators,
    pub(crate) dialer: Arc<dyn NodeDialer>,
    pub(crate) cluster_dialer: Arc<dyn ClusterDialer>,
    pub(crate) public_address: Option<String>,
    pub(crate) health: Health,
    pub(crate) documents: Documents,
    pub(crate) encoded: Arc<Encoded>,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) long_running: Arc<Semaphore>,
    pub(crate) draining: AtomicBool,
    /// What nodes and pods use, where that is served.
    pub(crate) usages: Usages,
    pub(crate) stop: CancellationToken,
}

impl Server {
    /// The only clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// All served resources.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The descriptor of namespaces.
    pub fn namespaces(&self) -> &'static Resource {
        self.registry
            .by_plural("", "v1", "namespaces")
            .expect("namespaces are always served")
    }

    /// A namespace.
    pub async fn namespace(&self, name: &str) -> Result<Option<Arc<Entry>>> {
        self.find("", "namespaces", "", name).await
    }

    /// An object by group, plural, namespace and name; `None` too when the resource is not served.
    pub async fn find(
        &self,
        group: &str,
        plural: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Entry>>> {
        let Some(resource) = self.registry.named(plural).find(|r| r.group == group) else {
            return Ok(None);
        };
        self.storage
            .get(resource, &storage::key(resource, namespace, name))
            .await
    }

    /// All objects of a resource, in a namespace or (with an empty one) everywhere; none when it is not served.
    pub async fn all(&self, group: &str, plural: &str, namespace: &str) -> Result<Vec<Object>> {
        let resource = self.registry.named(plural).find(|r| r.group == group);
        let Some(resource) = resource else {
            return Ok(Vec::new());
        };
        let scope = match namespace {
            "" => String::new(),
            namespace => format!("{namespace}/"),
        };
        let progress = self.storage.catch_up().await;
        let entries = self.storage.cache(resource)?.list(&scope, progress).entries;
        Ok(entries.iter().map(|entry| entry.object()).collect())
    }

    /// Whether what nodes and pods use is served.
    pub(crate) fn serves_metrics(&self) -> bool {
        self.registry
            .iter()
            .any(|resource| resource.group == crate::usage::GROUP)
    }

    /// Whether `/readyz` fails because the server is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

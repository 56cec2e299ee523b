//! What an API server is made of, and the usual parts.

use std::num::NonZero;
use std::sync::Arc;

use coracle_api::Registry;
use coracle_clock::Clock;
use coracle_store::Store;

use crate::admission::{
    Admission, CertificateApproval, CertificateSigning, CertificateSubjectRestriction,
    DefaultClass, DefaultTolerationSeconds, NamespaceLifecycle, NodeRestriction, PodTopologyLabels,
    Priority, RuntimeClassAdmission, ServiceAccountAdmission, StorageObjectInUseProtection,
    TaintNodesByCondition,
};
use crate::allocate::ServiceRanges;
use crate::audit::Audit;
use crate::authn::AuthenticationOptions;
use crate::authz::Mode;
use crate::dialer::{ClusterDialer, NoCluster, NoNodes, NodeDialer};

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

//! Wires the crates into one cluster: the only place that knows them all.
//!
//! ```text
//! store ─▶ ApiServer ◀── in-process clients, one identity per component
//!              │                │
//!              │         controllers · scheduler · kubelet ─▶ PodRuntime
//!              └── NodeDialer ──────────────────────▲
//! ```
//!
//! `up` gives it redb, wasmtime and the system's clock; the tests in memory give it a store, a pod
//! runtime and a clock that are fakes. What it does not do: sockets of the host, files, output.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::Object;
use coracle_client::{
    Client, ClientFactory, Context, ObjectClient, ObjectKey, Precondition, component_user,
};
use coracle_clock::Clock;
use coracle_controllers::{ClusterTrust, Published};
use coracle_cri::PodRuntime;
use coracle_kubelet::{Kubelet, KubeletConfig};
use coracle_server::authn::ServiceAccountTokens;
use coracle_server::{
    ApiServer, Body, BoxError, Check, Config, DialError, Identity, NodeDialer, Upgraded,
    WithoutManagedFields,
};
use coracle_store::{CompactionPolicy, Store, run_compactor, run_expirer};
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::{Endpoints, Node, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::storage::{self, VolumeFolders};

/// How often keys whose time has come are removed (Events, after an hour).
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// How long a new cluster may take to make its first ServiceAccount.
const ACCOUNT_LIMIT: Duration = Duration::from_secs(30);
/// Between two attempts to make what belongs to the API server itself; the caches follow meanwhile.
const REMAKE_EVERY: Duration = Duration::from_secs(1);

/// What a cluster is made of.
pub struct ClusterConfig {
    /// The API server's parts; its `dialer` is set here.
    pub server: Config,
    /// The certificates of the authority that signs the API server's, for pods to verify it by, and what else is published
    /// of the cluster's identity. Without it nobody publishes it, and pods that mount it wait.
    pub published: Option<watch::Receiver<Arc<Published>>>,
    /// Where the Service `kubernetes` leads.
    pub kubernetes: KubernetesService,
    /// Run the controllers.
    pub controllers: bool,
    /// Run the scheduler.
    pub scheduler: bool,
    /// Run a node.
    pub node: Option<NodeConfig>,
}

/// The way of guests to the API server.
#[derive(Clone, Copy, Debug)]
pub struct KubernetesService {
    /// The address of the Service.
    pub cluster_ip: IpAddr,
    /// The address and port at which the pod network reaches the server.
    pub endpoint: SocketAddr,
}

/// What a node is made of.
pub struct NodeConfig {
    /// What is fixed when it starts.
    pub kubelet: KubeletConfig,
    /// What runs its pods.
    pub runtime: Arc<dyn PodRuntime>,
}

/// A running cluster.
pub struct Cluster {
    api: ApiServer,
    context: Context,
    kubelet: Option<Kubelet>,
    parts: JoinSet<()>,
    stop: CancellationToken,
}

impl Cluster {
    /// Starts every part. Returns once the API answers and the node, if there is one, has taken
    /// over its pods.
    pub async fn start(config: ClusterConfig) -> Result<Self> {
        let clock = config.server.clock.clone();
        let store = config.server.store.clone();
        let tokens = config.server.authentication.service_accounts.clone();
        let node = Arc::new(LocalNode::default());
        let registry = match config.node {
            Some(_) => config.server.registry.with_metrics(),
            None => config.server.registry,
        };
        let api = ApiServer::start(Config {
            dialer: node.clone(),
            registry,
            ..config.server
        })
        .await
        .context("failed to start the API server")?;
        api.bootstrap_namespaces()
            .await
            .context("failed to make the system namespaces")?;
        let classes = async {
            let made = api.bootstrap_priority_classes().await;
            made.context("failed to make the system's priority classes")
        };
        let roles = async {
            let made = api.bootstrap_roles().await;
            made.context("failed to make the default roles")
        };
        let flow_control = async {
            let made = api.bootstrap_flow_control().await;
            made.context("failed to make the default flow schemas and priority levels")
        };
        let metrics = async {
            let made = api.bootstrap_metrics().await;
            made.context("failed to make the APIService of the metrics")
        };
        tokio::try_join!(classes, roles, flow_control, metrics)?;

        let stop = CancellationToken::new();
        let context = Context::new(client_factory(&api), clock.clone(), stop.clone());
        let mut parts = JoinSet::new();
        keep_store(&mut parts, store, clock, &stop);
        if config.controllers {
            let trust = config.published.zip(tokens);
            let trust = trust.map(|(published, tokens)| cluster_trust(published, tokens));
            let running = parts.spawn(coracle_controllers::run_all(context.clone(), trust));
            api.add_component("controller-manager", until_finished(running));
        }
        if config.scheduler {
            let own = context.for_component("kube-scheduler");
            let running = parts.spawn(coracle_scheduler::run_supervised(own));
            api.add_component("scheduler", until_finished(running));
        }
        if let (true, Some(node)) = (config.controllers, &config.node) {
            let folders = Arc::new(VolumeFolders::of(&node.kubelet));
            let objects = ObjectClient::new(administrator(&api));
            let (own, stopped) = (context.clone(), stop.clone());
            parts.spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = storage::make_class(&objects) => {}
                }
                coracle_controllers::run_local_provisioner(own, folders).await;
            });
        }
        // Side by side: each waits for the disk or for caches, and none for another.
        let service = make_kubernetes_service(&api, config.kubernetes);
        let account = async {
            match config.controllers {
                true => wait_for_default_account(&context).await,
                false => Ok(()),
            }
        };
        let kubelet = async { Ok(start_node(config.node, &context, &node).await) };
        let ((), (), kubelet) = tokio::try_join!(service, account, kubelet)?;
        if let Some(kubelet) = kubelet.clone() {
            parts.spawn(async move { kubelet.run().await });
        }
        if let Some(kubelet) = &kubelet {
            let marked = mark_control_plane(&api, context.clone(), kubelet.node().to_owned());
            parts.spawn(marked);
        }
        let kept = keep_kubernetes_service(api.clone(), context.clone(), config.kubernetes);
        parts.spawn(kept);
        Ok(Self {
            api,
            context,
            kubelet,
            parts,
            stop,
        })
    }

    /// The API server: its service, its TLS, its health.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// What a further component is given; see [`Context::for_component`].
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The node of this process, if there is one.
    pub fn kubelet(&self) -> Option<&Kubelet> {
        self.kubelet.as_ref()
    }

    /// A client with the rights of a cluster administrator.
    pub fn admin(&self) -> Client {
        administrator(&self.api)
    }

    /// Runs a further part of the cluster until it ends by itself at the stop signal.
    pub fn spawn(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.parts.spawn(part);
    }

    /// Ends every part where it is, as a crash would; the store keeps what was answered.
    pub async fn abort(mut self) {
        self.stop.cancel();
        self.parts.shutdown().await;
        self.api.stop();
    }

    /// Stops in order: readiness, guests and their last statuses, components, server.
    ///
    /// Containers get their pods' grace periods, at most `longest`.
    pub async fn stop(mut self, longest: Duration) {
        self.api.start_draining();
        if let Some(kubelet) = &self.kubelet {
            kubelet.drain(longest).await;
        }
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        self.api.stop();
    }
}

/// A check that passes while the task runs.
fn until_finished(task: AbortHandle) -> Check {
    Box::new(move || match task.is_finished() {
        true => Err("it has stopped".to_owned()),
        false => Ok(()),
    })
}

/// What the controllers hand on to pods and Secrets.
fn cluster_trust(
    published: watch::Receiver<Arc<Published>>,
    tokens: Arc<ServiceAccountTokens>,
) -> ClusterTrust {
    let sign = move |account: &ServiceAccount, secret: &str| {
        let account = serde_json::to_value(account).map_err(|error| error.to_string())?;
        let account = Object::from_value(account).ok_or("the account is no object")?;
        let token = tokens.issue_legacy(&account, secret);
        token.map_err(|error| error.to_string())
    };
    ClusterTrust {
        published,
        sign: Arc::new(sign),
    }
}

/// Takes over the node's pods, and lets the API server reach them.
async fn start_node(
    config: Option<NodeConfig>,
    context: &Context,
    local: &LocalNode,
) -> Option<Kubelet> {
    let NodeConfig { kubelet, runtime } = config?;
    let context = context.for_component(&format!("kubelet:{}", kubelet.node));
    let kubelet = Kubelet::start(kubelet, context, runtime).await;
    local.set(kubelet.clone());
    Some(kubelet)
}

/// Says once that the node of this process is where the control plane runs; a kubelet may not say so of itself.
fn mark_control_plane(
    api: &ApiServer,
    context: Context,
    node: String,
) -> impl Future<Output = ()> + use<> {
    let objects = ObjectClient::new(administrator(api));
    let (nodes, key) = (context.lister::<Node>(), ObjectKey::cluster(&node));
    async move {
        let mark = async {
            nodes.wait_until(|nodes| nodes.get(&key).is_some()).await;
            let labels =
                json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
            let when = Precondition::default();
            if let Err(error) = objects.patch::<Node>(&key, &when, labels).await {
                tracing::warn!(
                    node,
                    error = error.message(),
                    "the node's role was not written"
                );
            }
        };
        tokio::select! {
            () = context.stop().cancelled() => {}
            () = mark => {}
        }
    }
}

async fn make_kubernetes_service(api: &ApiServer, service: KubernetesService) -> Result<()> {
    let KubernetesService {
        cluster_ip,
        endpoint,
    } = service;
    api.bootstrap_kubernetes_service(cluster_ip, endpoint.ip(), endpoint.port())
        .await
        .context("failed to make the Service kubernetes")
}

/// Makes the Service `kubernetes`, its endpoints and the cluster's ServiceCIDR again when they are
/// deleted, as by `kubectl delete all --all`, or no longer lead to the server.
async fn keep_kubernetes_service(api: ApiServer, context: Context, service: KubernetesService) {
    let (services, endpoints, slices, ranges) = (
        context.lister::<Service>(),
        context.lister::<Endpoints>(),
        context.lister::<EndpointSlice>(),
        context.lister::<ServiceCIDR>(),
    );
    let key = ObjectKey::new("default", "kubernetes");
    let range = ObjectKey::cluster("kubernetes");
    let port = i32::from(service.endpoint.port());
    let keep = async {
        tokio::join!(
            services.synced(),
            endpoints.synced(),
            slices.synced(),
            ranges.synced()
        );
        loop {
            tokio::select! {
                () = services.wait_until(|all| {
                    all.get(&key).is_none_or(|found| !targets(&found, port))
                }) => {}
                () = endpoints.wait_until(|all| {
                    all.get(&key).is_none_or(|found| !leads(&found, service.endpoint))
                }) => {}
                () = slices.wait_until(|all| {
                    all.get(&key).is_none_or(|found| !slice_leads(&found, service.endpoint))
                }) => {}
                () = ranges.wait_until(|all| all.get(&range).is_none()) => {}
            }
            if let Err(error) = make_kubernetes_service(&api, service).await {
                tracing::warn!("{error:#}");
            }
            tokio::time::sleep(REMAKE_EVERY).await;
        }
    };
    tokio::select! {
        () = context.stop().cancelled() => {}
        () = keep => {}
    }
}

/// Whether the Service `kubernetes` has its one port.
fn targets(service: &Service, port: i32) -> bool {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<_> = ports
        .map(|found| (found.port, found.target_port.clone()))
        .collect();
    ports == [(443, Some(IntOrString::Int(port)))]
}

/// Whether the Endpoints name the server and nobody else.
fn leads(endpoints: &Endpoints, server: SocketAddr) -> bool {
    let [subset] = endpoints.subsets.as_deref().unwrap_or_default() else {
        return false;
    };
    let addresses = subset
        .addresses
        .iter()
        .flatten()
        .map(|address| address.ip.as_str());
    let ports = subset.ports.iter().flatten().map(|port| port.port);
    addresses.eq([server.ip().to_string().as_str()]) && ports.eq([i32::from(server.port())])
}

/// Whether the EndpointSlice names the server and nobody else.
fn slice_leads(slice: &EndpointSlice, server: SocketAddr) -> bool {
    let endpoints = slice.endpoints.iter().flatten();
    let addresses = endpoints.flat_map(|endpoint| endpoint.addresses.iter().map(String::as_str));
    let ports = slice.ports.iter().flatten().map(|port| port.port);
    addresses.eq([server.ip().to_string().as_str()]) && ports.eq([Some(i32::from(server.port()))])
}

/// A pod is refused until its namespace has the ServiceAccount `default`. In a new cluster that is a
/// moment away, and whoever types `kubectl run` first should not meet it.
async fn wait_for_default_account(context: &Context) -> Result<()> {
    let accounts = context.lister::<ServiceAccount>();
    let key = ObjectKey::new("default", "default");
    let there = accounts.wait_until(|accounts| accounts.get(&key).is_some());
    tokio::time::timeout(ACCOUNT_LIMIT, there)
        .await
        .context("the ServiceAccount default/default did not appear: the controllers do not work")
}

fn administrator(api: &ApiServer) -> Client {
    let masters = [coracle_server::authn::MASTERS];
    client(api, Identity::new("kubernetes-admin", masters))
}

/// A client whose requests carry `identity`, and to which objects come without the owners of their fields.
pub fn client(api: &ApiServer, identity: Identity) -> Client {
    let api = api.clone();
    let service = tower::service_fn(move |mut request: Request<kube::client::Body>| {
        request.extensions_mut().insert(identity.clone());
        request.extensions_mut().insert(WithoutManagedFields);
        let api = api.clone();
        async move { Ok::<_, std::convert::Infallible>(api.handle(request).await) }
    });
    Client::new(service, "default")
}

fn client_factory(api: &ApiServer) -> ClientFactory {
    let api = api.clone();
    Arc::new(move |component| {
        let (user, groups) = component_user(component);
        client(&api, Identity::new(user, groups))
    })
}

fn keep_store(
    parts: &mut JoinSet<()>,
    store: Arc<dyn Store>,
    clock: Clock,
    stop: &CancellationToken,
) {
    let compactor = run_compactor(store.clone(), clock.clone(), CompactionPolicy::default());
    let expirer = run_expirer(store, clock, EXPIRE_EVERY);
    let stop = stop.clone();
    parts.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = compactor => {}
            () = expirer => {}
        }
    });
}

/// The kubelet streams blocks of bytes; the server's bodies are made of frames.
fn streamed(blocks: coracle_kubelet::Body) -> Body {
    let frames = blocks.map(|block| block.map(Frame::data).map_err(BoxError::from));
    StreamBody::new(frames).boxed_unsync()
}

/// The way to the one node of this process.
#[derive(Default)]
struct LocalNode(OnceLock<Kubelet>);

impl LocalNode {
    fn set(&self, kubelet: Kubelet) {
        // Set once, right after the node started.
        let _ = self.0.set(kubelet);
    }
}

#[async_trait]
impl NodeDialer for LocalNode {
    async fn request(
        &self,
        node: &str,
        request: Request<Bytes>,
    ) -> Result<Response<Body>, DialError> {
        match self.0.get().filter(|kubelet| kubelet.node() == node) {
            Some(kubelet) => Ok(kubelet.serve(request).map(streamed)),
            None => Err(DialError::Unknown(node.to_owned())),
        }
    }

    async fn upgrade(&self, node: &str, request: Request<Bytes>) -> Result<Upgraded, DialError> {
        let kubelet = self.0.get().filter(|kubelet| kubelet.node() == node);
        let kubelet = kubelet.ok_or_else(|| DialError::Unknown(node.to_owned()))?;
        let coracle_kubelet::Upgraded { response, stream } = kubelet.upgrade(&request);
        Ok(Upgraded {
            response: response.map(streamed),
            stream: stream.map(|stream| Box::new(stream) as _),
        })
    }
}

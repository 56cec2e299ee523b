//! Starts clusters and waits for states.

use std::sync::Arc;
use std::time::Duration;

use coracle::cluster::{Cluster, ClusterConfig, KubernetesService, NodeConfig};
use coracle_client::{Kind, Lister, ObjectClient, ObjectKey};
use coracle_clock::Clock;
use coracle_controllers::Published;
use coracle_cri::fake::{FakeRuntime, Script};
use coracle_kubelet::{Capacity, KubeletConfig, PodDefaults};
use coracle_server::authn::{ServiceAccountTokens, TokenKeys};
use coracle_server::{Config, Identity};
use coracle_store::{MemoryStore, Store};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// Virtual time that any state may take to come about; a livelock ends as a failure.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// A cluster whose parts the test can reach.
pub(crate) struct TestCluster {
    cluster: Cluster,
    pub(crate) runtime: FakeRuntime,
    store: Arc<dyn Store>,
    clock: Clock,
    folder: Arc<tempfile::TempDir>,
}

impl TestCluster {
    /// An empty cluster with one node.
    pub(crate) async fn start() -> Self {
        let clock = Clock::fake(7);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self::over(store, clock, folder).await
    }

    async fn over(store: Arc<dyn Store>, clock: Clock, folder: Arc<tempfile::TempDir>) -> Self {
        let runtime = FakeRuntime::new(clock.clone());
        let node = NodeConfig {
            kubelet: KubeletConfig {
                node: "node-a".into(),
                pod_range: "10.240.0.0/18".parse().expect("a range"),
                second_pod_range: None,
                host_network: Vec::new(),
                defaults: PodDefaults {
                    cluster_domain: "cluster.local".into(),
                    cluster_dns: vec![[10, 96, 0, 10].into()],
                    resolv_conf: folder.path().join("resolv.conf"),
                    pods_directory: folder.path().join("pods"),
                },
                data_directory: folder.path().to_owned(),
                capacity: Capacity {
                    cpu_millis: 4000,
                    memory: 8 << 30,
                    ephemeral_storage: 1 << 30,
                    pods: 100,
                },
                image_collection: coracle_kubelet::ImageCollection::default(),
                version: "v1.36.0".into(),
            },
            runtime: Arc::new(runtime.clone()),
        };
        let mut server = Config::new(store.clone(), clock.clone());
        let keys = TokenKeys::generate().expect("a key");
        server.authentication.service_accounts = Some(Arc::new(ServiceAccountTokens::new(keys)));
        let config = ClusterConfig {
            server,
            published: Some(Published::fixed("the authority")),
            kubernetes: KubernetesService {
                cluster_ip: [10, 96, 0, 1].into(),
                endpoint: ([10, 240, 0, 1], 6443).into(),
            },
            controllers: true,
            scheduler: true,
            node: Some(node),
        };
        let cluster = Cluster::start(config).await.expect("the cluster starts");
        Self {
            cluster,
            runtime,
            store,
            clock,
            folder,
        }
    }

    /// Everything but the store is dropped in mid-air, as by a SIGKILL, and started again.
    pub(crate) async fn crash(self) -> Self {
        let Self {
            cluster,
            store,
            clock,
            folder,
            ..
        } = self;
        cluster.abort().await;
        Self::over(store, clock, folder).await
    }

    /// A clean stop, then a start.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            cluster,
            store,
            clock,
            folder,
            ..
        } = self;
        cluster.stop(Duration::from_secs(30)).await;
        Self::over(store, clock, folder).await
    }

    /// What containers of `image` do from now on.
    pub(crate) fn script(&self, image: &str, script: Script) {
        self.runtime.script(image, script);
    }

    /// Reads and writes as an administrator.
    pub(crate) fn admin(&self) -> ObjectClient {
        ObjectClient::new(self.cluster.admin())
    }

    /// What the server answers to a GET by somebody: its status and its JSON.
    pub(crate) async fn get(&self, who: Identity, path: &str, accept: &str) -> (u16, Value) {
        let request = Request::get(path).header("accept", accept).extension(who);
        let request = request.body(String::new()).expect("a request");
        let response = self.cluster.api().handle(request).await;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a whole answer");
        let value = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
        (status, value)
    }

    /// Creates an object.
    pub(crate) async fn create<K: Kind>(&self, object: Value) -> K {
        let object: K = serde_json::from_value(object).expect("a valid object");
        self.admin().create(&object).await.expect("created")
    }

    /// The cache of a kind.
    pub(crate) fn all<K: Kind>(&self) -> Lister<K> {
        self.cluster.context().lister()
    }

    /// Waits until an object is as wanted; a timeout shows the last state seen.
    pub(crate) async fn until<K: Kind>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> Arc<K> {
        let (lister, key) = (self.all::<K>(), ObjectKey::new("default", name));
        let there = lister.wait_until(|all| all.get(&key).is_some_and(|object| wanted(&object)));
        if tokio::time::timeout(DEADLINE, there).await.is_err() {
            panic!("{key} did not get there: {:#?}", lister.get(&key));
        }
        lister.get(&key).expect("it is as wanted")
    }

    /// Waits until exactly `count` pods with the label `app=name` are ready and no other is left.
    pub(crate) async fn ready_pods(&self, name: &str, count: usize) -> Vec<Arc<Pod>> {
        let lister = self.all::<Pod>();
        let of_app = |all: &Lister<Pod>| -> Vec<Arc<Pod>> {
            let is_of = |pod: &Arc<Pod>| {
                pod.metadata
                    .labels
                    .as_ref()
                    .and_then(|l| l.get("app"))
                    .is_some_and(|app| app == name)
            };
            all.in_namespace("default")
                .into_iter()
                .filter(is_of)
                .collect()
        };
        let there = lister.wait_until(|all| {
            let pods = of_app(all);
            pods.len() == count && pods.iter().all(|pod| is_ready(pod))
        });
        if tokio::time::timeout(DEADLINE, there).await.is_err() {
            panic!(
                "{count} ready pods of {name} were wanted: {:#?}",
                of_app(&lister)
            );
        }
        of_app(&lister)
    }

    /// Waits until a Deployment says that it is done.
    pub(crate) async fn rolled_out(&self, name: &str) -> Arc<Deployment> {
        self.until::<Deployment>(name, |d| {
            matches!(
                coracle::ready::deployment(d),
                coracle::ready::Progress::Ready(_)
            )
        })
        .await
    }
}

/// Whether the pod's condition Ready is True.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
        && pod.metadata.deletion_timestamp.is_none()
}

/// A Deployment of `image`.
pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}}
    })
}

/// A Pod of `image`.
pub(crate) fn pod(name: &str, policy: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": image}]}
    })
}

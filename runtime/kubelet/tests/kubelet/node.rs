//! A node in memory: the API server, the kubelet, and a pod runtime that plays scripts.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::{
    CancellationToken, Client, ClientFactory, Context, DeletePropagation, Kind, ObjectKey,
    Precondition, component_user,
};
use coracle_clock::Clock;
use coracle_cri::fake::{Call, FakeRuntime, Script};
use coracle_cri::{ContainerId, SandboxId};
use coracle_kubelet::{Capacity, ImageCollection, Kubelet, KubeletConfig, PodDefaults};
use coracle_server::authn::{ServiceAccountTokens, TokenKeys};
use coracle_server::{ApiServer, Config, Identity};
use coracle_store::MemoryStore;
use http::Request;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod, ServiceAccount};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Longer than anything in these tests takes, in virtual time.
const DEADLINE: Duration = Duration::from_secs(7200);

pub(crate) struct TestNode {
    pub(crate) api: ApiServer,
    pub(crate) clock: Clock,
    pub(crate) ctx: Context,
    pub(crate) runtime: FakeRuntime,
    pub(crate) kubelet: Kubelet,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) range: &'static str,
    running: JoinHandle<()>,
}

/// The component that tests write as.
const ADMIN: &str = "admin";

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::with_range("10.240.0.0/24").await
    }

    pub(crate) async fn with_range(range: &'static str) -> Self {
        let clock = Clock::fake(1);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let mut config = Config::new(store, clock.clone());
        let keys = TokenKeys::generate().expect("a key");
        config.authentication.service_accounts = Some(Arc::new(ServiceAccountTokens::new(keys)));
        let api = ApiServer::start(config).await.expect("the server starts");
        api.bootstrap_namespaces()
            .await
            .expect("the namespaces are made");
        api.bootstrap_roles().await.expect("the roles are made");
        let folder = tempfile::tempdir().expect("a folder");
        let node = Self::boot(api, clock, folder, range).await;
        // Their controllers do not run here.
        let account = json!({"metadata": {"name": "default", "namespace": "default"}});
        node.create::<ServiceAccount>(account).await;
        let metadata = json!({"name": "kube-root-ca.crt", "namespace": "default"});
        let authority = json!({"metadata": metadata, "data": {"ca.crt": "the authority"}});
        node.create::<ConfigMap>(authority).await;
        node
    }

    async fn boot(
        api: ApiServer,
        clock: Clock,
        folder: tempfile::TempDir,
        range: &'static str,
    ) -> Self {
        let server = api.clone();
        let clients: ClientFactory = Arc::new(move |component| client(&server, component));
        let ctx = Context::new(clients, clock.clone(), CancellationToken::new())
            .for_component("kubelet:node-a");
        let runtime = FakeRuntime::new(clock.clone());
        let config = KubeletConfig {
            node: "node-a".into(),
            pod_range: range.parse().expect("a range"),
            second_pod_range: None,
            host_network: Vec::new(),
            defaults: PodDefaults {
                cluster_domain: "cluster.local".into(),
                cluster_dns: vec![[10, 96, 0, 10].into()],
                resolv_conf: "/nonexistent".into(),
                pods_directory: folder.path().join("data/pods"),
            },
            data_directory: folder.path().join("data"),
            capacity: Capacity {
                cpu_millis: 2000,
                memory: 4 << 30,
                ephemeral_storage: 1 << 30,
                pods: 110,
            },
            image_collection: ImageCollection::default(),
            version: "v1.36.2+coracle".into(),
        };
        let kubelet = Kubelet::start(config, ctx.clone(), Arc::new(runtime.clone())).await;
        let running = tokio::spawn({
            let kubelet = kubelet.clone();
            async move { kubelet.run().await }
        });
        Self {
            api,
            clock,
            // What the test writes, an administrator writes; the kubelet has its own name.
            ctx: ctx.for_component(ADMIN),
            runtime,
            kubelet,
            folder,
            range,
            running,
        }
    }

    /// Ends the kubelet where it is and starts another over the same API server and files.
    pub(crate) async fn restart(self) -> Self {
        self.ctx.stop().cancel();
        self.running.await.expect("the kubelet does not panic");
        Self::boot(self.api, self.clock, self.folder, self.range).await
    }

    /// Creates a pod of one container `app` bound to the node, with `spec` merged over it.
    pub(crate) async fn run(&self, name: &str, image: &str, spec: Value) {
        let container = json!({
            "name": "app", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
        });
        let mut all = json!({"nodeName": "node-a", "containers": [container]});
        merge(&mut all, spec);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"}, "spec": all,
        });
        self.create::<Pod>(pod).await;
    }

    pub(crate) async fn create<K: Kind>(&self, object: Value) {
        let object: K = serde_json::from_value(object).expect("a well-formed object");
        let created = self.ctx.objects().create(&object).await;
        created.unwrap_or_else(|error| panic!("{error}: {}", error.message()));
    }

    pub(crate) async fn delete(&self, name: &str, grace: Option<u32>) {
        let when = Precondition::default();
        let deleted = self
            .ctx
            .objects()
            .delete::<Pod>(&key(name), &when, DeletePropagation::Background, grace)
            .await;
        deleted.expect("deleted");
    }

    pub(crate) fn script(&self, image: &str, script: Script) {
        self.runtime.script(image, script);
    }

    /// Waits until the objects of the kind are as `condition` wants them.
    pub(crate) async fn until<K: Kind>(
        &self,
        what: &str,
        mut condition: impl FnMut(&[Arc<K>]) -> bool,
    ) {
        let lister = self.ctx.lister::<K>();
        lister.synced().await;
        let reached = lister.wait_until(|lister| condition(&lister.list()));
        if tokio::time::timeout(DEADLINE, reached).await.is_err() {
            panic!("gave up waiting until {what}: {:#?}", lister.list());
        }
    }

    /// Waits until the pod is as `condition` wants it, and answers it.
    pub(crate) async fn pod_when(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Pod) -> bool,
    ) -> Arc<Pod> {
        let mut found = None;
        self.until::<Pod>(what, |pods| {
            let mut named = pods
                .iter()
                .filter(|pod| pod.metadata.name.as_deref() == Some(name));
            found = named.find(|pod| condition(pod)).cloned();
            found.is_some()
        })
        .await;
        found.expect("just found")
    }

    pub(crate) async fn ready(&self, name: &str) -> Arc<Pod> {
        self.pod_when(name, "the pod is ready", is_ready).await
    }

    pub(crate) async fn gone(&self, name: &str) {
        let what = "the pod is gone";
        self.until::<Pod>(what, |pods| {
            pods.iter()
                .all(|p| p.metadata.name.as_deref() != Some(name))
        })
        .await;
    }

    /// Waits, for a minute of virtual time at most, until something is so that nobody tells of, such as a file.
    pub(crate) async fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..600 {
            if is_so() {
                return;
            }
            self.clock.sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: not so after a minute");
    }

    /// Waits for an Event of that reason.
    pub(crate) async fn event(&self, reason: &str, words: &str) {
        self.until::<k8s_openapi::api::core::v1::Event>(reason, |events| {
            events.iter().any(|event| {
                event.reason.as_deref() == Some(reason)
                    && event
                        .message
                        .as_deref()
                        .is_some_and(|message| message.contains(words))
            })
        })
        .await;
    }

    pub(crate) fn container(&self, pod: &Pod) -> ContainerId {
        self.container_of(pod, "app")
    }

    pub(crate) fn container_of(&self, pod: &Pod, name: &str) -> ContainerId {
        ContainerId {
            sandbox: SandboxId(pod.metadata.uid.clone().expect("a uid")),
            name: name.into(),
        }
    }

    /// The containers that were started, or stopped, in order, with the seconds of grace.
    pub(crate) fn begun_and_ended(&self) -> Vec<String> {
        let calls = self.runtime.calls();
        let line = |call: &Call| match call {
            Call::StartContainer(config) => Some(format!("start {}", config.id.name)),
            Call::StopContainer(id, grace) => Some(format!("stop {} {}", id.name, grace.as_secs())),
            _ => None,
        };
        calls.iter().filter_map(line).collect()
    }

    /// Seconds of virtual time since the node started.
    pub(crate) fn elapsed(&self) -> u64 {
        self.clock.monotonic().as_secs()
    }
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(crate) fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}

/// The status of the container `app`.
pub(crate) fn app(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status
        .as_ref()?
        .container_statuses
        .as_ref()?
        .iter()
        .find(|status| status.name == "app")
}

/// The status of any container.
pub(crate) fn status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let mut all = all.into_iter().flatten().flatten();
    all.find(|status| status.name == name)
}

/// A condition: its status and its reason.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> (&'a str, &'a str) {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let found = conditions.into_iter().find(|found| found.type_ == kind);
    found.map_or(("", ""), |found| {
        (&found.status, found.reason.as_deref().unwrap_or_default())
    })
}

pub(crate) fn restarts(pod: &Pod) -> i32 {
    app(pod).map_or(0, |status| status.restart_count)
}

/// Why the container waits.
pub(crate) fn waiting(pod: &Pod) -> &str {
    let waiting =
        app(pod).and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting.unwrap_or_default()
}

/// A client that is the component of that name.
pub(crate) fn client(server: &ApiServer, component: &str) -> Client {
    let server = server.clone();
    let (user, groups) = match component {
        ADMIN => (
            ADMIN.to_owned(),
            vec![coracle_server::authn::MASTERS.to_owned()],
        ),
        component => component_user(component),
    };
    let identity = Identity::new(user, groups);
    let service = tower::service_fn(
        move |mut request: Request<coracle_client::kube::client::Body>| {
            request.extensions_mut().insert(identity.clone());
            let server = server.clone();
            async move { Ok::<_, std::convert::Infallible>(server.handle(request).await) }
        },
    );
    Client::new(service, "default")
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Array(patch)) => {
            for (index, value) in patch.into_iter().enumerate() {
                match target.get_mut(index) {
                    Some(slot) => merge(slot, value),
                    None => target.push(value),
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

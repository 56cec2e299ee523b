//! A cluster in memory: the API server, the controllers, the scheduler, and nodes that obey.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{
    CancellationToken, Client, ClientFactory, Context, DeletePropagation, Error, Kind, Lister,
    ObjectClient, ObjectKey, Outcome, Precondition, component_user, is_terminating,
};
use coracle_clock::Clock;
use coracle_controllers::{ClusterTrust, Published};
use coracle_server::{ApiServer, Config, Identity};
use coracle_store::MemoryStore;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The certificate that the cluster publishes.
pub(crate) const AUTHORITY: &str = "the authority";

/// Longer than anything in these tests takes, in virtual time.
const DEADLINE: Duration = Duration::from_secs(7200);

/// The component that tests write as.
pub(crate) const ADMIN: &str = "admin";

pub(crate) struct TestCluster {
    pub(crate) ctx: Context,
    clients: ClientFactory,
    refused: Refused,
    heartbeats: CancellationToken,
    components: tokio::sync::Mutex<JoinSet<()>>,
}

/// An authority and tokens that nobody verifies.
fn trust() -> ClusterTrust {
    ClusterTrust {
        published: Published::fixed(AUTHORITY),
        sign: Arc::new(|_, secret| Ok(format!("token in {secret}"))),
    }
}

impl TestCluster {
    pub(crate) async fn start() -> Self {
        let clock = Clock::fake(1);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        Self::start_with(Config::new(store, clock)).await
    }

    pub(crate) async fn start_with(config: Config) -> Self {
        let clock = config.clock.clone();
        let server = serve(config).await;
        let refused = Refused::default();
        let noted = Arc::clone(&refused);
        let clients: ClientFactory = Arc::new(move |component| client(&server, component, &noted));
        let cluster = Self::components(clients, refused, clock);
        cluster.add_node("node-a", "16").await;
        cluster
    }

    fn components(clients: ClientFactory, refused: Refused, clock: Clock) -> Self {
        // What the tests and their nodes write, an administrator writes; controllers have their own names.
        let ctx =
            Context::new(clients.clone(), clock, CancellationToken::new()).for_component(ADMIN);
        let heartbeats = ctx.stop().child_token();
        let mut components = JoinSet::new();
        components.spawn(coracle_controllers::run_all(ctx.clone(), Some(trust())));
        components.spawn(coracle_scheduler::run_supervised(ctx.clone()));
        components.spawn(kubelet(ctx.clone(), heartbeats.clone()));
        components.spawn(heartbeat(ctx.clone(), heartbeats.clone()));
        Self {
            ctx,
            clients,
            refused,
            heartbeats,
            components: components.into(),
        }
    }

    /// Ends every component and every cache; the API server stays.
    pub(crate) async fn stop_components(&self) {
        self.ctx.stop().cancel();
        let mut components = self.components.lock().await;
        while let Some(ended) = components.join_next().await {
            ended.expect("no component panics");
        }
    }

    pub(crate) fn restart_components(self) -> Self {
        let (clients, refused) = (self.clients.clone(), Arc::clone(&self.refused));
        Self::components(clients, refused, self.ctx.clock().clone())
    }

    /// The nodes stop to renew their Leases and to look after their Pods.
    pub(crate) fn silence(&self) {
        self.heartbeats.cancel();
    }

    pub(crate) async fn add_node(&self, name: &str, cpu: &str) {
        let amounts = json!({"cpu": cpu, "memory": "64Gi", "pods": "110"});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.create::<Node>(node).await;
        let status = json!({"status": {
            "capacity": amounts, "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        }});
        let when = Precondition::default();
        self.ctx
            .objects()
            .patch_status::<Node>(&key("", name), &when, status)
            .await
            .expect("the node reports");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name},
        });
        self.create::<Lease>(lease).await;
    }

    pub(crate) async fn create<K: Kind>(&self, object: Value) {
        let object: K = serde_json::from_value(object).expect("a well-formed object");
        self.ctx
            .objects()
            .create(&object)
            .await
            .unwrap_or_else(|error| panic!("{error}: {}", error.message()));
    }

    pub(crate) async fn get<K: Kind>(&self, name: &str) -> K {
        self.ctx
            .objects()
            .get(&key("default", name))
            .await
            .expect("an answer")
            .expect("the object")
    }

    pub(crate) async fn delete<K: Kind>(&self, name: &str, how: DeletePropagation) {
        let when = Precondition::default();
        self.ctx
            .objects()
            .delete::<K>(&key("default", name), &when, how, None)
            .await
            .expect("deleted");
    }

    pub(crate) async fn set_image(&self, name: &str, image: &str) {
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
        let when = Precondition::default();
        let objects = self.ctx.objects();
        objects
            .strategic_patch::<Deployment>(&key("default", name), &when, patch)
            .await
            .expect("patched");
    }

    pub(crate) fn lister<K: Kind>(&self) -> Lister<K> {
        self.ctx.lister()
    }

    pub(crate) fn list<K: Kind>(&self) -> Vec<Arc<K>> {
        self.lister::<K>().list()
    }

    /// Waits until the objects of the kind are as `condition` wants them.
    pub(crate) async fn until<K: Kind>(
        &self,
        what: &str,
        mut condition: impl FnMut(&[Arc<K>]) -> bool,
    ) {
        let lister = self.lister::<K>();
        lister.synced().await;
        let reached = lister.wait_until(|lister| condition(&lister.list()));
        if tokio::time::timeout(DEADLINE, reached).await.is_err() {
            panic!("gave up waiting until {what}: {:#?}", lister.list());
        }
    }

    /// The sorted names of the application's Pods, once that many are ready.
    pub(crate) async fn ready_pods(&self, app: &str, count: usize) -> Vec<String> {
        let of_app = |pod: &&Arc<Pod>| {
            pod.metadata
                .labels
                .as_ref()
                .is_some_and(|l| l.get("app").is_some_and(|a| a == app))
        };
        self.until::<Pod>("the Pods are ready", |pods| {
            pods.iter()
                .filter(of_app)
                .filter(|pod| is_ready(pod))
                .count()
                == count
        })
        .await;
        let pods = self.list::<Pod>();
        pods.iter()
            .filter(of_app)
            .filter_map(|pod| pod.metadata.name.clone())
            .collect()
    }

    /// Waits until nobody has written anything for a virtual minute.
    pub(crate) async fn settle(&self) {
        loop {
            let before = self.versions();
            self.ctx.clock().sleep(Duration::from_secs(60)).await;
            if self.versions() == before {
                return;
            }
        }
    }

    /// What everything but heartbeats was last written at.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        fn of<K: Kind>(cluster: &TestCluster, all: &mut BTreeMap<String, String>) {
            for object in cluster.list::<K>() {
                let name = format!("{} {}", K::kind(&()), ObjectKey::of(object.as_ref()));
                all.insert(
                    name,
                    object.meta().resource_version.clone().unwrap_or_default(),
                );
            }
        }
        let mut all = BTreeMap::new();
        of::<Deployment>(self, &mut all);
        of::<ReplicaSet>(self, &mut all);
        of::<Pod>(self, &mut all);
        of::<Service>(self, &mut all);
        of::<Endpoints>(self, &mut all);
        of::<EndpointSlice>(self, &mut all);
        of::<Node>(self, &mut all);
        all
    }
}

/// An API server with what a cluster has from the first moment.
pub(crate) async fn serve(config: Config) -> ApiServer {
    let server = ApiServer::start(config).await.expect("the server starts");
    let namespaces = server.bootstrap_namespaces().await;
    namespaces.expect("the system namespaces are made");
    let range = server.bootstrap_service_range().await;
    range.expect("the ServiceCIDR is made");
    let roles = server.bootstrap_roles().await;
    roles.expect("the default roles are made");
    server
}

/// What controllers were refused for lack of a right.
pub(crate) type Refused = Arc<std::sync::Mutex<Vec<String>>>;

impl Drop for TestCluster {
    fn drop(&mut self) {
        let refused = self.refused.lock().expect("nobody panics while noting");
        // A failing test has said what it has to say.
        if !std::thread::panicking() {
            assert!(refused.is_empty(), "controllers lack rights: {refused:#?}");
        }
    }
}

/// A client that speaks under the component's name, as the wiring makes them.
pub(crate) fn client(server: &ApiServer, component: &str, refused: &Refused) -> Client {
    let (user, groups) = match component {
        ADMIN => (ADMIN.to_owned(), vec!["system:masters".to_owned()]),
        component => component_user(component),
    };
    let identity = Identity::new(user, groups);
    let (server, refused) = (server.clone(), Arc::clone(refused));
    let service = tower::service_fn(
        move |mut request: Request<coracle_client::kube::client::Body>| {
            request.extensions_mut().insert(identity.clone());
            let (server, refused) = (server.clone(), Arc::clone(&refused));
            async move {
                let (parts, body) = server.handle(request).await.into_parts();
                if parts.status != http::StatusCode::FORBIDDEN {
                    return Ok::<_, std::convert::Infallible>(Response::from_parts(parts, body));
                }
                let body = body.collect().await.map(|body| body.to_bytes());
                let text = body.unwrap_or_default();
                let said = String::from_utf8_lossy(&text);
                // Namespaces that end refuse with the same status.
                if said.contains("cannot ") {
                    let mut refused = refused.lock().expect("nobody panics while noting");
                    refused.push(said.into_owned());
                }
                let body = Full::new(text).map_err(|never| match never {});
                Ok(Response::from_parts(parts, body.boxed_unsync()))
            }
        },
    );
    Client::new(service, "default")
}

/// Makes bound Pods ready, and lets terminating ones go.
async fn kubelet(ctx: Context, alive: CancellationToken) {
    let pods = ctx.lister::<Pod>();
    let queue = ctx.watch::<Pod>().into_queue().await;
    loop {
        let key = tokio::select! {
            () = alive.cancelled() => return,
            key = queue.next() => key,
        };
        let Some(key) = key else { return };
        let outcome = match pods.get(&key) {
            Some(pod) => Outcome::from(look_after(ctx.objects(), &key, &pod).await),
            None => Outcome::Done,
        };
        queue.finish(key, outcome);
    }
}

async fn look_after(objects: &ObjectClient, key: &ObjectKey, pod: &Pod) -> Result<(), Error> {
    if pod
        .spec
        .as_ref()
        .is_none_or(|spec| spec.node_name.is_none())
    {
        return Ok(());
    }
    let when = Precondition::uid_of(pod);
    if is_terminating(pod) {
        return objects
            .delete::<Pod>(key, &when, DeletePropagation::Default, Some(0))
            .await;
    }
    if pod
        .status
        .as_ref()
        .is_some_and(|status| status.pod_ip.is_some())
    {
        return Ok(());
    }
    let ip = format!(
        "10.240.0.{}",
        1 + key.name.bytes().map(u32::from).sum::<u32>() % 250
    );
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2030-01-01T00:00:00Z"}],
    }});
    objects
        .strategic_patch_status::<Pod>(key, &when, status)
        .await
        .map(|_| ())
}

/// Renews every node's Lease every ten seconds.
async fn heartbeat(ctx: Context, alive: CancellationToken) {
    let leases = ctx.lister::<Lease>();
    while alive
        .run_until_cancelled(ctx.clock().sleep(Duration::from_secs(10)))
        .await
        .is_some()
    {
        for lease in leases.in_namespace("kube-node-lease") {
            let renewed = format!("{:.6}", ctx.clock().now());
            let patch = json!({"spec": {"renewTime": renewed}});
            let key = ObjectKey::of(lease.as_ref());
            let when = Precondition::default();
            let renewal = ctx.objects().patch::<Lease>(&key, &when, patch).await;
            renewal.unwrap_or_else(|error| panic!("{error}: {}", error.message()));
        }
    }
}

pub(crate) fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

pub(crate) fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
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

pub(crate) fn scheduled(pod: &Pod) -> Option<bool> {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|condition| condition.type_ == "PodScheduled")
        .map(|c| c.status == "True")
}

pub(crate) fn pod_condition(
    pod: &Pod,
    type_: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        condition.type_ == type_
            && condition.status == status
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    })
}

pub(crate) fn image(pod: &Pod) -> String {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.containers[0].image.clone())
        .unwrap_or_default()
}

pub(crate) fn condition(deployment: &Deployment, type_: &str) -> Option<(String, String)> {
    let conditions = deployment
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let found = conditions
        .into_iter()
        .find(|condition| condition.type_ == type_)?;
    Some((
        found.status.clone(),
        found.reason.clone().unwrap_or_default(),
    ))
}

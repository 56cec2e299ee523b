use std::time::Duration;

use coracle_client::{DeletePropagation, ObjectKey, Precondition};
use coracle_cri::fake::Script;
use coracle_server::Identity;
use coracle_server::authn::MASTERS;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::{Value, json};

use crate::harness::{TestCluster, pod};

const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn admin() -> Identity {
    Identity::new("admin", [MASTERS])
}

impl TestCluster {
    async fn figures(&self, path: &str) -> Value {
        let (status, answer) = self.get(admin(), path, JSON).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Waits until the list at `path` is as wanted, in virtual time.
    async fn figures_when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..120 {
            let list = self.figures(path).await;
            if wanted(&list) {
                return list;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("{path} did not get there: {}", self.figures(path).await);
    }
}

fn has_items(list: &Value) -> bool {
    list["items"]
        .as_array()
        .is_some_and(|items| !items.is_empty())
}

#[tokio::test(start_paused = true)]
async fn pods_are_listed_with_what_they_use() {
    let cluster = TestCluster::start().await;
    cluster.script("busy:1", Script::runs().uses(250, 32 << 20));
    cluster.create::<Pod>(pod("busy", "Always", "busy:1")).await;
    let list = cluster.figures_when(PODS, has_items).await;
    assert_eq!(list["kind"], "PodMetricsList");
    let found = &list["items"][0];
    assert_eq!(found["metadata"]["name"], "busy");
    let usage = json!({"cpu": "250m", "memory": "32Mi"});
    assert_eq!(found["containers"][0]["usage"], usage, "{found}");
    // Two scrapes later the window is that between them.
    let settled = |list: &Value| list["items"][0]["window"] == "15s";
    let list = cluster.figures_when(PODS, settled).await;
    assert_eq!(list["items"][0]["containers"][0]["usage"], usage);
    let one = cluster.figures(&format!("{PODS}/busy")).await;
    assert_eq!(
        (&one["kind"], &one["window"]),
        (&json!("PodMetrics"), &json!("15s"))
    );
    let none = cluster
        .figures(&format!("{PODS}?labelSelector=app%3Dother"))
        .await;
    assert!(!has_items(&none), "{none}");
    let none = cluster
        .figures(&format!("{PODS}?fieldSelector=metadata.name%3Dother"))
        .await;
    assert!(!has_items(&none), "{none}");
    let (status, missing) = cluster.get(admin(), &format!("{PODS}/none"), JSON).await;
    assert_eq!(
        (status, &missing["message"]),
        (404, &json!("pods \"none\" not found"))
    );
    let (_, table) = cluster.get(admin(), PODS, TABLE).await;
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["busy", "250m", "32Mi", "15s"])
    );

    let key = ObjectKey::new("default", "busy");
    let deleted = cluster.admin();
    let when = Precondition::default();
    let deleted = deleted.delete::<Pod>(&key, &when, DeletePropagation::Background, Some(0));
    deleted.await.expect("deleted");
    cluster.figures_when(PODS, |list| !has_items(list)).await;
}

#[tokio::test(start_paused = true)]
async fn the_node_is_measured_too() {
    let cluster = TestCluster::start().await;
    let list = cluster.figures_when(NODES, has_items).await;
    let node = &list["items"][0];
    assert_eq!(node["metadata"]["name"], "node-a");
    assert_eq!(
        node["metadata"]["labels"]["kubernetes.io/hostname"],
        "node-a"
    );
    for figure in ["cpu", "memory"] {
        assert!(node["usage"][figure].is_string(), "{node}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_view_may_look_at_the_figures_and_clients_find_them() {
    let cluster = TestCluster::start().await;
    let jane = || Identity::new("jane", ["system:authenticated"]);
    assert_eq!(cluster.get(jane(), PODS, JSON).await.0, 403);
    cluster
        .create::<RoleBinding>(json!({
            "metadata": {"name": "jane", "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
        }))
        .await;
    // The role is put together by its controller.
    let mut status = 0;
    for _ in 0..60 {
        status = cluster.get(jane(), PODS, JSON).await.0;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(status, 200);
    let resources = cluster.figures("/apis/metrics.k8s.io/v1beta1").await;
    let names = ["nodes", "pods"].map(|name| json!(name));
    let found = resources["resources"].as_array().expect("a list");
    assert!(
        found.iter().map(|found| &found["name"]).eq(&names),
        "{resources}"
    );
    let document = cluster
        .figures("/openapi/v3/apis/metrics.k8s.io/v1beta1")
        .await;
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    assert!(schemas.contains_key("io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"));
    let service = cluster
        .figures("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
        .await;
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
}

use std::time::Duration;

use bytes::Bytes;
use coracle_cri::fake::Script;
use coracle_cri::{ConnectionCounts, PodSandboxNetwork, SandboxId};
use futures::StreamExt;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::node::TestNode;

impl TestNode {
    /// What the node answers to a GET.
    async fn get(&self, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Bytes::new()).expect("a request");
        let response = self.kubelet.serve(request);
        let (status, kind) = (
            response.status(),
            response.headers()["content-type"].clone(),
        );
        let chunks: Vec<_> = response.into_body().collect().await;
        let mut text = Vec::new();
        for chunk in chunks {
            text.extend_from_slice(&chunk.expect("a whole answer"));
        }
        let kind = kind.to_str().expect("text").to_owned();
        (status, kind, String::from_utf8(text).expect("text"))
    }

    async fn summary(&self) -> Value {
        let (_, _, text) = self.get("/stats/summary").await;
        serde_json::from_str(&text).expect("JSON")
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_tells_what_its_pods_use() {
    let node = TestNode::start().await;
    node.script("busy", Script::runs().uses(250, 32 << 20));
    node.run("web", "busy", json!({})).await;
    node.ready("web").await;
    let (status, kind, page) = node.get("/metrics/resource").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let memory = "container_memory_working_set_bytes{container=\"app\",namespace=\"default\",pod=\"web\"} 33554432 ";
    assert!(page.contains(memory), "{page}");
    node.summary().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let summary = node.summary().await;
    let pod = &summary["pods"][0];
    assert_eq!(pod["podRef"]["name"], "web");
    assert_eq!(pod["containers"][0]["cpu"]["usageNanoCores"], 250_000_000);
    assert_eq!(pod["cpu"]["usageNanoCores"], 250_000_000);
    let (_, _, page) = node.get("/metrics/cadvisor").await;
    assert!(page.contains("image=\"busy\""), "{page}");
    node.delete("web", Some(0)).await;
    node.gone("web").await;
    let (_, _, page) = node.get("/metrics/resource").await;
    assert!(!page.contains("pod=\"web\""), "{page}");
    assert_eq!(node.get("/metrics/none").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn probes_are_counted_while_their_pod_is_there() {
    let node = TestNode::start().await;
    let good = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 5});
    let bad = json!({"tcpSocket": {"port": 9}, "periodSeconds": 10, "failureThreshold": 2});
    let container = json!({"readinessProbe": good, "livenessProbe": bad});
    let spec = json!({"containers": [container], "terminationGracePeriodSeconds": 1});
    node.run("web", "app:1", spec).await;
    node.event("Killing", "failed liveness probe").await;
    let (_, _, page) = node.get("/metrics/probes").await;
    let count = |kind: &str, result: &str| {
        let end = format!("probe_type=\"{kind}\",result=\"{result}\"}} ");
        let line = page.lines().find(|line| line.contains(&end));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(count("Liveness", "failed"), Some(2), "{page}");
    assert!(count("Readiness", "successful") >= Some(2), "{page}");
    node.delete("web", None).await;
    node.gone("web").await;
    assert_eq!(node.get("/metrics/probes").await.2, "");
}

#[tokio::test(start_paused = true)]
async fn the_node_shows_the_sockets_of_its_pods() {
    let node = TestNode::start().await;
    node.script("web", Script::runs());
    node.run("web", "web", json!({})).await;
    let pod = node.ready("web").await;
    node.runtime.set_network(PodSandboxNetwork {
        id: SandboxId(pod.metadata.uid.clone().expect("a UID")),
        addresses: vec![[10, 240, 0, 2].into()],
        received_bytes: 7,
        sent_bytes: 9,
        dropped_datagrams: 0,
        connections: ConnectionCounts::default(),
        sockets: Vec::new(),
    });
    let (status, kind, page) = node.get("/net?namespace=default").await;
    assert_eq!(
        (status, kind.as_str()),
        (StatusCode::OK, "application/json")
    );
    let page: Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(page["pods"][0]["name"], "web");
    let (_, _, page) = node.get("/metrics").await;
    let sent = "coracle_pod_network_transmit_bytes_total{namespace=\"default\",pod=\"web\"} 9";
    assert!(page.lines().any(|line| line == sent), "{page}");
}

//! From the answer to a create to Ready, with a module that is already compiled.

use std::time::Duration;

use anyhow::{Context, Result};
use coracle_clock::Clock;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::access::Access;
use crate::client::{Connection, Protocol, Watch};
use crate::cluster::Binary;
use crate::figures::{Figure, Report};

/// How many pods by default.
pub(crate) const PODS: usize = 100;
/// Milliseconds.
const TARGET: f64 = 10.0;
/// How long the first pod may take, compilation included, and any other.
const LIMIT: Duration = Duration::from_secs(120);
/// Where everything is made.
const PODS_PATH: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS_PATH: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Runs `pods` pods of the sample `hello-http`, one after the other, bare and below Deployments.
pub(crate) async fn measure(
    binary: &Binary,
    pods: usize,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let image = binary.samples.join("hello-http/wasm/hello-http.wasm");
    let image = format!("file://{}", image.display());
    let (cluster, _) = binary.up(&[], clock).await?;
    let mut runner = Runner::open(&cluster.access, clock).await?;
    let bare = runner.pods(pods, &image).await?;
    let ready: Vec<f64> = bare.iter().map(|times| times.after_answer).collect();
    report.add(Figure::median("latency.pod_ready", "ms", &ready).below(TARGET));
    let whole: Vec<f64> = bare
        .iter()
        .map(|times| times.after_answer + times.answer)
        .collect();
    report.add(Figure::median(
        "latency.pod_ready_from_request",
        "ms",
        &whole,
    ));
    let mut deployed = Vec::with_capacity(pods);
    for index in 0..pods {
        deployed.push(
            runner
                .deployment(&format!("deployment-{index}"), &image)
                .await?
                .after_answer,
        );
    }
    report.add(Figure::median(
        "latency.deployment_pod_ready",
        "ms",
        &deployed,
    ));
    cluster.stop().await
}

/// Milliseconds.
pub(crate) struct Times {
    /// From the request to its answer.
    answer: f64,
    /// From the answer to Ready; never below 0, though the watch may tell first.
    pub(crate) after_answer: f64,
}

/// Makes things one at a time and waits for each.
pub(crate) struct Runner {
    connection: Connection,
    watch: Watch,
    clock: Clock,
}

impl Runner {
    /// A runner with a connection and a watch of its own.
    pub(crate) async fn open(access: &Access, clock: &Clock) -> Result<Self> {
        Ok(Self {
            connection: Connection::open(access, Protocol::Http1).await?,
            watch: Watch::open(access, PODS_PATH).await?,
            clock: clock.clone(),
        })
    }

    /// Runs so many pods, each of which is gone before the next one comes; the one that compiles does not count.
    pub(crate) async fn pods(&mut self, pods: usize, image: &str) -> Result<Vec<Times>> {
        self.pod(&pod("warm-up", image))
            .await
            .context("the first pod")?;
        self.gone("warm-up").await?;
        let mut times = Vec::with_capacity(pods);
        for index in 0..pods {
            let name = format!("pod-{index}");
            times.push(self.pod(&pod(&name, image)).await?);
            self.gone(&name).await?;
        }
        Ok(times)
    }

    async fn pod(&mut self, pod: &Value) -> Result<Times> {
        let name = pod["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        self.timed(PODS_PATH, pod, &name)
            .await
            .map(|(times, _)| times)
    }

    async fn deployment(&mut self, name: &str, image: &str) -> Result<Times> {
        let spec = &pod(name, image)["spec"];
        let labels = json!({"app": name});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec}},
        });
        let (times, pod) = self
            .timed(DEPLOYMENTS_PATH, &object, &format!("{name}-"))
            .await?;
        // In the background by default, which takes the ReplicaSet and the pod along.
        self.connection
            .call(
                http::Method::DELETE,
                &format!("{DEPLOYMENTS_PATH}/{name}"),
                bytes::Bytes::new(),
            )
            .await?;
        self.gone(&pod).await?;
        Ok(times)
    }

    /// Creates `object` and waits until a pod whose name starts with `prefix` is ready.
    async fn timed(&mut self, path: &str, object: &Value, prefix: &str) -> Result<(Times, String)> {
        let (clock, start) = (self.clock.clone(), self.clock.monotonic());
        let answered = async {
            self.connection.create(path, object).await?;
            anyhow::Ok(clock.monotonic())
        };
        let ready = async {
            loop {
                let event = self.watch.next().await?;
                let name = event["object"]["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default();
                if name.starts_with(prefix) && is_ready(&event["object"]) {
                    return anyhow::Ok((clock.monotonic(), name.to_owned()));
                }
            }
        };
        let both = timeout(LIMIT, async { tokio::try_join!(answered, ready) });
        let (answered, (ready, pod)) = both
            .await
            .with_context(|| format!("{prefix} did not get ready"))??;
        let milliseconds =
            |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1000.0;
        Ok((
            Times {
                answer: milliseconds(start, answered),
                after_answer: milliseconds(answered, ready),
            },
            pod,
        ))
    }

    /// Deletes a pod and waits until nothing is left of it, so that the next one runs alone.
    async fn gone(&mut self, name: &str) -> Result<()> {
        self.connection
            .delete(&format!("{PODS_PATH}/{name}"))
            .await?;
        let deleted = async {
            loop {
                let event = self.watch.next().await?;
                if event["type"] == "DELETED" && event["object"]["metadata"]["name"] == name {
                    return anyhow::Ok(());
                }
            }
        };
        timeout(LIMIT, deleted)
            .await
            .with_context(|| format!("pod {name} was not deleted"))?
    }
}

fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "hello", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
        }]},
    })
}

/// Whether the pod's condition `Ready` is true.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_a_condition() {
        assert!(!is_ready(&pod("a", "file:///a.wasm")));
        let with =
            |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        assert!(is_ready(&with("True")));
        assert!(!is_ready(&with("False")));
    }
}

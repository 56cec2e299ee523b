use std::time::Duration;

use coracle_client::{DeletePropagation, ObjectKey, Precondition};
use coracle_cri::fake::Script;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::harness::{TestCluster, deployment, pod};

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn status(pod: &Pod) -> PodStatus {
    pod.status.clone().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_replaced() {
    let cluster = TestCluster::start().await;
    cluster
        .create::<Deployment>(deployment("web", 2, "app:1"))
        .await;
    let before = cluster.ready_pods("web", 2).await;
    let gone = ObjectKey::of(before[0].as_ref());
    let when = Precondition::uid_of(before[0].as_ref());
    cluster
        .admin()
        .delete::<Pod>(&gone, &when, DeletePropagation::Background, None)
        .await
        .expect("deleted");
    cluster
        .all::<Pod>()
        .wait_until(|pods| pods.get(&gone).is_none())
        .await;
    let after = cluster.ready_pods("web", 2).await;
    assert!(after.iter().all(|pod| ObjectKey::of(pod.as_ref()) != gone));
}

#[tokio::test(start_paused = true)]
async fn a_job_like_pod_ends_with_its_code() {
    let cluster = TestCluster::start().await;
    cluster.script("good:1", Script::exits(0).after(Duration::from_secs(5)));
    cluster.script("bad:1", Script::exits(3).message("no luck"));
    cluster.create::<Pod>(pod("good", "Never", "good:1")).await;
    cluster.create::<Pod>(pod("bad", "Never", "bad:1")).await;
    cluster
        .until::<Pod>("good", |pod| phase(pod) == "Succeeded")
        .await;
    let bad = cluster
        .until::<Pod>("bad", |pod| phase(pod) == "Failed")
        .await;
    let state = status(&bad).container_statuses.expect("reported")[0]
        .state
        .clone()
        .expect("a state");
    let ended = state.terminated.expect("it ended");
    assert_eq!(
        (ended.exit_code, ended.message.as_deref()),
        (3, Some("no luck"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_is_restarted_ever_more_slowly() {
    let cluster = TestCluster::start().await;
    cluster.script("crash:1", Script::exits(1));
    cluster
        .create::<Pod>(pod("crash", "Always", "crash:1"))
        .await;
    let pod = cluster
        .until::<Pod>("crash", |pod| {
            status(pod)
                .container_statuses
                .iter()
                .flatten()
                .any(|c| c.restart_count >= 4)
        })
        .await;
    assert_eq!(
        phase(&pod),
        "Running",
        "a pod that is restarted is not over"
    );
    let waits = cluster
        .until::<Pod>("crash", |pod| {
            let waiting = status(pod)
                .container_statuses
                .into_iter()
                .flatten()
                .find_map(|c| c.state?.waiting);
            waiting.is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"))
        })
        .await;
    assert!(waits.metadata.deletion_timestamp.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why() {
    let cluster = TestCluster::start().await;
    let mut big = pod("big", "Always", "app:1");
    big["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "100".into();
    cluster.create::<Pod>(big).await;
    // Before the node was known to be ready its taint was the reason.
    let why = "0/1 nodes are available: 1 Insufficient cpu";
    cluster
        .until::<Pod>("big", |pod| {
            let conditions = status(pod).conditions;
            conditions.iter().flatten().any(|condition| {
                condition.type_ == "PodScheduled"
                    && condition.reason.as_deref() == Some("Unschedulable")
                    && condition
                        .message
                        .as_ref()
                        .is_some_and(|text| text.contains(why))
            })
        })
        .await;
}

//! Status, scale, evictions, logs.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{EvictParams, LogParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Checked, Clients, create_pod, deployment, refusal, told};

/// What is written to `status` leaves the rest alone, and the other way round.
pub(super) async fn status_is_a_part_of_its_own(clients: Clients) -> Checked {
    let deployments: Api<Deployment> = Api::default_namespaced(clients.admin().await?);
    deployments
        .create(&PostParams::default(), &deployment("web", 1))
        .await?;
    let both = Patch::Merge(json!({"spec": {"replicas": 7}, "status": {"replicas": 1}}));
    let shown = |deployment: &Deployment| {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        (
            wanted,
            deployment
                .status
                .as_ref()
                .and_then(|status| status.replicas),
        )
    };
    let patched = deployments
        .patch_status("web", &PatchParams::default(), &both)
        .await?;
    assert_eq!(shown(&patched), (Some(1), Some(1)));
    let mut read = deployments.get_status("web").await?;
    read.status.get_or_insert_default().replicas = Some(2);
    let replaced = deployments
        .replace_status("web", &PostParams::default(), &read)
        .await?;
    assert_eq!(shown(&replaced), (Some(1), Some(2)));
    let patched = deployments
        .patch("web", &PatchParams::default(), &both)
        .await?;
    assert_eq!(shown(&patched), (Some(7), Some(2)));
    Ok(())
}

pub(super) async fn scale_is_a_part_of_its_own(clients: Clients) -> Checked {
    let deployments: Api<Deployment> = Api::default_namespaced(clients.admin().await?);
    deployments
        .create(&PostParams::default(), &deployment("web", 1))
        .await?;
    let mut scale = deployments.get_scale("web").await?;
    assert_eq!(
        scale
            .status
            .as_ref()
            .and_then(|status| status.selector.as_deref()),
        Some("app=web")
    );
    scale.spec.get_or_insert_default().replicas = Some(3);
    let scale = deployments
        .replace_scale("web", &PostParams::default(), &scale)
        .await?;
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(3));
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    deployments
        .patch_scale("web", &PatchParams::default(), &patch)
        .await?;
    let read = deployments.get("web").await?;
    assert_eq!(read.spec.and_then(|spec| spec.replicas), Some(5));
    let negative = Patch::Merge(json!({"spec": {"replicas": -1}}));
    let refused = deployments
        .patch_scale("web", &PatchParams::default(), &negative)
        .await;
    assert_eq!(told(&*refusal(refused)?), (422, "Invalid"));
    Ok(())
}

pub(super) async fn evictions_respect_budgets(clients: Clients) -> Checked {
    let client = clients.admin().await?;
    for name in ["kept", "free"] {
        create_pod(&client, name).await?;
    }
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(client);
    let budget = serde_json::from_value(json!({
        "metadata": {"name": "all"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "kept"}}},
    }))?;
    budgets.create(&PostParams::default(), &budget).await?;
    // A Pod that has not started may go; this one has.
    for name in ["kept", "free"] {
        let running = json!({"status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(running))
            .await?;
    }
    let status = refusal(pods.evict("kept", &EvictParams::default()).await)?;
    assert_eq!(told(&status), (429, "TooManyRequests"));
    let said = "Cannot evict pod as it would violate the pod's disruption budget.";
    assert_eq!(status.message, said);
    let status = pods.evict("free", &EvictParams::default()).await?;
    assert!(status.is_success());
    let status = refusal(pods.evict("absent", &EvictParams::default()).await)?;
    assert_eq!(told(&status), (404, "NotFound"));
    Ok(())
}

pub(super) async fn nodes_are_cordoned(clients: Clients) -> Checked {
    let nodes: Api<Node> = Api::all(clients.admin().await?);
    let node = serde_json::from_value(json!({"metadata": {"name": "other"}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let is_closed = |node: Node| node.spec.and_then(|spec| spec.unschedulable) == Some(true);
    assert!(is_closed(nodes.cordon("other").await?));
    assert!(!is_closed(nodes.uncordon("other").await?));
    Ok(())
}

pub(super) async fn logs_of_unplaced_pods_are_empty(clients: Clients) -> Checked {
    let client = clients.admin().await?;
    create_pod(&client, "waiting").await?;
    let pods: Api<Pod> = Api::default_namespaced(client);
    assert_eq!(pods.logs("waiting", &LogParams::default()).await?, "");
    let status = refusal(pods.logs("absent", &LogParams::default()).await)?;
    assert_eq!(told(&status), (404, "NotFound"));
    Ok(())
}

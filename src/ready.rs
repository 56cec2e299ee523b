//! When what was applied is ready, and how that reads in a terminal.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// How far an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Done; the text says what that means for the kind.
    Ready(String),
    /// Not yet, and why.
    Waiting(String),
    /// It will not become ready by waiting: what is wrong.
    Failed(String),
}

/// A Deployment is ready when its newest template runs in every replica.
pub fn deployment(deployment: &Deployment) -> Progress {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let is_observed = status.observed_generation >= deployment.metadata.generation;
    let (updated, available) = (
        status.updated_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
    );
    let text = format!("{}/{wanted} replicas", available.min(updated));
    let total = status.replicas.unwrap_or(0);
    if is_observed && updated >= wanted && available >= wanted && total == updated {
        Progress::Ready(text)
    } else {
        Progress::Waiting(text)
    }
}

/// A Pod is ready when it serves, or has done its work.
pub fn pod(pod: &Pod) -> Progress {
    let status = pod.status.clone().unwrap_or_default();
    let is_ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    match status.phase.as_deref() {
        Some("Succeeded") => Progress::Ready("completed".into()),
        Some("Failed") => Progress::Failed(problem(pod).unwrap_or_else(|| "failed".into())),
        Some("Running") if is_ready => Progress::Ready("running".into()),
        phase => {
            Progress::Waiting(problem(pod).unwrap_or_else(|| phase.unwrap_or("Pending").into()))
        }
    }
}

/// A Service with a selector is ready when an endpoint is.
pub fn service<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Progress {
    let spec = service.spec.clone().unwrap_or_default();
    if spec
        .selector
        .as_ref()
        .is_none_or(|selector| selector.is_empty())
    {
        return Progress::Ready("no selector".into());
    }
    let name = service.metadata.name.as_deref();
    let is_of_service = |slice: &&EndpointSlice| {
        let label = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("kubernetes.io/service-name"));
        slice.metadata.namespace == service.metadata.namespace && label.map(String::as_str) == name
    };
    let is_ready = |slice: &EndpointSlice| {
        let endpoints = slice.endpoints.iter().flatten();
        endpoints
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) != Some(false))
            .count()
    };
    match slices
        .into_iter()
        .filter(is_of_service)
        .map(is_ready)
        .sum::<usize>()
    {
        0 => Progress::Waiting("no ready endpoint".into()),
        1 => Progress::Ready("1 endpoint".into()),
        count => Progress::Ready(format!("{count} endpoints")),
    }
}

/// What keeps a pod from running, in the words of its status: the first container that waits for a
/// reason that waiting alone does not mend, or that ended badly.
pub fn problem(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let statuses = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    for container in statuses {
        let Some(state) = container.state.as_ref() else {
            continue;
        };
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            if !matches!(reason, "" | "ContainerCreating" | "PodInitializing") {
                let message = waiting.message.as_deref().unwrap_or_default();
                return Some(format!("pod {name}: {reason}: {message}"));
            }
        }
        if let Some(ended) = state
            .terminated
            .as_ref()
            .filter(|ended| ended.exit_code != 0)
        {
            let message = ended.message.as_deref().unwrap_or_default();
            let first_line = message.lines().next().unwrap_or_default();
            let reason = ended.reason.as_deref().unwrap_or("Error");
            return Some(format!(
                "pod {name}: {reason}, exit code {}: {first_line}",
                ended.exit_code
            ));
        }
    }
    let scheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    scheduled.map(|c| {
        format!(
            "pod {name}: {}",
            c.message.as_deref().unwrap_or("not scheduled")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).expect("a valid object")
    }

    #[test]
    fn a_deployment_waits_for_its_newest_template_everywhere() {
        let make = |updated: i32, available: i32, total: i32| -> Deployment {
            from(
                json!({"metadata": {"generation": 2}, "spec": {"replicas": 2, "selector": {}, "template": {}},
                "status": {"observedGeneration": 2, "updatedReplicas": updated,
                           "availableReplicas": available, "replicas": total}}),
            )
        };
        assert_eq!(
            deployment(&make(2, 2, 2)),
            Progress::Ready("2/2 replicas".into())
        );
        assert_eq!(
            deployment(&make(1, 2, 3)),
            Progress::Waiting("1/2 replicas".into())
        );
        assert_eq!(
            deployment(&make(2, 2, 3)),
            Progress::Waiting("2/2 replicas".into())
        );
    }

    #[test]
    fn a_pod_that_cannot_start_says_why() {
        let waiting: Pod = from(
            json!({"metadata": {"name": "a"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ErrImagePull", "message": "no such file"}}}]}}),
        );
        assert_eq!(
            pod(&waiting),
            Progress::Waiting("pod a: ErrImagePull: no such file".into())
        );
    }

    #[test]
    fn a_service_needs_a_ready_endpoint() {
        let svc: Service = from(
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"a": "b"}}}),
        );
        let slice = |ready: bool| -> EndpointSlice {
            from(
                json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]}),
            )
        };
        assert_eq!(
            service(&svc, [&slice(false)]),
            Progress::Waiting("no ready endpoint".into())
        );
        assert_eq!(
            service(&svc, [&slice(true)]),
            Progress::Ready("1 endpoint".into())
        );
    }
}

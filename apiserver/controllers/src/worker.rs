//! The loop that every controller runs.

use std::future::Future;

use coracle_client::{Change, Error, Lister, ObjectKey, Outcome, WorkQueue};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::pods;

/// Works on the queue's keys, `workers` of them at a time, until the queue is stopped.
pub(crate) async fn work<F, T>(queue: WorkQueue<ObjectKey>, workers: usize, sync: F)
where
    F: Fn(ObjectKey) -> T,
    T: Future<Output = Outcome>,
{
    let one = || async {
        while let Some(key) = queue.next().await {
            let outcome = sync(key.clone()).await;
            queue.finish(key, outcome);
        }
    };
    join_all((0..workers).map(|_| one())).await;
}

/// Logs a failed round once, and says what the queue should do about it.
pub(crate) fn outcome(
    controller: &str,
    key: &ObjectKey,
    result: Result<Outcome, Error>,
) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(error) if error.is_conflict() || error.is_not_found() => {
            tracing::debug!(controller, %key, message = error.message(), "looking again");
            Outcome::Retry
        }
        // Nothing more can be made there; its deletion brings the key back for the last time.
        Err(error) if error.is_namespace_terminating() => Outcome::Done,
        Err(error) => {
            tracing::warn!(controller, %key, %error, message = error.message(), "will retry");
            Outcome::Retry
        }
    }
}

/// The Services whose selector picks a changed Pod, or picked it before.
///
/// Changes that no endpoint shows are passed over: Pods change more often than their addresses.
pub(crate) fn services_of(
    services: Lister<Service>,
) -> impl Fn(&Change<Pod>) -> Vec<ObjectKey> + Send + Sync + 'static {
    move |change| {
        let pod = change.object();
        if change.old().is_some_and(|old| shown(old) == shown(pod)) {
            return Vec::new();
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let picks = |service: &Service| {
            let states = change.old().into_iter().chain([pod]);
            states
                .into_iter()
                .any(|pod| pods::selects(service, pod.metadata.labels.as_ref()))
        };
        let picking = services
            .in_namespace(namespace)
            .into_iter()
            .filter(|service| picks(service));
        picking
            .map(|service| ObjectKey::of(service.as_ref()))
            .collect()
    }
}

/// What endpoints show of a Pod.
fn shown(pod: &Pod) -> impl PartialEq + use<'_> {
    (
        &pod.metadata.uid,
        &pod.metadata.labels,
        pod.metadata.deletion_timestamp.is_some(),
        pod.status
            .as_ref()
            .map(|status| (&status.pod_ip, &status.pod_ips)),
        pods::is_ready(pod),
        pods::is_finished(pod),
        pods::node_name(pod),
    )
}

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::reconcile::{Change, QUARANTINE, World, reconcile};
use crate::fixtures::{now, pod};

fn world(pod: Arc<Pod>, missing_for: Option<u64>) -> World {
    World {
        pod,
        missing_for: missing_for.map(Duration::from_secs),
        now: now(),
    }
}

#[test]
fn a_pod_outlives_its_node_by_the_quarantine() {
    let running = pod("web").on("gone").ready().build();
    assert_eq!(reconcile(&world(running.clone(), None)), []);
    assert_eq!(reconcile(&world(running.clone(), Some(39))), []);
    let changes = reconcile(&world(running, Some(QUARANTINE.as_secs())));
    assert!(matches!(
        changes.as_slice(),
        [Change::Fail(_), Change::Delete]
    ));
}

#[test]
fn a_finished_pod_keeps_its_phase() {
    let done = pod("job").on("gone").phase("Succeeded").build();
    assert_eq!(reconcile(&world(done, Some(60))), [Change::Delete]);
}

#[test]
fn a_pod_that_never_had_a_node_goes_at_once() {
    assert_eq!(
        reconcile(&world(pod("web").terminating().build(), None)),
        [Change::Delete]
    );
    assert_eq!(reconcile(&world(pod("web").build(), None)), []);
    assert_eq!(
        reconcile(&world(pod("web").on("a").terminating().build(), None)),
        []
    );
}

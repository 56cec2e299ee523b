use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::reconcile::{Change, Failure, World, look_again, reconcile, status_change};
use crate::fixtures::{now, pod, replica_set};

fn world(set: ReplicaSet, pods: Vec<Arc<Pod>>) -> World {
    World {
        replica_set: Arc::new(set),
        pods,
        neighbours: HashMap::new(),
        now: now(),
        seed: 1,
    }
}

fn mine(name: &str) -> crate::fixtures::PodBuilder {
    pod(name).controlled_by("uid-web")
}

fn deleted(changes: &[Change]) -> Vec<String> {
    let names = changes.iter().filter_map(|change| match change {
        Change::Delete(pod) => pod.metadata.name.clone(),
        _ => None,
    });
    names.collect()
}

fn created(changes: &[Change]) -> Vec<Pod> {
    let pods = changes.iter().filter_map(|change| match change {
        Change::Create(pod) => Some((**pod).clone()),
        _ => None,
    });
    pods.collect()
}

#[test]
fn missing_pods_are_created_from_the_template() {
    let changes = reconcile(&world(replica_set("web", 3), vec![mine("web-a").build()]));
    let pods = created(&changes);
    assert_eq!(pods.len(), 2);
    assert_ne!(pods[0].metadata.name, pods[1].metadata.name);
    assert_eq!(pods[0].metadata.generate_name.as_deref(), Some("web-"));
    let owner = &pods[0]
        .metadata
        .owner_references
        .as_ref()
        .expect("an owner")[0];
    assert_eq!(
        (owner.uid.as_str(), owner.controller),
        ("uid-web", Some(true))
    );
    assert_eq!(
        pods[0].spec,
        replica_set("web", 0).spec.and_then(|s| s.template?.spec)
    );
}

#[test]
fn finished_and_terminating_pods_do_not_count() {
    let pods = vec![
        mine("web-a").phase("Failed").build(),
        mine("web-b").ready().terminating().build(),
        mine("web-c").ready().build(),
    ];
    let changes = reconcile(&world(replica_set("web", 2), pods));
    assert_eq!(created(&changes).len(), 1);
    let Some(Change::SetStatus(status)) = changes.last() else {
        panic!("a status is due")
    };
    assert_eq!((status.replicas, status.ready_replicas), (1, Some(1)));
    assert_eq!(status.terminating_replicas, Some(1));
}

#[test]
fn victims_are_those_that_do_least() {
    let pods = vec![
        mine("ready-old").on("a").ready_for(100_000).build(),
        mine("ready-young").on("a").ready_for(10).build(),
        mine("cheap")
            .on("a")
            .ready_for(200_000)
            .annotation("controller.kubernetes.io/pod-deletion-cost", "-1")
            .build(),
        mine("running").on("a").phase("Running").build(),
        mine("pending").on("a").build(),
        mine("unbound").build(),
    ];
    let order = |keep| deleted(&reconcile(&world(replica_set("web", keep), pods.clone())));
    assert_eq!(
        order(1),
        ["unbound", "pending", "running", "cheap", "ready-young"]
    );
    assert_eq!(order(4), ["unbound", "pending"]);
}

#[test]
fn the_fuller_node_gives_first() {
    let pods = vec![
        mine("on-a").on("a").ready().build(),
        mine("on-b").on("b").ready().build(),
    ];
    let mut world = world(replica_set("web", 1), pods);
    world.neighbours = HashMap::from([("a".into(), 1), ("b".into(), 5)]);
    assert_eq!(deleted(&reconcile(&world)), ["on-b"]);
}

#[test]
fn strays_are_adopted_and_strangers_left_alone() {
    let pods = vec![
        pod("stray").build(),
        pod("theirs").controlled_by("uid-other").build(),
    ];
    let changes = reconcile(&world(replica_set("web", 1), pods));
    assert!(matches!(&changes[0], Change::Adopt(pod, owners)
        if pod.metadata.name.as_deref() == Some("stray") && owners.len() == 1));
    assert!(created(&changes).is_empty());
    assert!(deleted(&changes).is_empty());
}

#[test]
fn a_relabelled_pod_is_released_and_replaced() {
    let changes = reconcile(&world(
        replica_set("web", 1),
        vec![mine("web-a").label("app", "debug").build()],
    ));
    assert!(matches!(&changes[0], Change::Release(_, owners) if owners.is_empty()));
    assert_eq!(created(&changes).len(), 1);
}

#[test]
fn a_terminating_set_neither_creates_nor_adopts() {
    let mut set = replica_set("web", 3);
    set.metadata.deletion_timestamp = Some(Time(now()));
    let changes = reconcile(&world(set, vec![pod("stray").build()]));
    assert!(matches!(changes.as_slice(), [Change::SetStatus(_)]));
}

#[test]
fn a_selector_that_picks_everything_does_nothing() {
    let mut set = replica_set("web", 3);
    set.spec.as_mut().expect("spec").selector = Default::default();
    assert_eq!(reconcile(&world(set, vec![pod("stray").build()])), vec![]);
}

#[test]
fn availability_comes_with_time() {
    let mut set = replica_set("web", 1);
    set.spec.as_mut().expect("spec").min_ready_seconds = Some(30);
    let world = world(set, vec![mine("web-a").ready_for(10).build()]);
    let Some(Change::SetStatus(status)) = status_change(&world, None) else {
        panic!("a status is due")
    };
    assert_eq!(
        (status.ready_replicas, status.available_replicas),
        (Some(1), None)
    );
    assert_eq!(look_again(&world).map(|left| left.as_secs()), Some(20));
}

#[test]
fn a_failure_is_a_condition_until_it_passes() {
    let mut set = replica_set("web", 1);
    let failure = Failure {
        reason: "FailedCreate",
        message: "quota".into(),
    };
    let Some(Change::SetStatus(status)) =
        status_change(&world(set.clone(), vec![]), Some(&failure))
    else {
        panic!("a status is due")
    };
    let condition = &status.conditions.as_ref().expect("a condition")[0];
    assert_eq!(
        (condition.type_.as_str(), condition.reason.as_deref()),
        ("ReplicaFailure", Some("FailedCreate"))
    );
    set.status = Some(*status);
    let Some(Change::SetStatus(status)) = status_change(&world(set, vec![]), None) else {
        panic!("it passed")
    };
    assert_eq!(status.conditions, None);
}

/// Plays the API server and a kubelet for which every Pod is ready at once.
fn apply(world: &mut World, change: Change) {
    let find = |pods: &mut Vec<Arc<Pod>>, pod: &Pod| {
        pods.iter()
            .position(|known| known.metadata.uid == pod.metadata.uid)
    };
    match change {
        Change::Create(mut new) => {
            new.metadata.uid = new.metadata.name.clone().map(|name| format!("uid-{name}"));
            new.status = Some(PodStatus {
                phase: Some("Pending".into()),
                ..Default::default()
            });
            world.pods.push(Arc::new(*new));
        }
        Change::Delete(pod) => {
            if let Some(index) = find(&mut world.pods, &pod) {
                world.pods.remove(index);
            }
        }
        Change::Adopt(pod, owners) | Change::Release(pod, owners) => {
            if let Some(index) = find(&mut world.pods, &pod) {
                Arc::make_mut(&mut world.pods[index])
                    .metadata
                    .owner_references = Some(owners);
            }
        }
        Change::SetStatus(status) => Arc::make_mut(&mut world.replica_set).status = Some(*status),
    }
    world.seed = world
        .seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
}

fn any_pod(n: usize) -> impl Strategy<Value = Arc<Pod>> {
    (0..4, 0..3, any::<bool>(), any::<bool>()).prop_map(
        move |(phase, owner, terminating, relabelled)| {
            let name = format!("p{n}");
            let mut pod = pod(&name);
            pod = match phase {
                0 => pod,
                1 => pod.on("a").phase("Running"),
                2 => pod.on("a").ready(),
                _ => pod.phase("Failed"),
            };
            pod = match owner {
                0 => pod,
                1 => pod.controlled_by("uid-web"),
                _ => pod.controlled_by("uid-other"),
            };
            if terminating {
                pod = pod.terminating();
            }
            if relabelled {
                pod = pod.label("app", "other");
            }
            pod.build()
        },
    )
}

fn any_world() -> impl Strategy<Value = World> {
    let pods: Vec<_> = (0..8).map(any_pod).collect();
    (0..6i32, pods, 0..=8usize, any::<u64>()).prop_map(|(replicas, mut pods, keep, seed)| {
        pods.truncate(keep);
        World {
            seed,
            ..world(replica_set("web", replicas), pods)
        }
    })
}

proptest! {
    #[test]
    fn a_world_settles_and_then_rests(mut world in any_world()) {
        for _ in 0..4 {
            let changes = reconcile(&world);
            if changes.is_empty() {
                break;
            }
            for change in changes {
                apply(&mut world, change);
            }
        }
        prop_assert_eq!(reconcile(&world), vec![]);
        let owned = world.pods.iter().filter(|pod| {
            crate::pods::is_active(pod) && coracle_client::is_controlled_by(pod.as_ref(), "uid-web")
        });
        prop_assert_eq!(owned.count() as i32, super::reconcile::replicas(&world.replica_set));
    }

    #[test]
    fn nobody_elses_pod_is_touched(world in any_world()) {
        for change in reconcile(&world) {
            if let Change::Delete(pod) | Change::Release(pod, _) | Change::Adopt(pod, _) = change {
                let owner = coracle_client::controller_of(pod.as_ref()).map(|owner| owner.uid.as_str());
                prop_assert!(owner.is_none() || owner == Some("uid-web"));
            }
        }
    }

    #[test]
    fn a_crash_after_any_write_is_made_good(mut world in any_world(), writes in 0..6usize) {
        // Only the first few writes of the round happen; a fresh start sees whatever they left.
        for change in reconcile(&world).into_iter().take(writes) {
            apply(&mut world, change);
        }
        for _ in 0..4 {
            for change in reconcile(&world) {
                apply(&mut world, change);
            }
        }
        prop_assert_eq!(reconcile(&world), vec![]);
    }
}

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::reconcile::{Decision, Mark, Scale, World, covers, reconcile, stale_mark};
use crate::fixtures::{meta, now, pod, selector};

fn budget(most: Option<IntOrString>, least: Option<IntOrString>) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta("budget"),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: most,
            min_available: least,
            selector: Some(selector()),
            unhealthy_pod_eviction_policy: None,
        }),
        status: None,
    }
}

fn text(text: &str) -> Option<IntOrString> {
    Some(IntOrString::String(text.into()))
}

fn number(number: i32) -> Option<IntOrString> {
    Some(IntOrString::Int(number))
}

fn ready(count: usize) -> Vec<Arc<Pod>> {
    let pods = (0..count).map(|n| pod(&format!("web-{n}")).controlled_by("uid-web"));
    pods.map(|pod| pod.ready().build()).collect()
}

fn world(budget: PodDisruptionBudget, pods: Vec<Arc<Pod>>, replicas: i32) -> World {
    let uid = "uid-deployment".to_owned();
    World {
        budget: Arc::new(budget),
        pods,
        scales: HashMap::from([("uid-web".into(), Ok(Some(Scale { uid, replicas })))]),
        now: now(),
    }
}

fn status(decision: &Decision) -> &PodDisruptionBudgetStatus {
    decision.status.as_deref().expect("a status to write")
}

fn reasons(decision: &Decision) -> Vec<&'static str> {
    decision.notes.iter().map(|note| note.reason).collect()
}

fn ago(seconds: i64) -> Timestamp {
    now() - jiff::SignedDuration::from_secs(seconds)
}

/// The world after the decision was written.
fn written(mut world: World, decision: &Decision) -> World {
    Arc::make_mut(&mut world.budget).status = Some(status(decision).clone());
    world
}

#[test]
fn numbers_and_shares_say_how_many_may_go() {
    // (maxUnavailable, minAvailable), ready pods, replicas asked for; expected, desired, allowed.
    for (most, least, pods, replicas, numbers) in [
        (None, number(2), 3, 9, (3, 2, 1)),
        (None, number(3), 3, 9, (3, 3, 0)),
        (None, number(9), 3, 9, (3, 9, 0)),
        (None, number(0), 3, 9, (3, 0, 3)),
        (None, text("50%"), 3, 3, (3, 2, 1)),
        (None, text("0%"), 2, 4, (4, 0, 2)),
        (None, text("100%"), 4, 4, (4, 4, 0)),
        (number(1), None, 3, 3, (3, 2, 1)),
        (number(1), None, 3, 4, (4, 3, 0)),
        (number(9), None, 3, 3, (3, 0, 3)),
        (text("30%"), None, 4, 4, (4, 2, 2)),
        (text("1%"), None, 10, 10, (10, 9, 1)),
        (text("0%"), None, 2, 2, (2, 2, 0)),
        (None, None, 3, 3, (0, 0, 0)),
        // Nothing is asked for: nothing is allowed, though nothing is needed.
        (number(1), None, 2, 0, (0, 0, 0)),
    ] {
        let case = format!("{most:?} {least:?} {pods}/{replicas}");
        let world = world(budget(most, least), ready(pods), replicas);
        let decision = reconcile(&world);
        let status = status(&decision);
        let counted = (
            status.expected_pods,
            status.desired_healthy,
            status.disruptions_allowed,
        );
        let wanted = (Some(numbers.0), Some(numbers.1), Some(numbers.2));
        assert_eq!(counted, wanted, "{case}");
        assert_eq!(status.current_healthy, Some(pods as i32), "{case}");
        assert_eq!(status.observed_generation, Some(1), "{case}");
        let condition = &status.conditions.as_ref().expect("one")[0];
        let expected = match numbers.2 > 0 {
            true => ("True", "SufficientPods"),
            false => ("False", "InsufficientPods"),
        };
        let told = (condition.status.as_str(), condition.reason.as_str());
        assert_eq!(told, expected, "{case}");
        let settled = reconcile(&written(world, &decision));
        assert_eq!(settled, Decision::default(), "{case}");
    }
}

#[test]
fn pods_that_are_not_ready_or_go_are_not_healthy() {
    let mut pods = ready(2);
    pods.push(pod("new").controlled_by("uid-web").build());
    pods.push(
        pod("old")
            .controlled_by("uid-web")
            .ready()
            .terminating()
            .build(),
    );
    let decision = reconcile(&world(budget(number(1), None), pods, 4));
    assert_eq!(status(&decision).current_healthy, Some(2));
    assert_eq!(status(&decision).disruptions_allowed, Some(0));
}

#[test]
fn an_evicted_pod_counts_as_gone_until_its_time_is_over() {
    let evicted = |seconds: i64, pods: Vec<Arc<Pod>>| {
        let mut budget = budget(None, number(1));
        budget.status = Some(PodDisruptionBudgetStatus {
            disrupted_pods: Some(BTreeMap::from([("web-0".into(), Time(ago(seconds)))])),
            ..Default::default()
        });
        reconcile(&world(budget, pods, 3))
    };
    let fresh = evicted(20, ready(3));
    assert_eq!(status(&fresh).current_healthy, Some(2));
    assert_eq!(status(&fresh).disruptions_allowed, Some(1));
    assert!(status(&fresh).disrupted_pods.is_some());
    let again = fresh.again.expect("a further look");
    assert!(again > Duration::from_secs(100) && again < Duration::from_secs(101));

    let overdue = evicted(121, ready(3));
    assert_eq!(status(&overdue).disrupted_pods, None);
    assert_eq!(status(&overdue).disruptions_allowed, Some(2));
    assert_eq!(reasons(&overdue), ["NotDeleted"]);
    let note = &overdue.notes[0];
    assert_eq!(
        note.message,
        "Pod was expected by PDB default/default to be deleted but it wasn't"
    );
    assert!(note.pod.is_some());

    let mut going = ready(3);
    going[0] = pod("web-0").ready().terminating().build();
    for pods in [going, ready(3).split_off(1)] {
        let seen = evicted(20, pods);
        assert_eq!(status(&seen).disrupted_pods, None);
        assert_eq!(status(&seen).current_healthy, Some(2));
        assert_eq!((seen.again, reasons(&seen).len()), (None, 0));
    }
}

#[test]
fn a_scale_that_nobody_knows_allows_nothing_and_says_so() {
    for (found, problem) in [
        (Ok(None), "found no controllers for pod \"web-0\""),
        (
            Err("daemonsets.apps does not implement the scale subresource".to_owned()),
            "daemonsets.apps does not implement the scale subresource",
        ),
    ] {
        let mut world = world(budget(number(1), None), ready(2), 2);
        let counted = reconcile(&world);
        world = written(world, &counted);
        world.scales.insert("uid-web".into(), found);
        let decision = reconcile(&world);
        assert!(decision.failed);
        assert_eq!(reasons(&decision), ["CalculateExpectedPodCountFailed"]);
        let failed = status(&decision);
        assert_eq!(
            (failed.disruptions_allowed, failed.expected_pods),
            (Some(0), Some(2))
        );
        let condition = &failed.conditions.as_ref().expect("one")[0];
        assert_eq!(
            (condition.reason.as_str(), condition.message.as_str()),
            ("SyncFailed", problem)
        );
        // The second time it is neither written nor told.
        let again = reconcile(&written(world, &decision));
        assert!(again.failed && again.status.is_none() && again.notes.is_empty());
    }
}

#[test]
fn unmanaged_pods_are_told_and_not_counted() {
    let mut pods = ready(1);
    pods.push(pod("alone").ready().build());
    let decision = reconcile(&world(budget(text("50%"), None), pods, 1));
    assert_eq!(reasons(&decision), ["UnmanagedPods"]);
    let selector = "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,},\
                    MatchExpressions:[]LabelSelectorRequirement{},})";
    let message = &decision.notes[0].message;
    assert!(message.contains(selector), "{message}");
    assert_eq!(status(&decision).expected_pods, Some(1));
    let none = reconcile(&world(budget(number(1), None), Vec::new(), 0));
    assert_eq!(reasons(&none), ["NoPods"]);
}

#[test]
fn an_empty_selector_covers_all_and_a_missing_one_nothing() {
    let pod = pod("any").build();
    let with = |selector: Option<LabelSelector>| {
        let mut budget = budget(None, number(1));
        budget.spec.as_mut().expect("a spec").selector = selector;
        covers(&budget, &pod)
    };
    assert!(with(Some(LabelSelector::default())));
    assert!(with(Some(selector())));
    assert!(!with(None));
}

#[test]
fn a_mark_that_does_not_come_true_is_cleared() {
    let marked = |seconds: i64, reason: &str, phase: &str| {
        let mut pod = Pod::clone(&pod("x").on("a").phase(phase).build());
        pod.status.as_mut().expect("one").conditions = Some(vec![PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some(reason.into()),
            last_transition_time: Some(Time(ago(seconds))),
            ..Default::default()
        }]);
        pod
    };
    let eviction = "EvictionByEvictionAPI";
    assert!(matches!(
        stale_mark(&marked(60, eviction, "Running"), now()),
        Mark::Wait(_)
    ));
    let Mark::Clear(condition) = stale_mark(&marked(121, eviction, "Running"), now()) else {
        panic!("it is over");
    };
    assert_eq!(
        (condition.status.as_str(), condition.reason),
        ("False", None)
    );
    for fine in [
        marked(121, "TerminationByKubelet", "Running"),
        marked(121, eviction, "Failed"),
        Pod::clone(&pod("plain").build()),
    ] {
        assert_eq!(stale_mark(&fine, now()), Mark::Fine);
    }
}

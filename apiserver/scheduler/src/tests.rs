use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerStatus, Node, NodeSpec, NodeStatus, Pod, PodCondition,
    PodSchedulingGate, PodSpec, PodStatus, ResourceRequirements, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use proptest::prelude::*;

use super::{Cluster, Placement, place};

fn amounts(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs
        .iter()
        .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
        .collect()
}

fn node(name: &str, cpu: &str, memory: &str) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..Default::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            allocatable: Some(amounts(&[
                ("cpu", cpu),
                ("memory", memory),
                ("pods", "110"),
            ])),
            ..Default::default()
        }),
    }
}

fn tainted(mut node: Node, key: &str, effect: &str) -> Node {
    let taint = Taint {
        key: key.into(),
        effect: effect.into(),
        ..Default::default()
    };
    node.spec.get_or_insert_default().taints = Some(vec![taint]);
    node
}

fn pod(name: &str, cpu: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(format!("uid-{name}")),
            ..Default::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                resources: Some(ResourceRequirements {
                    requests: Some(amounts(&[("cpu", cpu)])),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        }),
        status: None,
    }
}

fn on(mut pod: Pod, node: &str) -> Pod {
    pod.spec.get_or_insert_default().node_name = Some(node.into());
    pod
}

fn with_host_port(mut pod: Pod, port: i32, ip: Option<&str>) -> Pod {
    pod.spec.get_or_insert_default().containers[0].ports = Some(vec![ContainerPort {
        container_port: 80,
        host_port: Some(port),
        host_ip: ip.map(str::to_owned),
        ..Default::default()
    }]);
    pod
}

fn refusal(pod: &Pod, cluster: &Cluster) -> String {
    match place(pod, cluster, 0) {
        Placement::Unschedulable { message } => message,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn placed(node: &str) -> Placement {
    Placement::Node(node.to_owned())
}

/// A Pod on node `a` whose container was given `has` and asks for `wants`, and what the node says of it.
fn resized(has: &str, wants: &str, reason: Option<&str>) -> Pod {
    let mut pod = on(pod("one", wants), "a");
    pod.spec.get_or_insert_default().containers[0].name = "app".into();
    let requests = amounts(&[("cpu", has)]);
    pod.status = Some(PodStatus {
        conditions: reason.map(|reason| {
            vec![PodCondition {
                type_: "PodResizePending".into(),
                reason: Some(reason.into()),
                ..Default::default()
            }]
        }),
        container_statuses: Some(vec![ContainerStatus {
            name: "app".into(),
            allocated_resources: Some(requests.clone()),
            resources: Some(ResourceRequirements {
                requests: Some(requests),
                ..Default::default()
            }),
            ..Default::default()
        }]),
        ..Default::default()
    });
    pod
}

#[test]
fn a_pod_that_asks_for_what_it_will_never_have_takes_what_it_has() {
    let nodes = [node("a", "4", "8Gi")];
    for (resized, fits) in [
        (resized("1", "50", Some("Infeasible")), true),
        (resized("1", "3", Some("Deferred")), false),
        (resized("1", "3", None), false),
        // Until it has given the rest back.
        (resized("3", "1", None), false),
        (resized("1", "1", None), true),
    ] {
        let cluster = Cluster::of(&nodes, [&resized]);
        let is_placed = place(&pod("two", "2"), &cluster, 0) == placed("a");
        assert_eq!(is_placed, fits, "{resized:?}");
    }
}

#[test]
fn so_does_a_pod_as_a_whole() {
    let nodes = [node("a", "4", "8Gi")];
    let whole = |cpu: &str| ResourceRequirements {
        requests: Some(amounts(&[("cpu", cpu)])),
        ..Default::default()
    };
    for (reason, fits) in [(Some("Infeasible"), true), (Some("Deferred"), false)] {
        let mut resized = resized("1", "1", reason);
        resized.spec.get_or_insert_default().resources = Some(whole("50"));
        resized.status.get_or_insert_default().resources = Some(whole("2"));
        let cluster = Cluster::of(&nodes, [&resized]);
        let is_placed = place(&pod("two", "2"), &cluster, 0) == placed("a");
        assert_eq!(is_placed, fits, "{resized:?}");
        assert!(
            place(&pod("two", "2500m"), &cluster, 0) != placed("a"),
            "{resized:?}"
        );
    }
}

#[test]
fn the_emptier_node_wins() {
    let nodes = [node("a", "4", "8Gi"), node("b", "4", "8Gi")];
    let cluster = Cluster::of(&nodes, [&on(pod("one", "2"), "a")]);
    assert_eq!(place(&pod("two", "1"), &cluster, 0), placed("b"));
    assert_eq!(place(&pod("two", "1"), &cluster, 1), placed("b"));
}

#[test]
fn the_seed_decides_between_equals() {
    let nodes = [node("a", "4", "8Gi"), node("b", "4", "8Gi")];
    let cluster = Cluster::of(&nodes, []);
    assert_eq!(place(&pod("one", "1"), &cluster, 0), placed("a"));
    assert_eq!(place(&pod("one", "1"), &cluster, 1), placed("b"));
}

#[test]
fn a_full_cluster_says_what_is_missing() {
    let nodes = [node("a", "1", "8Gi")];
    let cluster = Cluster::of(&nodes, [&on(pod("one", "800m"), "a")]);
    assert_eq!(
        refusal(&pod("two", "500m"), &cluster),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    assert_eq!(
        refusal(&pod("two", "1"), &Cluster::default()),
        "no nodes available to schedule pods"
    );
}

#[test]
fn reasons_are_counted_over_all_nodes() {
    let mut cordoned = node("c", "4", "8Gi");
    cordoned.spec.get_or_insert_default().unschedulable = Some(true);
    let nodes = [
        node("a", "1", "8Gi"),
        node("b", "1", "8Gi"),
        cordoned,
        tainted(
            node("d", "4", "8Gi"),
            "node.kubernetes.io/not-ready",
            "NoSchedule",
        ),
    ];
    assert_eq!(
        refusal(&pod("big", "2"), &Cluster::of(&nodes, [])),
        "0/4 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
         1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/4 nodes are available: \
         2 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_toleration_opens_a_tainted_node() {
    let nodes = [tainted(node("a", "4", "8Gi"), "gpu", "NoSchedule")];
    let cluster = Cluster::of(&nodes, []);
    let mut tolerant = pod("one", "1");
    assert!(matches!(
        place(&tolerant, &cluster, 0),
        Placement::Unschedulable { .. }
    ));
    tolerant.spec.get_or_insert_default().tolerations = Some(vec![Toleration {
        operator: Some("Exists".into()),
        ..Default::default()
    }]);
    assert_eq!(place(&tolerant, &cluster, 0), placed("a"));
}

#[test]
fn a_node_selector_must_match() {
    let mut labelled = node("b", "4", "8Gi");
    labelled.metadata.labels = Some([("disk".to_owned(), "fast".to_owned())].into());
    let mut choosy = pod("one", "1");
    choosy.spec.get_or_insert_default().node_selector =
        Some([("disk".to_owned(), "fast".to_owned())].into());
    assert_eq!(
        place(
            &choosy,
            &Cluster::of([&node("a", "4", "8Gi"), &labelled], []),
            0
        ),
        placed("b")
    );
    let message = refusal(&choosy, &Cluster::of([&node("a", "4", "8Gi")], []));
    assert!(message.starts_with(
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    ));
}

#[test]
fn host_ports_are_had_once_per_node() {
    let nodes = [node("a", "4", "8Gi")];
    let cluster = Cluster::of(
        &nodes,
        [&on(
            with_host_port(pod("one", "1"), 80, Some("127.0.0.1")),
            "a",
        )],
    );
    assert_eq!(
        place(&with_host_port(pod("two", "1"), 81, None), &cluster, 0),
        placed("a")
    );
    assert_eq!(
        place(
            &with_host_port(pod("two", "1"), 80, Some("127.0.0.2")),
            &cluster,
            0
        ),
        placed("a")
    );
    let message = refusal(&with_host_port(pod("two", "1"), 80, None), &cluster);
    assert!(message.contains("1 node(s) didn't have free ports for the requested pod ports"));
}

#[test]
fn the_number_of_pods_is_limited() {
    let mut small = node("a", "4", "8Gi");
    small.status.as_mut().expect("a status").allocatable =
        Some(amounts(&[("cpu", "4"), ("pods", "1")]));
    let cluster = Cluster::of([&small], [&on(pod("one", "0"), "a")]);
    assert!(refusal(&pod("two", "0"), &cluster).contains("1 Too many pods"));
}

#[test]
fn init_containers_count_by_the_largest() {
    let mut heavy = pod("one", "1");
    let spec = heavy.spec.get_or_insert_default();
    spec.init_containers = Some(vec![
        pod("init", "3").spec.expect("a spec").containers.remove(0),
    ]);
    assert!(
        refusal(&heavy, &Cluster::of([&node("a", "2", "8Gi")], [])).contains("Insufficient cpu")
    );
    assert_eq!(
        place(&heavy, &Cluster::of([&node("a", "3", "8Gi")], []), 0),
        placed("a")
    );
}

#[test]
fn a_gated_pod_waits() {
    let mut gated = pod("one", "1");
    gated.spec.get_or_insert_default().scheduling_gates =
        Some(vec![PodSchedulingGate { name: "x".into() }]);
    assert_eq!(
        place(&gated, &Cluster::of([&node("a", "4", "8Gi")], []), 0),
        Placement::Gated
    );
}

#[test]
fn what_is_assumed_counts_and_what_is_finished_does_not() {
    let mut cluster = Cluster::of([&node("a", "1", "8Gi")], []);
    cluster.assume(&pod("one", "1"), "a");
    assert!(matches!(
        place(&pod("two", "1"), &cluster, 0),
        Placement::Unschedulable { .. }
    ));
    assert!(cluster.forget("uid-one"), "a failed binding makes room");
    assert_eq!(place(&pod("two", "1"), &cluster, 0), placed("a"));

    let mut running = on(pod("one", "1"), "a");
    cluster.set_pod(&running);
    assert!(!cluster.forget("uid-one"), "the cache has shown it");
    running.status = Some(PodStatus {
        phase: Some("Succeeded".into()),
        ..Default::default()
    });
    assert!(cluster.set_pod(&running), "a finished pod makes room");
    assert_eq!(place(&pod("two", "1"), &cluster, 0), placed("a"));
}

#[test]
fn a_binding_that_never_shows_is_given_up() {
    use std::time::Duration;
    let mut cluster = Cluster::of([&node("a", "1", "8Gi")], []);
    cluster.assume(&pod("one", "1"), "a");
    cluster.bound("uid-one", Duration::from_secs(10));
    cluster.expire(Duration::from_secs(39));
    assert!(cluster.is_placed("uid-one"));
    cluster.expire(Duration::from_secs(40));
    assert!(!cluster.is_placed("uid-one"));
}

#[test]
fn pods_of_a_node_that_comes_back_still_count() {
    let mut cluster = Cluster::of([&node("a", "1", "8Gi")], [&on(pod("one", "1"), "a")]);
    cluster.remove_node("a");
    assert_eq!(
        refusal(&pod("two", "1"), &cluster),
        "no nodes available to schedule pods"
    );
    cluster.set_node(&node("a", "1", "8Gi"));
    assert!(refusal(&pod("two", "1"), &cluster).contains("Insufficient cpu"));
}

proptest! {
    #[test]
    fn a_burst_never_overcommits(requests in prop::collection::vec(1..2000i64, 1..60), seed in any::<u64>()) {
        let nodes = [node("a", "4", "8Gi"), node("b", "2", "8Gi"), node("c", "1", "8Gi")];
        let mut cluster = Cluster::of(&nodes, []);
        let mut taken = BTreeMap::<String, i64>::new();
        for (n, request) in requests.iter().enumerate() {
            let pod = pod(&format!("p{n}"), &format!("{request}m"));
            if let Placement::Node(node) = place(&pod, &cluster, seed.wrapping_add(n as u64)) {
                cluster.assume(&pod, &node);
                *taken.entry(node).or_default() += request;
            }
        }
        for (node, limit) in [("a", 4000), ("b", 2000), ("c", 1000)] {
            prop_assert!(taken.get(node).copied().unwrap_or(0) <= limit);
        }
    }

    #[test]
    fn the_cluster_forgets_exactly_what_it_counted(
        steps in prop::collection::vec((0..6usize, 0..4usize, 1..900i64), 1..60)
    ) {
        let mut cluster = Cluster::of([&node("a", "100", "8Gi")], []);
        for (n, step, cpu) in steps {
            let pod = pod(&format!("p{n}"), &format!("{cpu}m"));
            match step {
                0 => cluster.assume(&pod, "a"),
                1 => { cluster.set_pod(&on(pod, "a")); }
                2 => { cluster.remove_pod(&format!("uid-p{n}")); }
                _ => { cluster.forget(&format!("uid-p{n}")); }
            }
        }
        for n in 0..6 {
            cluster.remove_pod(&format!("uid-p{n}"));
        }
        let all = place(&pod("all", "100"), &cluster, 0);
        prop_assert_eq!(all, placed("a"));
    }
}

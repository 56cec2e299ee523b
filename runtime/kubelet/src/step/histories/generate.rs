//! Pods, and what may happen to them.

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Something that may happen next; the number chooses among what is possible.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A pending action is carried out.
    Done(u8),
    /// A pending action fails, if it can.
    Fails(u8),
    /// A container that was started runs.
    Runs(u8),
    /// A container ends by itself with this code.
    Ends(u8, i32),
    /// A startup or readiness probe passes.
    Passes(u8),
    /// A probe gives a container up.
    GivesUp(u8),
    /// Time passes.
    Waits(u16),
    /// The user gives a container another image.
    OtherImage(u8, u8),
    /// The user deletes the pod with this grace.
    Deleted(u8),
    /// The user adds a container to debug with.
    Debugged,
    /// The user gives a container other resources; the node has them, or has not.
    Resized(u8, u8, bool),
    /// The user gives the pod as a whole another limit; the node has it, or has not.
    ResizedWhole(u8, bool),
    /// The node gives the pod up.
    Evicted,
    /// The node is killed and starts again.
    NodeRestarts,
}

pub(super) fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        16 => any::<u8>().prop_map(Happening::Done),
        4 => any::<u8>().prop_map(Happening::Fails),
        12 => any::<u8>().prop_map(Happening::Runs),
        6 => (any::<u8>(), 0..3i32).prop_map(|(which, code)| Happening::Ends(which, code)),
        6 => any::<u8>().prop_map(Happening::Passes),
        2 => any::<u8>().prop_map(Happening::GivesUp),
        8 => (0..400u16).prop_map(Happening::Waits),
        2 => (0..40u8).prop_map(Happening::Deleted),
        2 => Just(Happening::Debugged),
        3 => any::<(u8, u8)>().prop_map(|(which, image)| Happening::OtherImage(which, image % 4)),
        4 => any::<(u8, u8, bool)>().prop_map(|(which, cpu, fits)| Happening::Resized(which, cpu, fits)),
        2 => any::<(u8, bool)>().prop_map(|(cpu, fits)| Happening::ResizedWhole(cpu, fits)),
        1 => Just(Happening::Evicted),
        2 => Just(Happening::NodeRestarts),
    ]
}

/// What a container of a generated pod has.
#[derive(Clone, Debug)]
struct Shape {
    policy: Option<&'static str>,
    rule: Option<&'static str>,
    post_start: bool,
    pre_stop: bool,
    startup: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let policies = vec![None, None, Some("Always"), Some("OnFailure"), Some("Never")];
    let policy = prop::sample::select(policies);
    let flags = any::<(bool, bool, bool)>();
    let rules = vec![None, None, Some("Restart"), Some("RestartAllContainers")];
    let rule = prop::sample::select(rules);
    (policy, rule, flags).prop_map(|(policy, rule, (post_start, pre_stop, startup))| Shape {
        policy,
        rule: rule.filter(|_| policy.is_some()),
        post_start,
        pre_stop,
        startup,
    })
}

fn container(name: String, shape: &Shape, init: bool) -> Value {
    let hook = |there: bool| there.then(|| json!({"sleep": {"seconds": 1}}));
    let mut container = json!({"name": name, "image": "a", "restartPolicy": shape.policy});
    // What runs to its end has neither hooks nor probes.
    if !init || shape.policy == Some("Always") {
        let (start, stop) = (hook(shape.post_start), hook(shape.pre_stop));
        container["lifecycle"] = json!({"postStart": start, "preStop": stop});
        container["startupProbe"] = json!(shape.startup.then(|| json!({"tcpSocket": {"port": 1}})));
    }
    if shape.pre_stop && !init {
        container["resizePolicy"] =
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    }
    if let Some(action) = shape.rule {
        let codes = json!({"operator": "In", "values": [2]});
        container["restartPolicyRules"] = json!([{"action": action, "exitCodes": codes}]);
    }
    container
}

pub(super) fn pods() -> impl Strategy<Value = Pod> {
    let policy = prop::sample::select(vec!["Always", "OnFailure", "Never"]);
    let init = prop::collection::vec(shape(), 0..4);
    let main = prop::collection::vec(shape(), 1..4);
    let deadline = prop::option::weighted(0.3, 1..900i64);
    (policy, init, main, deadline).prop_map(|(policy, init, main, deadline)| {
        let list = |kind: &str, shapes: &[Shape]| -> Vec<Value> {
            let shapes = shapes.iter().enumerate();
            shapes
                .map(|(index, shape)| container(format!("{kind}-{index}"), shape, kind == "init"))
                .collect()
        };
        let pod = json!({
            "metadata": {"uid": "u"},
            "spec": {
                "restartPolicy": policy, "activeDeadlineSeconds": deadline,
                "initContainers": list("init", &init), "containers": list("main", &main),
            },
        });
        serde_json::from_value(pod).expect("a pod")
    })
}

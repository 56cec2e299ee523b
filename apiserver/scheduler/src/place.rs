//! The decision: where a Pod goes, or why nowhere.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::affinity;
use crate::cluster::{Cluster, NodeState};
use crate::resources::{HostPort, Request};
use crate::volumes::Needs;

/// The answer to "where?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On this node.
    Node(String),
    /// Nowhere for now, in upstream's words.
    Unschedulable {
        /// Why, counted by reason over all nodes.
        message: String,
    },
    /// Not before the Pod's scheduling gates are gone.
    Gated,
}

/// Finds the best node for `pod`, which mounts no claims; `seed` decides between equals.
pub fn place(pod: &Pod, cluster: &Cluster, seed: u64) -> Placement {
    place_with(pod, &Ok(Needs::default()), cluster, seed)
}

/// The same for a Pod whose claims ask for that, or keep it from every node.
pub(crate) fn place_with(
    pod: &Pod,
    needs: &Result<Needs, String>,
    cluster: &Cluster,
    seed: u64,
) -> Placement {
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_ref());
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Placement::Gated;
    }
    let needs = match needs {
        Ok(needs) => needs,
        Err(why) => {
            return Placement::Unschedulable {
                message: nowhere(why, cluster),
            };
        }
    };
    let wanted = Wanted {
        pod,
        needs,
        request: Request::of(pod),
        ports: HostPort::all_of(pod),
    };
    let mut refused = Refused::default();
    let mut best: Vec<(&str, i64)> = Vec::new();
    let mut highest = i64::MIN;
    for (name, node, state) in cluster.nodes() {
        match wanted.refusal(node, state) {
            Ok(()) => {
                let score = wanted.score(node, state);
                if score > highest {
                    (highest, best) = (score, Vec::new());
                }
                if score == highest {
                    best.push((name, score));
                }
            }
            Err(reasons) => refused.count(reasons),
        }
    }
    match best.len() {
        0 => Placement::Unschedulable {
            message: refused.message(),
        },
        equals => {
            let index = usize::try_from(seed % equals as u64).unwrap_or(0);
            Placement::Node(best[index].0.to_owned())
        }
    }
}

/// What is said of a Pod that no node is looked at for.
fn nowhere(why: &str, cluster: &Cluster) -> String {
    let nodes = cluster.nodes().count();
    if nodes == 0 {
        return Refused::default().message();
    }
    format!(
        "0/{nodes} nodes are available: {why}. preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    )
}

struct Wanted<'a> {
    pod: &'a Pod,
    needs: &'a Needs,
    request: Request,
    ports: Vec<HostPort>,
}

/// Why one node cannot take the Pod; `room` tells whether other Pods' leaving could change that.
struct Reasons {
    texts: Vec<String>,
    room: bool,
}

impl Wanted<'_> {
    /// The first filter that refuses the node speaks, as upstream's do, in upstream's order.
    fn refusal(&self, node: &Node, state: &NodeState) -> Result<(), Reasons> {
        let never = |text: &str| {
            Err(Reasons {
                texts: vec![text.to_owned()],
                room: false,
            })
        };
        let unschedulable = node
            .spec
            .as_ref()
            .and_then(|spec| spec.unschedulable)
            .unwrap_or(false);
        if unschedulable && !affinity::tolerates_unschedulable(self.pod) {
            return never("node(s) were unschedulable");
        }
        if let Some(taint) = affinity::untolerated(self.pod, node, &["NoSchedule", "NoExecute"]) {
            let value = taint.value.as_deref().unwrap_or_default();
            return never(&format!(
                "node(s) had untolerated taint {{{}: {value}}}",
                taint.key
            ));
        }
        if !affinity::accepts(self.pod, node) {
            return never("node(s) didn't match Pod's node affinity/selector");
        }
        if let Some(reason) = self.needs.refusal(node) {
            return never(reason);
        }
        let taken = |port: &HostPort| state.ports.iter().any(|other| port.conflicts(other));
        if self.ports.iter().any(taken) {
            let text = "node(s) didn't have free ports for the requested pod ports";
            return Err(Reasons {
                texts: vec![text.to_owned()],
                room: true,
            });
        }
        let texts = self.lacking(state);
        if texts.is_empty() {
            Ok(())
        } else {
            Err(Reasons { texts, room: true })
        }
    }

    fn lacking(&self, state: &NodeState) -> Vec<String> {
        let mut texts = Vec::new();
        if state.pods + 1 > state.allocatable.get("pods") {
            texts.push("Too many pods".to_owned());
        }
        for (name, amount) in self.request.amounts.iter() {
            let free = state
                .allocatable
                .get(name)
                .saturating_sub(state.taken.get(name));
            if amount > 0 && amount > free {
                texts.push(format!("Insufficient {name}"));
            }
        }
        texts
    }

    /// Least allocated and most balanced, each from 0 to 100, after what the Pod and the node's
    /// owner prefer.
    fn score(&self, node: &Node, state: &NodeState) -> i64 {
        let share = |taken: i64, of: i64| match of {
            0 => 1.0,
            of => (taken as f64 / of as f64).clamp(0.0, 1.0),
        };
        let cpu = share(
            state.scored.0 + self.request.scored.0,
            state.allocatable.get("cpu"),
        );
        let memory = share(
            state.scored.1 + self.request.scored.1,
            state.allocatable.get("memory"),
        );
        let least = ((1.0 - cpu) * 100.0).floor() + ((1.0 - memory) * 100.0).floor();
        let balanced = ((1.0 - (cpu - memory).abs() / 2.0) * 100.0).floor();
        let advised = i64::try_from(affinity::advised_against(self.pod, node)).unwrap_or(0);
        (least / 2.0) as i64 + balanced as i64 + 2 * affinity::preference(self.pod, node)
            - 300 * advised
    }
}

/// Counts why nodes were refused.
#[derive(Default)]
struct Refused {
    nodes: usize,
    reasons: BTreeMap<String, usize>,
    /// How many nodes could take the Pod if others left.
    room: usize,
}

impl Refused {
    fn count(&mut self, reasons: Reasons) {
        self.nodes += 1;
        self.room += usize::from(reasons.room);
        for text in reasons.texts {
            *self.reasons.entry(text).or_default() += 1;
        }
    }

    fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut reasons: Vec<_> = self
            .reasons
            .iter()
            .map(|(text, count)| format!("{count} {text}"))
            .collect();
        reasons.sort();
        // Nothing is ever preempted, which upstream words by why it would not help.
        let mut preemption = Vec::new();
        if self.room > 0 {
            preemption.push(format!(
                "{} No preemption victims found for incoming pod",
                self.room
            ));
        }
        if self.nodes > self.room {
            preemption.push(format!(
                "{} Preemption is not helpful for scheduling",
                self.nodes - self.room
            ));
        }
        preemption.sort();
        format!(
            "0/{nodes} nodes are available: {}. preemption: 0/{nodes} nodes are available: {}.",
            reasons.join(", "),
            preemption.join(", "),
            nodes = self.nodes,
        )
    }
}

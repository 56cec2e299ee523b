//! Notices nodes that fall silent, and keeps Pods away from those that cannot take any.
//!
//! A node is alive while its Lease (in `kube-node-lease`) or its status changes. The time between
//! changes is measured by this process's own clock, so that a node whose clock is wrong is not
//! taken for dead.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use coracle_client::{
    Context, Error, EventKind, Lister, ObjectKey, Outcome, PendingWrites, Precondition,
};
use coracle_clock::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use serde_json::json;

use crate::pods;
use crate::worker::{outcome, work};
use reconcile::{Change, World, look_again, reconcile};

/// The user's name, as upstream's.
pub(crate) const NAME: &str = "node-controller";

const LEASES: &str = "kube-node-lease";
const WORKERS: usize = 8;

/// Runs until the context is stopped.
pub(crate) async fn run(ctx: Context) {
    // Others keep Leases, too, and renew them every other second.
    let leases = format!("metadata.namespace={LEASES}");
    let controller = Controller {
        nodes: ctx.lister(),
        pods: ctx.lister(),
        leases: ctx.lister_of(&leases),
        signs: Mutex::default(),
        pending: PendingWrites::new(ctx.clock().clone(), crate::EXPECTATION_DEADLINE),
        ctx: ctx.clone(),
    };
    let queue = ctx
        .watch::<Node>()
        .and_of::<Lease>(&leases, |change| {
            vec![ObjectKey::cluster(
                ObjectKey::of(change.object().as_ref()).name,
            )]
        })
        .into_queue()
        .await;
    work(queue, WORKERS, |key| controller.sync(key)).await;
}

/// The newest sign of life of a node, and when this process saw it.
struct Sign {
    renewed: Option<Timestamp>,
    reported: Option<Timestamp>,
    seen: Duration,
}

struct Controller {
    ctx: Context,
    nodes: Lister<Node>,
    pods: Lister<Pod>,
    leases: Lister<Lease>,
    signs: Mutex<HashMap<String, Sign>>,
    pending: PendingWrites<ObjectKey>,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Outcome {
        if let Some(wait) = self.pending.unobserved(&key) {
            return Outcome::After(wait);
        }
        let Some(node) = self.nodes.get(&key) else {
            self.signs.lock().remove(&key.name);
            return Outcome::Done;
        };
        let silent_for = self.silence(&key, &node);
        let mut pods = Vec::new();
        // Only a node that is not ready has Pods to be looked at.
        if !is_ready(&node) || silent_for >= reconcile::GRACE {
            pods = self.pods.list();
            pods.retain(|pod| pods::node_name(pod) == Some(key.name.as_str()));
        }
        let world = World {
            node,
            pods,
            silent_for,
            now: self.ctx.clock().now(),
        };
        outcome(NAME, &key, self.apply(&key, &world).await)
    }

    /// How long ago the node was last seen to do anything.
    fn silence(&self, key: &ObjectKey, node: &Node) -> Duration {
        let lease = self.leases.get(&ObjectKey::new(LEASES, key.name.clone()));
        let renewed = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
        let conditions = node
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let reported = conditions
            .filter_map(|condition| Some(condition.last_heartbeat_time.as_ref()?.0))
            .max();
        let now = self.ctx.clock().monotonic();
        let mut signs = self.signs.lock();
        let sign = signs.entry(key.name.clone()).or_insert(Sign {
            renewed,
            reported,
            seen: now,
        });
        if sign.renewed != renewed || sign.reported != reported {
            *sign = Sign {
                renewed,
                reported,
                seen: now,
            };
        }
        now.saturating_sub(sign.seen)
    }

    async fn apply(&self, key: &ObjectKey, world: &World) -> Result<Outcome, Error> {
        let node = world.node.as_ref();
        for change in reconcile(world) {
            match change {
                Change::SetConditions(conditions) => {
                    let patch = json!({"status": {"conditions": conditions}});
                    // Whatever the node said meanwhile is newer than its silence.
                    let when = Precondition::unchanged(node);
                    let written = self
                        .ctx
                        .objects()
                        .strategic_patch_status::<Node>(key, &when, patch)
                        .await?;
                    self.pending.wrote(key, &self.nodes, &written);
                    let message = format!("Node {} status is now: NodeNotReady", key.name);
                    self.ctx
                        .recorder()
                        .event(node, EventKind::Normal, "NodeNotReady", message);
                    // The taints follow in the round that sees this write.
                    return Ok(Outcome::Done);
                }
                Change::SetTaints(taints) => {
                    let patch = json!({"spec": {"taints": taints}});
                    let when = Precondition::unchanged(node);
                    let written = self.ctx.objects().patch::<Node>(key, &when, patch).await?;
                    self.pending.wrote(key, &self.nodes, &written);
                }
                Change::MarkNotReady(pod, condition) => {
                    let pod_key = ObjectKey::of(pod.as_ref());
                    let patch = json!({"status": {"conditions": [condition]}});
                    let when = Precondition::unchanged(pod.as_ref());
                    match self
                        .ctx
                        .objects()
                        .strategic_patch_status::<Pod>(&pod_key, &when, patch)
                        .await
                    {
                        Ok(written) => {
                            self.pending.wrote(key, &self.pods, &written);
                            let message = "Node is not ready";
                            self.ctx.recorder().event(
                                pod.as_ref(),
                                EventKind::Warning,
                                "NodeNotReady",
                                message,
                            );
                        }
                        Err(error) if error.is_not_found() => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(look_again(world).map_or(Outcome::Done, Outcome::After))
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

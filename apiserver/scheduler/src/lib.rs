//! Chooses a node for every Pod that has none.
//!
//! ```text
//!   Pods, Nodes ──events──▶ Cluster (who runs where, and what is about to) ──┐
//!                              ▲ assume                                      ▼
//!   WorkQueue ──key──▶ place(pod, cluster, seed) ─▶ a node: bind in the background, Event
//!        ▲                                       └▶ none: condition, Event, wait for room
//!        └────────── a Node changed, a Pod left ◀──────────┘
//! ```
//!
//! [`place()`] is pure: nodes that cannot take the Pod are filtered out with a reason, the rest are
//! scored (least allocated, most balanced), and equals are told apart by a seed. What was decided
//! counts against the node at once ("assumed"), before the binding is written, so that a burst of
//! Pods neither waits for the cache nor over-commits a node.
//!
//! What it deliberately does not do yet: preemption, affinity between Pods.

mod affinity;
mod cluster;
mod place;
mod resources;
mod run;
#[cfg(test)]
mod tests;
mod volumes;

pub use cluster::Cluster;
pub use place::{Placement, place};
pub use run::{NAME, run, run_supervised};

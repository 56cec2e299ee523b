//! NodeMetrics: what a node uses.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::{figures, window};
use crate::{Object, Resource, Strategy};

/// What the pipeline knows of the figures of nodes.
pub static RESOURCE: Resource = figures("NodeMetrics", ["nodes", ""], false, &NodeMetrics);

/// NodeMetrics: what a node uses.
pub struct NodeMetrics;

impl Strategy for NodeMetrics {
    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let usage = object.at("usage");
        vec![
            object.name().into(),
            usage.key("cpu").str().into(),
            usage.key("memory").str().into(),
            window(object).into(),
        ]
    }
}

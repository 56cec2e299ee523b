//! PodMetrics: what the containers of a pod use.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::{figures, window};
use crate::quantity::Quantity;
use crate::{Object, Resource, Strategy};

/// What the pipeline knows of the figures of pods.
pub static RESOURCE: Resource = figures("PodMetrics", ["pods", ""], true, &PodMetrics);

/// PodMetrics: what the containers of a pod use.
pub struct PodMetrics;

impl Strategy for PodMetrics {
    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let sum = |resource: &str| -> Value {
            let containers = object.at("containers");
            let parts = containers.items();
            let parts = parts.map(|container| container.at("usage").key(resource).str().to_owned());
            let parts = parts.filter_map(|part| part.parse::<Quantity>().ok());
            parts
                .reduce(|sum, part| sum + part)
                .map_or_else(|| "0".to_owned(), |sum| sum.to_string())
                .into()
        };
        vec![
            object.name().into(),
            sum("cpu"),
            sum("memory"),
            window(object).into(),
        ]
    }
}

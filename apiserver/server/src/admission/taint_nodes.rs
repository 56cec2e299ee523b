//! TaintNodesByCondition: a new node takes no pods until it is known to be ready.

use async_trait::async_trait;
use coracle_api::Object;
use serde_json::json;

use super::{Admission, Attributes, Operation};
use crate::status::Result;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let created = attributes.operation == Operation::Create && attributes.is("", "nodes");
        if let (true, Some(node)) = (created, object) {
            taint(node);
        }
        Ok(())
    }
}

/// Adds the taint that the node controller takes off when the node is ready.
fn taint(node: &mut Object) {
    let (key, effect) = ("node.kubernetes.io/not-ready", "NoSchedule");
    let tainted = node
        .at("spec.taints")
        .items()
        .any(|taint| taint.key("key").str() == key && taint.key("effect").str() == effect);
    if tainted {
        return;
    }
    let taints = node.map_mut("spec").entry("taints").or_insert(json!([]));
    if !taints.is_array() {
        *taints = json!([]);
    }
    if let Some(list) = taints.as_array_mut() {
        list.push(json!({"key": key, "effect": effect}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_tainted_once() {
        let mut node =
            Object::from_value(json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}))
                .expect("an object");
        taint(&mut node);
        taint(&mut node);
        assert_eq!(node.at("spec.taints").len(), 2);
    }
}

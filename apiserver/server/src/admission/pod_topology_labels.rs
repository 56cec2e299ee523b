//! PodTopologyLabels: a pod that is put on a node gets the node's zone and region as labels.
//!
//! A Binding gets them on its way to the pod, and so does a pod that is created with a node. They replace what the pod
//! has under these names.

use async_trait::async_trait;
use coracle_api::Object;

use super::{Admission, Attributes, Operation};
use crate::status::Result;

const LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodTopologyLabels;

#[async_trait]
impl Admission for PodTopologyLabels {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let resource = attributes.resource;
        let pods = (resource.group, resource.plural) == ("", "pods");
        let (true, Operation::Create, Some(object)) = (pods, attributes.operation, object) else {
            return Ok(());
        };
        let node = match attributes.subresource {
            "" => object.at("spec.nodeName"),
            "binding" if object.at("target.kind").str() == "Node" => object.at("target.name"),
            _ => return Ok(()),
        };
        let node = node.str();
        if node.is_empty() {
            return Ok(());
        }
        // A node that is not known has no labels to give.
        if let Some(node) = attributes.server.find("", "nodes", "", node).await? {
            copy(&node.object(), object);
        }
        Ok(())
    }
}

/// Gives `object` the labels of `node` that say where it is.
fn copy(node: &Object, object: &mut Object) {
    for name in LABELS {
        if let Some(label) = node.at("metadata.labels").entry(name).value() {
            let labels = object.map_mut("metadata.labels");
            labels.insert(name.to_owned(), label.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_zone_and_region_are_copied() {
        let object = |labels| {
            Object::from_value(json!({"metadata": {"labels": labels}})).expect("an object")
        };
        let node = object(json!({LABELS[0]: "z", "topology.kubernetes.io/rack": "r", "a": "b"}));
        let mut pod = object(json!({"a": "c", LABELS[0]: "other", LABELS[1]: "kept"}));
        copy(&node, &mut pod);
        let expected = object(json!({"a": "c", LABELS[0]: "z", LABELS[1]: "kept"}));
        assert_eq!(pod, expected);
    }
}

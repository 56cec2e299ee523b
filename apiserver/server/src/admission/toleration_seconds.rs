//! DefaultTolerationSeconds: how long a pod stays on a node that is not ready or can't be reached.

use async_trait::async_trait;
use coracle_api::Object;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::status::Result;

/// How long a pod stays on a node that is not ready or unreachable, in seconds.
const TOLERATION_SECONDS: i64 = 300;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if let (true, true, Some(pod)) = (attributes.is("", "pods"), writes, object) {
            tolerate(pod);
        }
        Ok(())
    }
}

/// Adds the two tolerations, unless the pod has its own for the same taint.
fn tolerate(pod: &mut Object) {
    for taint in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let covered = pod.at("spec.tolerations").items().any(|toleration| {
            let key = toleration.key("key").str();
            let effect = toleration.key("effect").str();
            (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if covered {
            continue;
        }
        let toleration = json!({
            "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
        });
        let tolerations = pod
            .map_mut("spec")
            .entry("tolerations")
            .or_insert_with(|| json!([]));
        if let Some(list) = tolerations.as_array_mut() {
            list.push(toleration);
        } else if tolerations.is_null() {
            *tolerations = Value::Array(vec![toleration]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"spec": spec})).expect("an object")
    }

    #[test]
    fn own_tolerations_are_kept() {
        let own = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"});
        let mut pod = pod(json!({"tolerations": [own.clone()]}));
        tolerate(&mut pod);
        let tolerations = pod.at("spec.tolerations");
        assert_eq!(
            (tolerations.len(), tolerations.index(0).value()),
            (2, Some(&own))
        );
    }
}

//! Which claims a pod lacks: upstream's `pkg/controller/volume/ephemeral`.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// The claims to make. One that is there is left alone, even if it is another's: the pod then waits, and its
/// kubelet says why.
pub(crate) fn reconcile(pod: &Pod, is_there: impl Fn(&str) -> bool) -> Vec<PersistentVolumeClaim> {
    let meta = &pod.metadata;
    if meta.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let pod = meta.name.as_deref().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.to_owned(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let wanted = volumes.filter_map(|volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        Some((format!("{pod}-{}", volume.name), template))
    });
    wanted
        .filter(|(name, _)| !is_there(name))
        .map(|(name, template)| {
            let own = template.metadata.clone().unwrap_or_default();
            PersistentVolumeClaim {
                metadata: ObjectMeta {
                    name: Some(name),
                    namespace: meta.namespace.clone(),
                    labels: own.labels,
                    annotations: own.annotations,
                    owner_references: Some(vec![owner.clone()]),
                    ..ObjectMeta::default()
                },
                spec: Some(template.spec.clone()),
                status: None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_ephemeral_volume_gets_a_claim_that_its_pod_owns() {
        let template = json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {"accessModes": ["ReadWriteOnce"]},
        });
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "v", "ephemeral": {"volumeClaimTemplate": template}},
                {"name": "w", "ephemeral": {"volumeClaimTemplate": template}},
                {"name": "x", "emptyDir": {}},
            ]},
        }))
        .expect("a pod");
        let made = reconcile(&pod, |name| name == "web-w");
        let [claim] = made.as_slice() else {
            panic!("{made:?}");
        };
        assert_eq!(claim.metadata.name.as_deref(), Some("web-v"));
        assert_eq!(claim.metadata.namespace.as_deref(), Some("shop"));
        let owner = &claim.metadata.owner_references.as_ref().expect("an owner")[0];
        assert_eq!((owner.uid.as_str(), owner.controller), ("u", Some(true)));
        assert!(
            claim
                .metadata
                .labels
                .as_ref()
                .is_some_and(|l| l["a"] == "b")
        );
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(crate::fixtures::now());
        pod.metadata.deletion_timestamp = Some(now);
        assert_eq!(reconcile(&pod, |_| false), []);
    }
}

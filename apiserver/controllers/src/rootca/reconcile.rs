//! Whether a namespace lacks the authority, or somebody has changed it.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_client::is_terminating;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The name of the ConfigMap, which every pod's volume names.
pub(crate) const MAP: &str = "kube-root-ca.crt";
/// Its one key.
const KEY: &str = "ca.crt";
/// What upstream tells whoever finds the ConfigMap.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// The ConfigMap of the namespace.
    pub(crate) map: Option<Arc<ConfigMap>>,
    /// The certificate in PEM form.
    pub(crate) authority: Arc<str>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(ConfigMap),
    Replace(ConfigMap),
}

/// The write that makes the namespace have the authority, if it has not.
pub(crate) fn reconcile(world: &World) -> Option<Change> {
    let namespace = world
        .namespace
        .as_ref()
        .filter(|namespace| !is_terminating(namespace.as_ref()))?;
    let data = BTreeMap::from([(KEY.to_owned(), world.authority.to_string())]);
    let annotation = (DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned());
    let Some(map) = &world.map else {
        return Some(Change::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(MAP.to_owned()),
                namespace: namespace.metadata.name.clone(),
                annotations: Some(BTreeMap::from([annotation])),
                ..Default::default()
            },
            data: Some(data),
            ..Default::default()
        }));
    };
    let annotations = map.metadata.annotations.as_ref();
    let described = annotations.and_then(|all| all.get(DESCRIPTION.0)) == Some(&annotation.1);
    if map.data.as_ref() == Some(&data) && described {
        return None;
    }
    let mut map = ConfigMap::clone(map);
    map.data = Some(data);
    let annotations = map.metadata.annotations.get_or_insert_default();
    annotations.insert(annotation.0, annotation.1);
    Some(Change::Replace(map))
}

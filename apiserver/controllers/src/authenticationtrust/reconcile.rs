//! Whether the ConfigMap says what the server believes.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Where the ConfigMap is.
pub(crate) const NAMESPACE: &str = "kube-system";
/// Its name.
pub(crate) const MAP: &str = "extension-apiserver-authentication";

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) map: Option<Arc<ConfigMap>>,
    /// What the ConfigMap is to say; a server that believes nobody says nothing.
    pub(crate) authentication: BTreeMap<String, String>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(ConfigMap),
    Replace(ConfigMap),
}

/// The write that makes the ConfigMap say so.
pub(crate) fn reconcile(world: &World) -> Option<Change> {
    let wanted = &world.authentication;
    let Some(map) = &world.map else {
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(MAP.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                ..Default::default()
            },
            data: Some(wanted.clone()),
            ..Default::default()
        };
        return (!wanted.is_empty()).then_some(Change::Create(map));
    };
    if map.data.clone().unwrap_or_default() == *wanted {
        return None;
    }
    let mut map = ConfigMap::clone(map);
    map.data = Some(wanted.clone());
    Some(Change::Replace(map))
}

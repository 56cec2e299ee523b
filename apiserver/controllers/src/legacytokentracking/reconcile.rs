//! Whether the ConfigMap is there, and says a day.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::days::{day, midnight};

/// Where the ConfigMap is.
pub(crate) const NAMESPACE: &str = "kube-system";
/// Its name.
pub(crate) const MAP: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// Its one key: a day such as 2026-11-28.
const SINCE: &str = "since";

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) map: Option<Arc<ConfigMap>>,
    pub(crate) now: Timestamp,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(ConfigMap),
    Replace(ConfigMap),
}

/// The day since which uses are written down, as its first moment; `None` when the ConfigMap does not say one.
pub(crate) fn since(map: &ConfigMap) -> Option<Timestamp> {
    midnight(map.data.as_ref()?.get(SINCE)?)
}

/// The write that makes the ConfigMap say a day.
pub(crate) fn reconcile(world: &World) -> Option<Change> {
    let today = (SINCE.to_owned(), day(world.now));
    let Some(map) = &world.map else {
        return Some(Change::Create(ConfigMap {
            metadata: ObjectMeta {
                name: Some(MAP.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                ..Default::default()
            },
            data: Some(BTreeMap::from([today])),
            ..Default::default()
        }));
    };
    if since(map).is_some() {
        return None;
    }
    let mut map = ConfigMap::clone(map);
    map.data.get_or_insert_default().insert(today.0, today.1);
    Some(Change::Replace(map))
}

//! Whether a namespace lacks its ServiceAccount.

use std::sync::Arc;

use coracle_client::is_terminating;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// The ServiceAccount `default` of the namespace.
    pub(crate) account: Option<Arc<ServiceAccount>>,
}

/// The ServiceAccount to create, if one is missing.
pub(crate) fn reconcile(world: &World) -> Option<ServiceAccount> {
    let namespace = world
        .namespace
        .as_ref()
        .filter(|namespace| !is_terminating(namespace.as_ref()))?;
    if world.account.is_some() {
        return None;
    }
    Some(ServiceAccount {
        metadata: ObjectMeta {
            name: Some("default".to_owned()),
            namespace: namespace.metadata.name.clone(),
            ..Default::default()
        },
        ..Default::default()
    })
}

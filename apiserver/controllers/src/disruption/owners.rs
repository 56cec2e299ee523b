//! How many Pods a Pod's controller asks for.

use coracle_client::{ApiResource, Context, Error, Kind, Lister, ObjectKey, controller_of, uid};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::reconcile::Scale;

/// The caches of the kinds that are looked up without a request.
pub(super) struct Owners {
    ctx: Context,
    deployments: Lister<Deployment>,
    replica_sets: Lister<ReplicaSet>,
    stateful_sets: Lister<StatefulSet>,
    replication_controllers: Lister<ReplicationController>,
}

impl Owners {
    pub(super) fn new(ctx: &Context) -> Self {
        Self {
            deployments: ctx.lister(),
            replica_sets: ctx.lister(),
            stateful_sets: ctx.lister(),
            replication_controllers: ctx.lister(),
            ctx: ctx.clone(),
        }
    }

    /// What the controller asks for; `None` if it is gone, a text if it cannot say.
    pub(super) async fn scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<Scale>, String> {
        if let Some(scale) = self.known(namespace, owner) {
            return Ok(Some(scale));
        }
        self.asked(namespace, owner)
            .await
            .unwrap_or_else(|error| Err(error.message()))
    }

    /// As the caches have it.
    fn known(&self, namespace: &str, owner: &OwnerReference) -> Option<Scale> {
        match (group_of(&owner.api_version), owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = find(&self.replication_controllers, namespace, owner)?;
                let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
                Some(scale(uid(found.as_ref()), replicas))
            }
            ("apps", "ReplicaSet") => {
                let set = find(&self.replica_sets, namespace, owner)?;
                match controller_of(set.as_ref()) {
                    Some(above) if above.kind == "Deployment" => {
                        let found = find(&self.deployments, namespace, above)?;
                        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
                        Some(scale(&above.uid, replicas))
                    }
                    _ => {
                        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
                        Some(scale(&owner.uid, replicas))
                    }
                }
            }
            ("apps", "StatefulSet") => {
                let found = find(&self.stateful_sets, namespace, owner)?;
                let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
                Some(scale(&owner.uid, replicas))
            }
            _ => None,
        }
    }

    /// As the controller's own `scale` has it, whatever its kind.
    async fn asked(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Result<Option<Scale>, String>, Error> {
        let objects = self.ctx.objects();
        let (group, kind) = (group_of(&owner.api_version), owner.kind.as_str());
        let served = objects.served().await?;
        let served = served
            .into_iter()
            .find(|served| served.resource.group == group && served.resource.kind == kind);
        let Some(served) = served else {
            let version = owner.api_version.rsplit('/').next().unwrap_or_default();
            let kind = match group {
                "" => kind.to_owned(),
                group => format!("{kind}.{group}"),
            };
            let problem = format!("no matches for kind {kind:?} in version {version:?}");
            return Ok(Err(problem));
        };
        if !served.subresources.iter().any(|name| name == "scale") {
            return Ok(Err(format!(
                "{} does not implement the scale subresource",
                qualified(&served.resource)
            )));
        }
        let key = ObjectKey::new(namespace, owner.name.as_str());
        if let Some(found) = objects.scale_of(&served.resource, &key).await? {
            let same = found.metadata.uid.as_deref() == Some(owner.uid.as_str());
            let replicas = found.spec.and_then(|spec| spec.replicas).or(Some(0));
            return Ok(Ok(same.then(|| scale(&owner.uid, replicas))));
        }
        Ok(Ok(None))
    }
}

fn qualified(resource: &ApiResource) -> String {
    match resource.group.as_str() {
        "" => resource.plural.clone(),
        group => format!("{}.{group}", resource.plural),
    }
}

fn scale(uid: &str, replicas: Option<i32>) -> Scale {
    Scale {
        uid: uid.to_owned(),
        replicas: replicas.unwrap_or(1),
    }
}

fn find<K: Kind>(
    all: &Lister<K>,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<std::sync::Arc<K>> {
    all.get(&ObjectKey::new(namespace, owner.name.as_str()))
        .filter(|found| uid(found.as_ref()) == owner.uid)
}

/// The group of an `apiVersion`.
fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

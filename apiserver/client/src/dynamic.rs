//! Requests for kinds that are known only at run time.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectList, PartialObjectMeta};
use kube::discovery::{Discovery, Scope};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::error::Error;
use crate::key::ObjectKey;
use crate::objects::{
    Call, DeletePropagation, ObjectClient, Precondition, delete_params, optional,
};

/// A resource that the server serves, in the version it prefers.
#[derive(Clone, Debug, PartialEq)]
pub struct ServedResource {
    /// Group, version, kind and plural name.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it: `list`, `delete`, ….
    pub verbs: Vec<String>,
    /// Its subresources: `status`, `scale`, ….
    pub subresources: Vec<String>,
}

impl ServedResource {
    /// Whether the server offers all of these verbs.
    pub fn offers(&self, verbs: &[&str]) -> bool {
        verbs
            .iter()
            .all(|verb| self.verbs.iter().any(|offered| offered == verb))
    }
}

type Metadata = PartialObjectMeta<DynamicObject>;

impl ObjectClient {
    /// Every resource in discovery.
    pub async fn served(&self) -> Result<Vec<ServedResource>, Error> {
        let discovery = Discovery::new(self.client().clone()).run().await;
        let discovery = discovery
            .map_err(|source| Error::request("discover", "the served resources", source))?;
        let resources = discovery
            .groups()
            .flat_map(|group| group.recommended_resources());
        let mut served: Vec<_> = resources
            .map(|(resource, capabilities)| ServedResource {
                resource,
                namespaced: capabilities.scope == Scope::Namespaced,
                verbs: capabilities.operations,
                subresources: (capabilities.subresources.into_iter())
                    .map(|(subresource, _)| subresource.plural)
                    .collect(),
            })
            .collect();
        served.sort_by(|one, two| {
            let name = |served: &ServedResource| {
                (
                    served.resource.group.clone(),
                    served.resource.plural.clone(),
                )
            };
            name(one).cmp(&name(two))
        });
        Ok(served)
    }

    /// Metadata of one object as the server has it now; `None` if it does not exist.
    pub async fn metadata_of(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
    ) -> Result<Option<ObjectMeta>, Error> {
        let call = call("get", resource, key);
        let request = call.request.get_metadata(&key.name, &GetParams::default());
        let found = optional(call.send::<Metadata>(self.client(), request).await)?;
        Ok(found.map(|object| object.metadata))
    }

    /// Metadata of every object of a namespace as the server has it now.
    pub async fn list_metadata(
        &self,
        resource: &ApiResource,
        namespace: &str,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let key = ObjectKey::new(namespace, "");
        let call = call("list", resource, &key);
        let request = call.request.list_metadata(&ListParams::default());
        let list: ObjectList<Metadata> = call.send(self.client(), request).await?;
        Ok(list
            .items
            .into_iter()
            .map(|object| object.metadata)
            .collect())
    }

    /// What an object's `scale` says now; `None` if there is no such object, or its kind has no scale.
    pub async fn scale_of(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
    ) -> Result<Option<Scale>, Error> {
        let call = call("get", resource, key);
        let request = call.request.get_subresource("scale", &key.name);
        optional(call.send::<Scale>(self.client(), request).await)
    }

    /// Applies a JSON merge patch to an object.
    pub async fn patch_any(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
        when: &Precondition,
        mut patch: Value,
    ) -> Result<(), Error> {
        when.merge_into(&mut patch);
        let call = call("patch", resource, key);
        let request = call
            .request
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(patch));
        call.send::<IgnoredAny>(self.client(), request)
            .await
            .map(|_| ())
    }

    /// Deletes an object, if it is the one that `when` means; one that is gone is no failure.
    pub async fn delete_any(
        &self,
        resource: &ApiResource,
        key: &ObjectKey,
        when: &Precondition,
        propagation: DeletePropagation,
    ) -> Result<(), Error> {
        let call = call("delete", resource, key);
        let params = delete_params(when, propagation, None);
        optional(
            call.send::<IgnoredAny>(self.client(), call.request.delete(&key.name, &params))
                .await,
        )
        .map(|_| ())
    }

    /// Deletes every object of a namespace.
    pub async fn delete_all(&self, resource: &ApiResource, namespace: &str) -> Result<(), Error> {
        let key = ObjectKey::new(namespace, "");
        let call = call("delete all", resource, &key);
        let request = call
            .request
            .delete_collection(&DeleteParams::background(), &ListParams::default());
        call.send::<IgnoredAny>(self.client(), request)
            .await
            .map(|_| ())
    }
}

fn call<'a>(verb: &'static str, resource: &ApiResource, key: &'a ObjectKey) -> Call<'a> {
    let path = DynamicObject::url_path(resource, key.namespace_option());
    Call::at(verb, &resource.kind, path, key)
}

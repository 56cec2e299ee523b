//! Typed requests under one component's name.

use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::core::{ObjectList, Request};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use crate::error::Error;
use crate::key::{Kind, ObjectKey};

/// Which object a write means; anything else of the same name answers with a conflict.
#[derive(Clone, Debug, Default)]
pub struct Precondition {
    /// The object must still be this one.
    pub uid: Option<String>,
    /// Nobody may have written it since this version.
    pub resource_version: Option<String>,
}

impl Precondition {
    /// The same object, whatever was written since.
    pub fn uid_of<K: Resource>(object: &K) -> Self {
        Self {
            uid: object.meta().uid.clone(),
            resource_version: None,
        }
    }

    /// The same object, unchanged.
    pub fn unchanged<K: Resource>(object: &K) -> Self {
        Self {
            uid: object.meta().uid.clone(),
            resource_version: object.meta().resource_version.clone(),
        }
    }

    /// Adds the precondition to a merge patch's metadata, where the server checks it.
    pub(crate) fn merge_into(&self, patch: &mut Value) {
        let Some(patch) = patch.as_object_mut() else {
            return;
        };
        let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
        for (field, value) in [
            ("uid", &self.uid),
            ("resourceVersion", &self.resource_version),
        ] {
            if let (Some(metadata), Some(value)) = (metadata.as_object_mut(), value) {
                metadata.insert(field.to_owned(), json!(value));
            }
        }
    }
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletePropagation {
    /// The kind's default.
    Default,
    /// Dependents are deleted after their owner.
    Background,
    /// Dependents are deleted before their owner.
    Foreground,
    /// Dependents stay.
    Orphan,
}

/// Reads and writes single objects of any kind under one component's name; cheap to clone.
///
/// Requests are tried once. [`Error::is_conflict`] means that the caller should look again.
#[derive(Clone)]
pub struct ObjectClient {
    client: Client,
}

impl ObjectClient {
    /// Requests made by `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The object as the server has it now; `None` if it does not exist.
    pub async fn get<K: Kind>(&self, key: &ObjectKey) -> Result<Option<K>, Error> {
        let call = Call::new::<K>("get", key);
        let answer = call
            .send(
                &self.client,
                call.request.get(&key.name, &GetParams::default()),
            )
            .await;
        optional(answer)
    }

    /// Every object of the kind as the server has it now, of one namespace or of all.
    pub async fn list<K: Kind>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<ObjectList<K>, Error> {
        let key = ObjectKey::new(namespace.unwrap_or_default(), "");
        let call = Call::new::<K>("list", &key);
        call.send(&self.client, call.request.list(params)).await
    }

    /// Creates `object` and answers it as stored.
    pub async fn create<K: Kind>(&self, object: &K) -> Result<K, Error> {
        let key = ObjectKey::of(object);
        let call = Call::new::<K>("create", &key);
        let body = call.encode(object)?;
        call.send(
            &self.client,
            call.request.create(&PostParams::default(), body),
        )
        .await
    }

    /// Replaces the object; its resourceVersion, if set, is a precondition.
    pub async fn replace<K: Kind>(&self, object: &K) -> Result<K, Error> {
        let key = ObjectKey::of(object);
        let call = Call::new::<K>("update", &key);
        let body = call.encode(object)?;
        call.send(
            &self.client,
            call.request
                .replace(&key.name, &PostParams::default(), body),
        )
        .await
    }

    /// Replaces the object by what a JSON merge patch makes of it as the caller knows it. Whoever wrote it since makes
    /// this a conflict. For components that may `update` a kind and not `patch` it.
    pub async fn update<K: Kind>(&self, known: &K, patch: &Value) -> Result<K, Error> {
        let key = ObjectKey::of(known);
        let call = Call::new::<K>("update", &key);
        let body = call.encode(&merged(known, patch))?;
        let params = PostParams::default();
        call.send(&self.client, call.request.replace(&key.name, &params, body))
            .await
    }

    /// [`update`](Self::update) of the `status` subresource; `patch` holds `{"status": {…}}`.
    pub async fn update_status<K: Kind>(&self, known: &K, patch: &Value) -> Result<K, Error> {
        let key = ObjectKey::of(known);
        let call = Call::new::<K>("update", &key);
        let body = call.encode(&merged(known, patch))?;
        let params = PostParams::default();
        call.send(
            &self.client,
            call.request
                .replace_subresource("status", &key.name, &params, body),
        )
        .await
    }

    /// Applies a server-side apply patch as `manager`, taking over what others own.
    pub async fn apply<K: Kind>(
        &self,
        key: &ObjectKey,
        manager: &str,
        object: &Value,
    ) -> Result<K, Error> {
        let call = Call::new::<K>("patch", key);
        let params = PatchParams::apply(manager).force();
        call.send(
            &self.client,
            call.request
                .patch(&key.name, &params, &Patch::Apply(object)),
        )
        .await
    }

    /// Applies a JSON merge patch.
    pub async fn patch<K: Kind>(
        &self,
        key: &ObjectKey,
        when: &Precondition,
        mut patch: Value,
    ) -> Result<K, Error> {
        when.merge_into(&mut patch);
        let call = Call::new::<K>("patch", key);
        let params = PatchParams::default();
        call.send(
            &self.client,
            call.request.patch(&key.name, &params, &Patch::Merge(patch)),
        )
        .await
    }

    /// Applies a strategic merge patch, which edits lists by their merge keys.
    pub async fn strategic_patch<K: Kind>(
        &self,
        key: &ObjectKey,
        when: &Precondition,
        mut patch: Value,
    ) -> Result<K, Error> {
        when.merge_into(&mut patch);
        let call = Call::new::<K>("patch", key);
        let params = PatchParams::default();
        call.send(
            &self.client,
            call.request
                .patch(&key.name, &params, &Patch::Strategic(patch)),
        )
        .await
    }

    /// Applies a JSON merge patch to the `status` subresource; `patch` holds `{"status": {…}}`.
    pub async fn patch_status<K: Kind>(
        &self,
        key: &ObjectKey,
        when: &Precondition,
        patch: Value,
    ) -> Result<K, Error> {
        self.patch_subresource(key, "status", when, patch).await
    }

    /// Applies a strategic merge patch to the `status` subresource: conditions of other types stay.
    pub async fn strategic_patch_status<K: Kind>(
        &self,
        key: &ObjectKey,
        when: &Precondition,
        mut patch: Value,
    ) -> Result<K, Error> {
        when.merge_into(&mut patch);
        let call = Call::new::<K>("patch", key);
        let params = PatchParams::default();
        let request =
            call.request
                .patch_subresource("status", &key.name, &params, &Patch::Strategic(patch));
        call.send(&self.client, request).await
    }

    /// Applies a JSON merge patch to a subresource.
    pub async fn patch_subresource<K: Kind>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        when: &Precondition,
        mut patch: Value,
    ) -> Result<K, Error> {
        when.merge_into(&mut patch);
        let call = Call::new::<K>("patch", key);
        let params = PatchParams::default();
        let request =
            call.request
                .patch_subresource(subresource, &key.name, &params, &Patch::Merge(patch));
        call.send(&self.client, request).await
    }

    /// Replaces a subresource, such as a Namespace's `finalize`.
    pub async fn replace_subresource<K: Kind>(
        &self,
        object: &K,
        subresource: &str,
    ) -> Result<K, Error> {
        let key = ObjectKey::of(object);
        let call = Call::new::<K>("update", &key);
        let body = call.encode(object)?;
        let params = PostParams::default();
        call.send(
            &self.client,
            call.request
                .replace_subresource(subresource, &key.name, &params, body),
        )
        .await
    }

    /// Posts `body` to a subresource of the `K` named by `key`, such as a Pod's `binding`, and answers what the server
    /// says.
    pub async fn create_subresource<K: Kind>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &impl Serialize,
    ) -> Result<Value, Error> {
        let call = Call::new::<K>("create", key);
        let body = call.encode(body)?;
        let params = PostParams::default();
        let request = call
            .request
            .create_subresource(subresource, &key.name, &params, body);
        call.send::<Value>(&self.client, request).await
    }

    /// Deletes the object, if it is the one that `when` means. An object that is gone already is
    /// no failure.
    pub async fn delete<K: Kind>(
        &self,
        key: &ObjectKey,
        when: &Precondition,
        propagation: DeletePropagation,
        grace_period_seconds: Option<u32>,
    ) -> Result<(), Error> {
        let call = Call::new::<K>("delete", key);
        let params = delete_params(when, propagation, grace_period_seconds);
        optional(
            call.send::<IgnoredAny>(&self.client, call.request.delete(&key.name, &params))
                .await,
        )
        .map(|_| ())
    }

    /// The kube client underneath, for requests that this type does not offer.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// `known` with a JSON merge patch applied.
fn merged<K: Kind>(known: &K, patch: &Value) -> Value {
    // Kubernetes' types are plain data: serialising them cannot fail.
    let mut object = serde_json::to_value(known).unwrap_or_default();
    merge(&mut object, patch);
    object
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Some(target) = target.as_object_mut() else {
        return;
    };
    for (field, change) in patch {
        match change {
            Value::Null => drop(target.remove(field)),
            change => merge(target.entry(field.clone()).or_insert(Value::Null), change),
        }
    }
}

/// The parameters of a deletion.
pub(crate) fn delete_params(
    when: &Precondition,
    propagation: DeletePropagation,
    grace_period_seconds: Option<u32>,
) -> DeleteParams {
    let preconditions =
        (when.uid.is_some() || when.resource_version.is_some()).then(|| Preconditions {
            uid: when.uid.clone(),
            resource_version: when.resource_version.clone(),
        });
    let propagation_policy = match propagation {
        DeletePropagation::Default => None,
        DeletePropagation::Background => Some(PropagationPolicy::Background),
        DeletePropagation::Foreground => Some(PropagationPolicy::Foreground),
        DeletePropagation::Orphan => Some(PropagationPolicy::Orphan),
    };
    DeleteParams {
        dry_run: false,
        grace_period_seconds,
        propagation_policy,
        preconditions,
    }
}

/// One request with the words that name it in an error.
pub(crate) struct Call<'a> {
    verb: &'static str,
    kind: String,
    key: &'a ObjectKey,
    pub(crate) request: Request,
}

impl<'a> Call<'a> {
    fn new<K: Kind>(verb: &'static str, key: &'a ObjectKey) -> Self {
        Self::at(
            verb,
            &K::kind(&()),
            K::url_path(&(), key.namespace_option()),
            key,
        )
    }

    pub(crate) fn at(verb: &'static str, kind: &str, path: String, key: &'a ObjectKey) -> Self {
        Self {
            verb,
            kind: kind.to_lowercase(),
            key,
            request: Request::new(path),
        }
    }

    fn encode(&self, body: &impl Serialize) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(body).map_err(|source| Error::Encode {
            object: self.object(),
            source,
        })
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        client: &Client,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let answer = match request {
            Ok(request) => client.request(request).await,
            Err(error) => Err(kube::Error::BuildRequest(error)),
        };
        answer.map_err(|source| Error::request(self.verb, self.object(), source))
    }

    fn object(&self) -> String {
        format!("{} {}", self.kind, self.key)
    }
}

pub(crate) fn optional<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_changes_what_it_names() {
        let mut object = json!({"a": 1, "b": {"c": 1, "d": [1]}, "e": 5});
        merge(
            &mut object,
            &json!({"b": {"c": null, "d": [2], "x": {"y": 1, "z": null}}, "e": {"f": 1}}),
        );
        assert_eq!(
            object,
            json!({"a": 1, "b": {"d": [2], "x": {"y": 1}}, "e": {"f": 1}})
        );
    }
}

//! ServiceAccount: every pod runs as an account, and finds the account's files in a projected volume.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_api::Object;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation, mountable_secrets};
use crate::cache::Entry;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// Where containers find the account's files.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How the names of the account's volumes begin.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// How long a mounted token is good, in seconds: an hour and a little, so that its refresh is never late.
const TOKEN_SECONDS: i64 = 3607;

/// How often the default account of a namespace is looked for.
const DEFAULT_ATTEMPTS: usize = 10;
/// The pause between two looks.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceAccountAdmission;

#[async_trait]
impl Admission for ServiceAccountAdmission {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let is_new = attributes.operation == Operation::Create && attributes.is("", "pods");
        let (true, Some(pod)) = (is_new, object) else {
            return Ok(());
        };
        if is_mirror(pod) {
            return match mountable_secrets::refuse_mirror(pod) {
                Some(why) => Err(forbidden(attributes, pod, why)),
                None => Ok(()),
            };
        }
        if pod.at("spec.serviceAccountName").is_empty() {
            let older = pod.at("spec.serviceAccount").str();
            let account = if older.is_empty() { "default" } else { older }.to_owned();
            pod.set("spec.serviceAccountName", account);
        }
        let account_name = pod.at("spec.serviceAccountName").str().to_owned();
        pod.set("spec.serviceAccount", account_name);
        let account = account_of(attributes, pod).await?;
        if pod.at("spec.imagePullSecrets").is_empty()
            && let Some(secrets) = account
                .at("imagePullSecrets")
                .value()
                .filter(|list| *list != &json!([]))
        {
            pod.set("spec.imagePullSecrets", secrets.clone());
        }
        let wanted = pod
            .at("spec.automountServiceAccountToken")
            .as_bool()
            .or(account.at("automountServiceAccountToken").as_bool())
            .unwrap_or(true);
        if wanted {
            let suffix = attributes.server.clock().name_suffix(5);
            mount(pod, &format!("{VOLUME_PREFIX}{suffix}"));
        }
        match mountable_secrets::refuse(&account, pod) {
            Some(why) => Err(forbidden(attributes, pod, why)),
            None => Ok(()),
        }
    }

    async fn verify(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<()> {
        let Some(pod) = object else {
            return Ok(());
        };
        let is_pod = ("", "pods") == (attributes.resource.group, attributes.resource.plural);
        let refuse: fn(&Object, &Object) -> Option<String> =
            match (is_pod, attributes.operation, attributes.subresource) {
                // Whatever step came after this one may have changed the pod.
                (true, Operation::Create, "") if !is_mirror(pod) => mountable_secrets::refuse,
                (true, Operation::Update, "ephemeralcontainers") => {
                    mountable_secrets::refuse_ephemeral
                }
                _ => return Ok(()),
            };
        let account = account_of(attributes, pod).await?;
        match refuse(&account, pod) {
            Some(why) => Err(forbidden(attributes, pod, why)),
            None => Ok(()),
        }
    }
}

/// Whether a node made the pod of a static file; it has no account.
fn is_mirror(pod: &Object) -> bool {
    let annotations = pod.at("metadata.annotations");
    annotations.entry("kubernetes.io/config.mirror").exists()
}

fn forbidden(attributes: &Attributes<'_>, pod: &Object, why: impl std::fmt::Display) -> ApiError {
    // A name that is yet to be generated shows as far as it is known.
    let generated = pod.at("metadata.generateName").str();
    let shown = match (attributes.name, generated) {
        ("", "") => "Unknown",
        ("", generated) => generated,
        (name, _) => name,
    };
    ApiError::forbidden(attributes.resource, shown, why)
}

/// The account that the pod names; without it the pod is refused.
async fn account_of(attributes: &Attributes<'_>, pod: &Object) -> Result<Object> {
    let (namespace, name) = (
        attributes.namespace,
        pod.at("spec.serviceAccountName").str(),
    );
    let found = find_account(attributes.server, namespace, name).await?;
    let found = found.map(|entry| entry.object());
    found.ok_or_else(|| {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        forbidden(attributes, pod, why)
    })
}

/// The account; the default one of a new namespace is about to be made, so it is waited for a little.
async fn find_account(server: &Server, namespace: &str, name: &str) -> Result<Option<Arc<Entry>>> {
    let attempts = if name == "default" {
        DEFAULT_ATTEMPTS
    } else {
        1
    };
    for attempt in 1..=attempts {
        let found = server.find("", "serviceaccounts", namespace, name).await?;
        if found.is_some() || attempt == attempts {
            return Ok(found);
        }
        tokio::time::sleep(ATTEMPT_PAUSE).await;
    }
    Ok(None)
}

fn existing_volume(pod: &Object) -> Option<String> {
    let volumes = pod.at("spec.volumes");
    let mut names = volumes.items().map(|volume| volume.key("name").str());
    let name = names.find(|name| name.starts_with(VOLUME_PREFIX));
    name.map(str::to_owned)
}

/// Mounts the account's files into every container that has nothing at their path: those of a volume that is named like
/// the account's, else of a new one called `volume`.
fn mount(pod: &mut Object, volume: &str) {
    let existing = existing_volume(pod);
    let (is_there, volume) = (existing.is_some(), existing.unwrap_or(volume.to_owned()));
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod
            .get_mut(&format!("spec.{list}"))
            .and_then(Value::as_array_mut)
        else {
            continue;
        };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else {
                continue;
            };
            if mounts
                .iter()
                .any(|mount| mount.get("mountPath").and_then(Value::as_str) == Some(MOUNT_PATH))
            {
                continue;
            }
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            used = true;
        }
    }
    if !used || is_there {
        return;
    }
    let token =
        json!({"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}});
    let authority = json!({"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    let namespace = json!({"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}});
    let projected = json!({"sources": [token, authority, namespace], "defaultMode": 420});
    let volumes = pod
        .map_mut("spec")
        .entry("volumes")
        .or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({"name": volume, "projected": projected}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_mount_something_there_are_left_alone() {
        let mut pod = Object::from_value(json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "volumeMounts": [{"name": "v", "mountPath": MOUNT_PATH}]},
        ]}}))
        .expect("an object");
        mount(&mut pod, "kube-api-access-x");
        let containers = pod.at("spec.containers");
        assert_eq!(
            containers
                .index(0)
                .at("volumeMounts")
                .index(0)
                .key("name")
                .str(),
            "kube-api-access-x"
        );
        assert_eq!(containers.index(1).at("volumeMounts").len(), 1);
        assert_eq!(
            pod.at("spec.volumes")
                .index(0)
                .at("projected.sources")
                .len(),
            3
        );
    }

    #[test]
    fn a_volume_of_that_name_is_the_accounts() {
        let mut pod = Object::from_value(json!({"spec": {
            "containers": [{"name": "a"}],
            "volumes": [{"name": "kube-api-access-mine", "emptyDir": {}}],
        }}))
        .expect("an object");
        mount(&mut pod, "kube-api-access-x");
        assert_eq!(pod.at("spec.volumes").len(), 1);
        let mounts = pod.at("spec.containers").index(0).key("volumeMounts");
        assert_eq!(mounts.index(0).key("name").str(), "kube-api-access-mine");
    }
}

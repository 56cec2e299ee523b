//! ServiceAccount: every pod runs as an account, and finds the account's files in a projected volume.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coracle_api::Object;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::cache::Entry;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// Where containers find the account's files.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
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
        let Attributes {
            operation,
            resource,
            subresource,
            namespace,
            name,
            server,
            ..
        } = attributes;
        let is_pod =
            resource.group.is_empty() && resource.plural == "pods" && subresource.is_empty();
        let (true, Operation::Create, Some(pod)) = (is_pod, *operation, object) else {
            return Ok(());
        };
        // Mirror pods of a node's static files have no account.
        if pod
            .at("metadata.annotations")
            .entry("kubernetes.io/config.mirror")
            .exists()
        {
            return Ok(());
        }
        if pod.at("spec.serviceAccountName").is_empty() {
            let older = pod.at("spec.serviceAccount").str();
            let account = if older.is_empty() { "default" } else { older }.to_owned();
            pod.set("spec.serviceAccountName", account);
        }
        let account_name = pod.at("spec.serviceAccountName").str().to_owned();
        pod.set("spec.serviceAccount", account_name.clone());
        let Some(account) = find_account(server, namespace, &account_name).await? else {
            // A name that is yet to be generated shows as far as it is known.
            let generated = pod.at("metadata.generateName").str();
            let shown = match (*name, generated) {
                ("", "") => "Unknown",
                ("", generated) => generated,
                (name, _) => name,
            };
            let why = format!(
                "error looking up service account {namespace}/{account_name}: serviceaccount {account_name:?} not found"
            );
            return Err(ApiError::forbidden(resource, shown, why));
        };
        let account = account.object();
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
            mount(
                pod,
                &format!("kube-api-access-{}", server.clock().name_suffix(5)),
            );
        }
        Ok(())
    }
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

/// Mounts the account's files into every container that has nothing at their path.
fn mount(pod: &mut Object, volume: &str) {
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
    if !used {
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
}

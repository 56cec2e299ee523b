//! The pull secrets that a pod names.

use coracle_client::{EventKind, ObjectKey};
use coracle_cri::{PullSecret, PullSecretForm};
use k8s_openapi::api::core::v1::{Pod, Secret};

use crate::kubelet::Kubelet;

impl Kubelet {
    /// The documents in the secrets of `imagePullSecrets`. Those that are not there are told of, and
    /// the pull is tried without them.
    pub(super) fn pull_secrets(&self, pod: &Pod) -> Vec<PullSecret> {
        let names = pod.spec.iter().flat_map(|spec| &spec.image_pull_secrets);
        let names: Vec<&str> = names.flatten().map(|secret| secret.name.as_str()).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match self.0.secrets.get(&ObjectKey::new(namespace, name)) {
                Some(secret) => found.extend(document(&secret, &format!("{namespace}/{name}"))),
                None => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            let reason = "FailedToRetrieveImagePullSecret";
            let recorder = self.0.ctx.recorder();
            recorder.event(pod, EventKind::Warning, reason, message);
        }
        found
    }
}

/// The credentials in `secret`; other types than Docker's two have none.
fn document(secret: &Secret, name: &str) -> Option<PullSecret> {
    let (key, form) = match secret.type_.as_deref()? {
        "kubernetes.io/dockerconfigjson" => (".dockerconfigjson", PullSecretForm::ConfigJson),
        "kubernetes.io/dockercfg" => (".dockercfg", PullSecretForm::DockerCfg),
        _ => return None,
    };
    let content = secret.data.as_ref()?.get(key)?.0.clone();
    (!content.is_empty()).then(|| PullSecret {
        name: name.to_owned(),
        form,
        content,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn the_type_of_a_secret_tells_its_form() {
        let secret = |kind: &str, key: &str| Secret {
            type_: Some(kind.to_owned()),
            data: Some([(key.to_owned(), ByteString(b"{}".to_vec()))].into()),
            ..Secret::default()
        };
        let json = document(
            &secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
            "a/b",
        );
        assert_eq!(json.unwrap().form, PullSecretForm::ConfigJson);
        let old = document(&secret("kubernetes.io/dockercfg", ".dockercfg"), "a/b");
        assert_eq!(old.unwrap().form, PullSecretForm::DockerCfg);
        assert_eq!(
            document(&secret("Opaque", ".dockerconfigjson"), "a/b"),
            None
        );
        assert_eq!(
            document(&secret("kubernetes.io/dockercfg", "x"), "a/b"),
            None
        );
    }
}

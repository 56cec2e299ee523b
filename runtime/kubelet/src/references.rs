//! The ConfigMaps and Secrets that a pod names: the ones that the node follows, and no others.

use std::collections::BTreeSet;

use coracle_client::ObjectKey;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::kubelet::Kubelet;
use crate::step;

/// What one pod names, as keys of its namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    /// ConfigMaps.
    pub(crate) config_maps: BTreeSet<ObjectKey>,
    /// Secrets.
    pub(crate) secrets: BTreeSet<ObjectKey>,
}

impl References {
    /// What `pod` names in its volumes, its containers' environment and its pull secrets; what of it is optional, too.
    ///
    /// As upstream's `VisitPodConfigmapNames` and `VisitPodSecretNames` (pkg/api/v1/pod/util.go), without the volumes that
    /// no pod here can have.
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut names = Names::default();
        if let Some(spec) = &pod.spec {
            names.volumes(spec);
            let pulls = spec.image_pull_secrets.iter().flatten();
            names
                .secrets
                .extend(pulls.map(|secret| secret.name.clone()));
            for part in step::parts(spec) {
                names.environment(&part.container);
            }
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let keys = |names: BTreeSet<String>| {
            let names = names.into_iter().filter(|name| !name.is_empty());
            names.map(|name| ObjectKey::new(namespace, name)).collect()
        };
        Self {
            config_maps: keys(names.config_maps),
            secrets: keys(names.secrets),
        }
    }
}

/// The first kind of objects that `pod` names, by its plural. Static pods name none: they run without the API server
/// (upstream's `HasAPIObjectReference`, and what nodes may create mirrors of).
pub fn named_kind(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let has_account = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if has_account(&spec.service_account_name) || has_account(&spec.service_account) {
        return Some("serviceaccounts");
    }
    let References {
        config_maps,
        secrets,
    } = References::of(pod);
    if !secrets.is_empty() {
        return Some("secrets");
    }
    if !config_maps.is_empty() {
        return Some("configmaps");
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return Some("resourceclaims");
    }
    let mut volumes = spec.volumes.iter().flatten();
    volumes.find_map(|volume| {
        if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return Some("persistentvolumeclaims");
        }
        let projected = volume.projected.iter();
        let mut parts = projected.flat_map(|source| source.sources.iter().flatten());
        parts.find_map(|part| {
            let bundle = part.cluster_trust_bundle.as_ref();
            let token = part.service_account_token.as_ref();
            bundle
                .map(|_| "clustertrustbundles")
                .or(token.map(|_| "serviceaccounts"))
        })
    })
}

#[derive(Default)]
struct Names {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

impl Names {
    fn volumes(&mut self, spec: &PodSpec) {
        for volume in spec.volumes.iter().flatten() {
            let config_map = volume.config_map.iter().map(|source| source.name.clone());
            self.config_maps.extend(config_map);
            let secret = volume.secret.iter();
            self.secrets
                .extend(secret.filter_map(|source| source.secret_name.clone()));
            let projected = volume.projected.iter();
            for part in projected.flat_map(|source| source.sources.iter().flatten()) {
                let config_map = part.config_map.iter().map(|source| source.name.clone());
                self.config_maps.extend(config_map);
                let secret = part.secret.iter().map(|source| source.name.clone());
                self.secrets.extend(secret);
            }
        }
    }

    fn environment(&mut self, container: &Container) {
        for source in container.env_from.iter().flatten() {
            let config_map = source.config_map_ref.iter();
            self.config_maps
                .extend(config_map.map(|reference| reference.name.clone()));
            let secret = source.secret_ref.iter();
            self.secrets
                .extend(secret.map(|reference| reference.name.clone()));
        }
        let variables = container.env.iter().flatten();
        for source in variables.filter_map(|variable| variable.value_from.as_ref()) {
            let config_map = source.config_map_key_ref.iter();
            self.config_maps
                .extend(config_map.map(|reference| reference.name.clone()));
            let secret = source.secret_key_ref.iter();
            self.secrets
                .extend(secret.map(|reference| reference.name.clone()));
        }
    }
}

impl Kubelet {
    /// Follows what `pod` names, until [`Kubelet::forget_sources`]; returns once all of it has been read. The error
    /// says what the API server did not answer for.
    pub(crate) async fn follow_sources(&self, pod: &Pod) -> Result<(), String> {
        let References {
            config_maps,
            secrets,
        } = References::of(pod);
        let uid = coracle_client::uid(pod);
        let (config_maps, secrets) = tokio::join!(
            self.0.config_maps.want(uid, config_maps),
            self.0.secrets.want(uid, secrets)
        );
        config_maps
            .and(secrets)
            .map_err(|unread| unread.to_string())
    }

    /// Lets go of what was kept for the pod of that UID: its tokens, and what it named or mounted.
    pub(crate) fn forget_sources(&self, uid: &str) {
        self.0.tokens.forget(uid);
        self.0.config_maps.release(uid);
        self.0.secrets.release(uid);
        self.0.volume_images.forget(uid);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_that_can_name_an_object_is_looked_at() {
        let container = |name: &str| {
            json!({
                "name": name,
                "envFrom": [
                    {"configMapRef": {"name": format!("map-from-{name}")}},
                    {"secretRef": {"name": format!("secret-from-{name}"), "optional": true}},
                ],
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": format!("map-{name}"), "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": format!("secret-{name}"), "key": "k"}}},
                    {"name": "C", "value": "plain"},
                ],
            })
        };
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "containers": [container("a")],
                "initContainers": [container("b")],
                "ephemeralContainers": [container("c")],
                "imagePullSecrets": [{"name": "pull"}, {"name": ""}],
                "volumes": [
                    {"name": "v1", "configMap": {"name": "map-volume", "optional": true}},
                    {"name": "v2", "secret": {"secretName": "secret-volume"}},
                    {"name": "v3", "projected": {"sources": [
                        {"configMap": {"name": "map-projected"}}, {"secret": {"name": "secret-projected"}},
                        {"serviceAccountToken": {"path": "token"}},
                    ]}},
                    {"name": "v4", "emptyDir": {}},
                ],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let expected = |kind: &str, more: &[&str]| -> BTreeSet<ObjectKey> {
            let of = |name| [format!("{kind}-from-{name}"), format!("{kind}-{name}")];
            let named = ["a", "b", "c", "volume", "projected"]
                .into_iter()
                .flat_map(of);
            let named = named
                .filter(|name| !name.ends_with("from-volume") && !name.ends_with("from-projected"));
            let more = more.iter().map(|name| (*name).to_owned());
            named
                .chain(more)
                .map(|name| ObjectKey::new("n", name))
                .collect()
        };
        let found = References::of(&pod);
        assert_eq!(found.config_maps, expected("map", &[]));
        assert_eq!(found.secrets, expected("secret", &["pull"]));
    }

    #[test]
    fn a_pod_that_names_nothing_is_followed_by_nothing() {
        assert_eq!(References::of(&Pod::default()), References::default());
    }

    #[test]
    fn the_first_kind_that_a_pod_names_is_told() {
        let container = json!({"name": "a", "image": "a"});
        let volume = |source: serde_json::Value| {
            let mut volume = source;
            volume["name"] = "v".into();
            json!({"containers": [container.clone()], "volumes": [volume]})
        };
        for (spec, expected) in [
            (json!({"containers": [container]}), None),
            (volume(json!({"emptyDir": {}})), None),
            (volume(json!({"hostPath": {"path": "/srv"}})), None),
            (
                volume(
                    json!({"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}),
                ),
                None,
            ),
            (
                json!({"containers": [container], "serviceAccountName": "default"}),
                Some("serviceaccounts"),
            ),
            (
                json!({"containers": [container], "imagePullSecrets": [{"name": "login"}]}),
                Some("secrets"),
            ),
            (
                json!({"containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "m", "optional": true}}]}]}),
                Some("configmaps"),
            ),
            (
                volume(json!({"persistentVolumeClaim": {"claimName": "data"}})),
                Some("persistentvolumeclaims"),
            ),
            (
                volume(
                    json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
                ),
                Some("serviceaccounts"),
            ),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
            assert_eq!(named_kind(&pod), expected, "{spec}");
        }
    }
}

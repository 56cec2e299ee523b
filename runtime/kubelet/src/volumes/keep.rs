//! Keeps the files of running pods up to date.
//!
//! Every minute all are compared with what they are made of, and tokens are made anew before they end. What
//! is known to have changed does not wait so long.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::volumes;
use crate::kubelet::{Kubelet, remove_folder};
use crate::step::SandboxState;

/// How often all files are compared.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a change waits for others that come with it.
const GATHER: Duration = Duration::from_secs(1);
/// Changes that are remembered one by one; beyond that everything is compared.
const MOST: usize = 1024;

/// What files of volumes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    ConfigMap,
    Secret,
    /// The pod's own labels, annotations and resources.
    Pod,
}

/// The objects that have changed since files were last brought up to date.
#[derive(Debug, Default)]
pub(crate) struct ChangedSources {
    changed: Mutex<HashSet<(Source, ObjectKey)>>,
    some: Notify,
}

impl ChangedSources {
    /// Notes that an object has changed, whether or not anybody mounts it.
    pub(crate) fn note(&self, source: Source, key: ObjectKey) {
        let mut changed = self.changed.lock();
        if changed.len() < MOST {
            changed.insert((source, key));
        }
        self.some.notify_one();
    }

    /// What has changed; nothing when that is too much to tell.
    fn take(&self) -> Option<HashSet<(Source, ObjectKey)>> {
        let changed = std::mem::take(&mut *self.changed.lock());
        Some(changed).filter(|changed| changed.len() < MOST)
    }
}

impl Kubelet {
    /// Brings files up to date until the kubelet stops.
    pub(crate) async fn keep_volumes(self) {
        let clock = self.0.ctx.clock().clone();
        let mut all_at = clock.monotonic() + REFRESH;
        loop {
            let rest = all_at.saturating_sub(clock.monotonic());
            tokio::select! {
                () = clock.sleep(rest) => {}
                () = self.0.changed_sources.some.notified() => clock.sleep(GATHER).await,
                () = self.0.ctx.stop().cancelled() => return,
            }
            let mut changed = self.0.changed_sources.take();
            if clock.monotonic() >= all_at {
                all_at = clock.monotonic() + REFRESH;
                changed = None;
            }
            self.refresh_volumes(changed.as_ref()).await;
        }
    }

    /// Brings the files of running pods up to date: of all, or of those that are made of something in
    /// `changed`.
    async fn refresh_volumes(&self, changed: Option<&HashSet<(Source, ObjectKey)>>) {
        let concerns = |pod: &Pod| changed.is_none_or(|changed| is_made_of(pod, changed));
        let running: Vec<(String, Arc<Pod>, IpAddr)> = {
            let state = self.0.state.lock();
            let running = state.entries.iter().filter_map(|(uid, entry)| {
                let runs = entry.observed.sandbox == SandboxState::Ready && !entry.orphaned;
                let address = entry.observed.address.filter(|_| runs)?;
                concerns(&entry.pod).then(|| (uid.clone(), entry.pod.clone(), address))
            });
            running.collect()
        };
        for (uid, pod, address) in running {
            let addresses = self.0.config.both_as_text(address);
            if let Err(error) = self.prepare_volumes(&pod, &addresses).await {
                tracing::warn!(pod = uid, %error, "the files of a volume are not up to date");
            }
            let is_kept = {
                let state = self.0.state.lock();
                let entry = state.entries.get(&uid);
                entry.is_some_and(|entry| !entry.forgetting && !entry.gone)
            };
            if !is_kept {
                // It went away meanwhile, and its files were made again behind its back.
                self.forget_sources(&uid);
                let folder = self.0.config.defaults.pod_directory(&uid);
                let _ = tokio::task::spawn_blocking(move || remove_folder(&folder)).await;
            }
        }
    }
}

/// Whether files of the pod's volumes are made of any of the objects.
fn is_made_of(pod: &Pod, changed: &HashSet<(Source, ObjectKey)>) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let is_in = |source, name: &str| changed.contains(&(source, ObjectKey::new(namespace, name)));
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    volumes(pod).any(|volume| {
        let config_map = volume
            .config_map
            .as_ref()
            .map(|source| source.name.as_str());
        let secret = volume
            .secret
            .as_ref()
            .and_then(|s| s.secret_name.as_deref());
        let parts = volume.projected.iter();
        let mut parts = parts.flat_map(|projected| projected.sources.iter().flatten());
        config_map.is_some_and(|name| is_in(Source::ConfigMap, name))
            || secret.is_some_and(|name| is_in(Source::Secret, name))
            || volume.downward_api.is_some() && is_in(Source::Pod, own)
            || parts.any(|part| {
                let config_map = part.config_map.as_ref().map(|source| source.name.as_str());
                let secret = part.secret.as_ref().map(|source| source.name.as_str());
                config_map.is_some_and(|name| is_in(Source::ConfigMap, name))
                    || secret.is_some_and(|name| is_in(Source::Secret, name))
                    || part.downward_api.is_some() && is_in(Source::Pod, own)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_looked_at_when_something_that_it_mounts_has_changed() {
        let pod = |volume: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"containers": [], "volumes": [volume]},
            }))
            .expect("a pod")
        };
        let changed = |source, namespace: &str, name: &str| {
            HashSet::from([(source, ObjectKey::new(namespace, name))])
        };
        let config_map = json!({"name": "v", "configMap": {"name": "x"}});
        let sources = json!([{"secret": {"name": "x"}}, {"downwardAPI": {"items": []}}]);
        let projected = json!({"name": "v", "projected": {"sources": sources}});
        let cases = [
            (&config_map, changed(Source::ConfigMap, "shop", "x"), true),
            (&config_map, changed(Source::Secret, "shop", "x"), false),
            (&config_map, changed(Source::ConfigMap, "other", "x"), false),
            (&config_map, changed(Source::Pod, "shop", "web"), false),
            (&projected, changed(Source::Secret, "shop", "x"), true),
            (&projected, changed(Source::Pod, "shop", "web"), true),
            (&projected, changed(Source::Pod, "shop", "other"), false),
        ];
        for (volume, changed, expected) in cases {
            let pod = pod(volume.clone());
            assert_eq!(is_made_of(&pod, &changed), expected, "{volume} {changed:?}");
        }
    }

    #[test]
    fn too_much_to_tell_is_everything() {
        let sources = ChangedSources::default();
        for index in 0..2 * MOST {
            sources.note(Source::Secret, ObjectKey::new("shop", index.to_string()));
        }
        assert_eq!(sources.take(), None);
        assert_eq!(sources.take(), Some(HashSet::new()));
    }
}

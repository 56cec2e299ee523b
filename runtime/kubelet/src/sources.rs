//! What the specs of one pod may name, from the shared caches and the node's disk.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_client::ObjectKey;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
    ServiceAccountTokenProjection,
};

use crate::environment::Sources;
use crate::kubelet::{Capacity, Kubelet};
use crate::tokens::PodTokens;
use crate::{env_file, volumes};

/// The objects that a pod of one namespace may name, from the shared caches.
pub(crate) struct PodSources {
    kubelet: Kubelet,
    pod: Arc<Pod>,
    /// Empty but for volumes.
    tokens: PodTokens,
}

impl PodSources {
    /// Those of `pod`.
    pub(crate) fn of(kubelet: &Kubelet, pod: &Arc<Pod>) -> Self {
        Self {
            kubelet: kubelet.clone(),
            pod: pod.clone(),
            tokens: PodTokens::default(),
        }
    }

    /// The same, with the tokens of its volumes.
    pub(crate) fn with(mut self, tokens: PodTokens) -> Self {
        self.tokens = tokens;
        self
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn key(&self, name: &str) -> ObjectKey {
        ObjectKey::new(self.namespace(), name)
    }
}

impl Sources for PodSources {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.kubelet.0.config_maps.get(&self.key(name))
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.kubelet.0.secrets.get(&self.key(name))
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.kubelet.0.services.in_namespace(self.namespace())
    }

    fn kubernetes(&self) -> Option<Arc<Service>> {
        self.kubelet
            .0
            .services
            .get(&ObjectKey::new("default", "kubernetes"))
    }

    fn allocatable(&self) -> Capacity {
        self.kubelet.0.config.capacity
    }

    fn host_ips(&self) -> String {
        let config = &self.kubelet.0.config;
        config.both_as_text(config.node_address())
    }

    fn token(&self, source: &ServiceAccountTokenProjection) -> Option<String> {
        self.tokens.of(source).map(str::to_owned)
    }

    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.kubelet.0.claims.get(&self.key(name))
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.kubelet.0.volumes.get(&ObjectKey::cluster(name))
    }

    fn image_files(&self, volume: &str) -> Option<PathBuf> {
        let uid = coracle_client::uid(self.pod.as_ref());
        self.kubelet.0.volume_images.folder(uid, volume)
    }

    fn file(&self, volume: &str, path: &str) -> Result<Option<String>, String> {
        let config = &self.kubelet.0.config;
        volumes::read_file(&self.pod, volume, path, env_file::MOST_BYTES, config)
            .map_err(|problem| problem.to_string())
    }
}

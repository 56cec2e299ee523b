//! The node's folder of volumes, and the StorageClass whose volumes lie in it.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use coracle_client::ObjectClient;
use coracle_controllers::{LocalVolumes, PROVISIONER};
use coracle_kubelet::KubeletConfig;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;

/// The class of claims that name none; called as kind and minikube call theirs.
const CLASS: &str = "standard";

/// A folder per volume, below the data directory.
pub(crate) struct VolumeFolders {
    node: String,
    folder: PathBuf,
}

impl VolumeFolders {
    /// Those of the node.
    pub(crate) fn of(kubelet: &KubeletConfig) -> Self {
        Self {
            node: kubelet.node.clone(),
            folder: kubelet.volumes_directory(),
        }
    }
}

#[async_trait]
impl LocalVolumes for VolumeFolders {
    fn node(&self) -> &str {
        &self.node
    }

    fn path(&self, volume: &str) -> String {
        self.folder.join(volume).to_string_lossy().into_owned()
    }

    async fn remove(&self, volume: &str) -> Result<(), String> {
        let mut parts = Path::new(volume).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(format!("{volume:?} is no name of a folder"));
        }
        let folder = self.folder.join(volume);
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("failed to remove {}: {error}", folder.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the default StorageClass, unless there is one of its name.
pub(crate) async fn make_class(objects: &ObjectClient) {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    let class: StorageClass = serde_json::from_value(class).expect("it is one");
    match objects.create(&class).await {
        Ok(_) => tracing::info!(name = CLASS, "the default storage class is made"),
        Err(error) if error.is_already_exists() => {}
        Err(error) => tracing::warn!(
            error = error.message(),
            "the default storage class was not made"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_is_removed_and_nothing_beside_it() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = data.path().join("volumes");
        let folders = VolumeFolders {
            node: "n".to_owned(),
            folder: folder.clone(),
        };
        for volume in ["a", "b"] {
            std::fs::create_dir_all(folder.join(volume).join("deep")).expect("made");
        }
        assert_eq!(Path::new(&folders.path("a")), folder.join("a"));
        folders.remove("a").await.expect("removed");
        folders.remove("a").await.expect("gone already");
        for name in ["", ".", "..", "../pki", "b/deep", "/"] {
            folders.remove(name).await.expect_err(name);
        }
        assert!(!folder.join("a").exists() && folder.join("b/deep").is_dir());
    }
}

//! Images as volumes: pulled for the containers that mount them, as their own images are.

use std::collections::HashMap;
use std::path::PathBuf;

use coracle_cri::{ImageError, ImageRef, ImageRequest, PullPolicy};
use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod};
use parking_lot::Mutex;

use crate::volumes::volumes;

/// The images that pods of this node have as volumes, by the pod's UID and the volume's name.
#[derive(Debug, Default)]
pub(crate) struct VolumeImages(Mutex<HashMap<String, HashMap<String, Held>>>);

#[derive(Clone, Debug)]
struct Held {
    image: ImageRef,
    folder: PathBuf,
}

impl VolumeImages {
    /// The folder of the volume's files, once its image was pulled.
    pub(crate) fn folder(&self, uid: &str, volume: &str) -> Option<PathBuf> {
        let all = self.0.lock();
        Some(all.get(uid)?.get(volume)?.folder.clone())
    }

    /// Forgets the volumes of a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Digests of all that is mounted.
    pub(super) fn digests(&self) -> Vec<String> {
        let all = self.0.lock();
        let held = all.values().flat_map(HashMap::values);
        held.map(|held| held.image.digest.clone()).collect()
    }

    pub(super) fn hold(&self, uid: &str, volume: &str, image: ImageRef, folder: PathBuf) {
        let held = Held { image, folder };
        let mut all = self.0.lock();
        let of_pod = all.entry(uid.to_owned()).or_default();
        of_pod.insert(volume.to_owned(), held);
    }

    /// The digest under which the volume's image was had before.
    pub(super) fn known(&self, uid: &str, volume: &str, image: &str) -> Option<String> {
        let all = self.0.lock();
        let held = all.get(uid)?.get(volume)?;
        (held.image.image == image).then(|| held.image.digest.clone())
    }
}

/// The image volumes that the container mounts, each once.
pub(super) fn mounted<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> Vec<(&'a str, &'a ImageVolumeSource)> {
    let is_mounted = |name: &str| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|mount| mount.name == name)
    };
    volumes(pod)
        .filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?)))
        .filter(|(name, _)| is_mounted(name))
        .collect()
}

/// What the runtime is asked for; a reference that is not there is one that cannot be read.
pub(super) fn request(source: &ImageVolumeSource) -> Result<ImageRequest, ImageError> {
    let image = source.reference.clone().unwrap_or_default();
    if image.is_empty() {
        let why = "the image volume has no reference".to_owned();
        return Err(ImageError::InvalidName(why));
    }
    Ok(ImageRequest {
        policy: match source.pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        },
        image,
        known_digest: None,
        pull_secrets: Vec::new(),
        command: Vec::new(),
    })
}

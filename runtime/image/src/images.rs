//! Policy: when the store's answer is enough and when a source is asked.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_cri::{ImageError, ImageRef, ImageRequest, PullPolicy};

use crate::digest::Digest;
use crate::file::FileSource;
use crate::reference::{Name, Reference};
use crate::source::ImageSource;
use crate::store::{ImageStore, StoreError, StoredImage};

/// What [`Images`] is made of.
pub struct ImagesConfig {
    /// Where bytes are kept.
    pub store: ImageStore,
    /// Where names that the store does not have come from.
    pub source: Arc<dyn ImageSource>,
    /// Folders below which `file:` references may point.
    pub allowed_folders: Vec<PathBuf>,
    /// Largest image in bytes.
    pub max_bytes: u64,
}

/// Makes images present on the node; cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    store: ImageStore,
    source: Arc<dyn ImageSource>,
    files: FileSource,
    max_bytes: u64,
}

impl Images {
    /// Images as `config` says.
    pub fn new(config: ImagesConfig) -> Self {
        Self(Arc::new(Inner {
            files: FileSource::new(&config.allowed_folders),
            store: config.store,
            source: config.source,
            max_bytes: config.max_bytes,
        }))
    }

    /// The store below.
    pub fn store(&self) -> &ImageStore {
        &self.0.store
    }

    /// Makes the image of `request` present and returns what its reference means now.
    pub async fn ensure(&self, request: &ImageRequest) -> Result<ImageRef, ImageError> {
        let reference: Reference = request.image.parse().map_err(|error| {
            // The wording of the kubelet of Kubernetes.
            let image = &request.image;
            ImageError::InvalidName(format!(
                "Failed to apply default image tag \"{image}\": {error}"
            ))
        })?;
        let found = match &reference {
            Reference::File(path) => self.file(&reference, path, request).await,
            Reference::Named(name) => self.named(name, request).await,
        }?;
        Ok(ImageRef {
            image: request.image.clone(),
            digest: found.digest.to_string(),
            size: found.size,
        })
    }

    /// The bytes of an image that [`ensure`](Self::ensure) returned.
    pub async fn bytes(&self, image: &ImageRef) -> Result<Vec<u8>, ImageError> {
        let digest: Digest = image
            .digest
            .parse()
            .map_err(|error| ImageError::InvalidName(format!("{error}")))?;
        let found = self
            .blocking(move |images| images.store.get(&digest).map_err(failed))
            .await?;
        found.ok_or_else(|| {
            ImageError::Pull(format!(
                "image {} ({}) has disappeared from this node's store",
                image.image, image.digest
            ))
        })
    }

    async fn file(
        &self,
        reference: &Reference,
        path: &std::path::Path,
        request: &ImageRequest,
    ) -> Result<StoredImage, ImageError> {
        let name = reference.to_string();
        if request.policy != PullPolicy::Always
            && let Some(found) = self.resolve(name.clone()).await?
        {
            return Ok(found);
        }
        if request.policy == PullPolicy::Never {
            return Err(never(request));
        }
        let path = path.to_owned();
        let read = self.blocking(move |images| {
            let bytes = images.files.read(&path, images.max_bytes)?;
            let image = images.store.put(&bytes).map_err(failed)?;
            images.store.set_name(&name, &image).map_err(failed)?;
            Ok(image)
        });
        let error = match read.await {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        // A pod that ran from this file keeps running from the bytes that the node stored then.
        let known = request
            .known_digest
            .as_ref()
            .and_then(|known| known.parse::<Digest>().ok());
        let stored = known.and_then(|digest| {
            self.0
                .store
                .size(&digest)
                .map(|size| StoredImage { digest, size })
        });
        match stored {
            Some(stored) => {
                tracing::warn!(image = %request.image, digest = %stored.digest, %error,
                    "the image's file cannot be used, running from the stored copy");
                Ok(stored)
            }
            None => Err(error),
        }
    }

    /// Names that were loaded into the store are taken from there even under `Always`: whoever
    /// loaded them is their source. Only names that the store lacks are asked of a registry.
    async fn named(&self, name: &Name, request: &ImageRequest) -> Result<StoredImage, ImageError> {
        if let Some(found) = self.resolve(name.to_string()).await? {
            return Ok(found);
        }
        if request.policy == PullPolicy::Never {
            return Err(never(request));
        }
        let bytes = self.0.source.fetch(name, self.0.max_bytes).await?;
        let name = name.to_string();
        self.blocking(move |images| {
            let image = images.store.put(&bytes).map_err(failed)?;
            images.store.set_name(&name, &image).map_err(failed)?;
            Ok(image)
        })
        .await
    }

    async fn resolve(&self, name: String) -> Result<Option<StoredImage>, ImageError> {
        self.blocking(move |images| images.store.resolve(&name).map_err(failed))
            .await
    }

    /// Runs `work` where blocking on the disk hurts no one.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|stopped| Err(ImageError::Pull(format!("image store: {stopped}"))))
    }
}

fn failed(error: StoreError) -> ImageError {
    ImageError::Pull(format!("image store: {error}"))
}

fn never(request: &ImageRequest) -> ImageError {
    let image = &request.image;
    ImageError::NeverPull(format!(
        "Container image \"{image}\" is not present with pull policy of Never"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::NoRegistry;
    use coracle_clock::Clock;
    use std::fs;

    struct Node {
        folder: tempfile::TempDir,
        images: Images,
    }

    fn node() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("images"), Clock::fake(1)).unwrap();
        let images = Images::new(ImagesConfig {
            store,
            source: Arc::new(NoRegistry),
            allowed_folders: vec![folder.path().to_owned()],
            max_bytes: 1 << 20,
        });
        Node { folder, images }
    }

    impl Node {
        fn write(&self, bytes: &[u8]) -> String {
            let path = self.folder.path().join("app.wasm");
            fs::write(&path, bytes).unwrap();
            format!("file://{}", path.display())
        }

        async fn ask(&self, image: &str, policy: PullPolicy) -> Result<ImageRef, ImageError> {
            let request = ImageRequest {
                image: image.to_owned(),
                policy,
                known_digest: None,
            };
            self.images.ensure(&request).await
        }
    }

    #[tokio::test]
    async fn always_sees_a_rebuilt_file_and_if_not_present_does_not() {
        let node = node();
        let image = node.write(b"one");
        let first = node.ask(&image, PullPolicy::Always).await.unwrap();
        node.write(b"two");
        assert_eq!(
            node.ask(&image, PullPolicy::IfNotPresent).await.unwrap(),
            first
        );
        assert_eq!(node.ask(&image, PullPolicy::Never).await.unwrap(), first);
        let second = node.ask(&image, PullPolicy::Always).await.unwrap();
        assert_ne!(first.digest, second.digest);
        assert_eq!(node.images.bytes(&second).await.unwrap(), b"two");
    }

    #[tokio::test]
    async fn a_known_pod_survives_the_loss_of_its_file() {
        let node = node();
        let image = node.write(b"bytes");
        let known = node.ask(&image, PullPolicy::Always).await.unwrap();
        fs::remove_file(node.folder.path().join("app.wasm")).unwrap();
        assert!(node.ask(&image, PullPolicy::Always).await.is_err());
        let request = ImageRequest {
            image,
            policy: PullPolicy::Always,
            known_digest: Some(known.digest.clone()),
        };
        assert_eq!(node.images.ensure(&request).await.unwrap(), known);
    }

    #[tokio::test]
    async fn loaded_names_are_found_and_others_say_what_to_do() {
        let node = node();
        node.write(b"bytes");
        let path = node.folder.path().join("app.wasm");
        node.images.store().load(&path, "app:dev").unwrap();
        for image in ["app:dev", "docker.io/library/app:dev"] {
            assert!(node.ask(image, PullPolicy::Always).await.is_ok(), "{image}");
        }
        let error = node
            .ask("other:dev", PullPolicy::IfNotPresent)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), "ErrImagePull");
        assert!(error.to_string().contains("coracle image load"), "{error}");
        let error = node.ask("other:dev", PullPolicy::Never).await.unwrap_err();
        assert_eq!(error.reason(), "ErrImageNeverPull");
        let error = node.ask("Not/A/Name", PullPolicy::Never).await.unwrap_err();
        assert_eq!(error.reason(), "InvalidImageName");
    }
}

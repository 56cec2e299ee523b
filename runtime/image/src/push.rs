//! From the store to a registry.

use coracle_cri::ImageError;

use crate::build::artifact;
use crate::content::{failed, manifest_of};
use crate::digest::Digest;
use crate::keyring::{Credential, Keyring};
use crate::layout::Use;
use crate::pull::{Progress, RegistrySource};
use crate::reference::Name;
use crate::store::ImageStore;

impl RegistrySource {
    /// Gives the image `digest` of `store` to the registry of `name`, under that name. Blobs that it
    /// has are not sent. A lone program goes as an artifact; of an index, the manifest for wasm goes.
    /// Returns the digest that the name then stands for.
    pub async fn push(
        &self,
        store: &ImageStore,
        digest: &Digest,
        name: &Name,
        credential: Option<Credential>,
        progress: Option<&Progress>,
    ) -> Result<Digest, ImageError> {
        let words = |error: &dyn std::fmt::Display| {
            ImageError::Pull(format!("failed to push {name}: {error}"))
        };
        let (manifest_digest, manifest) = match manifest_of(store, digest, Use::Files)? {
            Some(found) => found,
            None => {
                let made = artifact(store, digest)
                    .map_err(|error| words(&error))?
                    .digest;
                let manifest = store.manifest(&made).map_err(failed)?;
                (
                    made,
                    manifest.ok_or_else(|| words(&"its manifest is gone"))?,
                )
            }
        };
        let session = self
            .session(name, credential, &Keyring::default())
            .map_err(|error| words(&error))?;
        for blob in manifest.config.iter().chain(&manifest.layers) {
            let (digest, size) = (&blob.digest, blob.size);
            if store.size(digest) != Some(size) {
                return Err(words(&format!("the blob {digest} is not in the store")));
            }
            if let Some(progress) = progress {
                progress(digest, 0, size);
            }
            let has = session.has_blob(digest).await;
            if !has.map_err(|error| words(&error))? {
                let path = store.blob_path(digest);
                let sent = session.push_blob(digest, &path, size).await;
                sent.map_err(|error| words(&error))?;
            }
            if let Some(progress) = progress {
                progress(digest, size, size);
            }
        }
        let bytes = store.get(&manifest_digest).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| words(&"its manifest is gone"))?;
        let reference = name
            .tag
            .clone()
            .unwrap_or_else(|| manifest_digest.to_string());
        let sent = session.push_manifest(&reference, manifest.media_type(), bytes);
        sent.await.map_err(|error| words(&error))?;
        Ok(manifest_digest)
    }
}

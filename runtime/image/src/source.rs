//! Where images come from when the store does not have them.

use async_trait::async_trait;
use coracle_cri::ImageError;

use crate::keyring::Keyring;
use crate::layout::Use;
use crate::pull::Progress;
use crate::reference::Name;
use crate::store::{ImageStore, StoredImage};

/// One request for an image.
pub struct Pull<'a> {
    /// What is wanted.
    pub name: &'a Name,
    /// What for: an image without a program is refused before it is fetched.
    pub wanted: Use,
    /// Who asks.
    pub credentials: &'a Keyring,
    /// Where it goes.
    pub store: &'a ImageStore,
    /// What the name meant until now, if that is in the store, whole.
    pub known: Option<StoredImage>,
    /// Most bytes it may have.
    pub limit: u64,
    /// Told of what has come.
    pub progress: Option<&'a Progress>,
}

/// Brings images into the store.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// Makes what `pull` asks for present, under its name.
    async fn pull(&self, pull: Pull<'_>) -> Result<StoredImage, ImageError>;
}

/// A node that pulls from no registry: every pull ends with what to do instead.
pub struct NoRegistry;

#[async_trait]
impl ImageSource for NoRegistry {
    async fn pull(&self, pull: Pull<'_>) -> Result<StoredImage, ImageError> {
        let name = pull.name;
        Err(ImageError::Pull(format!(
            "image {name} is not in this node's store, and this node does not pull from registries; \
             load it with `coracle image load app.wasm -t {name}`, or use a local file as \
             file:///absolute/path/app.wasm"
        )))
    }
}

//! Where bytes come from when the store does not have them.

use async_trait::async_trait;
use coracle_cri::ImageError;

use crate::reference::Name;

/// Fetches the wasm bytes of a registry reference.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// Returns the bytes of the image's one wasm file, at most `limit` of them.
    async fn fetch(&self, name: &Name, limit: u64) -> Result<Vec<u8>, ImageError>;
}

/// A node that pulls from no registry: every fetch ends with what to do instead.
pub struct NoRegistry;

#[async_trait]
impl ImageSource for NoRegistry {
    async fn fetch(&self, name: &Name, _limit: u64) -> Result<Vec<u8>, ImageError> {
        Err(ImageError::Pull(format!(
            "image {name} is not in this node's store, and this node does not pull from registries; \
             load it with `coracle image load app.wasm -t {name}`, or use a local file as \
             file:///absolute/path/app.wasm"
        )))
    }
}

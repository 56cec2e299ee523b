//! The disk of the fake runtime's node, as far as it is asked for it.

use std::path::PathBuf;

use super::FakeRuntime;
use super::state::Inner;
use crate::{ImageError, ImageFs, SandboxId};

impl FakeRuntime {
    /// Lets the files of `image` be those of `folder`. Before, it has none.
    pub fn unpack(&self, image: &str, folder: PathBuf) {
        let mut state = self.0.state();
        state.image_folders.insert(image.to_owned(), folder);
    }

    /// The bytes last counted by `charge_memory`.
    pub fn charged_memory(&self, id: &SandboxId) -> u64 {
        self.0.state().charged.get(id).copied().unwrap_or(0)
    }

    /// How full the images' file system is from now on.
    pub fn fill_disk(&self, fs: ImageFs) {
        self.0.state().image_fs = Some(fs);
    }
}

impl Inner {
    pub(super) fn folder_of(&self, image: &str) -> Result<PathBuf, ImageError> {
        let folder = self.state().image_folders.get(image).cloned();
        folder.ok_or_else(|| ImageError::Pull(format!("image {image} has no files")))
    }
}

//! What an image of the store is when a container is to be made of it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use coracle_cri::ImageError;

use crate::digest::Digest;
use crate::layout::{Layout, NotWasm, Use, argv, choose, layout};
use crate::spec::{Descriptor, ImageConfig, Manifest};
use crate::store::{ImageStore, StoreError};
use crate::unpack::{UnpackLimits, resolve};

/// What an image is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A `.wasm` file and nothing else.
    Bare,
    /// A manifest and what it names.
    Image(Box<Parts>),
}

/// The parts that matter of an image with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The digest of the manifest, which is the image's own unless that is an index.
    pub(crate) manifest: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) layout: Layout,
}

/// The manifest of an image, and the index's entry that led to it.
pub(crate) fn manifest_of(
    store: &ImageStore,
    image: &Digest,
    wanted: Use,
) -> Result<Option<(Digest, Manifest)>, ImageError> {
    let Some(manifest) = store.manifest(image).map_err(failed)? else {
        return Ok(None);
    };
    if !manifest.is_index() {
        return Ok(Some((*image, manifest)));
    }
    let entry = choose(&manifest, wanted).map_err(not_runnable)?;
    let inner = store.manifest(&entry.digest).map_err(failed)?;
    Ok(inner.map(|inner| (entry.digest, inner)))
}

/// An image with a manifest, for those who want to look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest; of an index, the one that is for this node.
    pub manifest: Manifest,
    /// The configuration.
    pub config: ImageConfig,
}

impl Described {
    /// How its layers make an image.
    pub fn layout(&self, wanted: Use) -> Result<Layout, NotWasm> {
        layout(&self.manifest, &self.config, wanted)
    }
}

impl ImageStore {
    /// The manifest of an image; `None` for a lone file.
    pub fn describe(&self, image: &Digest) -> Result<Option<Described>, ImageError> {
        let Some((digest, manifest)) = manifest_of(self, image, Use::Files)? else {
            return Ok(None);
        };
        Ok(Some(Described {
            config: config(self, &manifest)?.unwrap_or_default(),
            digest,
            manifest,
        }))
    }
}

/// What `image` is made of; `None` when a part of it is not there.
pub(crate) fn content(
    store: &ImageStore,
    image: &Digest,
    wanted: Use,
) -> Result<Option<Content>, ImageError> {
    if is_wasm_file(&store.blob_path(image)) {
        return Ok(Some(Content::Bare));
    }
    let Some((digest, manifest)) = manifest_of(store, image, wanted)? else {
        // A bare file that is no WebAssembly is the compiler's to refuse.
        let is_bare =
            store.size(image).is_some() && store.manifest(image).map_err(failed)?.is_none();
        return Ok(is_bare.then_some(Content::Bare));
    };
    let Some(config) = config(store, &manifest)? else {
        return Ok(None);
    };
    let layout = layout(&manifest, &config, wanted).map_err(not_runnable)?;
    Ok(Some(Content::Image(Box::new(Parts {
        manifest: digest,
        config,
        layout,
    }))))
}

/// The configuration of an image; that of an artifact says nothing that matters here.
pub(crate) fn config(
    store: &ImageStore,
    manifest: &Manifest,
) -> Result<Option<ImageConfig>, ImageError> {
    let Some(config) = &manifest.config else {
        return Ok(None);
    };
    let Some(bytes) = store.get(&config.digest).map_err(failed)? else {
        return Ok(None);
    };
    // Artifacts have any kind of document here, or an empty one.
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Makes the unpacked files of an image of archives, if they are not there, and returns their folder.
/// Several at once, for pods of one image that start together, wait for the first.
pub(crate) fn ensure_root(
    store: &ImageStore,
    manifest: &Digest,
    layers: &[Descriptor],
    mut limits: UnpackLimits,
) -> Result<PathBuf, ImageError> {
    let root = store.root_path(manifest);
    if root.is_dir() {
        return Ok(root);
    }
    let turn = store.unpacking().of(manifest);
    let _turn = turn.lock();
    if root.is_dir() {
        return Ok(root);
    }
    let temporary = root.with_extension(format!("{}.tmp", crate::store::unique(store.clock())));
    let disk = store.disk();
    let unpacked = disk.create_folder(&temporary).and_then(|()| {
        for layer in layers {
            let path = store.blob_path(&layer.digest);
            crate::unpack::layer(disk, &path, &temporary, &mut limits)?;
        }
        sync(&temporary)?;
        disk.rename(&temporary, &root)
    });
    match unpacked {
        Ok(()) => Ok(root),
        // Another process was faster.
        Err(_) if root.is_dir() => {
            let _ = disk.remove_folder(&temporary);
            Ok(root)
        }
        Err(error) => {
            let _ = disk.remove_folder(&temporary);
            let what = "failed to unpack the image";
            Err(ImageError::Pull(format!("{what}: {error}")))
        }
    }
}

/// The folder of a program's own files: for a root image its root; an artifact has just its program.
pub(crate) fn program_path(
    root: &Path,
    config: &ImageConfig,
    command: &[String],
) -> Result<PathBuf, String> {
    let own = argv(config);
    let line = if command.is_empty() { &own } else { command };
    let mut tried = None;
    // `ENTRYPOINT ["runtime", "app.wasm"]` is how some images for other runtimes are made.
    for word in line.iter().take(2) {
        let found = find(root, &config.config.working_dir, word)?;
        match found {
            Some(path) if is_wasm_file(&path) => return Ok(path),
            Some(_) => tried = tried.or(Some(format!("exec: {word:?}: is not WebAssembly"))),
            None => {
                tried = tried.or(Some(format!(
                    "exec: {word:?}: stat {word}: no such file or directory"
                )));
            }
        }
    }
    Err(tried.unwrap_or_else(|| "no command specified".to_owned()))
}

/// The file that `word` means: a path in the image, or a name in its first folder.
fn find(root: &Path, working_dir: &str, word: &str) -> Result<Option<PathBuf>, String> {
    let place = Path::new("/").join(working_dir).join(word);
    for path in [place, Path::new("/").join(word)] {
        let found = resolve(root, &path).map_err(|error| format!("exec: {word:?}: {error}"))?;
        if let Some(found) = found.filter(|found| found.is_file()) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether the file begins as every module and component does.
pub(crate) fn is_wasm_file(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"\0asm"
}

#[cfg(target_os = "linux")]
fn sync(folder: &Path) -> std::io::Result<()> {
    // One call for all its files.
    let folder = std::fs::File::open(folder)?;
    rustix::fs::syncfs(&folder).map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
fn sync(_: &Path) -> std::io::Result<()> {
    Ok(())
}

pub(crate) fn failed(error: StoreError) -> ImageError {
    ImageError::Pull(format!("image store: {error}"))
}

pub(crate) fn not_runnable(why: NotWasm) -> ImageError {
    ImageError::NotRunnable(why.to_string())
}

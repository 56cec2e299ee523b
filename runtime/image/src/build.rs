//! Images of files: a lone program becomes an artifact, a program with files or settings an image with
//! one layer. The same files always make the same digest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::digest::Digest;
use crate::reference::InvalidReference;
use crate::spec::{Descriptor, ImageConfig, Manifest, Platform, RootFs, RunConfig, media};
use crate::store::{ImageStore, Origin, Record, StoreError, StoredImage, taggable};

/// What an image is to be made of.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// The `.wasm` file.
    pub program: PathBuf,
    /// Further files and folders, and where they are in the image.
    pub files: Vec<(PathBuf, String)>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The program's name and first arguments, beginning with its path in the image; empty for the
    /// program alone.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod's `args` replace.
    pub cmd: Vec<String>,
    /// Where it starts, or empty.
    pub working_dir: String,
}

/// An image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was asked for makes no image.
    #[error("{0}")]
    Invalid(String),
    /// The name is not one, or carries a digest.
    #[error(transparent)]
    Name(#[from] InvalidReference),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Build {
    /// Makes the image and names it.
    pub fn run(&self, store: &ImageStore, name: &str) -> Result<StoredImage, BuildError> {
        let name = taggable(name)?;
        let program = read(&self.program)?;
        let Some(platform) = platform(&program) else {
            return Err(BuildError::Invalid(format!(
                "{} is not WebAssembly: a module or component begins with the bytes 00 61 73 6d",
                self.program.display()
            )));
        };
        let is_lone = self.files.is_empty()
            && self.env.is_empty()
            && self.entrypoint.is_empty()
            && self.cmd.is_empty()
            && self.working_dir.is_empty();
        let manifest = if is_lone {
            let program = put(store, media::WASM, &program)?;
            artifact_manifest(store, program, &platform)?
        } else {
            self.image(store, &program, platform)?
        };
        let image = named_manifest(store, &manifest)?;
        match store.commit(&Record::new(name.to_string(), &image, Origin::Loaded))? {
            true => Ok(image),
            false => Err(BuildError::Invalid(format!(
                "a part of {name} was removed while it was built; build it again"
            ))),
        }
    }

    fn image(
        &self,
        store: &ImageStore,
        program: &[u8],
        platform: Platform,
    ) -> Result<Manifest, BuildError> {
        let file_name = self.program.file_name().and_then(|name| name.to_str());
        let file_name = file_name.unwrap_or("app.wasm");
        let own = format!(
            "/{}",
            file_name.trim_end_matches(".wasm").to_owned() + ".wasm"
        );
        let mut archive = Archive::default();
        let mut entrypoint = self.entrypoint.clone();
        if entrypoint.is_empty() {
            entrypoint.push(own);
        }
        archive.add(&entrypoint[0], program)?;
        for (path, place) in &self.files {
            archive.add_path(path, place)?;
        }
        let archive = archive.finish()?;
        let unpacked = Digest::of(&archive);
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        let packed = io::Write::write_all(&mut packed, &archive)
            .and_then(|()| packed.finish())
            .expect("memory takes all bytes");
        let config = ImageConfig {
            platform,
            config: RunConfig {
                env: self.env.clone(),
                entrypoint,
                cmd: self.cmd.clone(),
                working_dir: self.working_dir.clone(),
            },
            created: None,
            rootfs: Some(RootFs {
                kind: "layers".to_owned(),
                diff_ids: vec![unpacked.to_string()],
            }),
        };
        let config = serde_json::to_vec(&config).expect("texts always serialise");
        Ok(Manifest {
            schema_version: 2,
            media_type: media::MANIFEST.to_owned(),
            config: Some(put(store, media::CONFIG, &config)?),
            layers: vec![put(store, media::LAYER_GZIP, &packed)?],
            ..Manifest::default()
        })
    }
}

/// What a program says it needs: components came with WASI 0.2.
pub(crate) fn platform(program: &[u8]) -> Option<Platform> {
    let os = match program.get(..8)? {
        b"\0asm\x01\0\0\0" => "wasip1",
        [0, b'a', b's', b'm', ..] => "wasip2",
        _ => return None,
    };
    Some(Platform {
        architecture: "wasm".to_owned(),
        os: os.to_owned(),
    })
}

/// The manifest of a lone program that the store has.
pub(crate) fn artifact(store: &ImageStore, program: &Digest) -> Result<StoredImage, BuildError> {
    let bytes = store
        .get(program)?
        .ok_or_else(|| BuildError::Invalid(format!("the program {program} is not in the store")))?;
    let platform = platform(&bytes)
        .ok_or_else(|| BuildError::Invalid(format!("{program} is not WebAssembly")))?;
    let manifest = artifact_manifest(store, descriptor(media::WASM, &bytes), &platform)?;
    named_manifest(store, &manifest)
}

fn artifact_manifest(
    store: &ImageStore,
    program: Descriptor,
    platform: &Platform,
) -> Result<Manifest, BuildError> {
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "layerDigests": [program.digest.to_string()],
    });
    Ok(Manifest {
        schema_version: 2,
        media_type: media::MANIFEST.to_owned(),
        config: Some(put(
            store,
            media::WASM_CONFIG,
            config.to_string().as_bytes(),
        )?),
        layers: vec![program],
        ..Manifest::default()
    })
}

fn named_manifest(store: &ImageStore, manifest: &Manifest) -> Result<StoredImage, BuildError> {
    let bytes = serde_json::to_vec(manifest).expect("texts always serialise");
    let digest = store.put(&bytes)?.digest;
    let size = store.parts(&digest)?.values().sum();
    Ok(StoredImage { digest, size })
}

fn descriptor(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    }
}

fn put(store: &ImageStore, kind: &str, bytes: &[u8]) -> Result<Descriptor, StoreError> {
    store.put(bytes)?;
    Ok(descriptor(kind, bytes))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|source| BuildError::Read {
        path: path.to_owned(),
        source,
    })
}

/// One layer. Owners and times are left out, so that the same files make the same bytes.
#[derive(Default)]
struct Archive(Option<tar::Builder<Vec<u8>>>);

impl Archive {
    fn add(&mut self, place: &str, bytes: &[u8]) -> Result<(), BuildError> {
        let invalid =
            |why: &str| BuildError::Invalid(format!("the path {place:?} in the image {why}"));
        let path = place.trim_start_matches('/');
        if path.is_empty() || path.ends_with('/') {
            return Err(invalid("names no file"));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(invalid("must not contain '..'"));
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        let archive = self.0.get_or_insert_with(|| tar::Builder::new(Vec::new()));
        archive
            .append_data(&mut header, path, bytes)
            .map_err(|error| invalid(&format!("cannot be written: {error}")))
    }

    /// A file, or all files of a folder in the order of their names.
    fn add_path(&mut self, path: &Path, place: &str) -> Result<(), BuildError> {
        let failed = |source| BuildError::Read {
            path: path.to_owned(),
            source,
        };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            return self.add(place, &read(path)?);
        }
        let entries = fs::read_dir(path).map_err(failed)?;
        let mut names: Vec<_> = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        names.sort();
        for name in names {
            let place = format!("{}/{}", place.trim_end_matches('/'), name.to_string_lossy());
            self.add_path(&path.join(&name), &place)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, BuildError> {
        let archive = self.0.unwrap_or_else(|| tar::Builder::new(Vec::new()));
        archive
            .into_inner()
            .map_err(|error| BuildError::Invalid(format!("the layer cannot be written: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Content, content};
    use crate::layout::{Layout, Use};
    use coracle_clock::Clock;

    struct Desk {
        folder: tempfile::TempDir,
        store: ImageStore,
    }

    fn desk() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("app.wasm"), b"\0asm\x0d\0\x01\0code").unwrap();
        fs::create_dir_all(folder.path().join("site/css")).unwrap();
        fs::write(folder.path().join("site/index.html"), "hello").unwrap();
        fs::write(folder.path().join("site/css/a.css"), "a").unwrap();
        let store = ImageStore::open(folder.path().join("images"), Clock::fake(1)).unwrap();
        Desk { folder, store }
    }

    #[test]
    fn a_lone_program_is_an_artifact() {
        let Desk { folder, store } = desk();
        let build = Build {
            program: folder.path().join("app.wasm"),
            ..Build::default()
        };
        let image = build.run(&store, "app:dev").unwrap();
        let Some(Content::Image(parts)) = content(&store, &image.digest, Use::Run).unwrap() else {
            panic!("it has a manifest");
        };
        assert!(matches!(parts.layout, Layout::Artifact { .. }));
        assert_eq!(parts.config.platform.os, "wasip2");
        let again = store.resolve("docker.io/library/app:dev").unwrap();
        assert_eq!(again, Some(image.clone()));
        assert_eq!(build.run(&store, "app:2").unwrap(), image);
        let Some(program) = store
            .parts(&image.digest)
            .unwrap()
            .into_keys()
            .find(|part| store.get(part).unwrap().unwrap().starts_with(b"\0asm"))
        else {
            panic!("it has a program");
        };
        assert_eq!(artifact(&store, &program).unwrap(), image);
    }

    #[test]
    fn files_and_settings_make_a_layer() {
        let Desk { folder, store } = desk();
        let build = Build {
            program: folder.path().join("app.wasm"),
            files: vec![(folder.path().join("site"), "/srv".to_owned())],
            env: vec!["A=1".to_owned()],
            working_dir: "/srv".to_owned(),
            ..Build::default()
        };
        let image = build.run(&store, "app:dev").unwrap();
        assert_eq!(build.run(&store, "app:dev").unwrap(), image);
        let Some(Content::Image(parts)) = content(&store, &image.digest, Use::Run).unwrap() else {
            panic!("it has a manifest");
        };
        assert_eq!(parts.config.config.entrypoint, ["/app.wasm"]);
        let Layout::Root { layers } = parts.layout else {
            panic!("it has a layer");
        };
        let limits = crate::unpack::UnpackLimits::new(1000, 10);
        let root = crate::content::ensure_root(&store, &parts.manifest, &layers, limits).unwrap();
        assert_eq!(fs::read(root.join("srv/css/a.css")).unwrap(), b"a");
        assert!(root.join("app.wasm").exists());
    }

    #[test]
    fn what_makes_no_image_is_refused() {
        let Desk { folder, store } = desk();
        let build = |program: &str, place: &str| Build {
            program: folder.path().join(program),
            files: vec![(folder.path().join("site/index.html"), place.to_owned())],
            ..Build::default()
        };
        for (program, place, why) in [
            ("site/index.html", "/a", "is not WebAssembly"),
            ("none.wasm", "/a", "none.wasm"),
            ("app.wasm", "/../a", "'..'"),
            ("app.wasm", "/", "names no file"),
        ] {
            let error = build(program, place).run(&store, "app:dev").unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(build("app.wasm", "/a").run(&store, "App").is_err());
        assert!(store.images().unwrap().is_empty());
    }
}

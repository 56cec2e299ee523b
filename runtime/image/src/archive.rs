//! Images as files: what `save` writes and `load` reads.
//!
//! Written is an OCI image layout in a tar archive. Read are that, the same as a folder, compressed
//! archives, and what `docker save` wrote before it wrote layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use crate::build::{BuildError, artifact};
use crate::content::manifest_of;
use crate::digest::Digest;
use crate::layout::Use;
use crate::reference::{InvalidReference, Name};
use crate::spec::{Descriptor, MAX_DOCUMENT_BYTES, Manifest, media};
use crate::store::{ImageStore, Origin, Record, StoreError, StoredImage, taggable};
use crate::unpack::decompressed;

/// Where an image's full name stands in an index.
const FULL_NAME: &str = "io.containerd.image.name";
/// Where its tag stands, or its name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in there is no image.
    #[error("{0}")]
    Invalid(String),
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] InvalidReference),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A manifest could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// An image that came out of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its name in the store.
    pub name: String,
    /// The image.
    pub image: StoredImage,
}

/// Puts the images of an archive or of a layout's folder into the store. `tag` names the only one of
/// them; without it they have the names that they came with.
pub fn load_archive(
    store: &ImageStore,
    path: &Path,
    tag: Option<&str>,
) -> Result<Vec<Loaded>, ArchiveError> {
    let tag = tag.map(taggable).transpose()?;
    let mut found = Found::default();
    let failed = |source| ArchiveError::File {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        found.folder(store, path, Path::new(""))?;
    } else {
        let file = BufReader::with_capacity(64 << 10, File::open(path).map_err(failed)?);
        let archive = decompressed(file).map_err(failed)?;
        found.archive(store, archive, path)?;
    }
    let mut images = found.images(store)?;
    if images.is_empty() {
        return Err(ArchiveError::Invalid(format!(
            "{} has no images: it is neither an OCI image layout (index.json) nor what `docker save` \
             writes (manifest.json)",
            path.display()
        )));
    }
    if let Some(tag) = &tag {
        let digests: BTreeSet<_> = images.iter().map(|(_, image)| image.digest).collect();
        if digests.len() > 1 {
            return Err(ArchiveError::Invalid(format!(
                "{} has {} images, and -t names one; leave it out to keep their own names",
                path.display(),
                digests.len()
            )));
        }
        images.truncate(1);
        images[0].0 = Some(tag.to_string());
    }
    let mut loaded = Vec::new();
    for (name, image) in images {
        let name = name.ok_or_else(|| {
            ArchiveError::Invalid(format!(
                "the image {} in {} has no name; give it one with -t NAME:TAG",
                image.digest,
                path.display()
            ))
        })?;
        let name = taggable(&name)?.to_string();
        let missing = store.missing(&image.digest)?;
        let size = store.parts(&image.digest)?.values().sum();
        let image = StoredImage { size, ..image };
        if !store.commit(&Record::new(name.as_str(), &image, Origin::Loaded))? {
            let missing: Vec<_> = missing.iter().map(Digest::to_string).collect();
            return Err(ArchiveError::Invalid(format!(
                "the image {name} in {} is not whole; missing: {}",
                path.display(),
                missing.join(", ")
            )));
        }
        loaded.push(Loaded { name, image });
    }
    Ok(loaded)
}

/// What lies in an archive.
#[derive(Default)]
struct Found {
    /// `index.json` and `manifest.json`.
    documents: BTreeMap<String, Vec<u8>>,
    /// Everything else, which is in the store by now.
    files: BTreeMap<String, StoredImage>,
    /// Paths that stand for others.
    links: BTreeMap<String, String>,
}

impl Found {
    fn archive(
        &mut self,
        store: &ImageStore,
        archive: impl Read,
        path: &Path,
    ) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::File {
            path: path.to_owned(),
            source,
        };
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(failed)? {
            let mut entry = entry.map_err(|error| {
                failed(io::Error::new(
                    error.kind(),
                    format!("is no tar archive: {error}"),
                ))
            })?;
            let name = plain(&entry.path().map_err(failed)?);
            match entry.header().entry_type() {
                tar::EntryType::Regular => self.file(store, name, &mut entry, path)?,
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().map_err(failed)?.unwrap_or_default();
                    let is_hard = entry.header().entry_type() == tar::EntryType::Link;
                    let parent = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let from = if is_hard { Path::new("") } else { parent };
                    self.links.insert(name.clone(), plain(&from.join(target)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn folder(
        &mut self,
        store: &ImageStore,
        root: &Path,
        inner: &Path,
    ) -> Result<(), ArchiveError> {
        let path = root.join(inner);
        let failed = |source| ArchiveError::File {
            path: path.clone(),
            source,
        };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let inner = inner.join(entry.file_name());
            // A layout has two levels below its own.
            if entry.path().is_dir() && inner.components().count() <= 2 {
                self.folder(store, root, &inner)?;
            } else if entry.path().is_file() {
                let mut file = File::open(entry.path()).map_err(failed)?;
                self.file(store, plain(&inner), &mut file, &entry.path())?;
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        store: &ImageStore,
        name: String,
        content: &mut impl Read,
        path: &Path,
    ) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::File {
            path: path.to_owned(),
            source,
        };
        match name.as_str() {
            "oci-layout" | "repositories" => {}
            "index.json" | "manifest.json" => {
                let mut text = Vec::new();
                let mut limited = content.take(MAX_DOCUMENT_BYTES + 1);
                limited.read_to_end(&mut text).map_err(failed)?;
                if text.len() as u64 > MAX_DOCUMENT_BYTES {
                    return Err(ArchiveError::Invalid(format!("{name} is too large")));
                }
                self.documents.insert(name, text);
            }
            _ => {
                let image = store.ingest(content).map_err(failed)?;
                if let Some(hex) = name.strip_prefix("blobs/sha256/")
                    && hex != image.digest.hex()
                {
                    return Err(ArchiveError::Invalid(format!(
                        "{}: the blob {name} is damaged: it has the digest {}",
                        path.display(),
                        image.digest
                    )));
                }
                self.files.insert(name, image);
            }
        }
        Ok(())
    }

    /// Names and images, a layout's before those of the older form.
    fn images(
        &self,
        store: &ImageStore,
    ) -> Result<Vec<(Option<String>, StoredImage)>, ArchiveError> {
        if let Some(index) = self.documents.get("index.json") {
            let index = Manifest::parse(index)
                .map_err(|problem| ArchiveError::Invalid(format!("index.json: {problem}")))?;
            let images = index.manifests.iter().map(|entry| {
                let image = StoredImage {
                    digest: entry.digest,
                    size: entry.size,
                };
                (name_of(entry), image)
            });
            return Ok(images.collect());
        }
        match self.documents.get("manifest.json") {
            Some(text) => self.docker_images(store, text),
            None => Ok(Vec::new()),
        }
    }

    fn docker_images(
        &self,
        store: &ImageStore,
        text: &[u8],
    ) -> Result<Vec<(Option<String>, StoredImage)>, ArchiveError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let saved: Vec<Saved> = serde_json::from_slice(text)
            .map_err(|error| ArchiveError::Invalid(format!("manifest.json: {error}")))?;
        let mut images = Vec::new();
        for one in saved {
            let manifest = Manifest {
                schema_version: 2,
                media_type: media::MANIFEST.to_owned(),
                config: Some(self.part(&one.config, media::CONFIG)?),
                layers: one
                    .layers
                    .iter()
                    .map(|layer| self.part(layer, media::LAYER))
                    .collect::<Result<_, _>>()?,
                ..Manifest::default()
            };
            let bytes = serde_json::to_vec(&manifest).expect("texts always serialise");
            let image = store.put(&bytes)?;
            match one.repo_tags.filter(|tags| !tags.is_empty()) {
                Some(tags) => {
                    images.extend(tags.into_iter().map(|tag| (Some(tag), image.clone())));
                }
                None => images.push((None, image)),
            }
        }
        Ok(images)
    }

    fn part(&self, name: &str, kind: &str) -> Result<Descriptor, ArchiveError> {
        let mut name = plain(Path::new(name));
        for _ in 0..8 {
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => break,
            }
        }
        let part = self.files.get(&name).ok_or_else(|| {
            ArchiveError::Invalid(format!("manifest.json names {name}, which is not there"))
        })?;
        Ok(Descriptor {
            media_type: kind.to_owned(),
            digest: part.digest,
            size: part.size,
            platform: None,
            annotations: BTreeMap::new(),
        })
    }
}

/// The name that an index gives an image; a tag alone is none.
fn name_of(entry: &Descriptor) -> Option<String> {
    let full = entry.annotations.get(FULL_NAME);
    let short = entry.annotations.get(REF_NAME);
    let short = short.filter(|name| name.contains([':', '/']));
    full.or(short).cloned()
}

/// A path without `.`, `..` and the root, in one form.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

/// Writes images of the store, each under its name, as an OCI image layout in a tar archive. The same
/// images always make the same bytes.
pub fn save_archive(
    store: &ImageStore,
    images: &[(Name, Digest)],
    to: impl Write,
) -> Result<(), ArchiveError> {
    let mut archive = tar::Builder::new(to);
    let (mut blobs, mut entries) = (BTreeSet::new(), Vec::new());
    for (name, digest) in images {
        let found = manifest_of(store, digest, Use::Files)
            .map_err(|error| ArchiveError::Invalid(error.to_string()))?;
        let (digest, manifest) = match found {
            Some(found) => found,
            None => {
                let made = artifact(store, digest)?.digest;
                let manifest = store.manifest(&made)?.ok_or_else(|| gone(name))?;
                (made, manifest)
            }
        };
        blobs.insert(digest);
        blobs.extend(
            manifest
                .config
                .iter()
                .chain(&manifest.layers)
                .map(|blob| blob.digest),
        );
        entries.push(Descriptor {
            media_type: manifest.media_type().to_owned(),
            digest,
            size: store.size(&digest).ok_or_else(|| gone(name))?,
            platform: None,
            annotations: BTreeMap::from([
                (FULL_NAME.to_owned(), name.to_string()),
                (REF_NAME.to_owned(), name.tag.clone().unwrap_or_default()),
            ]),
        });
    }
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries});
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    for (name, document) in [("oci-layout", layout), ("index.json", index)] {
        let text = document.to_string();
        append(&mut archive, name, text.len() as u64, text.as_bytes())?;
    }
    for digest in blobs {
        let path = store.blob_path(&digest);
        let failed = |source| ArchiveError::File {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        append(
            &mut archive,
            &format!("blobs/sha256/{}", digest.hex()),
            size,
            file,
        )?;
    }
    archive
        .into_inner()
        .and_then(|mut to| to.flush())
        .map_err(written)
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<(), ArchiveError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive
        .append_data(&mut header, name, content)
        .map_err(written)
}

fn written(source: io::Error) -> ArchiveError {
    ArchiveError::File {
        path: PathBuf::from("the archive"),
        source,
    }
}

fn gone(name: &Name) -> ArchiveError {
    ArchiveError::Invalid(format!(
        "the image {name} is not whole in the store; load or pull it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Build;
    use crate::content::{Content, content};
    use coracle_clock::Clock;

    struct Desk {
        folder: tempfile::TempDir,
        store: ImageStore,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = ImageStore::open(folder.path().join("images"), Clock::fake(1)).unwrap();
            fs::write(folder.path().join("app.wasm"), b"\0asm\x01\0\0\0").unwrap();
            Self { folder, store }
        }

        fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            append(&mut archive, name, bytes.len() as u64, *bytes).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded_as_it_was() {
        let (from, to) = (Desk::new(), Desk::new());
        let program = from.folder.path().join("app.wasm");
        let files = Build {
            program: program.clone(),
            env: vec!["A=1".to_owned()],
            ..Build::default()
        };
        let image = files.run(&from.store, "app:1").unwrap();
        let (bare, bare_image) = from.store.load(&program, "bare:1").unwrap();
        let name: Name = "app:1".parse().unwrap();
        let images = [(name, image.digest), (bare, bare_image.digest)];
        let mut bytes = Vec::new();
        save_archive(&from.store, &images, &mut bytes).unwrap();
        let path = to.write("saved.tar", &bytes);
        let loaded = load_archive(&to.store, &path, None).unwrap();
        let names: Vec<_> = loaded.iter().map(|one| &*one.name).collect();
        assert_eq!(
            names,
            ["docker.io/library/app:1", "docker.io/library/bare:1"]
        );
        assert_eq!(loaded[0].image, image);
        let error = load_archive(&to.store, &path, Some("x:1")).unwrap_err();
        assert!(error.to_string().contains("has 2 images"), "{error}");

        // The same as a folder.
        let folder = to.folder.path().join("layout");
        tar::Archive::new(&bytes[..]).unpack(&folder).unwrap();
        assert_eq!(load_archive(&to.store, &folder, None).unwrap(), loaded);
    }

    #[test]
    fn what_docker_saved_is_loaded() {
        let desk = Desk::new();
        let layer = tar_of(&[("app.wasm", b"\0asm\x01\0\0\0")]);
        let config =
            br#"{"os":"linux","architecture":"amd64","config":{"Entrypoint":["/app.wasm"]}}"#;
        let manifest = br#"[{"Config":"c.json","RepoTags":["app:1","team/app:2"],"Layers":["one/layer.tar"]}]"#;
        let files: [(&str, &[u8]); 3] = [
            ("one/layer.tar", &layer),
            ("c.json", config),
            ("manifest.json", manifest),
        ];
        let path = desk.write("docker.tar", &tar_of(&files));
        let loaded = load_archive(&desk.store, &path, None).unwrap();
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded[1].name, "docker.io/team/app:2");
        let found = content(&desk.store, &loaded[0].image.digest, Use::Run).unwrap();
        let Some(Content::Image(parts)) = found else {
            panic!("it has a manifest");
        };
        assert_eq!(parts.config.config.entrypoint, ["/app.wasm"]);
        let loaded = load_archive(&desk.store, &path, Some("mine:1")).unwrap();
        assert_eq!(loaded[0].name, "docker.io/library/mine:1");
    }

    #[test]
    fn what_is_no_image_or_not_whole_is_named() {
        let desk = Desk::new();
        let digest = Digest::of(b"none");
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{digest}","size":4}}]}}"#
        );
        let hex = digest.hex();
        let blob = format!("blobs/sha256/{hex}");
        for (files, tag, why) in [
            (vec![("x", &b"x"[..])], None, "has no images"),
            (vec![("index.json", &b"{"[..])], None, "index.json:"),
            (vec![("index.json", index.as_bytes())], None, "has no name"),
            (
                vec![("index.json", index.as_bytes())],
                Some("a:1"),
                "is not whole; missing: sha256:",
            ),
            (vec![(&*blob, &b"other"[..])], None, "is damaged"),
            (
                vec![("manifest.json", &br#"[{"Config":"c","Layers":[]}]"#[..])],
                None,
                "which is not there",
            ),
        ] {
            let path = desk.write("odd.tar", &tar_of(&files));
            let error = load_archive(&desk.store, &path, tag)
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
        let path = desk.write("odd.tar", &[7; 2000]);
        let error = load_archive(&desk.store, &path, None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no tar archive"), "{error}");
        assert!(desk.store.images().unwrap().is_empty());
    }
}

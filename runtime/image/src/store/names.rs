//! Names, and what is known of what they mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ImageStore, StoreError, StoredImage, unique};
use crate::digest::Digest;
use crate::keyring::Credential;
use crate::spec::{MAX_DOCUMENT_BYTES, Manifest};

/// Where the image of a name is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Someone put it into the store; no registry is asked for it.
    #[default]
    Loaded,
    /// A file of the node.
    File,
    /// A registry.
    Pulled,
}

/// What is written behind a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name in its full form.
    pub name: String,
    digest: String,
    size: u64,
    /// Where it is from; missing in stores of the first version, which had no registries.
    #[serde(default)]
    pub origin: Origin,
    #[serde(default, skip_serializing_if = "Access::is_open")]
    pub(crate) access: Access,
}

/// Whose credentials have been good for a pulled image. Others' pods have to show theirs first, as in
/// upstream's `KubeletEnsureSecretPulledImages`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    salt: String,
    /// Hashes of credentials; empty when none was needed.
    credentials: BTreeSet<String>,
}

impl Access {
    fn is_open(&self) -> bool {
        self.credentials.is_empty()
    }

    /// Whether one of `credentials` has been good for it, or none was needed.
    pub(crate) fn allows(&self, credentials: &[Credential]) -> bool {
        let known = |one: &Credential| self.credentials.contains(&self.hash(one));
        self.is_open() || credentials.iter().any(known)
    }

    /// Notes with what the image was pulled.
    pub(crate) fn grant(&mut self, store: &ImageStore, credential: &Credential) {
        if self.salt.is_empty() {
            self.salt = unique(store.clock());
        }
        let hash = self.hash(credential);
        self.credentials.insert(hash);
    }

    fn hash(&self, one: &Credential) -> String {
        let parts = [
            &self.salt,
            &one.username,
            &one.password,
            &one.identity_token,
            &one.registry_token,
        ];
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        Digest::of(&text).hex()
    }
}

impl Record {
    /// A record of `name` for `image`.
    pub fn new(name: impl Into<String>, image: &StoredImage, origin: Origin) -> Self {
        Self {
            name: name.into(),
            digest: image.digest.to_string(),
            size: image.size,
            origin,
            access: Access::default(),
        }
    }

    /// What the name means; `None` when the record is damaged.
    pub fn image(&self) -> Option<StoredImage> {
        let digest = self.digest.parse().ok()?;
        Some(StoredImage {
            digest,
            size: self.size,
        })
    }
}

/// An image of the store, under all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// What it is and how large.
    pub image: StoredImage,
    /// Its names in their full form, sorted.
    pub names: Vec<String>,
    /// Someone put it there: it cannot be had again from anywhere else.
    pub loaded: bool,
}

impl ImageStore {
    /// Lets `name` mean `image` from now on; names of files and loaded names alike.
    pub fn set_name(&self, name: &str, image: &StoredImage) -> Result<(), StoreError> {
        let origin = match name.starts_with("file:") {
            true => Origin::File,
            false => Origin::Loaded,
        };
        self.write_record(&Record::new(name, image, origin))
    }

    /// Keeps `bytes` and lets `name` mean them, as one step for whoever removes images meanwhile. What
    /// the name means already is not written again.
    pub(crate) fn put_named(&self, name: &str, bytes: &[u8]) -> Result<StoredImage, StoreError> {
        // Before the lock: hashing takes its time.
        let digest = Digest::of(bytes);
        self.locked(|| {
            let image = self.put_as(digest, bytes)?;
            let known = self
                .record(name)?
                .filter(|known| known.origin != Origin::Pulled);
            if known.and_then(|known| known.image()).as_ref() != Some(&image) {
                self.set_name(name, &image)?;
            }
            Ok(image)
        })
    }

    fn write_record(&self, record: &Record) -> Result<(), StoreError> {
        let text = serde_json::to_vec(record).expect("texts and numbers always serialise");
        let path = self.name_path(&record.name);
        self.disk.replace(&path, &text, &self.clock)
    }

    /// Writes `record` if everything that its image needs is there; false, and nothing is written,
    /// when something has been removed meanwhile.
    pub fn commit(&self, record: &Record) -> Result<bool, StoreError> {
        self.locked(|| {
            let Some(image) = record.image() else {
                return Ok(false);
            };
            let is_whole = self.missing(&image.digest)?.is_empty();
            if is_whole {
                self.write_record(record)?;
            }
            Ok(is_whole)
        })
    }

    /// What is written behind `name`, if anything is, and the image's first blob is there.
    pub fn record(&self, name: &str) -> Result<Option<Record>, StoreError> {
        let path = self.name_path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(other) => return Err(StoreError::new("read", &path)(other)),
        };
        let record = serde_json::from_slice::<Record>(&text)
            .ok()
            .filter(|record| record.name == name)
            .filter(|record| {
                let image = record.image();
                image.is_some_and(|image| self.size(&image.digest).is_some())
            });
        if record.is_none() {
            tracing::warn!(name, path = %path.display(), "name without an image will be ignored");
        }
        Ok(record)
    }

    /// What `name` means, if it means anything and the bytes are there.
    pub fn resolve(&self, name: &str) -> Result<Option<StoredImage>, StoreError> {
        Ok(self.record(name)?.and_then(|record| record.image()))
    }

    /// Every record that can be read, sorted by name.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let folder = self.folder.join("names");
        let entries = fs::read_dir(&folder).map_err(StoreError::new("list", &folder))?;
        let mut records: Vec<Record> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_none())
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The images that have a name, sorted by their first name.
    pub fn images(&self) -> Result<Vec<ImageInfo>, StoreError> {
        let mut images: BTreeMap<Digest, ImageInfo> = BTreeMap::new();
        for record in self.records()? {
            let Some(image) = record.image() else {
                continue;
            };
            let info = images.entry(image.digest).or_insert_with(|| ImageInfo {
                image,
                names: Vec::new(),
                loaded: false,
            });
            info.names.push(record.name);
            info.loaded |= record.origin == Origin::Loaded;
        }
        let mut images: Vec<_> = images.into_values().collect();
        images.sort_by(|a, b| a.names.cmp(&b.names));
        Ok(images)
    }

    /// Names contain slashes and may be longer than a file name: their digest is the file's name.
    pub(super) fn name_path(&self, name: &str) -> PathBuf {
        self.folder
            .join("names")
            .join(Digest::of(name.as_bytes()).hex())
    }

    /// A manifest or index of the store; `None` when it is not there or is no such thing.
    pub(crate) fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        // Most blobs are programs and layers: their size or their first byte tells.
        let size = self.size(digest).unwrap_or(u64::MAX);
        if size > MAX_DOCUMENT_BYTES || !begins_as_json(&self.blob_path(digest)) {
            return Ok(None);
        }
        let bytes = self.get(digest)?;
        Ok(bytes.and_then(|bytes| Manifest::parse(&bytes).ok()))
    }

    /// Every blob that `image` is made of, itself included, with its size; of an index, those of the
    /// manifests that are there.
    pub(crate) fn parts(&self, image: &Digest) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let mut parts = BTreeMap::new();
        parts.insert(*image, self.size(image).unwrap_or(0));
        let Some(manifest) = self.manifest(image)? else {
            return Ok(parts);
        };
        for entry in &manifest.manifests {
            if let Some(inner) = self.manifest(&entry.digest)? {
                parts.insert(entry.digest, entry.size);
                add_blobs(&inner, &mut parts);
            }
        }
        add_blobs(&manifest, &mut parts);
        Ok(parts)
    }

    /// The parts of `image` that are not there, or not whole.
    pub(crate) fn missing(&self, image: &Digest) -> Result<Vec<Digest>, StoreError> {
        if self.size(image).is_none() {
            return Ok(vec![*image]);
        }
        let parts = self.parts(image)?;
        let missing = parts
            .into_iter()
            .filter(|(digest, size)| self.size(digest) != Some(*size));
        Ok(missing.map(|(digest, _)| digest).collect())
    }
}

fn begins_as_json(path: &Path) -> bool {
    let mut first = [0];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first == *b"{"
}

fn add_blobs(manifest: &Manifest, parts: &mut BTreeMap<Digest, u64>) {
    for blob in manifest.config.iter().chain(&manifest.layers) {
        parts.insert(blob.digest, blob.size);
    }
}

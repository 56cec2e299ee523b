//! Taking images out of the store, and what was left behind with them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{ImageStore, StoreError, unique};
use crate::digest::Digest;

impl ImageStore {
    /// Takes `name` away, and its image when that has no other name. False when there is no such name.
    pub fn remove_name(&self, name: &str) -> Result<bool, StoreError> {
        let Some(record) = self.records()?.into_iter().find(|one| one.name == name) else {
            return Ok(false);
        };
        self.locked(|| {
            self.remove_file(&self.name_path(name))?;
            match record.image() {
                Some(image) => self.remove_if_nameless(&image.digest),
                None => Ok(()),
            }
        })?;
        Ok(true)
    }

    /// Takes `image` away with all its names. Blobs that other images need stay.
    pub fn remove_image(&self, image: &Digest) -> Result<(), StoreError> {
        self.locked(|| {
            for record in self.records()? {
                if record.image().is_some_and(|found| found.digest == *image) {
                    self.remove_file(&self.name_path(&record.name))?;
                }
            }
            self.remove_if_nameless(image)
        })
    }

    fn remove_if_nameless(&self, image: &Digest) -> Result<(), StoreError> {
        let named = self.named()?;
        if named.contains(image) {
            return Ok(());
        }
        let kept = self.parts_of(&named)?;
        let mut parts: Vec<_> = self.parts(image)?.into_keys().collect();
        // The manifests go last: as long as they are there, the rest can be found.
        parts.sort_by_key(|part| {
            (
                part == image,
                self.manifest(part).is_ok_and(|m| m.is_some()),
            )
        });
        for part in parts.into_iter().filter(|part| !kept.contains(part)) {
            self.remove_root(&self.root_path(&part))?;
            self.remove_file(&self.blob_path(&part))?;
        }
        Ok(())
    }

    /// Removes what no name and nothing in `used` needs and nobody has touched for `age`: blobs of
    /// names that mean something else by now, half-fetched blobs, files of a killed process. Returns
    /// the bytes of blobs that are gone.
    pub fn sweep(&self, used: &[Digest], age: Duration) -> Result<u64, StoreError> {
        self.locked(|| {
            let mut roots = self.named()?;
            roots.extend(used);
            let kept = self.parts_of(&roots)?;
            let mut freed = 0;
            let is_kept = |path: &Path| {
                let name = path.file_name().and_then(|name| name.to_str());
                let digest = name.and_then(|hex| format!("sha256:{hex}").parse().ok());
                digest.is_some_and(|digest: Digest| kept.contains(&digest))
            };
            for (folder, all) in [("blobs/sha256", false), ("partial", true), ("names", false)] {
                for path in self.old(folder, age)? {
                    let is_temporary = path.extension().is_some_and(|end| end == "tmp");
                    let is_blob = folder == "blobs/sha256";
                    if all && !is_being_written(&path)
                        || !all && (is_temporary || is_blob && !is_kept(&path))
                    {
                        freed += fs::metadata(&path).map_or(0, |found| found.len());
                        self.remove_file(&path)?;
                    }
                }
            }
            for path in self.old("roots", age)? {
                if !is_kept(&path) {
                    self.remove_root(&path)?;
                }
            }
            Ok(freed)
        })
    }

    /// The digests that have a name.
    fn named(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let records = self.records()?;
        let images = records.iter().filter_map(|record| record.image());
        Ok(images.map(|image| image.digest).collect())
    }

    fn parts_of(&self, images: &BTreeSet<Digest>) -> Result<BTreeSet<Digest>, StoreError> {
        let mut all = BTreeSet::new();
        for image in images {
            all.extend(self.parts(image)?.into_keys());
        }
        Ok(all)
    }

    /// What lies in `folder` and is older than `age`.
    fn old(&self, folder: &str, age: Duration) -> Result<Vec<std::path::PathBuf>, StoreError> {
        let folder = self.folder.join(folder);
        let entries = fs::read_dir(&folder).map_err(StoreError::new("list", &folder))?;
        let now = std::time::SystemTime::from(self.clock.now());
        let is_old = |entry: &fs::DirEntry| {
            let changed = entry.metadata().and_then(|found| found.modified());
            // A clock that was set back must not keep things for ever.
            changed.is_ok_and(|at| now.duration_since(at).unwrap_or(Duration::ZERO) >= age)
        };
        Ok(entries
            .flatten()
            .filter(is_old)
            .map(|entry| entry.path())
            .collect())
    }

    fn remove_file(&self, path: &Path) -> Result<(), StoreError> {
        self.disk
            .remove(path)
            .map_err(StoreError::new("remove", path))
    }

    /// Renamed first, so that a half-removed root is never taken for a whole one.
    fn remove_root(&self, path: &Path) -> Result<(), StoreError> {
        if !path.exists() {
            return Ok(());
        }
        let doomed = path.with_extension(format!("{}.tmp", unique(&self.clock)));
        self.disk
            .rename(path, &doomed)
            .and_then(|()| self.disk.remove_folder(&doomed))
            .map_err(StoreError::new("remove", path))
    }
}

fn is_being_written(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| file.try_lock().is_err())
}

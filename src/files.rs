//! Files that must be whole or absent: written beside, synced, then renamed.
//!
//! After a power cut the old contents or the new ones are there; [`sync_folder`] makes sure of the new.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Replaces `path` atomically with `contents`, readable by everyone.
pub fn write_public(path: &Path, contents: &[u8]) -> Result<()> {
    replace(path, contents, 0o644).with_context(|| format!("failed to write {}", path.display()))
}

/// Replaces `path` atomically with `contents`, readable by its owner alone.
pub fn write_secret(path: &Path, contents: &[u8]) -> Result<()> {
    replace(path, contents, 0o600).with_context(|| format!("failed to write {}", path.display()))
}

/// Makes a folder that only its owner may enter, with its parents.
pub fn make_private_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("failed to create the folder {}", path.display()))
}

/// Waits until the files that were replaced in `path` cannot become the old ones again.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("failed to sync the folder {}", path.display()))
}

/// Where writing to `path` really lands: symbolic links are followed, so that a linked file is
/// replaced in its own folder and the link survives.
pub fn resolve_links(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let path = resolve_links(path);
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let outcome =
        write_synced(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, &path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

fn write_synced(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    // The mode above applies to new files only; a left-over from a crash keeps its own.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_link_and_gets_its_mode() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        write_public(&real, b"old").expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        write_secret(&link, b"new").expect("replaced");
        assert_eq!(fs::read(&real).expect("read"), b"new");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(
            fs::metadata(&real).expect("there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(folder.path()).expect("listed").count(),
            2,
            "no left-over"
        );
    }
}

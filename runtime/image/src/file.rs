//! Images that are files of the node.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use coracle_cri::ImageError;

use crate::seen::Stamp;

/// Reads `file:` references below the folders that the node allows.
#[derive(Clone, Debug, Default)]
pub struct FileSource {
    allowed: Vec<PathBuf>,
}

impl FileSource {
    /// A source for files below `folders`. Folders that do not exist allow nothing.
    pub fn new(folders: &[PathBuf]) -> Self {
        let mut allowed = Vec::new();
        for folder in folders {
            match fs::canonicalize(folder) {
                Ok(folder) => allowed.push(folder),
                Err(error) => tracing::warn!(
                    folder = %folder.display(), %error,
                    "folder for images cannot be opened, so no image can come from it"
                ),
            }
        }
        Self { allowed }
    }

    /// The bytes of the file at `path`, at most `limit` of them.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, ImageError> {
        self.open(path)?.read(limit)
    }

    /// The file at `path`. The path is resolved before it is compared with the allowed folders, so a
    /// symbolic link cannot lead out of them.
    pub(crate) fn open<'a>(&self, path: &'a Path) -> Result<OpenFile<'a>, ImageError> {
        let shown = path.display();
        let real = fs::canonicalize(path).map_err(|error| match error.kind() {
            // Whether a forbidden path exists is not told.
            _ if !self.may_mention(path) => self.outside(path),
            io::ErrorKind::NotFound => ImageError::Pull(format!(
                "image file {shown} does not exist on this node; build it, or correct the path in \
                 the manifest"
            )),
            _ => ImageError::Pull(format!("image file {shown} cannot be opened: {error}")),
        })?;
        if !self.allowed.iter().any(|folder| real.starts_with(folder)) {
            return Err(self.outside(path));
        }
        // Not before it is known to be a plain file: opening a pipe waits for its other end.
        let found = fs::metadata(&real).map_err(|error| unreadable(path, &error))?;
        if !found.is_file() {
            let kind = if found.is_dir() {
                "a folder"
            } else {
                "not a plain file"
            };
            return Err(ImageError::Pull(format!(
                "image file {shown} is {kind}; name the .wasm file"
            )));
        }
        let file = File::open(&real).map_err(|error| unreadable(path, &error))?;
        Ok(OpenFile { path, file })
    }

    /// True for paths that lie below an allowed folder as they are written.
    fn may_mention(&self, path: &Path) -> bool {
        let climbs = path
            .components()
            .any(|part| part == std::path::Component::ParentDir);
        let parent_is_inside = || {
            // A missing file in an allowed folder that was reached through a symbolic link.
            let parent = path
                .ancestors()
                .skip(1)
                .find_map(|parent| fs::canonicalize(parent).ok());
            parent
                .is_some_and(|parent| self.allowed.iter().any(|folder| parent.starts_with(folder)))
        };
        self.allowed
            .iter()
            .any(|folder| path.starts_with(folder) && !climbs)
            || parent_is_inside()
    }

    fn outside(&self, path: &Path) -> ImageError {
        let folders: Vec<_> = self
            .allowed
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let allowed = match folders.as_slice() {
            [] => "this node allows no folder for images".to_owned(),
            folders => format!("this node takes images only from {}", folders.join(", ")),
        };
        let folder = path.parent().unwrap_or(path).display();
        ImageError::Pull(format!(
            "image file {} is outside the folders allowed for images: {allowed}; \
             allow its folder with `--allow-images-from {folder}`",
            path.display()
        ))
    }
}

/// A file that may be an image.
pub(crate) struct OpenFile<'a> {
    path: &'a Path,
    file: File,
}

impl OpenFile<'_> {
    /// What it looks like now.
    pub(crate) fn stamp(&self) -> Result<Stamp, ImageError> {
        let found = self.file.metadata();
        let found = found.map_err(|error| unreadable(self.path, &error))?;
        Ok(Stamp::of(&found))
    }

    /// Its bytes from where it was read last, at most `limit` of them.
    pub(crate) fn read(&self, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        let read = (&self.file).take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(self.path, &error))?;
        if bytes.len() as u64 > limit {
            let shown = self.path.display();
            return Err(ImageError::Pull(format!(
                "image file {shown} is larger than the {limit} bytes that this node allows for an image"
            )));
        }
        Ok(bytes)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ImageError {
    ImageError::Pull(format!(
        "image file {} cannot be read: {error}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Vec<u8>, ImageError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), "ErrImagePull");
        error.to_string()
    }

    #[test]
    fn files_below_an_allowed_folder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/app.wasm");
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(&file, b"bytes").unwrap();
        let source = FileSource::new(&[folder.path().to_owned()]);
        assert_eq!(source.read(&file, 5).unwrap(), b"bytes");
        assert!(message(source.read(&file, 4)).contains("larger than the 4 bytes"));
        assert!(message(source.read(folder.path(), 4)).contains("is a folder"));
        assert!(message(source.read(&folder.path().join("no.wasm"), 4)).contains("does not exist"));
    }

    #[test]
    fn other_files_are_refused_without_telling_whether_they_exist() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("app.wasm"), b"bytes").unwrap();
        let source = FileSource::new(&[folder.path().to_owned()]);
        for file in ["app.wasm", "missing.wasm"] {
            let message = message(source.read(&other.path().join(file), 9));
            assert!(message.contains("--allow-images-from"), "{message}");
        }
        let climbing = folder
            .path()
            .join("..")
            .join(other.path().file_name().unwrap());
        assert!(message(source.read(&climbing.join("app.wasm"), 9)).contains("outside"));
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_does_not_lead_out() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("app.wasm"), b"bytes").unwrap();
        let link = folder.path().join("app.wasm");
        std::os::unix::fs::symlink(other.path().join("app.wasm"), &link).unwrap();
        let source = FileSource::new(&[folder.path().to_owned()]);
        assert!(message(source.read(&link, 9)).contains("outside"));
    }
}

//! Relative paths of guests whose libc knows no working directory.
//!
//! wasi-libc, which C, Rust and Python stand on, has no notion of where a process begins: it strips
//! the leading `/` or `./` of every path and looks for the folder that was opened last among those
//! whose names are the longest beginning of it. So a container with a `workingDir` gets it as `.`,
//! after all others. Then what lies in `/` itself would be looked for there too, which is why each
//! folder of the root is opened by its own name as well; a plain file in `/` is what such a guest
//! cannot reach.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cap_primitives::fs::{open_dir, read_base_dir};
use wasmtime_wasi::filesystem::{Dir, OpenMode};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::Preopens;

/// Folders of the root that are opened at most.
const MAX_FOLDERS: usize = 64;

impl Preopens {
    /// Opens for a module what its relative paths need when it begins in `working_dir`, an absolute
    /// path. Nothing, if there is no such folder.
    pub(crate) fn open_working_dir(
        &self,
        context: &mut WasiCtxBuilder,
        working_dir: &str,
    ) -> wasmtime::Result<()> {
        for (folder, place) in self.places(working_dir) {
            if let Some(path) = folder.path() {
                context.preopened_dir(path, place, folder.permissions())?;
            }
        }
        Ok(())
    }

    /// The same for a component.
    pub(crate) fn working_dir(&self, working_dir: &str) -> Vec<(Dir, String)> {
        let places = self.places(working_dir).into_iter();
        places
            .map(|(folder, place)| (folder.into_dir(), place))
            .collect()
    }

    fn places(&self, working_dir: &str) -> Vec<(Folder, String)> {
        let Some(here) = self.folder(working_dir) else {
            return Vec::new();
        };
        let mut places = Vec::new();
        for name in self.top_level() {
            let place = format!("/{name}");
            // A mount there is open already.
            if self.list().all(|(guest, _, _)| guest != place)
                && let Some(folder) = self.folder(&place)
            {
                places.push((folder, place));
            }
        }
        places.push((here, ".".to_owned()));
        places
    }

    fn folder(&self, path: &str) -> Option<Folder> {
        let (host, rest) = self.locate(path)?;
        let mut list = self.list();
        let (_, _, read_only) = list.find(|(_, folder, _)| *folder == host)?;
        let file = open_dir(&File::open(&host).ok()?, &rest).ok()?;
        let whole = (rest == Path::new(".")).then_some(host);
        Some(Folder {
            file,
            whole,
            read_only,
        })
    }

    /// The names of the root's folders.
    fn top_level(&self) -> Vec<String> {
        let root = self.list().find(|(guest, _, _)| *guest == "/");
        let names = root.map(|(_, host, _)| names(host));
        names.and_then(Result::ok).unwrap_or_default()
    }
}

fn names(root: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in read_base_dir(&File::open(root)?)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && names.len() < MAX_FOLDERS
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// A folder that was reached without leaving the mount that it is in.
struct Folder {
    file: File,
    /// Its path when it is a whole mount.
    whole: Option<PathBuf>,
    read_only: bool,
}

impl Folder {
    fn permissions(&self) -> FsPerms {
        match self.read_only {
            true => FsPerms::ReadOnly,
            false => FsPerms::ReadWrite,
        }
    }

    fn into_dir(self) -> Dir {
        let permissions = self.permissions();
        let mode = match self.read_only {
            true => OpenMode::READ,
            false => OpenMode::READ | OpenMode::WRITE,
        };
        Dir::new(self.file, permissions, mode, false)
    }

    /// A path that a guest cannot turn elsewhere between the look and the opening: what is inside a
    /// mount is named by its descriptor.
    #[cfg(target_os = "linux")]
    fn path(&self) -> Option<PathBuf> {
        use std::os::fd::AsRawFd;
        let descriptor = || PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        Some(self.whole.clone().unwrap_or_else(descriptor))
    }

    /// Elsewhere there are no such names, and only whole mounts can be working directories.
    #[cfg(not(target_os = "linux"))]
    fn path(&self) -> Option<PathBuf> {
        self.whole.clone()
    }
}

//! hostPath volumes: folders and files of the host that a manifest names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Problem;

/// What of the host pods never see: the cluster's own data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed<'a> {
    /// The data directory.
    pub(super) data_directory: &'a Path,
    /// The folder in it whose folders are the cluster's volumes, where those may be reached.
    pub(super) volumes: Option<&'a Path>,
}

impl Closed<'_> {
    /// Refuses a path without links that is in the data directory, or holds it: either way a guest could
    /// read the cluster's keys.
    fn check(&self, path: &Path) -> Result<(), Problem> {
        // What is not there yet still has the folder that it will be in.
        let canonical = |path: &Path| {
            let there = path.canonicalize().or_else(|error| {
                let (folder, name) = path.parent().zip(path.file_name()).ok_or(error)?;
                Ok::<_, io::Error>(folder.canonicalize()?.join(name))
            });
            there.unwrap_or_else(|_| path.to_owned())
        };
        let data_directory = canonical(self.data_directory);
        let volumes = self.volumes.map(canonical);
        if volumes.is_some_and(|volumes| path != volumes && path.starts_with(&volumes)) {
            return Ok(());
        }
        if path.starts_with(&data_directory) || data_directory.starts_with(path) {
            return Err(Problem::DataDirectory {
                path: path.to_owned(),
                data_directory,
            });
        }
        Ok(())
    }
}

/// A type of hostPath volumes.
struct Kind {
    /// As a manifest has it.
    name: &'static str,
    /// What is made when there is nothing.
    makes: Makes,
    /// What it must be, in upstream's words; nothing for any.
    wanted: &'static str,
    /// Whether it is that.
    is: fn(&fs::FileType) -> bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Makes {
    Nothing,
    Folder,
    File,
}

/// Upstream's types (`pkg/volume/hostpath/host_path.go`). Without a type nothing is checked, and container
/// runtimes make a folder where there is nothing.
const KINDS: &[Kind] = &[
    Kind {
        name: "",
        makes: Makes::Folder,
        wanted: "",
        is: |_| true,
    },
    Kind {
        name: "Directory",
        makes: Makes::Nothing,
        wanted: "directory",
        is: fs::FileType::is_dir,
    },
    Kind {
        name: "DirectoryOrCreate",
        makes: Makes::Folder,
        wanted: "directory",
        is: fs::FileType::is_dir,
    },
    Kind {
        name: "File",
        makes: Makes::Nothing,
        wanted: "file",
        is: fs::FileType::is_file,
    },
    Kind {
        name: "FileOrCreate",
        makes: Makes::File,
        wanted: "file",
        is: fs::FileType::is_file,
    },
    Kind {
        name: "Socket",
        makes: Makes::Nothing,
        wanted: "socket file",
        is: special::is_socket,
    },
    Kind {
        name: "CharDevice",
        makes: Makes::Nothing,
        wanted: "character device",
        is: special::is_character_device,
    },
    Kind {
        name: "BlockDevice",
        makes: Makes::Nothing,
        wanted: "block device",
        is: special::is_block_device,
    },
];

/// What `path` of that type means, with all links followed; made if the type asks for that.
///
/// Whether it may be seen is checked before anything is made and again after it.
pub(super) fn resolve(path: &str, kind: &str, closed: &Closed<'_>) -> Result<PathBuf, Problem> {
    let Some(kind) = KINDS.iter().find(|known| known.name == kind) else {
        return Err(Problem::NoSuchType(kind.to_owned()));
    };
    let is_not = |wanted: &'static str| Problem::HostPathType {
        path: path.to_owned(),
        wanted,
    };
    let wanted = if kind.wanted.is_empty() {
        "directory"
    } else {
        kind.wanted
    };
    let host = Path::new(path);
    if !host.is_absolute() {
        return Err(is_not(wanted));
    }
    if kind.makes != Makes::Nothing && !host.exists() {
        make(host, kind.makes, closed)?;
    }
    let found = match host.canonicalize() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(is_not(wanted)),
        Err(error) => return Err(Problem::io("open", host)(error)),
    };
    let file_type = fs::metadata(&found)
        .map_err(Problem::io("open", host))?
        .file_type();
    if !(kind.is)(&file_type) {
        return Err(is_not(wanted));
    }
    closed.check(&found)?;
    Ok(found)
}

/// Makes what is missing at `path`, and the folders on the way.
fn make(path: &Path, what: Makes, closed: &Closed<'_>) -> Result<(), Problem> {
    let (nearest, rest) = nearest(path).map_err(Problem::io("open", path))?;
    let wanted = nearest.join(rest);
    closed.check(&wanted)?;
    if what == Makes::Folder {
        return fs::create_dir_all(&wanted).map_err(Problem::io("create folder", &wanted));
    }
    // As upstream, which makes the file and not the folder that it is in.
    let mut options = fs::OpenOptions::new();
    let made = options.write(true).create(true).truncate(false);
    let made = made.open(&wanted).map(drop);
    made.map_err(Problem::io("create file", &wanted))
}

/// The deepest folder on the way to `path` that is there, without links, and what is missing.
fn nearest(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    for ancestor in path.ancestors() {
        match ancestor.canonicalize() {
            Ok(found) => {
                let rest = path
                    .strip_prefix(ancestor)
                    .unwrap_or(Path::new(""))
                    .to_owned();
                let climbs = rest
                    .components()
                    .any(|part| part == std::path::Component::ParentDir);
                return if climbs {
                    Err(io::ErrorKind::NotFound.into())
                } else {
                    Ok((found, rest))
                };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(unix)]
mod special {
    use std::fs::FileType;
    use std::os::unix::fs::FileTypeExt;

    pub(super) fn is_socket(found: &FileType) -> bool {
        found.is_socket()
    }

    pub(super) fn is_character_device(found: &FileType) -> bool {
        found.is_char_device()
    }

    pub(super) fn is_block_device(found: &FileType) -> bool {
        found.is_block_device()
    }
}

/// Other systems have none of them.
#[cfg(not(unix))]
mod special {
    use std::fs::FileType;

    pub(super) fn is_socket(_: &FileType) -> bool {
        false
    }

    pub(super) fn is_character_device(_: &FileType) -> bool {
        false
    }

    pub(super) fn is_block_device(_: &FileType) -> bool {
        false
    }
}

//! hostPath volumes: folders of the host that a manifest names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::Problem;

/// The folder that `source` means, with all links followed; made if its type asks for that.
///
/// A folder that holds the data directory is refused like one inside it: either way a guest could
/// read the cluster's keys. The check comes before anything is made and again after it, on the path
/// without links.
pub(super) fn resolve(
    source: &HostPathVolumeSource,
    data_directory: &Path,
) -> Result<PathBuf, Problem> {
    let path = Path::new(&source.path);
    if !path.is_absolute() {
        return Err(Problem::HostPathMissing(source.path.clone()));
    }
    let make = match source.type_.as_deref().unwrap_or_default() {
        "" | "Directory" => false,
        "DirectoryOrCreate" => true,
        other => return Err(Problem::HostPathType(other.to_owned())),
    };
    let data_directory = data_directory
        .canonicalize()
        .unwrap_or_else(|_| data_directory.to_owned());
    let is_closed =
        |path: &Path| path.starts_with(&data_directory) || data_directory.starts_with(path);
    if make && !path.exists() {
        let (nearest, rest) = nearest(path).map_err(Problem::io("open", path))?;
        let wanted = nearest.join(rest);
        if is_closed(&wanted) {
            return Err(Problem::DataDirectory {
                path: wanted,
                data_directory,
            });
        }
        fs::create_dir_all(&wanted).map_err(Problem::io("create folder", &wanted))?;
    }
    let found = match path.canonicalize() {
        Ok(found) if found.is_dir() => found,
        Ok(_) => return Err(Problem::HostPathMissing(source.path.clone())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Problem::HostPathMissing(source.path.clone()));
        }
        Err(error) => return Err(Problem::io("open", path)(error)),
    };
    if is_closed(&found) {
        Err(Problem::DataDirectory {
            path: found,
            data_directory,
        })
    } else {
        Ok(found)
    }
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

//! Which folders and files of the host a container sees.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use coracle_cri::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use super::{Problem, VolumeError, claim, closed, directory, host_path, make_folder, volumes};
use crate::environment::Sources;
use crate::expand::{MOST_BYTES, expand};
use crate::kubelet::KubeletConfig;

/// What `container` sees, in the order of its spec. `env` is its environment, for `subPathExpr`.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    env: &[(String, String)],
    config: &KubeletConfig,
    sources: &dyn Sources,
) -> Result<Vec<Mount>, VolumeError> {
    let place = Place {
        pod,
        container,
        env,
        config,
        sources,
    };
    let all = container.volume_mounts.iter().flatten().enumerate();
    all.map(|(index, mount)| {
        place
            .mount(index, mount)
            .map_err(|problem| VolumeError::Mount {
                volume: mount.name.clone(),
                path: mount.mount_path.clone(),
                problem: Box::new(problem),
            })
    })
    .collect()
}

/// The file `path` of the emptyDir volume `name`, at most `most` bytes of it; `None` if it is not there.
pub(crate) fn read_file(
    pod: &Pod,
    name: &str,
    path: &str,
    most: usize,
    config: &KubeletConfig,
) -> Result<Option<String>, Problem> {
    let volume = volumes(pod)
        .find(|volume| volume.name == name)
        .ok_or(Problem::NoVolume)?;
    let root = directory(pod, volume, config);
    let found = match sub_path(&root, path, false) {
        Err(Problem::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        found => found?,
    };
    let file = fs::File::open(&found).map_err(Problem::io("open", &found))?;
    let mut text = String::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    io::Read::read_to_string(&mut io::Read::take(file, most), &mut text)
        .map_err(Problem::io("read", &found))?;
    Ok(Some(text))
}

/// A volume as containers find it.
struct Root {
    path: PathBuf,
    /// Guests may write, unless the mount says otherwise.
    may_write: bool,
    /// Its files are swapped for new ones while containers run.
    changes: bool,
}

struct Place<'a> {
    pod: &'a Pod,
    container: &'a Container,
    env: &'a [(String, String)],
    config: &'a KubeletConfig,
    sources: &'a dyn Sources,
}

impl Place<'_> {
    fn mount(&self, index: usize, mount: &VolumeMount) -> Result<Mount, Problem> {
        let volume = volumes(self.pod)
            .find(|volume| volume.name == mount.name)
            .ok_or(Problem::NoVolume)?;
        let root = self.root(volume)?;
        let mut within = None;
        let host_path = match self.sub_path_of(mount)? {
            Some(path) => {
                let found = sub_path(&root.path, &path, root.may_write)?;
                if root.changes && found.is_dir() {
                    self.copy(index, volume, &found)?
                } else {
                    let whole = root.path.canonicalize();
                    let whole = whole.map_err(Problem::io("open", &root.path))?;
                    within = Some(whole).filter(|_| root.may_write);
                    found
                }
            }
            None => root.path,
        };
        if !host_path.is_dir() && !host_path.is_file() {
            return Err(Problem::NotMountable(host_path));
        }
        Ok(Mount {
            host_path,
            container_path: mount.mount_path.clone(),
            // Files that come from objects are never written by guests (as upstream since 1.9.6).
            read_only: !root.may_write || mount.read_only == Some(true),
            within,
        })
    }

    fn root(&self, volume: &Volume) -> Result<Root, Problem> {
        if let Some(source) = &volume.host_path {
            let kind = source.type_.as_deref().unwrap_or_default();
            return Ok(Root {
                path: host_path::resolve(&source.path, kind, &closed(self.config, None))?,
                may_write: true,
                changes: false,
            });
        }
        if claim::name(self.pod, volume).is_some() {
            let volumes = self.config.volumes_directory();
            let closed = closed(self.config, Some(&volumes));
            let found = claim::resolve(self.pod, volume, self.sources, &closed)?;
            return Ok(Root {
                path: found.path,
                may_write: !found.read_only,
                changes: false,
            });
        }
        if volume.image.is_some() {
            let files = self.sources.image_files(&volume.name);
            return Ok(Root {
                path: files.ok_or(Problem::NoImage)?,
                may_write: false,
                changes: false,
            });
        }
        let is_empty_dir = volume.empty_dir.is_some();
        Ok(Root {
            path: directory(self.pod, volume, self.config),
            may_write: is_empty_dir,
            changes: !is_empty_dir,
        })
    }

    /// The path in the volume that the mount is about.
    fn sub_path_of(&self, mount: &VolumeMount) -> Result<Option<String>, Problem> {
        let some = |path: &Option<String>| path.clone().filter(|path| !path.is_empty());
        let Some(expression) = some(&mount.sub_path_expr) else {
            return Ok(some(&mount.sub_path));
        };
        let missing = RefCell::new(None);
        let lookup = |name: &str| {
            let found = self.env.iter().find(|(key, _)| key == name);
            if found.is_none() {
                missing.borrow_mut().get_or_insert_with(|| name.to_owned());
            }
            found.map(|(_, value)| value.clone())
        };
        let expanded = expand(&expression, MOST_BYTES, lookup);
        match (expanded, missing.into_inner()) {
            (Some(path), None) => Ok(Some(path)),
            (_, variable) => Err(Problem::Expression {
                expression,
                variable: variable.unwrap_or_default(),
            }),
        }
    }

    /// A copy of a folder whose volume may swap it away under a container that runs: a mount with a
    /// `subPath` shows what there was when its container started, as upstream's do.
    fn copy(&self, index: usize, volume: &Volume, from: &Path) -> Result<PathBuf, Problem> {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let pod = self.config.defaults.pod_directory(uid);
        let folder = pod.join("volume-subpaths").join(&volume.name);
        let to = folder.join(&self.container.name).join(index.to_string());
        match fs::remove_dir_all(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Problem::io("remove", &to)(error));
            }
            _ => {}
        }
        make_folder(&to)?;
        copy_files(from, &to)?;
        Ok(to)
    }
}

/// Copies a folder of files that the kubelet wrote itself.
fn copy_files(from: &Path, to: &Path) -> Result<(), Problem> {
    for entry in fs::read_dir(from).map_err(Problem::io("list", from))? {
        let entry = entry.map_err(Problem::io("list", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            make_folder(&target)?;
            copy_files(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(Problem::io("copy", &source))?;
        }
    }
    Ok(())
}

/// What is at `path` below `root`; a folder is made there if nothing is. A guest may have put links into
/// the volume, so every step is resolved and has to stay inside.
fn sub_path(root: &Path, path: &str, may_write: bool) -> Result<PathBuf, Problem> {
    let root = root.canonicalize().map_err(Problem::io("open", root))?;
    let mut found = root.clone();
    for name in relative(path)? {
        let next = found.join(name);
        match next.canonicalize() {
            Ok(resolved) => found = resolved,
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_write => {
                fs::create_dir(&next).map_err(Problem::io("create folder", &next))?;
                found = next;
            }
            Err(error) => return Err(Problem::io("open", &next)(error)),
        }
        if !found.starts_with(&root) {
            return Err(Problem::Escapes(path.to_owned()));
        }
    }
    Ok(found)
}

/// The names that make up a relative path; refuses everything that could lead elsewhere.
pub(super) fn relative(path: &str) -> Result<Vec<&OsStr>, Problem> {
    let names = Path::new(path)
        .components()
        .map(|component| match component {
            Component::Normal(name) => Some(name),
            _ => None,
        });
    let names: Option<Vec<_>> = names.collect();
    names
        .filter(|names| !names.is_empty())
        .ok_or_else(|| Problem::Escapes(path.to_owned()))
}

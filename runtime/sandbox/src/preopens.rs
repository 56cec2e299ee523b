//! The folders that a guest sees: its mounts, and a root of its own.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use coracle_cri::{Mount, RuntimeError};
use wasmtime_wasi::filesystem::{Dir, OpenMode};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

mod working_dir;

/// What the pod's files under `/etc` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodFiles {
    pub(crate) hosts: String,
    pub(crate) resolv_conf: String,
    pub(crate) hostname: String,
}

/// Folders to open for each instance, `/` first. The longest prefix of a path decides which one a
/// guest reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preopens(Arc<Vec<Preopen>>);

#[derive(Clone, Debug)]
struct Preopen {
    host: PathBuf,
    guest: String,
    read_only: bool,
    within: Option<PathBuf>,
}

/// Refuses what a guest has meanwhile made a link of, which leads out of the folder it was in.
fn confined(host: &Path, within: Option<&PathBuf>) -> io::Result<()> {
    let Some(within) = within else {
        return Ok(());
    };
    if fs::canonicalize(host)?.starts_with(within) {
        return Ok(());
    }
    let why = format!("{} leads out of {}", host.display(), within.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

impl Preopens {
    /// Makes the container's root in `root`: a copy of the image's files if it has any, the pod's
    /// files and the places of the mounts. Checks that every mount can be opened. Blocks on the disk.
    pub(crate) fn prepare(
        root: &Path,
        image: Option<PathBuf>,
        files: &PodFiles,
        mounts: &[Mount],
    ) -> Result<Self, RuntimeError> {
        let failed = |error: io::Error| {
            RuntimeError::Start(format!(
                "failed to prepare the root folder {}: {error}",
                root.display()
            ))
        };
        make_root(root, image, files).map_err(failed)?;
        let mut preopens = vec![Preopen {
            host: root.to_owned(),
            guest: "/".to_owned(),
            read_only: false,
            within: None,
        }];
        for mount in mounts {
            let guest = guest_path(&mount.container_path)?;
            let refused = |why: String| {
                RuntimeError::Start(format!(
                    "mount {guest} from {}: {why}",
                    mount.host_path.display()
                ))
            };
            confined(&mount.host_path, mount.within.as_ref())
                .map_err(|e| refused(e.to_string()))?;
            let found = fs::metadata(&mount.host_path).map_err(|e| refused(e.to_string()))?;
            if found.is_file() {
                let outer = outer_mount(mounts, &guest)?;
                if let Some(outer) = outer {
                    return Err(refused(format!(
                        "a file cannot be mounted inside the mount {outer}"
                    )));
                }
                place_file(root, Path::new(&guest), mount)
                    .map_err(|error| refused(error.to_string()))?;
                continue;
            }
            if !found.is_dir() {
                return Err(refused("only folders and files can be mounted".to_owned()));
            }
            // So that the guest sees the place when it lists the folder above. A place inside
            // another mount is left to that mount.
            own_folder(root, Path::new(&guest)).map_err(failed)?;
            let read_only = mount.read_only;
            preopens.push(Preopen {
                host: mount.host_path.clone(),
                guest,
                read_only,
                within: mount.within.clone(),
            });
        }
        Ok(Self(Arc::new(preopens)))
    }

    /// Lets the guest only read its root, but for the folder of the absolute guest path `file`, where it says why it
    /// ends: upstream mounts that file. One right in the root cannot be written.
    pub(crate) fn freeze_root(&mut self, root: &Path, file: &str) -> io::Result<()> {
        let folders = Arc::make_mut(&mut self.0);
        if let Some(first) = folders.first_mut() {
            first.read_only = true;
        }
        let is_plain = |path: &&Path| {
            let mut parts = path.components();
            parts.next() == Some(Component::RootDir)
                && path.components().count() > 1
                && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        let folder = Path::new(file).parent().filter(is_plain);
        let Some(folder) = folder.and_then(Path::to_str) else {
            return Ok(());
        };
        if folders.iter().any(|other| other.guest == folder) {
            return Ok(());
        }
        folders.push(Preopen {
            host: own_folder(root, Path::new(folder))?,
            guest: folder.to_owned(),
            read_only: false,
            within: None,
        });
        Ok(())
    }

    /// Adds a folder that the guest may only read.
    pub(crate) fn add_read_only(&mut self, host: PathBuf, guest: &str) {
        Arc::make_mut(&mut self.0).push(Preopen {
            host,
            guest: guest.to_owned(),
            read_only: true,
            within: None,
        });
    }

    /// Guest path, host path and whether it is read-only, of each folder.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&str, &Path, bool)> {
        let list = self.0.iter();
        list.map(|folder| {
            (
                folder.guest.as_str(),
                folder.host.as_path(),
                folder.read_only,
            )
        })
    }

    /// The folder of the host that holds the absolute guest path, and the path within it.
    pub(crate) fn locate(&self, path: &str) -> Option<(PathBuf, PathBuf)> {
        let below = |folder: &Preopen| {
            let rest = match folder.guest.as_str() {
                "/" => path,
                guest => path.strip_prefix(guest)?,
            };
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
        };
        let holding = self
            .0
            .iter()
            .filter_map(|folder| Some((folder, below(folder)?)));
        let (folder, rest) = holding.min_by_key(|(_, rest)| rest.len())?;
        confined(&folder.host, folder.within.as_ref()).ok()?;
        let rest = if rest.is_empty() { "." } else { rest };
        Some((folder.host.clone(), rest.into()))
    }

    /// Opens the folders for one instance.
    pub(crate) fn open(&self, context: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        for folder in self.0.iter() {
            confined(&folder.host, folder.within.as_ref())?;
            context.preopened_dir(&folder.host, &folder.guest, folder.permissions())?;
        }
        Ok(())
    }

    /// Opens the folders when an instance asks for them, which most that answer a request never do.
    pub(crate) fn open_late(&self) -> wasmtime::Result<Vec<(Dir, String)>> {
        let folders = self.0.iter();
        let opened = folders.map(|folder| {
            confined(&folder.host, folder.within.as_ref())?;
            let (mode, permissions) = match folder.read_only {
                true => (OpenMode::READ, folder.permissions()),
                false => (OpenMode::READ | OpenMode::WRITE, folder.permissions()),
            };
            let file = cap_primitives::fs::open_ambient_dir(
                &folder.host,
                cap_primitives::ambient_authority(),
            )?;
            let dir = Dir::new(file, permissions, mode, false);
            Ok::<_, wasmtime::Error>((dir, folder.guest.clone()))
        });
        opened.collect()
    }
}

impl Preopen {
    fn permissions(&self) -> FsPerms {
        match self.read_only {
            true => FsPerms::ReadOnly,
            false => FsPerms::ReadWrite,
        }
    }
}

/// A fresh root: what an earlier run of the container wrote is gone, as in every container.
fn make_root(root: &Path, image: Option<PathBuf>, files: &PodFiles) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match image {
        Some(image) => copy(&image, root)?,
        None => fs::create_dir_all(root)?,
    }
    own_folder(root, Path::new("tmp"))?;
    let etc = own_folder(root, Path::new("etc"))?;
    let hostname = format!("{}\n", files.hostname);
    for (name, text) in [
        ("hosts", &files.hosts),
        ("resolv.conf", &files.resolv_conf),
        ("hostname", &hostname),
    ] {
        new_file(&etc.join(name))?.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// The mount of a folder that holds the absolute guest path, if any does.
fn outer_mount(mounts: &[Mount], path: &str) -> Result<Option<String>, RuntimeError> {
    for mount in mounts {
        let guest = guest_path(&mount.container_path)?;
        let rest = path.strip_prefix(guest.as_str());
        if rest.is_some_and(|rest| rest.starts_with('/')) {
            return Ok(Some(guest));
        }
    }
    Ok(None)
}

/// Makes a file of the host a file of the root, since guests open nothing but folders: a copy of one that
/// may only be read, another name of one that may be written.
fn place_file(root: &Path, place: &Path, mount: &Mount) -> io::Result<()> {
    let name = place.file_name().unwrap_or_default();
    let folder = own_folder(root, place.parent().unwrap_or(Path::new("/")))?;
    let file = folder.join(name);
    remove(&file)?;
    if mount.read_only {
        return fs::copy(&mount.host_path, &file).map(drop);
    }
    fs::hard_link(&mount.host_path, &file).map_err(|error| {
        let why = format!(
            "a file that may be written has to be one of the node's own file system ({error}); \
             mount the folder that holds it, or mount the file with readOnly: true"
        );
        io::Error::new(error.kind(), why)
    })
}

/// The folder at `way` below the root of a container that does not run yet, made where it is missing.
/// An image may have anything on the way, above all links that lead out of the root: what is no folder
/// gives way to one.
pub(crate) fn own_folder(root: &Path, way: &Path) -> io::Result<PathBuf> {
    let mut here = root.to_owned();
    for part in way.components() {
        match part {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(part) => here.push(part),
            Component::ParentDir | Component::Prefix(_) => {
                let why = format!("{} must not lead upwards", way.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
        }
        match fs::create_dir(&here) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&here)?.is_dir() {
                    fs::remove_file(&here)?;
                    fs::create_dir(&here)?;
                }
            }
            made => made?,
        }
    }
    Ok(here)
}

/// A new file at `path`, in place of whatever else is there.
fn new_file(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(path)?;
            File::create_new(path)
        }
        made => made,
    }
}

/// Removes whatever is at `path`; a link goes, and not what it leads to.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies a folder. File systems that share blocks between copies do so here (`copy_file_range`).
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&source, &target)?;
        } else if kind.is_symlink() {
            #[cfg(unix)]
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Absolute, without `.` or `..`, and without a slash at the end.
fn guest_path(path: &str) -> Result<String, RuntimeError> {
    let mut parts = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(RuntimeError::Start(format!(
                    "mount path {path} must not contain '..'"
                )));
            }
        }
    }
    if parts.is_empty() {
        return Err(RuntimeError::Start(
            "a mount cannot replace the root folder".to_owned(),
        ));
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(host: &Path, guest: &str) -> Mount {
        Mount {
            host_path: host.to_owned(),
            container_path: guest.to_owned(),
            read_only: true,
            within: None,
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_became_a_link_out_of_its_volume_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (root, volume) = (folder.path().join("root"), folder.path().join("volume"));
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        let volume = volume.canonicalize().unwrap();
        let sub = Mount {
            within: Some(volume.clone()),
            ..mount(&volume.join("sub"), "/sub")
        };
        let made = Preopens::prepare(&root, None, &PodFiles::default(), &[sub]);
        let preopens = made.unwrap();
        preopens.open(&mut WasiCtxBuilder::new()).unwrap();
        std::fs::rename(volume.join("sub"), volume.join("other")).unwrap();
        std::os::unix::fs::symlink("other", volume.join("sub")).unwrap();
        preopens.open(&mut WasiCtxBuilder::new()).unwrap();
        std::fs::remove_file(volume.join("sub")).unwrap();
        std::os::unix::fs::symlink("..", volume.join("sub")).unwrap();
        let refused = preopens.open(&mut WasiCtxBuilder::new()).unwrap_err();
        assert!(
            format!("{refused:#}").contains("leads out of"),
            "{refused:#}"
        );
    }

    #[test]
    fn every_run_gets_a_fresh_root_with_places_for_its_mounts() {
        let folder = tempfile::tempdir().unwrap();
        let (root, data) = (folder.path().join("root"), folder.path().join("data"));
        std::fs::create_dir(&data).unwrap();
        let files = PodFiles {
            hostname: "web-0".to_owned(),
            ..PodFiles::default()
        };
        let mounts = [mount(&data, "/var/lib/data/")];
        Preopens::prepare(&root, None, &files, &mounts).unwrap();
        assert!(root.join("var/lib/data").is_dir());
        std::fs::write(root.join("left-over"), "").unwrap();
        Preopens::prepare(&root, None, &files, &mounts).unwrap();
        assert!(!root.join("left-over").exists());
        assert_eq!(
            std::fs::read_to_string(root.join("etc/hostname")).unwrap(),
            "web-0\n"
        );
    }

    #[cfg(unix)]
    #[test]
    fn the_image_is_copied_and_the_pods_files_are_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (root, image) = (folder.path().join("root"), folder.path().join("image"));
        std::fs::create_dir_all(image.join("lib")).unwrap();
        std::fs::create_dir_all(image.join("etc")).unwrap();
        std::fs::write(image.join("lib/data"), "image").unwrap();
        std::os::unix::fs::symlink("lib/data", image.join("link")).unwrap();
        let outside = folder.path().join("outside");
        std::fs::write(&outside, "outside").unwrap();
        std::os::unix::fs::symlink(&outside, image.join("etc/hosts")).unwrap();
        let files = PodFiles {
            hosts: "hosts".to_owned(),
            ..PodFiles::default()
        };
        Preopens::prepare(&root, Some(image.clone()), &files, &[]).unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&root.join("link")), "image");
        assert_eq!(read(&root.join("etc/hosts")), "hosts");
        assert_eq!(read(&outside), "outside");
        std::fs::write(root.join("lib/data"), "changed").unwrap();
        assert_eq!(read(&image.join("lib/data")), "image");
    }

    #[cfg(unix)]
    #[test]
    fn links_of_an_image_do_not_lead_a_mounts_place_out() {
        let folder = tempfile::tempdir().unwrap();
        let (root, image) = (folder.path().join("root"), folder.path().join("image"));
        std::fs::create_dir(&image).unwrap();
        std::os::unix::fs::symlink("../outside", image.join("data")).unwrap();
        std::os::unix::fs::symlink("../outside", image.join("tmp")).unwrap();
        std::fs::write(image.join("file"), "").unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let mounts = [mount(&outside, "/data/a/b"), mount(&outside, "/file/a")];
        Preopens::prepare(&root, Some(image), &PodFiles::default(), &mounts).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        for way in ["data/a/b", "file/a", "tmp"] {
            let found = std::fs::symlink_metadata(root.join(way)).unwrap();
            assert!(found.is_dir(), "{way}");
        }
        assert!(own_folder(&root, Path::new("a/../../b")).is_err());
    }

    #[test]
    fn a_file_is_a_copy_to_read_or_the_same_file_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let (root, file) = (folder.path().join("root"), folder.path().join("file"));
        std::fs::write(&file, "1").unwrap();
        let writable = Mount {
            read_only: false,
            ..mount(&file, "/etc/hosts")
        };
        let mounts = [mount(&file, "/etc/app/a.conf"), writable];
        for _ in 0..2 {
            let made = Preopens::prepare(&root, None, &PodFiles::default(), &mounts);
            assert_eq!(made.unwrap().list().count(), 1, "the root alone");
        }
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&root.join("etc/hosts")), "1");
        std::fs::write(root.join("etc/hosts"), "2").unwrap();
        std::fs::write(root.join("etc/app/a.conf"), "3").unwrap();
        assert_eq!(read(&file), "2");
        let nested = [mount(folder.path(), "/etc"), mounts[0].clone()];
        let refused = Preopens::prepare(&root, None, &PodFiles::default(), &nested);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("inside the mount /etc"), "{message}");
    }

    #[test]
    fn a_mount_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let missing = folder.path().join("missing");
        for (host, guest) in [
            (&missing, "/a"),
            (&file, "/"),
            (&root, "/"),
            (&root, "/a/../b"),
        ] {
            let result =
                Preopens::prepare(&root, None, &PodFiles::default(), &[mount(host, guest)]);
            assert!(matches!(result, Err(RuntimeError::Start(_))), "{guest}");
        }
    }

    #[test]
    fn a_frozen_root_leaves_a_place_for_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for (file, place) in [
            ("/dev/termination-log", Some("/dev")),
            ("/why", None),
            ("", None),
            ("dev/relative", None),
            ("/../x/why", None),
        ] {
            let made = Preopens::prepare(&root, None, &PodFiles::default(), &[]);
            let mut preopens = made.unwrap();
            preopens.freeze_root(&root, file).unwrap();
            let list: Vec<_> = preopens.list().collect();
            assert_eq!(list[0], ("/", root.as_path(), true));
            let other = list
                .get(1)
                .map(|(guest, _, read_only)| (*guest, *read_only));
            assert_eq!(other, place.map(|place| (place, false)), "{file}");
        }
    }
}

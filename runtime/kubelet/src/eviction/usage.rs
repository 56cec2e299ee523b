//! What the files of a pod come to, by walking its folder. Blocks on the disk.
//!
//! ```text
//! <pod>/volumes/<name>   its volumes          <pod>/logs/<container>   its logs
//! <pod>/root/<container> the root of a container: what of it was written since it started
//! ```

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::path::Path;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::kubelet::KubeletConfig;
use crate::step::parts;
use crate::volumes::{directory, volumes};

/// Bytes on disk of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of volumes that are files of the pod, by name.
    pub(crate) volumes: BTreeMap<String, u64>,
    /// Of logs and roots, by container.
    pub(crate) containers: BTreeMap<String, u64>,
}

/// What `pod` has on disk. `since` says when the latest run of a container started: what an image brought
/// is older, and is not counted.
pub(crate) fn measure(
    pod: &Pod,
    config: &KubeletConfig,
    since: impl Fn(&str) -> Option<Timestamp>,
) -> Usage {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let folder = config.defaults.pod_directory(uid);
    let mut usage = Usage::default();
    let local = volumes(pod).filter(|volume| {
        let is_ours = volume.config_map.is_some() || volume.secret.is_some();
        let is_made = volume.downward_api.is_some() || volume.projected.is_some();
        volume.empty_dir.is_some() || is_ours || is_made
    });
    for volume in local {
        let used = size(&directory(pod, volume, config), None);
        usage.volumes.insert(volume.name.clone(), used);
    }
    let logs = config.defaults.log_directory(uid);
    for part in pod.spec.iter().flat_map(parts) {
        let name = part.name();
        let mut used = size(&logs.join(name), None);
        if let Some(since) = since(name) {
            used += size(&folder.join("root").join(name), Some(since));
        }
        usage.containers.insert(name.to_owned(), used);
    }
    usage
}

/// Bytes on disk of everything in a folder, or of what has changed in it since.
pub(super) fn size(folder: &Path, since: Option<Timestamp>) -> u64 {
    count(folder, since).0
}

/// Bytes on disk and files of everything in a folder, or of what has changed in it since. Nothing is
/// followed, and a file with several names counts once. What cannot be read is gone, most likely.
pub(crate) fn count(folder: &Path, since: Option<Timestamp>) -> (u64, u64) {
    let (mut total, mut files, mut seen) = (0u64, 0u64, HashSet::new());
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                waiting.push(entry.path());
            }
            if since.is_some_and(|since| !has_changed(&found, since)) {
                continue;
            }
            if first_name(&found, &mut seen) {
                total = total.saturating_add(on_disk(&found));
                files += 1;
            }
        }
    }
    (total, files)
}

#[cfg(unix)]
fn on_disk(found: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    // POSIX says 512 whatever the file system's own blocks are.
    found.blocks().saturating_mul(512)
}

#[cfg(unix)]
fn first_name(found: &Metadata, seen: &mut HashSet<(u64, u64)>) -> bool {
    use std::os::unix::fs::MetadataExt;
    found.is_dir() || found.nlink() < 2 || seen.insert((found.dev(), found.ino()))
}

/// By the time of the inode's change, which a guest cannot set.
#[cfg(unix)]
fn has_changed(found: &Metadata, since: Timestamp) -> bool {
    use std::os::unix::fs::MetadataExt;
    (found.ctime(), found.ctime_nsec()) >= (since.as_second(), i64::from(since.subsec_nanosecond()))
}

#[cfg(not(unix))]
fn on_disk(found: &Metadata) -> u64 {
    found.len()
}

#[cfg(not(unix))]
fn first_name(_: &Metadata, _: &mut HashSet<(u64, u64)>) -> bool {
    true
}

#[cfg(not(unix))]
fn has_changed(found: &Metadata, since: Timestamp) -> bool {
    let changed = found.modified().ok();
    changed.is_none_or(|changed| changed >= std::time::SystemTime::from(since))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_counts_with_all_that_is_in_it_and_nothing_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        assert_eq!(size(&file("none"), None), 0);
        fs::create_dir(file("deep")).expect("made");
        let before = size(folder.path(), None);
        fs::write(file("deep/a"), vec![1; 100_000]).expect("written");
        let one = size(folder.path(), None);
        assert!(one >= before + 100_000, "{before} {one}");
        fs::hard_link(file("deep/a"), file("b")).expect("linked");
        std::os::unix::fs::symlink("/", file("out")).expect("linked");
        assert!(size(folder.path(), None) < one + 50_000);
        // A file that is only said to be long takes no room.
        let sparse = fs::File::create(file("sparse")).expect("made");
        sparse.set_len(1 << 40).expect("said");
        assert!(size(folder.path(), None) < 1 << 30);
    }

    #[test]
    fn what_was_there_before_is_not_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("image"), vec![1; 100_000]).expect("written");
        let found = fs::metadata(folder.path().join("image")).expect("there");
        let at = |second| Timestamp::from_second(second).expect("in range");
        let changed = std::os::unix::fs::MetadataExt::ctime(&found);
        assert_eq!(size(folder.path(), Some(at(changed + 60))), 0);
        assert!(size(folder.path(), Some(at(changed - 60))) >= 100_000);
    }
}

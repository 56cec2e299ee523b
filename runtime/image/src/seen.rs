//! Which files of the node need not be read again.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::digest::Digest;

/// Files that are remembered; then all are forgotten.
const MOST: usize = 4096;
/// A file that was changed this shortly before it was read may change again and look the same: file systems count
/// time in steps.
const SETTLED: SignedDuration = SignedDuration::from_secs(2);

/// What a file looks like without a look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    written: Option<SystemTime>,
    /// Device, inode, and when either the file or what is known of it changed: seconds and nanoseconds. A copy that keeps
    /// the time of its original differs in these.
    place: [i64; 4],
}

impl Stamp {
    /// The stamp of a file with that metadata.
    pub(crate) fn of(found: &Metadata) -> Self {
        Self {
            size: found.len(),
            written: found.modified().ok(),
            place: place(found),
        }
    }

    /// When the file changed last.
    fn changed(&self) -> Option<Timestamp> {
        let written = Timestamp::try_from(self.written?).ok()?;
        let [.., seconds, nanoseconds] = self.place;
        let moved = Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?;
        Some(written.max(moved))
    }
}

#[cfg(unix)]
fn place(found: &Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    let number = u64::cast_signed;
    [
        number(found.dev()),
        number(found.ino()),
        found.ctime(),
        found.ctime_nsec(),
    ]
}

#[cfg(not(unix))]
fn place(_: &Metadata) -> [i64; 4] {
    [0; 4]
}

/// Digests of files as they were when they were read.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<PathBuf, (Stamp, Digest)>>);

impl Seen {
    /// The digest of the file at `path`, if it has been read and looks the same.
    pub(crate) fn digest(&self, path: &Path, stamp: &Stamp) -> Option<Digest> {
        let seen = self.0.lock();
        let (known, digest) = seen.get(path)?;
        (known == stamp).then_some(*digest)
    }

    /// Remembers what was read at `now`, if a change since would show.
    pub(crate) fn remember(&self, path: &Path, stamp: Stamp, digest: Digest, now: Timestamp) {
        let settled = stamp
            .changed()
            .is_some_and(|changed| now.duration_since(changed) > SETTLED);
        let mut seen = self.0.lock();
        if !settled {
            seen.remove(path);
            return;
        }
        if seen.len() >= MOST {
            seen.clear();
        }
        seen.insert(path.to_owned(), (stamp, digest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_whose_changes_would_show_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.wasm");
        std::fs::write(&path, b"one").unwrap();
        let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
        let changed = stamp.changed().expect("a time");
        let (seen, digest) = (Seen::default(), Digest::of(b"one"));
        seen.remember(&path, stamp, digest, changed + SETTLED);
        assert_eq!(seen.digest(&path, &stamp), None);
        seen.remember(&path, stamp, digest, changed + SETTLED * 2);
        assert_eq!(seen.digest(&path, &stamp), Some(digest));
        let other = Stamp { size: 4, ..stamp };
        assert_eq!(seen.digest(&path, &other), None);
        // Once it changed again, nothing of before counts.
        seen.remember(&path, stamp, digest, changed);
        assert_eq!(seen.digest(&path, &stamp), None);
    }
}

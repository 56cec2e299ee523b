//! Layers over each other into one folder, by the rules of the OCI image specification's layers.
//!
//! Nothing of an archive is trusted: a path never leaves the folder, be it by `..` or through symbolic
//! links; devices and pipes are left out; bytes and entries have bounds, unpacked, so that a small
//! archive cannot fill the disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use tar::EntryType;

use crate::store::Disk;

/// What an unpacked image may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnpackLimits {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files, folders and links.
    pub(crate) entries: u64,
    /// Bytes of the archives themselves, decompressed: the files, and whatever is read past, which
    /// compresses just as well.
    archives: u64,
}

impl UnpackLimits {
    /// Limits for `bytes` of files in so many `entries`.
    pub(crate) fn new(bytes: u64, entries: u64) -> Self {
        let around = entries.saturating_mul(AROUND_ENTRY);
        Self {
            bytes,
            entries,
            archives: bytes.saturating_add(around).saturating_add(MAX_HEADER),
        }
    }
}

/// Bytes of an archive that an entry may have, on an average, beside its content: its header, its
/// padding, a long name.
const AROUND_ENTRY: u64 = 2048;

/// Longest path of an entry.
const MAX_PATH: usize = 4096;
/// Deepest path of an entry.
const MAX_DEPTH: usize = 128;
/// Largest header beside the usual one (long names, extended attributes).
const MAX_HEADER: u64 = 1 << 20;
/// Links in a row.
const MAX_LINKS: usize = 40;

/// Unpacks the archive of one layer over what `root` has.
pub(crate) fn layer(
    disk: &Disk,
    archive: &Path,
    root: &Path,
    left: &mut UnpackLimits,
) -> io::Result<()> {
    let file = BufReader::with_capacity(64 << 10, File::open(archive)?);
    let mut layer = Layer {
        disk,
        root,
        left,
        made: BTreeSet::new(),
        hidden: BTreeSet::new(),
    };
    let mut left = layer.left.archives;
    let unpacked = layer.unpack(Bounded {
        archive: decompressed(file)?,
        left: &mut left,
    });
    layer.left.archives = left;
    unpacked
}

/// An archive of which no more is read than is left to read.
struct Bounded<'a, R> {
    archive: R,
    left: &'a mut u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.archive.read(buffer)?;
        *self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            invalid(
                "the image's layers are larger, decompressed, than this node allows for files \
                 and their headers"
                    .to_owned(),
            )
        })?;
        Ok(read)
    }
}

/// What is in the archive, however it is compressed: its first bytes tell.
pub(crate) fn decompressed(mut file: BufReader<File>) -> io::Result<Box<dyn Read>> {
    let start = io::BufRead::fill_buf(&mut file)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd {
            input: Some(file),
            frame: None,
        }),
        _ => Box::new(file),
    })
}

/// Frame after frame; the decoder itself knows one.
struct Zstd {
    input: Option<BufReader<File>>,
    frame: Option<Box<StreamingDecoder<BufReader<File>, ruzstd::decoding::FrameDecoder>>>,
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                match frame.read(buffer)? {
                    0 if !buffer.is_empty() => {
                        let frame = self.frame.take().expect("seen a line above");
                        self.input = Some(frame.into_inner());
                    }
                    read => return Ok(read),
                }
            }
            let Some(mut input) = self.input.take() else {
                return Ok(0);
            };
            let start = io::BufRead::fill_buf(&mut input)?;
            match start {
                [] => return Ok(0),
                // A frame to skip: its length follows its first four bytes.
                [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                    let mut head = [0; 8];
                    input.read_exact(&mut head)?;
                    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
                    io::copy(&mut (&mut input).take(length.into()), &mut io::sink())?;
                    self.input = Some(input);
                }
                _ => {
                    let frame = StreamingDecoder::new(input)
                        .map_err(|error| invalid(format!("zstd: {error}")))?;
                    self.frame = Some(Box::new(frame));
                }
            }
        }
    }
}

struct Layer<'a> {
    disk: &'a Disk,
    root: &'a Path,
    left: &'a mut UnpackLimits,
    /// Paths of this layer, which its own whiteouts do not concern.
    made: BTreeSet<PathBuf>,
    /// Folders that have nothing of lower layers any more.
    hidden: BTreeSet<PathBuf>,
}

impl Layer<'_> {
    fn unpack(&mut self, archive: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(archive);
        let (mut long_name, mut long_link) = (None, None);
        // Raw, because the library reads extended headers of any length into memory.
        for entry in archive.entries()?.raw(true) {
            let mut entry = entry?;
            match entry.header().entry_type() {
                EntryType::GNULongName => long_name = Some(text(&mut entry)?),
                EntryType::GNULongLink => long_link = Some(text(&mut entry)?),
                EntryType::XGlobalHeader => {}
                EntryType::XHeader => {
                    let header = limited(&mut entry)?;
                    for pair in tar::PaxExtensions::new(&header) {
                        let pair = pair?;
                        match pair.key_bytes() {
                            b"path" => long_name = Some(pair.value_bytes().to_vec()),
                            b"linkpath" => long_link = Some(pair.value_bytes().to_vec()),
                            key if key == b"size" || key.starts_with(b"GNU.sparse") => {
                                return Err(invalid(
                                    "a layer has a file of a kind that is not read (sparse, or of \
                                     more than 8 GiB)"
                                        .to_owned(),
                                ));
                            }
                            _ => {}
                        }
                    }
                }
                kind => {
                    let name = long_name.take();
                    let name = name.unwrap_or_else(|| entry.header().path_bytes().into_owned());
                    let link = long_link.take().or_else(|| {
                        entry
                            .header()
                            .link_name_bytes()
                            .map(|name| name.into_owned())
                    });
                    self.entry(kind, &name, link.as_deref(), &mut entry)?;
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        kind: EntryType,
        name: &[u8],
        link: Option<&[u8]>,
        content: &mut tar::Entry<'_, impl Read>,
    ) -> io::Result<()> {
        self.left.entries =
            self.left.entries.checked_sub(1).ok_or_else(|| {
                invalid("the image has more files than this node allows".to_owned())
            })?;
        let path = inside(name)?;
        let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else {
            // The root itself.
            return Ok(());
        };
        let parent = self.folder(path.parent().unwrap_or(Path::new("")))?;
        if file_name == ".wh..wh..opq" {
            return self.hide_all(&parent);
        }
        if let Some(hidden) = file_name.strip_prefix(".wh.") {
            if hidden.is_empty() || matches!(hidden, "." | "..") {
                return Ok(());
            }
            return self.remove(&parent.join(hidden));
        }
        let place = parent.join(file_name);
        match kind {
            EntryType::Directory => {
                if !is_folder(&place) {
                    self.remove(&place)?;
                    self.disk.create_folder(&place)?;
                }
            }
            EntryType::Regular | EntryType::Continuous => self.file(&place, content)?,
            EntryType::Symlink => {
                let target = link.ok_or_else(|| invalid(format!("{file_name} links nowhere")))?;
                self.remove(&place)?;
                self.symlink(target, &place)?;
            }
            EntryType::Link => {
                let target = inside(link.unwrap_or_default())?;
                let source = resolve(self.root, &target)?.filter(|found| found.is_file());
                let source = source.ok_or_else(|| {
                    invalid(format!(
                        "{} links to a file that is not there",
                        path.display()
                    ))
                })?;
                if source != place {
                    self.remove(&place)?;
                    self.disk.link(&source, &place)?;
                }
            }
            // Devices and pipes mean nothing to a guest.
            EntryType::Block | EntryType::Char | EntryType::Fifo => return Ok(()),
            other => {
                return Err(invalid(format!(
                    "{} is of a kind that is not read ({other:?})",
                    path.display()
                )));
            }
        }
        self.made.insert(place);
        Ok(())
    }

    fn file(&mut self, place: &Path, content: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
        self.remove(place)?;
        let mut file = self.disk.create_new(place)?;
        let mut buffer = vec![0; 64 << 10];
        let mut written = 0;
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            self.left.bytes = self.left.bytes.checked_sub(read as u64).ok_or_else(|| {
                invalid("the image is larger, unpacked, than this node allows".to_owned())
            })?;
            self.disk.write(&mut file, &buffer[..read])?;
            written += read as u64;
        }
        if written != content.header().size()? {
            return Err(invalid("a layer ends within a file".to_owned()));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = content.header().mode().unwrap_or(0o644) & 0o777 | 0o600;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// The folder at `path`, made as far as it is not there; links lead where they lead, but not out.
    fn folder(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut at = self.root.to_owned();
        for part in path.components() {
            let next = at.join(part);
            match fs::symlink_metadata(&next) {
                Ok(found) if found.is_dir() => at = next,
                Ok(found) if found.is_symlink() => {
                    let inner = next.strip_prefix(self.root).expect("made by joining");
                    let target = resolve(self.root, inner)?.filter(|found| found.is_dir());
                    at = target.ok_or_else(|| {
                        invalid(format!(
                            "{} leads through a link to no folder",
                            path.display()
                        ))
                    })?;
                }
                Ok(_) => {
                    self.remove(&next)?;
                    self.disk.create_folder(&next)?;
                    at = next;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.disk.create_folder(&next)?;
                    at = next;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    /// A link, as the container's `/` has it and relative even if it was not: guests may not follow
    /// absolute ones.
    #[cfg(unix)]
    fn symlink(&self, target: &[u8], place: &Path) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let target = Path::new(std::ffi::OsStr::from_bytes(target));
        let inner = place.strip_prefix(self.root).expect("made by joining");
        let depth = inner.components().count().saturating_sub(1);
        self.disk.symlink(&within(target, depth), place)
    }

    #[cfg(not(unix))]
    fn symlink(&self, _: &[u8], place: &Path) -> io::Result<()> {
        Err(invalid(format!(
            "{} is a symbolic link, which this system does not have",
            place.display()
        )))
    }

    /// Removes what lower layers have in `folder`. Every folder is looked through once at most: what
    /// comes into it later is of this layer.
    fn hide_all(&mut self, folder: &Path) -> io::Result<()> {
        if !self.hidden.insert(folder.to_owned()) {
            return Ok(());
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !self.has_made(&path) {
                self.remove(&path)?;
            } else if is_folder(&path) {
                self.hide_all(&path)?;
            }
        }
        Ok(())
    }

    /// Whether `path` or something in it is of this layer. A folder's paths follow it in order.
    fn has_made(&self, path: &Path) -> bool {
        let from = (Bound::Included(path), Bound::Unbounded);
        let next = self.made.range::<Path, _>(from).next();
        next.is_some_and(|made| made.starts_with(path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => self.disk.remove_folder(path),
            Ok(_) => self.disk.remove(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The file or folder that `path` means in `root`, links followed without ever leaving it; `None` when
/// it is not there.
pub(crate) fn resolve(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let mut todo: Vec<PathBuf> = vec![path.to_owned()];
    let mut at: Vec<std::ffi::OsString> = Vec::new();
    let mut links = 0;
    while let Some(path) = todo.pop() {
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        todo.push(parts.as_path().to_owned());
        match part {
            Component::RootDir => at.clear(),
            Component::CurDir | Component::Prefix(_) => {}
            // As in a container: above the root is the root.
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                let mut full = root.to_owned();
                full.extend(&at);
                full.push(name);
                match fs::symlink_metadata(&full) {
                    Ok(found) if found.is_symlink() => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(invalid("too many links in a row".to_owned()));
                        }
                        todo.push(fs::read_link(&full)?);
                    }
                    Ok(_) => at.push(name.to_owned()),
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) =>
                    {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
    let mut full = root.to_owned();
    full.extend(at);
    Ok(Some(full))
}

/// An entry's name as a path below the root.
fn inside(name: &[u8]) -> io::Result<PathBuf> {
    let text = std::str::from_utf8(name)
        .ok()
        .filter(|text| !text.contains('\0'));
    let shown = || String::from_utf8_lossy(&name[..name.len().min(200)]).into_owned();
    let text = text.ok_or_else(|| invalid(format!("the name {:?} is no text", shown())))?;
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(format!(
                    "the path {:?} leads out of the image",
                    shown()
                )));
            }
        }
    }
    if text.len() > MAX_PATH || path.components().count() > MAX_DEPTH {
        return Err(invalid(format!(
            "the path {:?}… is too long or too deep",
            shown()
        )));
    }
    Ok(path)
}

/// The target of a link that is `depth` folders below the root: relative, and without the steps that
/// climb above the root, where a container's `/` is its own parent.
#[cfg(unix)]
fn within(target: &Path, depth: usize) -> PathBuf {
    let mut relative = PathBuf::new();
    let (mut at, mut is_changed) = (depth, false);
    for part in target.components() {
        match part {
            Component::RootDir => {
                relative.extend(std::iter::repeat_n("..", depth));
                (at, is_changed) = (0, true);
            }
            Component::ParentDir if at == 0 => is_changed = true,
            Component::ParentDir => {
                at -= 1;
                relative.push(part);
            }
            Component::Normal(_) => {
                at += 1;
                relative.push(part);
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if !is_changed {
        return target.to_owned();
    }
    if relative.as_os_str().is_empty() {
        relative.push(".");
    }
    relative
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn limited(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    entry.take(MAX_HEADER + 1).read_to_end(&mut header)?;
    match header.len() as u64 > MAX_HEADER {
        true => Err(invalid(
            "a layer has a header of more than a megabyte".to_owned(),
        )),
        false => Ok(header),
    }
}

/// A long name, which ends with a NUL.
fn text(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut name = limited(entry)?;
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    Ok(name)
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;

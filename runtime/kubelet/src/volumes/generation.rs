//! Files that change all at once (upstream's `AtomicWriter`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::Problem;
use super::payload::{File, Files};

/// The link to the generation in use.
const DATA: &str = "..data";
/// Where the next link waits to be renamed.
const NEXT: &str = "..data_tmp";

/// Makes `folder` show exactly `files`. Readers see all of the old files or all of the new ones, and
/// files that have not changed are not written. A crash at any point leaves something that the next
/// write completes.
pub(super) fn write(folder: &Path, files: &Files) -> Result<(), Problem> {
    let data = folder.join(DATA);
    let current = fs::read_link(&data)
        .ok()
        .and_then(|target| target.to_str().map(str::to_owned));
    let current = match current {
        Some(current) if holds(&folder.join(&current), files) => current,
        current => next(folder, current.as_deref(), files)?,
    };
    let shown: BTreeSet<&str> = files
        .keys()
        .map(|path| path.split('/').next().unwrap_or(path))
        .collect();
    for first in &shown {
        let visible = folder.join(first);
        if fs::symlink_metadata(&visible).is_err() {
            link(&format!("{DATA}/{first}"), &visible).map_err(Problem::io("link", &visible))?;
        }
    }
    for entry in fs::read_dir(folder).map_err(Problem::io("list", folder))? {
        let entry = entry.map_err(Problem::io("list", folder))?;
        let name = entry.file_name();
        let is_kept = name
            .to_str()
            .is_some_and(|name| name == DATA || name == current || shown.contains(name));
        if !is_kept {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes the generation after `current` and makes it the one in use.
fn next(folder: &Path, current: Option<&str>, files: &Files) -> Result<String, Problem> {
    let number = current.and_then(|name| name.strip_prefix("..")?.parse::<u64>().ok());
    let name = format!("..{}", number.map_or(1, |number| number.wrapping_add(1)));
    let generation = folder.join(&name);
    remove(&generation)?;
    fs::create_dir(&generation).map_err(Problem::io("create folder", &generation))?;
    for (path, file) in files {
        write_file(&generation.join(path), file)?;
    }
    let (data, next) = (folder.join(DATA), folder.join(NEXT));
    remove(&next)?;
    link(&name, &next).map_err(Problem::io("link", &next))?;
    fs::rename(&next, &data).map_err(Problem::io("link", &data))?;
    Ok(name)
}

/// Whether the generation at `folder` has these files and no others.
fn holds(folder: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &File)| {
        let path = folder.join(path);
        fs::read(&path).is_ok_and(|bytes| bytes == file.bytes) && has_mode(&path, file.mode)
    };
    count(folder).is_ok_and(|count| count == files.len()) && files.iter().all(same)
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() {
            count(&entry.path())?
        } else {
            1
        };
    }
    Ok(files)
}

fn write_file(path: &Path, file: &File) -> Result<(), Problem> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Problem::io("create folder", parent))?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    // Nobody else may open the file before it has its mode.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut open = options.open(path).map_err(Problem::io("write", path))?;
    io::Write::write_all(&mut open, &file.bytes).map_err(Problem::io("write", path))?;
    set_mode(path, file.mode).map_err(Problem::io("set the mode of", path))
}

fn remove(path: &Path) -> Result<(), Problem> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Problem::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn link(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn link(target: &str, link: &Path) -> io::Result<()> {
    let is_folder = link
        .parent()
        .is_some_and(|folder| folder.join(target).is_dir());
    if is_folder {
        std::os::windows::fs::symlink_dir(target, link)
    } else {
        std::os::windows::fs::symlink_file(target, link)
    }
}

#[cfg(unix)]
fn has_mode(path: &Path, mode: u32) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o777 == mode)
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Other systems have no modes.
#[cfg(not(unix))]
fn has_mode(_path: &Path, _mode: u32) -> bool {
    true
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

//! Commands that make, move and remove files.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::time::SystemTime;

use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

/// Runs `each` on every operand; a failure of one is told and does not stop the others.
fn each(
    cx: &mut Cx,
    name: &str,
    operands: &[String],
    mut each: impl FnMut(&mut Cx, &str) -> Result<(), Failure>,
) -> Outcome {
    if operands.is_empty() {
        return Err(Failure::usage("needs a path"));
    }
    let mut code = 0;
    for operand in operands {
        if let Err(failure) = each(cx, operand) {
            cx.complain(name, &failure.message);
            code = failure.code;
        }
    }
    Ok(code)
}

pub fn mkdir(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "pvm:", &[("parents", 'p'), ("mode", 'm')])?;
    each(cx, "mkdir", &options.operands, |cx, name| {
        let path = cx.path(name);
        let made = if options.has('p') {
            fs::create_dir_all(&path)
        } else {
            fs::create_dir(&path)
        };
        made.map_err(|error| Failure::file(name, &error))
    })
}

pub fn rmdir(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "p", &[])?;
    each(cx, "rmdir", &options.operands, |cx, name| {
        fs::remove_dir(cx.path(name)).map_err(|error| Failure::file(name, &error))
    })
}

pub fn rm(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "rRfvi", &[("recursive", 'r'), ("force", 'f')])?;
    let (recursive, force) = (options.has('r') || options.has('R'), options.has('f'));
    if options.operands.is_empty() && force {
        return Ok(0);
    }
    each(cx, "rm", &options.operands, |cx, name| {
        let path = cx.path(name);
        if path == "/" {
            return Err(Failure::new("/: refusing to remove the root folder"));
        }
        match remove(&path, recursive) {
            Err(error) if force && error.kind() == ErrorKind::NotFound => Ok(()),
            done => done.map_err(|error| Failure::file(name, &error)),
        }
    })
}

/// Removes a file or link, and with `recursive` a folder with everything in it. Links are never followed.
fn remove(path: &str, recursive: bool) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    if !recursive {
        return Err(io::Error::other("is a directory; use -r"));
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        remove(&format!("{path}/{}", name.to_string_lossy()), true)?;
    }
    fs::remove_dir(path)
}

/// Where `source` goes when `target` may be a folder.
fn destination(source: &str, target: &str) -> String {
    let is_folder = fs::metadata(target).is_ok_and(|found| found.is_dir());
    if is_folder {
        format!(
            "{}/{}",
            target.trim_end_matches('/'),
            crate::base_name(source)
        )
    } else {
        target.to_owned()
    }
}

/// The sources and the target of `cp`, `mv` and `ln`.
fn sources_and_target<'a>(
    cx: &Cx,
    operands: &'a [String],
) -> Result<(&'a [String], String), Failure> {
    let (target, sources) = operands
        .split_last()
        .ok_or_else(|| Failure::usage("needs a source and a target"))?;
    if sources.is_empty() {
        return Err(Failure::usage("needs a source and a target"));
    }
    let path = cx.path(target);
    if sources.len() > 1 && !fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
        return Err(Failure::new(format!(
            "{target}: not a folder, and there are several sources"
        )));
    }
    Ok((sources, path))
}

pub fn mv(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "fnvT", &[("force", 'f')])?;
    let (sources, target) = sources_and_target(cx, &options.operands)?;
    each(cx, "mv", sources, |cx, name| {
        let from = cx.path(name);
        let to = destination(&from, &target);
        if options.has('n') && fs::symlink_metadata(&to).is_ok() {
            return Ok(());
        }
        match fs::rename(&from, &to) {
            // Between two mounts.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => copy(&from, &to, true)
                .and_then(|()| remove(&from, true))
                .map_err(|error| Failure::file(name, &error)),
            done => done.map_err(|error| Failure::file(name, &error)),
        }
    })
}

pub fn cp(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "rRapfLPdvT", &[("recursive", 'r'), ("archive", 'a')])?;
    let recursive = ['r', 'R', 'a'].iter().any(|letter| options.has(*letter));
    let (sources, target) = sources_and_target(cx, &options.operands)?;
    each(cx, "cp", sources, |cx, name| {
        let from = cx.path(name);
        let to = if options.has('T') {
            target.clone()
        } else {
            destination(&from, &target)
        };
        if to == from || (recursive && to.starts_with(&format!("{from}/"))) {
            return Err(Failure::new(format!(
                "{name}: cannot be copied into itself"
            )));
        }
        copy(&from, &to, recursive).map_err(|error| Failure::file(name, &error))
    })
}

fn copy(from: &str, to: &str, recursive: bool) -> io::Result<()> {
    let kind = if recursive {
        fs::symlink_metadata(from)?
    } else {
        fs::metadata(from)?
    }
    .file_type();
    if kind.is_symlink() {
        let target = fs::read_link(from)?;
        let _ = fs::remove_file(to);
        return link(&target.to_string_lossy(), to);
    }
    if !kind.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    if !recursive {
        return Err(io::Error::other("is a directory; use -r"));
    }
    match fs::create_dir(to) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        copy(&format!("{from}/{name}"), &format!("{to}/{name}"), true)?;
    }
    Ok(())
}

pub fn touch(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "cam", &[("no-create", 'c')])?;
    each(cx, "touch", &options.operands, |cx, name| {
        let path = cx.path(name);
        let there = fs::symlink_metadata(&path).is_ok();
        if !there && options.has('c') {
            return Ok(());
        }
        let opened = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        opened
            .and_then(|file| {
                if there {
                    file.set_modified(SystemTime::now())
                } else {
                    Ok(())
                }
            })
            .map_err(|error| Failure::file(name, &error))
    })
}

/// Makes a symbolic link.
pub fn link(target: &str, path: &str) -> io::Result<()> {
    // `std::os::wasi` has it too, but is not stable.
    #[allow(deprecated)]
    fs::soft_link(target, path)
}

pub fn ln(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "sfnv", &[("symbolic", 's'), ("force", 'f')])?;
    let (sources, target) = match &options.operands[..] {
        [one] => (std::slice::from_ref(one), cx.path(crate::base_name(one))),
        operands => sources_and_target(cx, operands)?,
    };
    each(cx, "ln", sources, |cx, name| {
        let to = destination(name, &target);
        if options.has('f') {
            let _ = fs::remove_file(&to);
        }
        if !options.has('s') {
            return fs::hard_link(cx.path(name), &to).map_err(|error| Failure::file(name, &error));
        }
        if name.starts_with('/') {
            return Err(Failure::new(format!(
                "{name}: links to absolute paths are not possible in the sandbox; give a relative one"
            )));
        }
        link(name, &to).map_err(|error| Failure::file(&to, &error))
    })
}

pub fn readlink(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "fen", &[])?;
    if options.has('f') || options.has('e') {
        return realpath(cx, &options.operands);
    }
    each(cx, "readlink", &options.operands, |cx, name| {
        let target = fs::read_link(cx.path(name)).map_err(|error| Failure::file(name, &error))?;
        writeln!(cx.out, "{}", target.display())?;
        Ok(())
    })
}

pub fn realpath(cx: &mut Cx, args: &[String]) -> Outcome {
    each(cx, "realpath", args, |cx, name| {
        let path = resolve(&cx.path(name)).map_err(|error| Failure::file(name, &error))?;
        writeln!(cx.out, "{path}")?;
        Ok(())
    })
}

/// The path without links; the last part need not exist.
fn resolve(path: &str) -> io::Result<String> {
    let mut left: Vec<String> = path
        .split('/')
        .rev()
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        if part == "." {
            continue;
        }
        let at = format!("/{}", [done.join("/"), part.clone()].join("/"));
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => {
                links += 1;
                if links > 40 {
                    return Err(io::Error::other("too many links"));
                }
                let target = fs::read_link(&at)?.to_string_lossy().into_owned();
                if target.starts_with('/') {
                    done.clear();
                }
                left.extend(
                    target
                        .split('/')
                        .rev()
                        .filter(|part| !part.is_empty())
                        .map(str::to_owned),
                );
            }
            Err(error) if !left.is_empty() => return Err(error),
            _ => done.push(part),
        }
    }
    Ok(format!("/{}", done.join("/")))
}

pub fn mktemp(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "dp:", &[])?;
    let folder = cx.path(options.value('p').unwrap_or("/tmp"));
    fs::create_dir_all(&folder)?;
    let seed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    for n in 0..100u64 {
        let path = format!("{folder}/tmp.{:010x}", (seed + n) & 0xff_ffff_ffff);
        let made = if options.has('d') {
            fs::create_dir(&path)
        } else {
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map(drop)
        };
        match made {
            Ok(()) => {
                writeln!(cx.out, "{path}")?;
                return Ok(0);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::file(&path, &error)),
        }
    }
    Err(Failure::new("found no free name"))
}

/// `chmod`, `chown`, `chgrp`: scripts call them, and nothing can come of it.
pub fn no_users(cx: &mut Cx, args: &[String]) -> Outcome {
    let operands: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    for name in operands.iter().skip(1) {
        fs::symlink_metadata(cx.path(name)).map_err(|error| Failure::file(name, &error))?;
    }
    cx.complain(
        "note",
        "guests have no users and modes; nothing was changed",
    );
    Ok(0)
}

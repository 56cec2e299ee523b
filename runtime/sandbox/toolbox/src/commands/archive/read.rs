//! Unpacking and listing an archive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, UNIX_EPOCH};

use super::Task;
use super::header::{BLOCK, Header, Kind, records};
use crate::commands::parts::Calendar;
use crate::context::Cx;
use crate::failure::{Failure, Outcome, why};

/// Longest record about a name.
const LONGEST_RECORD: u64 = 1 << 20;

/// What records say about the next member.
#[derive(Default)]
struct Long {
    name: Option<String>,
    target: Option<String>,
    size: Option<u64>,
}

/// Unpacks, or only lists, all members.
pub fn all(cx: &mut Cx, task: &Task, from: &mut dyn Read, list: bool) -> Outcome {
    let mut code = 0;
    let mut found = vec![false; task.members.len()];
    let mut long = Long::default();
    let mut any = false;
    while let Some(mut header) = next(from, any)? {
        any = true;
        match header.kind {
            Kind::Pax => {
                for (key, value) in records(&content(from, header.size)?) {
                    match key.as_str() {
                        "path" => long.name = Some(value),
                        "linkpath" => long.target = Some(value),
                        "size" => long.size = value.parse().ok(),
                        _ => {}
                    }
                }
                continue;
            }
            Kind::LongName | Kind::LongLink => {
                let text = content(from, header.size)?;
                let text = String::from_utf8_lossy(&text)
                    .trim_end_matches('\0')
                    .to_owned();
                let place = if header.kind == Kind::LongName {
                    &mut long.name
                } else {
                    &mut long.target
                };
                *place = Some(text);
                continue;
            }
            Kind::PaxGlobal => {
                content(from, header.size)?;
                continue;
            }
            _ => {}
        }
        let long = std::mem::take(&mut long);
        header.name = long.name.unwrap_or(header.name);
        header.target = long.target.unwrap_or(header.target);
        header.size = long.size.unwrap_or(header.size);
        if header.name.ends_with('/') && header.kind == Kind::File {
            header.kind = Kind::Folder;
        }
        for (found, member) in found.iter_mut().zip(&task.members) {
            *found |= header
                .name
                .trim_end_matches('/')
                .starts_with(member.trim_end_matches('/'));
        }
        let mut body = from.take(header.size);
        let wanted = task.wants(&header.name) && !task.excludes(header.name.trim_end_matches('/'));
        if wanted && list {
            writeln!(cx.out, "{}", line(&header, task.verbose))?;
        } else if wanted {
            if task.verbose {
                writeln!(
                    if task.to_stdout {
                        &mut cx.err
                    } else {
                        &mut cx.out
                    },
                    "{}",
                    header.name
                )?;
            }
            if let Err(error) = unpack(cx, task, &header, &mut body) {
                cx.complain("tar", &format!("{}: {}", header.name, why(&error)));
                code = 2;
            }
        }
        let left = body.limit() + (header.size.next_multiple_of(BLOCK as u64) - header.size);
        skip(from, left)?;
    }
    // Whoever writes the archive would see a broken pipe if its padding were left unread.
    io::copy(from, &mut io::sink())?;
    for (_, member) in found
        .iter()
        .zip(&task.members)
        .filter(|(found, _)| !**found)
    {
        cx.complain("tar", &format!("{member}: not found in the archive"));
        code = 2;
    }
    Ok(code)
}

fn next(from: &mut dyn Read, any: bool) -> Result<Option<Header>, Failure> {
    let mut block = [0; BLOCK];
    match from.read_exact(&mut block) {
        Ok(()) => Ok(Header::read(&block)?),
        // Some writers leave the end out; but nothing at all is no archive.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && any => Ok(None),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Failure::new(
            "this is not a tar archive: it is empty or ends too early",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The content of a record and its padding.
fn content(from: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    if size > LONGEST_RECORD {
        return Err(io::Error::other("a record of the archive is too long"));
    }
    let mut bytes = vec![0; size.next_multiple_of(BLOCK as u64) as usize];
    from.read_exact(&mut bytes)?;
    bytes.truncate(size as usize);
    Ok(bytes)
}

fn skip(from: &mut dyn Read, bytes: u64) -> Result<(), Failure> {
    let skipped = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if skipped < bytes {
        Err(Failure::new("unexpected end of the archive"))
    } else {
        Ok(())
    }
}

fn unpack(cx: &mut Cx, task: &Task, header: &Header, body: &mut dyn Read) -> io::Result<()> {
    if header.name.split('/').any(|part| part == "..") {
        return Err(io::Error::other("the name contains '..'; not unpacked"));
    }
    let parts: Vec<&str> = header
        .name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .skip(task.strip)
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let path = format!("{}/{}", task.folder.trim_end_matches('/'), parts.join("/"));
    if task.to_stdout {
        if header.kind == Kind::File {
            io::copy(body, &mut cx.out)?;
        }
        return Ok(());
    }
    if let Some((folder, _)) = path
        .rsplit_once('/')
        .filter(|(folder, _)| !folder.is_empty())
    {
        fs::create_dir_all(folder)?;
    }
    let there = fs::symlink_metadata(&path);
    match header.kind {
        Kind::Folder => match fs::create_dir(&path) {
            Err(_) if there.is_ok_and(|facts| facts.is_dir()) => Ok(()),
            made => made,
        },
        Kind::File => {
            if let Ok(facts) = there {
                if task.keep {
                    return Err(io::Error::other("exists"));
                }
                // A link is replaced, never written through.
                if facts.is_symlink() {
                    fs::remove_file(&path)?;
                }
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            let written = io::copy(body, &mut file)?;
            if written < header.size {
                return Err(io::Error::other("the archive ends within this file"));
            }
            set_time(task, header, &file)
        }
        Kind::Link => {
            if there.is_ok_and(|facts| !facts.is_dir()) {
                fs::remove_file(&path)?;
            }
            super::super::files::link(&header.target, &path)
        }
        Kind::HardLink => {
            let target: Vec<&str> = header
                .target
                .split('/')
                .filter(|part| !matches!(*part, "" | "." | ".."))
                .collect();
            let target = format!("{}/{}", task.folder.trim_end_matches('/'), target.join("/"));
            if there.is_ok() {
                fs::remove_file(&path)?;
            }
            fs::hard_link(target, &path)
        }
        _ => Err(io::Error::other(
            "neither a file nor a folder nor a link; not unpacked",
        )),
    }
}

fn set_time(task: &Task, header: &Header, file: &File) -> io::Result<()> {
    if task.own_times {
        return Ok(());
    }
    file.set_modified(UNIX_EPOCH + Duration::from_secs(header.modified.min(u64::from(u32::MAX))))
}

fn line(header: &Header, verbose: bool) -> String {
    if !verbose {
        return header.name.clone();
    }
    let kind = match header.kind {
        Kind::Folder => 'd',
        Kind::Link => 'l',
        Kind::HardLink => 'h',
        _ => '-',
    };
    let time = Calendar::of_unix(header.modified as i64, 0);
    let mut line = format!(
        "{kind} {:>9} {}-{:02}-{:02} {:02}:{:02} {}",
        header.size, time.year, time.month, time.day, time.hour, time.minute, header.name
    );
    if !header.target.is_empty() {
        line.push_str(&format!(" -> {}", header.target));
    }
    line
}

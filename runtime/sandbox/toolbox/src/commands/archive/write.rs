//! Making an archive.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::time::UNIX_EPOCH;

use super::Task;
use super::header::{BLOCK, Header, Kind};
use crate::failure::why;

/// Archives are filled up to a whole number of these, as tar does.
const RECORD: u64 = 20 * BLOCK as u64;

struct Counting<'a> {
    to: &'a mut dyn Write,
    written: u64,
}

impl Counting<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// Writes the task's members. What cannot be read is told to `problem` and left out. `own` is the archive itself.
pub fn all(
    task: &Task,
    own: &str,
    to: &mut dyn Write,
    problem: &mut dyn FnMut(String),
) -> io::Result<()> {
    let mut to = Counting { to, written: 0 };
    for member in &task.members {
        let path = absolute(&task.folder, member);
        let name = stored_name(member);
        add(task, own, &path, &name, &mut to, problem)?;
    }
    // Two empty blocks end an archive.
    to.put(&[0; 2 * BLOCK])?;
    let missing = to.written.next_multiple_of(RECORD) - to.written;
    to.put(&vec![0; missing as usize])
}

fn absolute(folder: &str, member: &str) -> String {
    let path = if member.starts_with('/') {
        member.to_owned()
    } else {
        format!("{folder}/{member}")
    };
    crate::context::Env {
        cwd: "/".to_owned(),
        ..Default::default()
    }
    .path(&path)
}

/// Without the slash in front, and without `..`: nobody shall unpack it elsewhere than they think.
fn stored_name(member: &str) -> String {
    let parts: Vec<&str> = member
        .split('/')
        .filter(|part| !matches!(*part, "" | ".."))
        .collect();
    match parts[..] {
        [] => ".".to_owned(),
        _ => parts.join("/"),
    }
}

fn add(
    task: &Task,
    own: &str,
    path: &str,
    name: &str,
    to: &mut Counting<'_>,
    problem: &mut dyn FnMut(String),
) -> io::Result<()> {
    if task.excludes(name) || path == own {
        return Ok(());
    }
    let facts = if task.follow {
        fs::metadata(path)
    } else {
        fs::symlink_metadata(path)
    };
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            problem(format!("{name}: {}", why(&error)));
            return Ok(());
        }
    };
    let modified = facts
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let mut header = Header {
        name: name.to_owned(),
        kind: Kind::File,
        size: 0,
        modified: modified.map_or(0, |time| time.as_secs()),
        target: String::new(),
    };
    if facts.is_dir() {
        header.kind = Kind::Folder;
        header.name.push('/');
        to.put(&header.blocks())?;
        let names = match super::super::find::names(path) {
            Ok(names) => names,
            Err(error) => {
                problem(format!("{name}: {}", why(&error)));
                return Ok(());
            }
        };
        for entry in names {
            let below = format!("{}/{entry}", path.trim_end_matches('/'));
            add(task, own, &below, &format!("{name}/{entry}"), to, problem)?;
        }
        return Ok(());
    }
    if facts.is_symlink() {
        match fs::read_link(path) {
            Ok(target) => {
                header.kind = Kind::Link;
                header.target = target.to_string_lossy().into_owned();
                to.put(&header.blocks())?;
            }
            Err(error) => problem(format!("{name}: {}", why(&error))),
        }
        return Ok(());
    }
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => {
            problem(format!("{name}: {}", why(&error)));
            return Ok(());
        }
    };
    header.size = facts.len();
    to.put(&header.blocks())?;
    contents(&mut file, header.size, name, to, problem)
}

/// Exactly `size` bytes, whatever happens to the file meanwhile: the head has been written.
fn contents(
    file: &mut File,
    size: u64,
    name: &str,
    to: &mut Counting<'_>,
    problem: &mut dyn FnMut(String),
) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    let mut left = size;
    while left > 0 {
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = match file.read(&mut buffer[..most]) {
            Ok(n) if n > 0 => n,
            _ => {
                problem(format!(
                    "{name}: file shrank by {left} bytes; padding with zeros"
                ));
                buffer.fill(0);
                while left > 0 {
                    let n = buffer
                        .len()
                        .min(usize::try_from(left).unwrap_or(usize::MAX));
                    to.put(&buffer[..n])?;
                    left -= n as u64;
                }
                break;
            }
        };
        to.put(&buffer[..n])?;
        left -= n as u64;
    }
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    to.put(&[0; BLOCK][..padding as usize])
}

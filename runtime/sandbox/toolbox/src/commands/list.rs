//! `ls`, `stat`, `du`.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::parts::{Calendar, MONTHS, human};
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

struct Entry {
    name: String,
    path: String,
    facts: Option<Metadata>,
}

impl Entry {
    fn of(name: &str, path: String) -> Self {
        let facts = fs::symlink_metadata(&path).ok();
        Self {
            name: name.to_owned(),
            path,
            facts,
        }
    }

    fn size(&self) -> u64 {
        self.facts.as_ref().map_or(0, Metadata::len)
    }

    fn modified(&self) -> SystemTime {
        self.facts
            .as_ref()
            .and_then(|facts| facts.modified().ok())
            .unwrap_or(UNIX_EPOCH)
    }

    fn is_dir(&self) -> bool {
        self.facts.as_ref().is_some_and(Metadata::is_dir)
    }
}

pub fn ls(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(
        args,
        "laA1RhdtrSFnogsi",
        &[("all", 'a'), ("color", 'n'), ("human-readable", 'h')],
    )?;
    let names = if options.operands.is_empty() {
        vec![".".to_owned()]
    } else {
        options.operands.clone()
    };
    let (mut files, mut folders, mut code) = (Vec::new(), Vec::new(), 0);
    for name in &names {
        let path = cx.path(name);
        // A link to a folder is that folder, unless its facts are asked for.
        let followed = !options.has('l') && !options.has('d') || name.ends_with('/');
        let facts = match fs::metadata(&path) {
            Ok(facts)
                if followed || fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir()) =>
            {
                Ok(facts)
            }
            _ => fs::symlink_metadata(&path),
        };
        match facts {
            Ok(facts) if facts.is_dir() && !options.has('d') => folders.push((name.clone(), path)),
            Ok(_) => files.push(Entry::of(name, path)),
            Err(error) => {
                cx.complain("ls", &Failure::file(name, &error).message);
                code = 1;
            }
        }
    }
    let titled = names.len() > 1 || options.has('R');
    let mut first = files.is_empty();
    show(cx, &options, files)?;
    // Folders that are listed later come on top of the stack.
    folders.reverse();
    while let Some((name, path)) = folders.pop() {
        if titled {
            writeln!(cx.out, "{}{name}:", if first { "" } else { "\n" })?;
        }
        first = false;
        let entries = match entries(
            &path,
            options.has('a'),
            options.has('a') || options.has('A'),
        ) {
            Ok(entries) => entries,
            Err(error) => {
                cx.complain("ls", &Failure::file(&name, &error).message);
                code = 1;
                continue;
            }
        };
        if options.has('R') {
            let below = entries
                .iter()
                .filter(|entry| entry.is_dir() && entry.name != "." && entry.name != "..");
            let below = below.map(|entry| {
                (
                    format!("{}/{}", name.trim_end_matches('/'), entry.name),
                    entry.path.clone(),
                )
            });
            let mut below: Vec<_> = below.collect();
            below.sort();
            folders.extend(below.into_iter().rev());
        }
        show(cx, &options, entries)?;
    }
    Ok(code)
}

fn entries(path: &str, dots: bool, hidden: bool) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if dots {
        entries.push(Entry::of(".", path.to_owned()));
        let above = path
            .rsplit_once('/')
            .map_or("/", |(above, _)| if above.is_empty() { "/" } else { above });
        entries.push(Entry::of("..", above.to_owned()));
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if hidden || !name.starts_with('.') {
            entries.push(Entry::of(
                &name,
                format!("{}/{name}", path.trim_end_matches('/')),
            ));
        }
    }
    Ok(entries)
}

fn show(cx: &mut Cx, options: &Options, mut entries: Vec<Entry>) -> io::Result<()> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if options.has('t') {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified()));
    }
    if options.has('S') {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.size()));
    }
    if options.has('r') {
        entries.reverse();
    }
    let size = |entry: &Entry| {
        if options.has('h') {
            human(entry.size())
        } else {
            entry.size().to_string()
        }
    };
    let width = entries
        .iter()
        .map(|entry| size(entry).len())
        .max()
        .unwrap_or(0);
    for entry in &entries {
        if options.has('l') {
            write!(
                cx.out,
                "{} {:>width$} {} ",
                mode(entry),
                size(entry),
                time(entry.modified())
            )?;
        }
        write!(cx.out, "{}", entry.name)?;
        if options.has('F') && entry.is_dir() {
            write!(cx.out, "/")?;
        }
        if options.has('l') && entry.facts.as_ref().is_some_and(Metadata::is_symlink) {
            match fs::read_link(&entry.path) {
                Ok(target) => write!(cx.out, " -> {}", target.display())?,
                Err(_) => write!(cx.out, " -> ?")?,
            }
        }
        writeln!(cx.out)?;
    }
    Ok(())
}

/// There are no modes; `rw` is what a guest has of everything that is not mounted read-only.
fn mode(entry: &Entry) -> &'static str {
    match &entry.facts {
        None => "?",
        Some(facts) if facts.is_dir() => "drwx",
        Some(facts) if facts.is_symlink() => "lrwx",
        Some(facts) if facts.is_file() => "-rw-",
        Some(_) => "?",
    }
}

/// `Mar 07 12:30`, with the year when that is another one.
fn time(time: SystemTime) -> String {
    let (then, now) = (Calendar::of(time), Calendar::of(SystemTime::now()));
    let month = &MONTHS[then.month as usize - 1][..3];
    if then.year == now.year {
        format!("{month} {:2} {:02}:{:02}", then.day, then.hour, then.minute)
    } else {
        format!("{month} {:2}  {}", then.day, then.year)
    }
}

pub fn stat(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "c:Lf", &[("format", 'c')])?;
    let mut code = 0;
    for name in &options.operands {
        let path = cx.path(name);
        let found = if options.has('L') {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        let facts = match found {
            Ok(facts) => facts,
            Err(error) => {
                cx.complain("stat", &Failure::file(name, &error).message);
                code = 1;
                continue;
            }
        };
        let kind = match facts.file_type() {
            kind if kind.is_dir() => "directory",
            kind if kind.is_symlink() => "symbolic link",
            kind if kind.is_file() && facts.len() == 0 => "regular empty file",
            kind if kind.is_file() => "regular file",
            _ => "something else",
        };
        let modified = facts.modified().unwrap_or(UNIX_EPOCH);
        let moment = Calendar::of(modified);
        let date = format!(
            "{}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} +0000",
            moment.year,
            moment.month,
            moment.day,
            moment.hour,
            moment.minute,
            moment.second,
            moment.nanos
        );
        match options.value('c') {
            Some(format) => {
                let text = format
                    .replace("%n", name)
                    .replace("%s", &facts.len().to_string())
                    .replace("%F", kind)
                    .replace("%Y", &moment.unix.to_string())
                    .replace("%y", &date);
                writeln!(cx.out, "{text}")?;
            }
            None => writeln!(
                cx.out,
                "  File: {name}\n  Size: {:<12} {kind}\nModify: {date}",
                facts.len()
            )?,
        }
    }
    Ok(code)
}

pub fn du(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(
        args,
        "shakbd:m",
        &[
            ("human-readable", 'h'),
            ("summarize", 's'),
            ("max-depth", 'd'),
        ],
    )?;
    let deepest = if options.has('s') {
        0
    } else {
        options.number('d')?.unwrap_or(usize::MAX)
    };
    let names = if options.operands.is_empty() {
        vec![".".to_owned()]
    } else {
        options.operands.clone()
    };
    let mut code = 0;
    for name in &names {
        let path = cx.path(name);
        if let Err(error) = disk_use(cx, &options, name, &path, 0, deepest) {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Err(error.into());
            }
            cx.complain("du", &Failure::file(name, &error).message);
            code = 1;
        }
    }
    Ok(code)
}

fn disk_use(
    cx: &mut Cx,
    options: &Options,
    name: &str,
    path: &str,
    depth: usize,
    deepest: usize,
) -> io::Result<u64> {
    let facts = fs::symlink_metadata(path)?;
    let mut bytes = facts.len();
    if facts.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?.file_name();
            let entry = entry.to_string_lossy();
            let (name, path) = (
                format!("{}/{entry}", name.trim_end_matches('/')),
                format!("{path}/{entry}"),
            );
            bytes += disk_use(cx, options, &name, &path, depth + 1, deepest)?;
        }
    }
    if depth <= deepest && (facts.is_dir() || options.has('a') || depth == 0) {
        let shown = match (options.has('h'), options.has('b')) {
            (true, _) => human(bytes),
            (_, true) => bytes.to_string(),
            _ => bytes.div_ceil(1024).to_string(),
        };
        writeln!(cx.out, "{shown}\t{name}")?;
    }
    Ok(bytes)
}

//! `find`: all tests must hold; there is no `-o` and no `-exec`.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use regex_lite::Regex;

use super::grep::glob;
use crate::context::Cx;
use crate::failure::{Failure, Outcome};

/// Folders in folders that are walked into.
const DEEPEST: usize = 200;

enum Test {
    Name(Regex),
    Path(Regex),
    Kind(char),
    /// Less than, equal to or more than so many bytes, rounded up to the unit.
    Size(std::cmp::Ordering, u64, u64),
    Newer(SystemTime),
    Age(std::cmp::Ordering, Duration, u64),
    Empty,
    Not(Box<Test>),
}

struct Found<'a> {
    name: &'a str,
    shown: &'a str,
    path: &'a str,
    facts: &'a Metadata,
}

impl Test {
    fn holds(&self, found: &Found<'_>) -> bool {
        match self {
            Self::Name(pattern) => pattern.is_match(found.name),
            Self::Path(pattern) => pattern.is_match(found.shown),
            Self::Kind('f') => found.facts.is_file(),
            Self::Kind('d') => found.facts.is_dir(),
            Self::Kind('l') => found.facts.is_symlink(),
            Self::Kind(_) => false,
            Self::Size(order, size, unit) => found.facts.len().div_ceil(*unit).cmp(size) == *order,
            Self::Newer(than) => found.facts.modified().is_ok_and(|time| time > *than),
            Self::Age(order, unit, number) => {
                let age = found
                    .facts
                    .modified()
                    .ok()
                    .and_then(|time| time.elapsed().ok())
                    .unwrap_or_default();
                (age.as_secs() / unit.as_secs()).cmp(number) == *order
            }
            Self::Empty if found.facts.is_dir() => {
                fs::read_dir(found.path).is_ok_and(|mut entries| entries.next().is_none())
            }
            Self::Empty => found.facts.len() == 0,
            Self::Not(test) => !test.holds(found),
        }
    }
}

struct Search {
    tests: Vec<Test>,
    least: usize,
    most: usize,
    end: char,
    delete: bool,
}

pub fn find(cx: &mut Cx, args: &[String]) -> Outcome {
    let first_test = args
        .iter()
        .position(|arg| arg.starts_with('-') || arg == "!")
        .unwrap_or(args.len());
    let (starts, tests) = args.split_at(first_test);
    let search = read(cx, tests)?;
    let here = [".".to_owned()];
    let mut code = 0;
    for start in if starts.is_empty() { &here[..] } else { starts } {
        let path = cx.path(start);
        walk(cx, &search, start, &path, 0, &mut code)?;
    }
    Ok(code)
}

fn read(cx: &Cx, args: &[String]) -> Result<Search, Failure> {
    let mut search = Search {
        tests: Vec::new(),
        least: 0,
        most: DEEPEST,
        end: '\n',
        delete: false,
    };
    let mut args = args.iter();
    let mut negated = false;
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .ok_or_else(|| Failure::usage(format!("{arg} needs a value")))
        };
        let test = match arg.as_str() {
            "-name" => Test::Name(glob(value()?, false)?),
            "-iname" => Test::Name(glob(value()?, true)?),
            "-path" | "-wholename" => Test::Path(glob(value()?, false)?),
            "-type" => Test::Kind(value()?.chars().next().unwrap_or(' ')),
            "-size" => size(value()?)?,
            "-mtime" => age(value()?, 86_400)?,
            "-mmin" => age(value()?, 60)?,
            "-empty" => Test::Empty,
            "-newer" => {
                let than = value()?;
                let facts =
                    fs::metadata(cx.path(than)).map_err(|error| Failure::file(than, &error))?;
                Test::Newer(facts.modified()?)
            }
            "!" | "-not" => {
                negated = !negated;
                continue;
            }
            "-print" | "-a" | "-and" | "-xdev" | "-follow" => continue,
            "-maxdepth" => {
                search.most = number(value()?)?.min(DEEPEST);
                continue;
            }
            "-mindepth" => {
                search.least = number(value()?)?;
                continue;
            }
            "-print0" => {
                search.end = '\0';
                continue;
            }
            "-delete" => {
                search.delete = true;
                continue;
            }
            other => {
                return Err(Failure::usage(format!(
                    "{other} is not known to find here; see `help`"
                )));
            }
        };
        search.tests.push(if negated {
            Test::Not(Box::new(test))
        } else {
            test
        });
        negated = false;
    }
    Ok(search)
}

fn number(text: &str) -> Result<usize, Failure> {
    text.parse()
        .map_err(|_| Failure::usage(format!("{text}: not a number")))
}

/// `+5`, `-5` or `5`.
fn signed(text: &str) -> Result<(std::cmp::Ordering, u64), Failure> {
    let (order, digits) = match text.split_at_checked(1) {
        Some(("+", digits)) => (std::cmp::Ordering::Greater, digits),
        Some(("-", digits)) => (std::cmp::Ordering::Less, digits),
        _ => (std::cmp::Ordering::Equal, text),
    };
    Ok((
        order,
        digits
            .parse()
            .map_err(|_| Failure::usage(format!("{text}: not a number")))?,
    ))
}

fn size(text: &str) -> Result<Test, Failure> {
    let (digits, unit) = match text.chars().last() {
        Some('c') => (&text[..text.len() - 1], 1),
        Some('k') => (&text[..text.len() - 1], 1 << 10),
        Some('M') => (&text[..text.len() - 1], 1 << 20),
        Some('G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 512),
    };
    signed(digits).map(|(order, size)| Test::Size(order, size, unit))
}

fn age(text: &str, unit: u64) -> Result<Test, Failure> {
    signed(text).map(|(order, number)| Test::Age(order, Duration::from_secs(unit), number))
}

fn walk(
    cx: &mut Cx,
    search: &Search,
    shown: &str,
    path: &str,
    depth: usize,
    code: &mut u8,
) -> io::Result<()> {
    let facts = match fs::symlink_metadata(path) {
        Ok(facts) => facts,
        Err(error) => {
            cx.complain("find", &Failure::file(shown, &error).message);
            *code = 1;
            return Ok(());
        }
    };
    let found = Found {
        name: crate::base_name(shown),
        shown,
        path,
        facts: &facts,
    };
    let holds = depth >= search.least && search.tests.iter().all(|test| test.holds(&found));
    if holds && !search.delete {
        write!(cx.out, "{shown}{}", search.end)?;
    }
    if facts.is_dir() && depth < search.most {
        match names(path) {
            Ok(names) => {
                for name in names {
                    let shown = format!("{}/{name}", shown.trim_end_matches('/'));
                    let path = format!("{}/{name}", path.trim_end_matches('/'));
                    walk(cx, search, &shown, &path, depth + 1, code)?;
                }
            }
            Err(error) => {
                cx.complain("find", &Failure::file(shown, &error).message);
                *code = 1;
            }
        }
    }
    if holds && search.delete && path != "/" {
        let removed = if facts.is_dir() {
            fs::remove_dir(path)
        } else {
            fs::remove_file(path)
        };
        if let Err(error) = removed {
            cx.complain("find", &Failure::file(shown, &error).message);
            *code = 1;
        }
    }
    Ok(())
}

/// The names in a folder, sorted.
pub fn names(path: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// All files in and below `shown`, for `grep -r`; links are not followed.
pub fn files_below(cx: &Cx, shown: &str, all: &mut Vec<String>) {
    let path = cx.path(shown);
    let is_folder = fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir());
    match names(&path) {
        Ok(names) if is_folder => {
            for name in names {
                files_below(cx, &format!("{}/{name}", shown.trim_end_matches('/')), all);
            }
        }
        _ if fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_symlink()) => {}
        _ => all.push(shown.to_owned()),
    }
}

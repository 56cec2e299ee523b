//! `tar`, as `kubectl cp` calls it and a little more.
//!
//! | kubectl cp | command line |
//! |---|---|
//! | from a pod | `tar cf - PATH` |
//! | with `--retries` | `sh -c 'tar cf - PATH \| tail -c+N'` |
//! | to a pod | `tar -xmf - -C FOLDER`, with `--no-preserve` `tar --no-same-permissions --no-same-owner -xmf - …` |

mod gzip;
mod header;
mod read;
mod write;

use std::fs::File;
use std::io::{self, Read, Write};

use regex_lite::Regex;

use crate::commands::grep::glob;
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::options::Options;

const SPEC: &str = "cxtf:vzC:mpkOhP1:2:";
const LONG: &[(&str, char)] = &[
    ("create", 'c'),
    ("extract", 'x'),
    ("get", 'x'),
    ("list", 't'),
    ("file", 'f'),
    ("verbose", 'v'),
    ("gzip", 'z'),
    ("gunzip", 'z'),
    ("directory", 'C'),
    ("touch", 'm'),
    ("keep-old-files", 'k'),
    ("to-stdout", 'O'),
    ("dereference", 'h'),
    ("exclude", '1'),
    ("strip-components", '2'),
    ("no-same-permissions", 'p'),
    ("no-same-owner", 'p'),
    ("same-permissions", 'p'),
    ("preserve-permissions", 'p'),
    ("numeric-owner", 'p'),
    ("overwrite", 'p'),
    ("warning", 'p'),
];

/// What the options say.
struct Task {
    folder: String,
    verbose: bool,
    keep: bool,
    to_stdout: bool,
    follow: bool,
    own_times: bool,
    strip: usize,
    exclude: Vec<Regex>,
    members: Vec<String>,
}

pub fn tar(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = read_options(args)?;
    let mut folder = cx.env.cwd.clone();
    for change in options.values('C') {
        folder = if change.starts_with('/') {
            cx.path(change)
        } else {
            cx.path(&format!("{folder}/{change}"))
        };
    }
    let exclude: Result<_, _> = options
        .values('1')
        .map(|pattern| glob(pattern, false))
        .collect();
    let task = Task {
        folder,
        verbose: options.has('v'),
        keep: options.has('k'),
        to_stdout: options.has('O'),
        follow: options.has('h'),
        own_times: options.has('m'),
        strip: options.number('2')?.unwrap_or(0),
        exclude: exclude?,
        members: options.operands.clone(),
    };
    let archive = options.value('f').unwrap_or("-").to_owned();
    let modes: Vec<char> = ['c', 'x', 't']
        .into_iter()
        .filter(|mode| options.has(*mode))
        .collect();
    match modes[..] {
        ['c'] => create(cx, &task, &archive, options.has('z')),
        [mode @ ('x' | 't')] => extract(cx, &task, &archive, mode == 't'),
        _ => Err(Failure::usage("needs one of c, x, t")),
    }
}

/// The first word may lack its dash: `tar cf - PATH`.
fn read_options(args: &[String]) -> Result<Options, Failure> {
    let Some(first) = args.first().filter(|first| !first.starts_with('-')) else {
        return Options::read(args, SPEC, LONG);
    };
    // Values of the old form come in the order of their letters, behind the word.
    let mut spelt: Vec<String> = Vec::new();
    let mut rest = args[1..].iter();
    for letter in first.chars() {
        spelt.push(format!("-{letter}"));
        if matches!(letter, 'f' | 'C') {
            spelt.push(
                rest.next()
                    .cloned()
                    .ok_or_else(|| Failure::usage(format!("option {letter} needs a value")))?,
            );
        }
    }
    spelt.extend(rest.cloned());
    Options::read(&spelt, SPEC, LONG)
}

fn create(cx: &mut Cx, task: &Task, archive: &str, zip: bool) -> Outcome {
    if task.members.is_empty() {
        return Err(Failure::usage("refusing to make an empty archive"));
    }
    let mut code = 0;
    let path = cx.path(archive);
    let mut to: Box<dyn Write> = match archive {
        "-" => Box::new(cx.out.clone()),
        name => Box::new(File::create(&path).map_err(|error| Failure::file(name, &error))?),
    };
    let mut problems = |text: String| {
        let _ = writeln!(cx.err, "tar: {text}");
        code = 2;
    };
    if zip {
        let mut packed = gzip::Packer::new(to);
        write::all(task, &path, &mut packed, &mut problems)?;
        packed.finish()?;
    } else {
        write::all(task, &path, &mut to, &mut problems)?;
        to.flush()?;
    }
    Ok(code)
}

fn extract(cx: &mut Cx, task: &Task, archive: &str, list: bool) -> Outcome {
    let from: Box<dyn Read> = match archive {
        "-" => Box::new(cx.input.clone()),
        name => Box::new(io::BufReader::new(
            File::open(cx.path(name)).map_err(|error| Failure::file(name, &error))?,
        )),
    };
    // gzip is recognised, as GNU tar does for files.
    let mut from = gzip::open(from)?;
    read::all(cx, task, &mut from, list)
}

impl Task {
    fn excludes(&self, name: &str) -> bool {
        let parts = || {
            name.split('/').scan(String::new(), |path, part| {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(part);
                Some((path.clone(), part))
            })
        };
        self.exclude.iter().any(|pattern| {
            pattern.is_match(name)
                || parts().any(|(path, part)| pattern.is_match(&path) || pattern.is_match(part))
        })
    }

    /// Whether a member was asked for by its name or a folder above it.
    fn wants(&self, name: &str) -> bool {
        let name = name.trim_end_matches('/');
        self.members.is_empty()
            || self.members.iter().any(|member| {
                let member = member.trim_end_matches('/');
                name == member
                    || name
                        .strip_prefix(member)
                        .is_some_and(|rest| rest.starts_with('/'))
            })
    }
}

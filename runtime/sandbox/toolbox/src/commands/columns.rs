//! Commands on lines and their columns.

use std::io::{self, Write};

use super::text::{Made, bare, run_filter, unescape};
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::filter::{Filter, Lines, over, pump};
use crate::options::Options;

/// Lines one by one.
struct EachLine<F>(Lines, F);

impl<F: FnMut(&[u8], &mut dyn Write) -> io::Result<()>> Filter for EachLine<F> {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let each = &mut self.1;
        self.0.feed(bytes, |line| each(line, out))
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        let each = &mut self.1;
        self.0.finish(|line| each(line, out))?;
        Ok(0)
    }
}

/// `1,3-5,7-` as ranges.
fn ranges(list: &str) -> Result<Vec<(usize, usize)>, Failure> {
    let number = |text: &str, empty: usize| match text {
        "" => Ok(empty),
        text => text
            .parse()
            .map_err(|_| Failure::usage(format!("{list}: not a list of columns"))),
    };
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Ok((number(from, 1)?, number(to, usize::MAX)?)),
        None => number(part, 0).map(|one| (one, one)),
    };
    list.split(',').map(range).collect()
}

pub fn cut(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "d:f:c:b:s", &[])?;
    let flags = args[..].to_vec();
    over(cx, "cut", &options.operands, |_, _| {
        cut_of(&Options::read(&flags, "d:f:c:b:s", &[])?)
    })
}

pub fn cut_filter(_cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "d:f:c:b:s", &[])?;
    Ok(if options.operands.is_empty() {
        Some(cut_of(&options)?)
    } else {
        None
    })
}

fn cut_of(options: &Options) -> Result<Box<dyn Filter>, Failure> {
    let wanted = |ranges: &[(usize, usize)], n: usize| {
        ranges.iter().any(|(from, to)| (*from..=*to).contains(&n))
    };
    if let Some(list) = options.value('c').or(options.value('b')) {
        let ranges = ranges(list)?;
        return Ok(Box::new(EachLine(
            Lines::default(),
            move |line: &[u8], out: &mut dyn Write| {
                let text = String::from_utf8_lossy(line);
                let kept: String = text
                    .chars()
                    .enumerate()
                    .filter(|(n, _)| wanted(&ranges, n + 1))
                    .map(|(_, c)| c)
                    .collect();
                writeln!(out, "{kept}")
            },
        )));
    }
    let list = options
        .value('f')
        .ok_or_else(|| Failure::usage("needs -f, -c or -b"))?;
    let ranges = ranges(list)?;
    let delimiter = options
        .value('d')
        .and_then(|text| text.chars().next())
        .unwrap_or('\t');
    let only_delimited = options.has('s');
    Ok(Box::new(EachLine(
        Lines::default(),
        move |line: &[u8], out: &mut dyn Write| {
            let text = String::from_utf8_lossy(line);
            if !text.contains(delimiter) {
                return if only_delimited {
                    Ok(())
                } else {
                    writeln!(out, "{text}")
                };
            }
            let kept: Vec<&str> = text
                .split(delimiter)
                .enumerate()
                .filter(|(n, _)| wanted(&ranges, n + 1))
                .map(|(_, field)| field)
                .collect();
            writeln!(out, "{}", kept.join(delimiter.encode_utf8(&mut [0; 4])))
        },
    )))
}

/// Collects all lines, then writes them in order.
struct Sort {
    reverse: bool,
    numbers: bool,
    unique: bool,
    rest: Lines,
    lines: Vec<Vec<u8>>,
    bytes: usize,
}

/// What `sort` keeps in memory at most.
const SORTABLE: usize = 32 << 20;

impl Filter for Sort {
    fn feed(&mut self, bytes: &[u8], _out: &mut dyn Write) -> io::Result<()> {
        self.bytes += bytes.len();
        if self.bytes > SORTABLE {
            return Err(io::Error::other("more than 32 MiB to sort"));
        }
        let lines = &mut self.lines;
        self.rest.feed(bytes, |line| {
            lines.push(line.to_vec());
            Ok(())
        })
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        let lines = &mut self.lines;
        self.rest.finish(|line| {
            lines.push(line.to_vec());
            Ok(())
        })?;
        let number = |line: &Vec<u8>| {
            let text = String::from_utf8_lossy(line);
            let text = text.trim_start();
            let end = text
                .find(|c: char| !c.is_ascii_digit() && c != '-' && c != '.')
                .unwrap_or(text.len());
            text[..end].parse::<f64>().unwrap_or(0.0)
        };
        if self.numbers {
            self.lines
                .sort_by(|a, b| number(a).total_cmp(&number(b)).then_with(|| a.cmp(b)));
        } else {
            self.lines.sort();
        }
        if self.unique {
            self.lines.dedup();
        }
        if self.reverse {
            self.lines.reverse();
        }
        for line in &self.lines {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
        Ok(0)
    }
}

pub fn sort(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "rnu", &[])?;
    let mut sort = sort_of(&options);
    // All files together.
    for file in &options.operands {
        let mut file =
            crate::filter::open(cx, file).map_err(|error| Failure::file(file, &error))?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        sort.feed(&bytes, &mut io::sink())?;
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            sort.feed(b"\n", &mut io::sink())?;
        }
    }
    if options.operands.is_empty() {
        return Ok(pump(&mut cx.input.clone(), &mut sort, &mut cx.out)?);
    }
    Ok(sort.finish(&mut cx.out)?)
}

pub fn sort_filter(_cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "rnu", &[])?;
    let filter = sort_of(&options);
    bare(options, filter)
}

fn sort_of(options: &Options) -> Sort {
    Sort {
        reverse: options.has('r'),
        numbers: options.has('n'),
        unique: options.has('u'),
        rest: Lines::default(),
        lines: Vec::new(),
        bytes: 0,
    }
}

struct Uniq {
    count: bool,
    only_repeated: bool,
    rest: Lines,
    current: Option<(Vec<u8>, usize)>,
}

impl Uniq {
    fn next(&mut self, line: Option<&[u8]>, out: &mut dyn Write) -> io::Result<()> {
        match (&mut self.current, line) {
            (Some((current, n)), Some(line)) if current == line => *n += 1,
            (current, line) => {
                let done = std::mem::replace(current, line.map(|line| (line.to_vec(), 1)));
                if let Some((done, n)) = done.filter(|(_, n)| !self.only_repeated || *n > 1) {
                    if self.count {
                        write!(out, "{n:7} ")?;
                    }
                    out.write_all(&done)?;
                    out.write_all(b"\n")?;
                }
            }
        }
        Ok(())
    }
}

impl Filter for Uniq {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut rest = std::mem::take(&mut self.rest);
        let fed = rest.feed(bytes, |line| self.next(Some(line), out));
        self.rest = rest;
        fed
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        let mut rest = std::mem::take(&mut self.rest);
        rest.finish(|line| self.next(Some(line), out))?;
        self.next(None, out)?;
        Ok(0)
    }
}

pub fn uniq(cx: &mut Cx, args: &[String]) -> Outcome {
    run_filter(cx, "uniq", args, "cd", uniq_filter)
}

pub fn uniq_filter(_cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "cd", &[])?;
    let filter = Uniq {
        count: options.has('c'),
        only_repeated: options.has('d'),
        rest: Lines::default(),
        current: None,
    };
    bare(options, filter)
}

/// `a-z` and escapes, spelt out.
fn characters(set: &str) -> Vec<char> {
    let classes = [
        ("[:lower:]", "abcdefghijklmnopqrstuvwxyz"),
        ("[:upper:]", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
        ("[:digit:]", "0123456789"),
        ("[:space:]", " \t\n\r\x0b\x0c"),
    ];
    let mut set = unescape(set);
    for (class, members) in classes {
        set = set.replace(class, members);
    }
    let given: Vec<char> = set.chars().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while at < given.len() {
        match given[at..] {
            [from, '-', to, ..] if from <= to => {
                all.extend(from..=to);
                at += 3;
            }
            _ => {
                all.push(given[at]);
                at += 1;
            }
        }
    }
    all
}

struct Tr {
    from: Vec<char>,
    to: Vec<char>,
    delete: bool,
    squeeze: bool,
    last: Option<char>,
    /// Bytes of a character that is not complete.
    partial: Vec<u8>,
}

impl Tr {
    fn text(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let mut changed = String::with_capacity(text.len());
        for c in text.chars() {
            let found = self.from.iter().position(|from| *from == c);
            let new = match found {
                Some(_) if self.delete => continue,
                Some(at) => self.to.get(at).or(self.to.last()).copied().unwrap_or(c),
                None => c,
            };
            if self.squeeze && found.is_some() && self.last == Some(new) {
                continue;
            }
            self.last = Some(new);
            changed.push(new);
        }
        out.write_all(changed.as_bytes())
    }
}

impl Filter for Tr {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.partial);
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text(text, out),
            Err(error) if error.error_len().is_none() => {
                self.partial = bytes[error.valid_up_to()..].to_vec();
                self.text(&String::from_utf8_lossy(&bytes[..error.valid_up_to()]), out)
            }
            Err(_) => self.text(&String::from_utf8_lossy(&bytes), out),
        }
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        out.write_all(&self.partial)?;
        Ok(0)
    }
}

pub fn tr(cx: &mut Cx, args: &[String]) -> Outcome {
    let mut filter = tr_filter(cx, args)?.ok_or_else(|| Failure::usage("reads only its input"))?;
    Ok(pump(&mut cx.input.clone(), &mut *filter, &mut cx.out)?)
}

pub fn tr_filter(_cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "ds", &[])?;
    let (delete, squeeze) = (options.has('d'), options.has('s'));
    let sets: Vec<_> = options.operands.iter().map(|set| characters(set)).collect();
    let (from, to) = match &sets[..] {
        [from] if delete || squeeze => (from.clone(), Vec::new()),
        [from, to] => (from.clone(), to.clone()),
        _ => {
            return Err(Failure::usage(
                "needs two sets of characters, or -d and one",
            ));
        }
    };
    Ok(Some(Box::new(Tr {
        from,
        to,
        delete,
        squeeze,
        last: None,
        partial: Vec::new(),
    })))
}

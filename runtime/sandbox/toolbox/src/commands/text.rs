//! Commands that copy, count and write text.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use super::parts::{Counted, head_or_tail_count};
use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::filter::{Filter, Lines, over, pump};
use crate::options::Options;

/// What filters of this module come as.
pub(super) type Made = Result<Option<Box<dyn Filter>>, Failure>;

/// Runs a filter on the files after its options, or on the input.
pub(super) fn run_filter(
    cx: &mut Cx,
    name: &str,
    args: &[String],
    spec: &str,
    make: fn(&Cx, &[String]) -> Made,
) -> Outcome {
    let options = Options::read(args, spec, &[])?;
    let flags: Vec<String> = args
        .iter()
        .filter(|arg| !options.operands.contains(arg))
        .cloned()
        .collect();
    let made = move |cx: &mut Cx, _: Option<&str>| {
        make(cx, &flags)?.ok_or_else(|| Failure::usage("cannot read files in this way"))
    };
    over(cx, name, &options.operands, made)
}

/// A filter, unless files are named.
pub(super) fn bare(options: Options, filter: impl Filter + 'static) -> Made {
    Ok(if options.operands.is_empty() {
        Some(Box::new(filter))
    } else {
        None
    })
}

struct Cat {
    number: Option<(usize, Lines)>,
}

impl Filter for Cat {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let Some((count, lines)) = &mut self.number else {
            out.write_all(bytes)?;
            return out.flush();
        };
        lines.feed(bytes, |line| numbered(count, line, out))
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        if let Some((count, lines)) = &mut self.number {
            lines.finish(|line| numbered(count, line, out))?;
        }
        Ok(0)
    }
}

fn numbered(count: &mut usize, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
    *count += 1;
    write!(out, "{count:6}\t")?;
    out.write_all(line)?;
    out.write_all(b"\n")
}

pub fn cat(cx: &mut Cx, args: &[String]) -> Outcome {
    run_filter(cx, "cat", args, "nuAetv", cat_filter)
}

pub fn cat_filter(_cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "nuAetv", &[])?;
    let number = options.has('n').then(|| (0, Lines::default()));
    bare(options, Cat { number })
}

struct Head {
    left: Counted,
}

impl Filter for Head {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let taken = self.left.take(bytes);
        out.write_all(&bytes[..taken])?;
        if self.left.is_zero() {
            out.flush()?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut dyn Write) -> io::Result<u8> {
        Ok(0)
    }
}

pub fn head(cx: &mut Cx, args: &[String]) -> Outcome {
    let (count, options) = head_or_tail_count(args, "n:c:qv")?;
    let many = options.operands.len() > 1;
    let mut first = true;
    over(cx, "head", &options.operands, |cx, file| {
        if let Some(file) = file.filter(|_| many) {
            writeln!(cx.out, "{}==> {file} <==", if first { "" } else { "\n" })?;
        }
        first = false;
        Ok(Box::new(Head {
            left: count.counted(),
        }))
    })
}

pub fn head_filter(_cx: &Cx, args: &[String]) -> Made {
    let (count, options) = head_or_tail_count(args, "n:c:qv")?;
    bare(
        options,
        Head {
            left: count.counted(),
        },
    )
}

/// Counts, and writes what was asked for.
struct Wc {
    show: [bool; 3],
    counts: [u64; 3],
    in_word: bool,
}

impl Wc {
    fn new(options: &Options) -> Self {
        let mut show = ['l', 'w', 'c'].map(|letter| options.has(letter));
        if show == [false; 3] {
            show = [true; 3];
        }
        Self {
            show,
            counts: [0; 3],
            in_word: false,
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.counts[2] += bytes.len() as u64;
        for byte in bytes {
            self.counts[0] += u64::from(*byte == b'\n');
            let space = byte.is_ascii_whitespace();
            self.counts[1] += u64::from(!space && !self.in_word);
            self.in_word = !space;
        }
    }

    fn line(&self, name: &str) -> String {
        let shown: Vec<u64> = self
            .show
            .iter()
            .zip(self.counts)
            .filter(|(show, _)| **show)
            .map(|(_, count)| count)
            .collect();
        let mut line = match shown[..] {
            [one] => one.to_string(),
            _ => shown
                .iter()
                .map(|count| format!("{count:7}"))
                .collect::<Vec<_>>()
                .join(" "),
        };
        if !name.is_empty() {
            line.push(' ');
            line.push_str(name);
        }
        line
    }
}

impl Filter for Wc {
    fn feed(&mut self, bytes: &[u8], _out: &mut dyn Write) -> io::Result<()> {
        self.count(bytes);
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        writeln!(out, "{}", self.line(""))?;
        Ok(0)
    }
}

pub fn wc(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "lwc", &[])?;
    if options.operands.is_empty() {
        return Ok(pump(
            &mut cx.input.clone(),
            &mut Wc::new(&options),
            &mut cx.out,
        )?);
    }
    let mut total = Wc::new(&options);
    let mut code = 0;
    for file in &options.operands {
        let mut one = Wc::new(&options);
        match crate::filter::open(cx, file)
            .and_then(|mut file| pump(&mut file, &mut one, &mut io::sink()))
        {
            Ok(_) => writeln!(cx.out, "{}", one.line(file))?,
            Err(error) => {
                cx.complain("wc", &Failure::file(file, &error).message);
                code = 1;
            }
        }
        for (sum, count) in total.counts.iter_mut().zip(one.counts) {
            *sum += count;
        }
    }
    if options.operands.len() > 1 {
        writeln!(cx.out, "{}", total.line("total"))?;
    }
    Ok(code)
}

pub fn wc_filter(_cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "lwc", &[])?;
    let filter = Wc::new(&options);
    bare(options, filter)
}

struct Tee(Vec<File>);

impl Filter for Tee {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        for file in &mut self.0 {
            file.write_all(bytes)?;
        }
        out.write_all(bytes)?;
        out.flush()
    }

    fn finish(&mut self, _out: &mut dyn Write) -> io::Result<u8> {
        Ok(0)
    }
}

pub fn tee(cx: &mut Cx, args: &[String]) -> Outcome {
    let mut filter = tee_filter(cx, args)?.ok_or_else(|| Failure::usage("no output"))?;
    Ok(pump(&mut cx.input.clone(), &mut *filter, &mut cx.out)?)
}

pub fn tee_filter(cx: &Cx, args: &[String]) -> Made {
    let options = Options::read(args, "a", &[])?;
    let open = |path: &String| {
        let append = options.has('a');
        let mut how = OpenOptions::new();
        how.create(true)
            .write(true)
            .append(append)
            .truncate(!append);
        how.open(cx.path(path))
            .map_err(|error| Failure::file(path, &error))
    };
    let files: Result<Vec<File>, Failure> = options.operands.iter().map(open).collect();
    Ok(Some(Box::new(Tee(files?))))
}

pub fn echo(cx: &mut Cx, args: &[String]) -> Outcome {
    let (mut newline, mut escapes) = (true, false);
    let mut words = args;
    while let Some((first, rest)) = words.split_first() {
        match first.as_str() {
            "-n" => newline = false,
            "-e" => escapes = true,
            "-ne" | "-en" => (newline, escapes) = (false, true),
            _ => break,
        }
        words = rest;
    }
    let text = words.join(" ");
    let text = if escapes { unescape(&text) } else { text };
    cx.out.write_all(text.as_bytes())?;
    if newline {
        cx.out.write_all(b"\n")?;
    }
    Ok(0)
}

pub fn printf(cx: &mut Cx, args: &[String]) -> Outcome {
    let (format, values) = args
        .split_first()
        .ok_or_else(|| Failure::usage("needs a format"))?;
    let mut values = values.iter();
    // The format is used again until no value is left.
    loop {
        let before = values.len();
        let text = one_printf(format, &mut values)?;
        cx.out.write_all(text.as_bytes())?;
        if values.len() == 0 || values.len() == before {
            return Ok(0);
        }
    }
}

fn one_printf(format: &str, values: &mut std::slice::Iter<'_, String>) -> Result<String, Failure> {
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&unescape(&rest[..at]));
        rest = &rest[at + 1..];
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '-' || c == '.'))
            .ok_or_else(|| Failure::usage(format!("{format}: ends within a %")))?;
        let flags = &rest[..end];
        let kind = rest[end..].chars().next().unwrap_or('%');
        rest = &rest[end + kind.len_utf8()..];
        if kind == '%' {
            text.push('%');
            continue;
        }
        let value = values.next().map(String::as_str).unwrap_or_default();
        let number = || value.trim().parse::<i64>().unwrap_or(0);
        let shown = match kind {
            's' | 'q' => value.to_owned(),
            'b' => unescape(value),
            'c' => value.chars().take(1).collect(),
            'd' | 'i' | 'u' => number().to_string(),
            'x' => format!("{:x}", number()),
            'X' => format!("{:X}", number()),
            'o' => format!("{:o}", number()),
            'f' => format!("{:.6}", value.trim().parse::<f64>().unwrap_or(0.0)),
            other => {
                return Err(Failure::usage(format!(
                    "%{other} is not known to printf here"
                )));
            }
        };
        let width: usize = flags
            .trim_start_matches(['-', '0'])
            .parse()
            .unwrap_or(0)
            .min(4096);
        match (flags.starts_with('-'), flags.starts_with('0')) {
            (true, _) => text.push_str(&format!("{shown:<width$}")),
            (_, true) => text.push_str(&format!("{shown:0>width$}")),
            _ => text.push_str(&format!("{shown:>width$}")),
        }
    }
    text.push_str(&unescape(rest));
    Ok(text)
}

pub fn basename(cx: &mut Cx, args: &[String]) -> Outcome {
    let path = args.first().ok_or_else(|| Failure::usage("needs a path"))?;
    let name = crate::base_name(path);
    let name = match args.get(1) {
        Some(end) if name != end => name.strip_suffix(end.as_str()).unwrap_or(name),
        _ => name,
    };
    writeln!(cx.out, "{name}")?;
    Ok(0)
}

pub fn dirname(cx: &mut Cx, args: &[String]) -> Outcome {
    let path = args.first().ok_or_else(|| Failure::usage("needs a path"))?;
    let folder = match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None => ".",
    };
    writeln!(cx.out, "{folder}")?;
    Ok(0)
}

pub fn seq(cx: &mut Cx, args: &[String]) -> Outcome {
    let numbers: Result<Vec<i64>, _> = args.iter().map(|arg| arg.parse()).collect();
    let numbers = numbers.map_err(|_| Failure::usage("takes whole numbers"))?;
    let (mut at, step, last) = match numbers[..] {
        [last] => (1, 1, last),
        [first, last] => (first, 1, last),
        [first, step, last] if step != 0 => (first, step, last),
        _ => return Err(Failure::usage("seq [FIRST [STEP]] LAST")),
    };
    while if step > 0 { at <= last } else { at >= last } {
        writeln!(cx.out, "{at}")?;
        at = at.saturating_add(step);
    }
    Ok(0)
}

pub fn clear(cx: &mut Cx, _args: &[String]) -> Outcome {
    cx.out.write_all(b"\x1b[H\x1b[2J")?;
    Ok(0)
}

/// Replaces `\n`, `\t`, `\\`, `\e`, `\NNN` and `\xHH`.
pub fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else {
            plain.push('\\');
            break;
        };
        let digits = |from: &str, base: u32, most: usize| -> usize {
            from.chars()
                .take(most)
                .take_while(|c| c.is_digit(base))
                .count()
        };
        let simple = match kind {
            'n' => Some('\n'),
            't' => Some('\t'),
            'r' => Some('\r'),
            'a' => Some('\x07'),
            'b' => Some('\x08'),
            'e' => Some('\x1b'),
            '\\' => Some('\\'),
            _ => None,
        };
        let (start, base, most) = match kind {
            'x' => (1, 16, 2),
            '0' => (0, 8, 4),
            _ => (0, 8, 3),
        };
        let length = digits(&rest[start..], base, most);
        if let Some(simple) = simple {
            plain.push(simple);
            rest = &rest[1..];
        } else if length > 0 {
            let code = u32::from_str_radix(&rest[start..start + length], base).unwrap_or(0);
            plain.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            rest = &rest[start + length..];
        } else {
            plain.push('\\');
            plain.push(kind);
            rest = &rest[kind.len_utf8()..];
        }
    }
    plain.push_str(rest);
    plain
}

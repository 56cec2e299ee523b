//! `grep`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;

use regex_lite::{Regex, RegexBuilder};

use crate::context::Cx;
use crate::failure::{Failure, Outcome};
use crate::filter::{Filter, Lines, over};
use crate::options::Options;

const SPEC: &str = "rRinvclLoqswxhHEFGPe:A:B:C:m:";
const LONG: &[(&str, char)] = &[
    ("recursive", 'r'),
    ("ignore-case", 'i'),
    ("line-number", 'n'),
    ("invert-match", 'v'),
    ("count", 'c'),
    ("files-with-matches", 'l'),
    ("only-matching", 'o'),
    ("quiet", 'q'),
    ("word-regexp", 'w'),
    ("extended-regexp", 'E'),
    ("fixed-strings", 'F'),
    ("regexp", 'e'),
];

struct Grep {
    rules: Rc<Rules>,
    /// Put before each line, with a colon.
    file: Option<String>,
    lines: Lines,
    number: u64,
    found: u64,
    before: VecDeque<(u64, Vec<u8>)>,
    after_left: usize,
    printed: u64,
}

/// What the options say.
struct Rules {
    pattern: Regex,
    invert: bool,
    numbers: bool,
    only: bool,
    count: bool,
    names: bool,
    quiet: bool,
    before: usize,
    after: usize,
    most: u64,
}

impl Grep {
    fn new(rules: Rc<Rules>, file: Option<String>) -> Self {
        let (lines, before) = (Lines::default(), VecDeque::new());
        Self {
            rules,
            file,
            lines,
            number: 0,
            found: 0,
            before,
            after_left: 0,
            printed: 0,
        }
    }

    fn head(&self, number: u64, mark: char, out: &mut dyn Write) -> io::Result<()> {
        if let Some(file) = &self.file {
            write!(out, "{file}{mark}")?;
        }
        if self.rules.numbers {
            write!(out, "{number}{mark}")?;
        }
        Ok(())
    }

    fn print(
        &mut self,
        number: u64,
        line: &[u8],
        mark: char,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let gap = self.rules.before + self.rules.after > 0
            && self.printed > 0
            && number > self.printed + 1;
        if gap {
            writeln!(out, "--")?;
        }
        self.printed = number;
        self.head(number, mark, out)?;
        out.write_all(line)?;
        out.write_all(b"\n")
    }

    fn line(&mut self, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.number += 1;
        let rules = self.rules.clone();
        let text = String::from_utf8_lossy(line);
        if rules.pattern.is_match(&text) == rules.invert {
            if self.after_left > 0 {
                self.after_left -= 1;
                return self.print(self.number, line, '-', out);
            }
            if rules.before > 0 {
                if self.before.len() == rules.before {
                    self.before.pop_front();
                }
                self.before.push_back((self.number, line.to_vec()));
            }
            return Ok(());
        }
        self.found += 1;
        if rules.quiet || rules.names {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !rules.count {
            for (number, line) in std::mem::take(&mut self.before) {
                self.print(number, &line, '-', out)?;
            }
            if rules.only && !rules.invert {
                for found in rules
                    .pattern
                    .find_iter(&text)
                    .filter(|found| !found.is_empty())
                {
                    self.head(self.number, ':', out)?;
                    writeln!(out, "{}", found.as_str())?;
                }
            } else {
                self.print(self.number, line, ':', out)?;
            }
            self.after_left = rules.after;
        }
        if self.found >= rules.most {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl Filter for Grep {
    fn feed(&mut self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut lines = std::mem::take(&mut self.lines);
        let fed = lines.feed(bytes, |line| self.line(line, out));
        self.lines = lines;
        out.flush()?;
        fed
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<u8> {
        let mut lines = std::mem::take(&mut self.lines);
        match lines.finish(|line| self.line(line, out)) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        if self.rules.count && !self.rules.quiet {
            self.head(0, ':', out)
                .and_then(|()| writeln!(out, "{}", self.found))?;
        }
        if self.rules.names && self.found > 0 {
            writeln!(
                out,
                "{}",
                self.file.as_deref().unwrap_or("(standard input)")
            )?;
        }
        Ok(u8::from(self.found == 0))
    }
}

pub fn egrep(cx: &mut Cx, args: &[String]) -> Outcome {
    let mut extended = vec!["-E".to_owned()];
    extended.extend_from_slice(args);
    grep(cx, &extended)
}

pub fn grep(cx: &mut Cx, args: &[String]) -> Outcome {
    let (options, rules, operands) = read(args)?;
    let recursive = options.has('r') || options.has('R');
    let mut files = operands;
    if recursive {
        if files.is_empty() {
            files.push(".".to_owned());
        }
        let mut all = Vec::new();
        for file in &files {
            super::find::files_below(cx, file, &mut all);
        }
        files = all;
        if files.is_empty() {
            return Ok(1);
        }
    }
    let named =
        options.has('H') || rules.names || (!options.has('h') && (recursive || files.len() > 1));
    over(cx, "grep", &files, |_, file| {
        let file = file.filter(|_| named).map(str::to_owned);
        Ok(Box::new(Grep::new(rules.clone(), file)))
    })
}

pub fn grep_filter(_cx: &Cx, args: &[String]) -> Result<Option<Box<dyn Filter>>, Failure> {
    let (options, rules, operands) = read(args)?;
    let files = !operands.is_empty() || options.has('r') || options.has('R');
    Ok(if files {
        None
    } else {
        Some(Box::new(Grep::new(rules, None)))
    })
}

fn read(args: &[String]) -> Result<(Options, Rc<Rules>, Vec<String>), Failure> {
    let mut options = Options::read(args, SPEC, LONG)?;
    let mut operands = std::mem::take(&mut options.operands);
    let mut patterns: Vec<String> = options.values('e').map(str::to_owned).collect();
    if patterns.is_empty() {
        if operands.is_empty() {
            return Err(Failure::usage("needs a pattern"));
        }
        patterns.push(operands.remove(0));
    }
    let translated = patterns
        .iter()
        .flat_map(|pattern| pattern.split('\n'))
        .map(|pattern| {
            if options.has('F') {
                regex_lite::escape(pattern)
            } else if options.has('E') || options.has('P') {
                extended(pattern)
            } else {
                basic(pattern)
            }
        });
    let mut pattern = translated
        .map(|pattern| format!("(?:{pattern})"))
        .collect::<Vec<_>>()
        .join("|");
    if options.has('w') {
        pattern = format!(r"\b(?:{pattern})\b");
    }
    if options.has('x') {
        pattern = format!("^(?:{pattern})$");
    }
    let built = RegexBuilder::new(&pattern)
        .case_insensitive(options.has('i'))
        .build();
    let pattern =
        built.map_err(|error| Failure::usage(format!("{}: {error}", patterns.join("|"))))?;
    let around = options.number('C')?.unwrap_or(0);
    let rules = Rules {
        pattern,
        invert: options.has('v'),
        numbers: options.has('n'),
        only: options.has('o'),
        count: options.has('c'),
        names: options.has('l'),
        quiet: options.has('q'),
        before: options.number('B')?.unwrap_or(around),
        after: options.number('A')?.unwrap_or(around),
        most: options.number('m')?.unwrap_or(u64::MAX),
    };
    Ok((options, Rc::new(rules), operands))
}

/// A POSIX extended expression as one of Rust's: they differ in the names of classes only.
fn extended(pattern: &str) -> String {
    pattern.replace("\\<", r"\b").replace("\\>", r"\b")
}

/// A POSIX basic expression as one of Rust's: `+ ? | ( ) { }` mean something only after a backslash.
fn basic(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '[' if !in_class => {
                in_class = true;
                out.push(c);
                // A bracket right after the opening one, or after ^, is a member.
                if chars.peek() == Some(&'^') {
                    out.push('^');
                    chars.next();
                }
                if chars.peek() == Some(&']') {
                    out.push_str("\\]");
                    chars.next();
                }
            }
            '[' if chars.peek() == Some(&':') => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '\\' if in_class => out.push_str("\\\\"),
            '\\' => match chars.next() {
                Some(c @ ('+' | '?' | '|' | '(' | ')' | '{' | '}')) => out.push(c),
                Some('<' | '>') => out.push_str(r"\b"),
                Some(c) => {
                    out.push('\\');
                    out.push(c);
                }
                None => out.push_str("\\\\"),
            },
            '+' | '?' | '|' | '(' | ')' | '{' | '}' if !in_class => {
                out.push('\\');
                out.push(c);
            }
            '*' if out.is_empty() => out.push_str("\\*"),
            c => out.push(c),
        }
    }
    out
}

/// Whether a name fits a shell's pattern of `*`, `?` and `[…]`.
pub fn glob(pattern: &str, ignore_case: bool) -> Result<Regex, Failure> {
    let mut expression = String::from("^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => {
                expression.push('[');
                if let Some('!') = chars.peek() {
                    chars.next();
                    expression.push('^');
                }
                for c in chars.by_ref() {
                    expression.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '\\' => expression.push_str(&regex_lite::escape(
                &chars.next().unwrap_or('\\').to_string(),
            )),
            c => expression.push_str(&regex_lite::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    let built = RegexBuilder::new(&expression)
        .case_insensitive(ignore_case)
        .dot_matches_new_line(true)
        .build();
    built.map_err(|_| Failure::usage(format!("{pattern}: not a pattern")))
}

//! From words to the strings that a command gets.

use std::io::Write;

use super::arith;
use super::parse::{Part, Word};
use super::run::{Flow, Shell};
use crate::commands::glob;
use crate::context::{Cx, Out};

/// One string in the making.
#[derive(Default)]
struct Field {
    text: String,
    /// The same as a pattern of file names, in which quoted characters are escaped.
    pattern: String,
    is_pattern: bool,
    /// Something was there, even if it is empty: `""`.
    exists: bool,
}

impl Field {
    fn push(&mut self, text: &str, quoted: bool) {
        self.exists |= quoted || !text.is_empty();
        self.text.push_str(text);
        for c in text.chars() {
            let special = matches!(c, '*' | '?' | '[' | '\\');
            if quoted && special {
                self.pattern.push('\\');
            }
            self.is_pattern |= special && !quoted;
            self.pattern.push(c);
        }
    }
}

impl Shell {
    /// The strings of all words.
    pub(super) fn words(&mut self, cx: &mut Cx, words: &[Word]) -> Result<Vec<String>, Flow> {
        let mut all = Vec::new();
        for word in words {
            for field in self.fields(cx, word)? {
                match matches(cx, &field) {
                    Some(paths) => all.extend(paths),
                    None => all.push(field.text),
                }
            }
        }
        Ok(all)
    }

    /// The word as one string: values, targets of redirections.
    pub(super) fn string(&mut self, cx: &mut Cx, word: &Word) -> Result<String, Flow> {
        let mut text = String::new();
        for part in word {
            match part {
                Part::Text { text: more, .. } => text.push_str(more),
                Part::Param { name, op, word, .. } => {
                    text.push_str(&self.param(cx, name, op, word)?)
                }
                Part::Command { script, .. } => text.push_str(&self.substitute(cx, script)?),
                Part::Arith(word) => text.push_str(&self.arith(cx, word)?),
            }
        }
        Ok(text)
    }

    /// The word as a pattern, for `case`.
    pub(super) fn pattern(&mut self, cx: &mut Cx, word: &Word) -> Result<String, Flow> {
        let mut field = Field::default();
        for part in word {
            match part {
                Part::Text { text, quoted } => field.push(text, *quoted),
                other => {
                    let quoted = matches!(
                        other,
                        Part::Param { quoted: true, .. } | Part::Command { quoted: true, .. }
                    );
                    let text = self.string(cx, &vec![other.clone()])?;
                    field.push(&text, quoted);
                }
            }
        }
        Ok(field.pattern)
    }

    fn fields(&mut self, cx: &mut Cx, word: &Word) -> Result<Vec<Field>, Flow> {
        let mut fields = vec![Field::default()];
        for part in word {
            let last = fields.last_mut().expect("there is always one");
            let (text, quoted) = match part {
                Part::Text { text, quoted } => {
                    last.push(text, *quoted);
                    continue;
                }
                Part::Param {
                    name, quoted: true, ..
                } if name == "@" => {
                    let args = self.args.clone();
                    for (at, arg) in args.iter().enumerate() {
                        if at > 0 {
                            fields.push(Field::default());
                        }
                        fields
                            .last_mut()
                            .expect("there is always one")
                            .push(arg, true);
                    }
                    continue;
                }
                Part::Param {
                    name,
                    op,
                    word,
                    quoted,
                } => (self.param(cx, name, op, word)?, *quoted),
                Part::Command { script, quoted } => (self.substitute(cx, script)?, *quoted),
                Part::Arith(word) => (self.arith(cx, word)?, true),
            };
            if quoted {
                last.push(&text, true);
            } else {
                split(cx, &text, &mut fields);
            }
        }
        fields.retain(|field| field.exists);
        Ok(fields)
    }

    fn value(&self, cx: &Cx, name: &str) -> Option<String> {
        Some(match name {
            "?" => self.last.to_string(),
            "#" => self.args.len().to_string(),
            "@" | "*" => self.args.join(" "),
            "$" => "1".to_owned(),
            "!" => return None,
            "-" => String::new(),
            "0" => self.name.clone(),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let at: usize = digits.parse().unwrap_or(usize::MAX);
                return self.args.get(at - 1).cloned();
            }
            name => return cx.env.get(name).map(str::to_owned),
        })
    }

    fn param(&mut self, cx: &mut Cx, name: &str, op: &str, word: &Word) -> Result<String, Flow> {
        let value = self.value(cx, name);
        let colon = op.starts_with(':');
        let present = value
            .as_ref()
            .is_some_and(|value| !colon || !value.is_empty());
        match op.trim_start_matches(':') {
            "" => {
                if value.is_none() && self.unset_is_error && !matches!(name, "@" | "*") {
                    cx.complain("sh", &format!("{name}: is not set"));
                    return Err(Flow::Exit(2));
                }
            }
            "#len" => return Ok(value.unwrap_or_default().chars().count().to_string()),
            "-" if !present => return self.string(cx, word),
            "+" => {
                return if present {
                    self.string(cx, word)
                } else {
                    Ok(String::new())
                };
            }
            "=" if !present => {
                let text = self.string(cx, word)?;
                cx.env.set(name, text.clone());
                return Ok(text);
            }
            "?" if !present => {
                let text = self.string(cx, word)?;
                let text = if text.is_empty() {
                    "is not set".to_owned()
                } else {
                    text
                };
                cx.complain("sh", &format!("{name}: {text}"));
                return Err(Flow::Exit(2));
            }
            op @ ("#" | "##" | "%" | "%%") => {
                let pattern = self.pattern(cx, word)?;
                return Ok(trimmed(&value.unwrap_or_default(), op, &pattern));
            }
            _ => {}
        }
        Ok(value.unwrap_or_default())
    }

    /// What a script writes, without the line ends at its end.
    fn substitute(&mut self, cx: &mut Cx, script: &str) -> Result<String, Flow> {
        let (out, spool) = Out::buffer();
        let saved = (std::mem::replace(&mut cx.out, out), cx.env.clone());
        let code = self.nested(cx, script);
        let _ = cx.out.flush();
        (cx.out, cx.env) = saved;
        self.last = code;
        let bytes = std::mem::take(&mut spool.borrow_mut().0);
        Ok(String::from_utf8_lossy(&bytes)
            .trim_end_matches('\n')
            .to_owned())
    }

    fn arith(&mut self, cx: &mut Cx, word: &Word) -> Result<String, Flow> {
        let text = self.string(cx, word)?;
        let value = |name: &str| cx.env.get(name).unwrap_or_default().to_owned();
        match arith::evaluate(&text, &value) {
            Ok(number) => Ok(number.to_string()),
            Err(error) => {
                cx.complain("sh", &error);
                Err(Flow::Exit(2))
            }
        }
    }
}

/// Cuts unquoted text at blanks into fields.
fn split(cx: &Cx, text: &str, fields: &mut Vec<Field>) {
    let separators = cx.env.get("IFS").unwrap_or(" \t\n").to_owned();
    let mut first = true;
    let starts_apart = text.starts_with(|c| separators.contains(c));
    let ends_apart = text.ends_with(|c| separators.contains(c));
    for piece in text
        .split(|c| separators.contains(c))
        .filter(|piece| !piece.is_empty())
    {
        let joins = first && !starts_apart;
        if !joins && fields.last().is_some_and(|field| field.exists) {
            fields.push(Field::default());
        }
        first = false;
        fields
            .last_mut()
            .expect("there is always one")
            .push(piece, false);
    }
    if ends_apart && fields.last().is_some_and(|field| field.exists) {
        fields.push(Field::default());
    }
}

/// Cuts the shortest (or, doubled, the longest) match of a pattern off the start (`#`) or end (`%`).
fn trimmed(value: &str, op: &str, pattern: &str) -> String {
    let Ok(pattern) = glob(pattern, false) else {
        return value.to_owned();
    };
    let mut cuts: Vec<usize> = value
        .char_indices()
        .map(|(at, _)| at)
        .chain([value.len()])
        .collect();
    let front = op.starts_with('#');
    // From the shortest match to the longest.
    if !front {
        cuts.reverse();
    }
    if op.len() == 2 {
        cuts.reverse();
    }
    let fits = |cut: &usize| {
        pattern.is_match(if front {
            &value[..*cut]
        } else {
            &value[*cut..]
        })
    };
    match cuts.into_iter().find(fits) {
        Some(cut) if front => value[cut..].to_owned(),
        Some(cut) => value[..cut].to_owned(),
        None => value.to_owned(),
    }
}

/// The paths that fit a field that is a pattern; `None` when it is none, or nothing fits.
fn matches(cx: &Cx, field: &Field) -> Option<Vec<String>> {
    if !field.is_pattern {
        return None;
    }
    let mut found = vec![if field.pattern.starts_with('/') {
        "/".to_owned()
    } else {
        String::new()
    }];
    for part in field.pattern.split('/').filter(|part| !part.is_empty()) {
        let pattern = glob(part, false).ok()?;
        let is_pattern = part.contains(['*', '?', '[']);
        let mut next = Vec::new();
        for folder in &found {
            let join = |name: &str| match folder.as_str() {
                "" => name.to_owned(),
                "/" => format!("/{name}"),
                folder => format!("{folder}/{name}"),
            };
            if !is_pattern {
                let path = join(&part.replace('\\', ""));
                if std::fs::symlink_metadata(cx.path(&path)).is_ok() {
                    next.push(path);
                }
                continue;
            }
            let path = cx.path(if folder.is_empty() { "." } else { folder });
            let names = crate::commands::names(&path).unwrap_or_default();
            let shown = names
                .iter()
                .filter(|name| !name.starts_with('.') || part.starts_with('.'));
            next.extend(
                shown
                    .filter(|name| pattern.is_match(name))
                    .map(|name| join(name)),
            );
        }
        found = next;
    }
    if found.is_empty() { None } else { Some(found) }
}

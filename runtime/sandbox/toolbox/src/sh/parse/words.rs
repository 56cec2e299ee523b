//! Words: quotes and expansions.

use super::tree::{Part, Word};
use super::{DEEPEST, ParseError, Parsed, Parser, bad, expandable, is_end};

impl Parser {
    /// One word, up to a blank or an operator.
    pub(super) fn word(&mut self) -> Parsed<Word> {
        let mut word = Vec::new();
        while let Some(c) = self.peek().filter(|c| !is_end(*c)) {
            match c {
                '\'' => {
                    self.at += 1;
                    let rest = &self.text[self.at..];
                    let end = rest
                        .iter()
                        .position(|c| *c == '\'')
                        .ok_or(ParseError::Incomplete)?;
                    let text = rest[..end].iter().collect();
                    self.at += end + 1;
                    word.push(Part::Text { text, quoted: true });
                }
                '"' => {
                    self.at += 1;
                    let before = word.len();
                    loop {
                        match self.peek() {
                            None => return Err(ParseError::Incomplete),
                            Some('"') => break,
                            Some(_) => self.quoted_piece(&mut word, &['$', '`', '\\', '"'])?,
                        }
                    }
                    self.at += 1;
                    if word.len() == before {
                        word.push(Part::Text {
                            text: String::new(),
                            quoted: true,
                        });
                    }
                }
                '\\' => {
                    let Some(next) = self.text.get(self.at + 1).copied() else {
                        return Err(ParseError::Incomplete);
                    };
                    self.at += 2;
                    if next != '\n' {
                        word.push(Part::Text {
                            text: next.to_string(),
                            quoted: true,
                        });
                    }
                }
                '$' | '`' => {
                    let part = self.dollar(false)?;
                    word.push(part);
                }
                _ => {
                    let rest = &self.text[self.at..];
                    let end = rest
                        .iter()
                        .position(|c| is_end(*c) || "'\"\\$`".contains(*c))
                        .unwrap_or(rest.len());
                    word.push(Part::Text {
                        text: rest[..end].iter().collect(),
                        quoted: false,
                    });
                    self.at += end;
                }
            }
        }
        if word.is_empty() {
            return match self.peek() {
                None => Err(ParseError::Incomplete),
                Some(c) => bad(format!("unexpected {c}")),
            };
        }
        Ok(word)
    }

    /// Something within double quotes: text up to a special character, or an expansion.
    pub(super) fn quoted_piece(&mut self, word: &mut Word, special: &[char]) -> Parsed<()> {
        match self.peek() {
            Some('$' | '`') => {
                let part = self.dollar(true)?;
                word.push(part);
            }
            Some('\\') => {
                let next = self.text.get(self.at + 1).copied();
                self.at += 2.min(self.text.len() - self.at);
                let text = match next {
                    Some('\n') => String::new(),
                    Some(c) if special.contains(&c) => c.to_string(),
                    Some(c) => format!("\\{c}"),
                    None => "\\".to_owned(),
                };
                word.push(Part::Text { text, quoted: true });
            }
            _ => {
                let rest = &self.text[self.at..];
                let end = rest
                    .iter()
                    .position(|c| special.contains(c))
                    .unwrap_or(rest.len());
                word.push(Part::Text {
                    text: rest[..end].iter().collect(),
                    quoted: true,
                });
                self.at += end;
            }
        }
        Ok(())
    }

    pub(super) fn dollar(&mut self, quoted: bool) -> Parsed<Part> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return bad("too many expansions in each other");
        }
        let part = self.expansion(quoted);
        self.depth -= 1;
        part
    }

    pub(super) fn expansion(&mut self, quoted: bool) -> Parsed<Part> {
        if self.take("`") {
            let rest = &self.text[self.at..];
            let end = rest
                .iter()
                .position(|c| *c == '`')
                .ok_or(ParseError::Incomplete)?;
            let script = rest[..end].iter().collect();
            self.at += end + 1;
            return Ok(Part::Command { script, quoted });
        }
        self.at += 1;
        if self.take("((") {
            let inner = self.balanced('(', ')')?;
            if !self.take(")") {
                return bad(")) is missing");
            }
            return Ok(Part::Arith(expandable(&inner)?));
        }
        if self.take("(") {
            let script = self.balanced('(', ')')?;
            return Ok(Part::Command { script, quoted });
        }
        if self.take("{") {
            let inner = self.balanced('{', '}')?;
            return braced(&inner, quoted);
        }
        let name = match self.peek() {
            Some(c) if "?#@*$!-".contains(c) || c.is_ascii_digit() => {
                self.at += 1;
                c.to_string()
            }
            _ => {
                let rest = &self.text[self.at..];
                let length = rest
                    .iter()
                    .position(|c| !(c.is_ascii_alphanumeric() || *c == '_'))
                    .unwrap_or(rest.len());
                self.at += length;
                rest[..length].iter().collect()
            }
        };
        if name.is_empty() {
            return Ok(Part::Text {
                text: "$".to_owned(),
                quoted: true,
            });
        }
        Ok(Part::Param {
            name,
            op: String::new(),
            word: Vec::new(),
            quoted,
        })
    }

    /// The text up to the bracket that closes the one just taken; quotes and inner brackets are stepped over.
    pub(super) fn balanced(&mut self, open: char, close: char) -> Parsed<String> {
        let start = self.at;
        let (mut level, mut quote) = (1, None);
        while let Some(c) = self.peek() {
            self.at += 1;
            match (quote, c) {
                (Some('\''), '\'') | (Some('"'), '"') => quote = None,
                (Some('\''), _) => {}
                (_, '\\') => self.at += 1,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(c),
                (None, c) if c == open => level += 1,
                (None, c) if c == close => {
                    level -= 1;
                    if level == 0 {
                        return Ok(self.text[start..self.at - 1].iter().collect());
                    }
                }
                _ => {}
            }
        }
        Err(ParseError::Incomplete)
    }
}

/// `name`, `#name`, `name:-word` and its like.
fn braced(inner: &str, quoted: bool) -> Parsed<Part> {
    let wrong = || ParseError::Bad(format!("${{{inner}}} is not known"));
    if let Some(name) = inner.strip_prefix('#').filter(|name| !name.is_empty()) {
        return Ok(Part::Param {
            name: name.to_owned(),
            op: "#len".to_owned(),
            word: Vec::new(),
            quoted,
        });
    }
    let special = inner.chars().next().filter(|c| "?#@*$!-".contains(*c));
    let length = match special {
        Some(c) => c.len_utf8(),
        None => inner
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(inner.len()),
    };
    let (name, rest) = inner.split_at(length);
    if name.is_empty() {
        return Err(wrong());
    }
    let ops = [
        ":-", ":=", ":?", ":+", "##", "%%", "-", "=", "?", "+", "#", "%",
    ];
    let Some(op) = ops.into_iter().find(|op| rest.starts_with(op)) else {
        return if rest.is_empty() {
            Ok(Part::Param {
                name: name.to_owned(),
                op: String::new(),
                word: Vec::new(),
                quoted,
            })
        } else {
            Err(wrong())
        };
    };
    let text = &rest[op.len()..];
    let mut word = Vec::new();
    if !text.is_empty() {
        let mut parser = Parser::new(text);
        while let Some(c) = parser.peek() {
            // Blanks and operators are text in here.
            if is_end(c) {
                parser.at += 1;
                word.push(Part::Text {
                    text: c.to_string(),
                    quoted: true,
                });
            } else {
                word.extend(parser.word()?);
            }
        }
    }
    Ok(Part::Param {
        name: name.to_owned(),
        op: op.to_owned(),
        word,
        quoted,
    })
}

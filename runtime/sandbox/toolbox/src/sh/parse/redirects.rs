//! Redirections, and the documents that some of them read from the lines below.

use super::tree::{Compound, Node, Part, Redirect, Target, Word};
use super::{ParseError, Parsed, Parser, bad, expandable, is_end};

impl Parser {
    pub(super) fn redirect(&mut self) -> Parsed<Option<Redirect>> {
        self.blanks();
        let start = self.at;
        let digit = self.peek().and_then(|c| c.to_digit(10));
        if digit.is_some() {
            self.at += 1;
        }
        let both = digit.is_none() && (self.starts("&>") && self.take("&"));
        let (fd, kind) = if self.take("<<<") {
            (0, "<<<")
        } else if self.take("<<") {
            (0, "<<")
        } else if self.take("<") {
            (0, "<")
        } else if self.take(">>") {
            (1, ">>")
        } else if self.take(">&") {
            (1, ">&")
        } else if self.take(">|") || self.take(">") {
            (1, ">")
        } else {
            self.at = start;
            return Ok(None);
        };
        let fd = digit.map_or(fd, |digit| digit as u8);
        if fd > 2 {
            return bad("only descriptors 0, 1 and 2 can be redirected");
        }
        self.blanks();
        if kind == "<<" {
            let cut = self.take("-");
            let end = self.word()?;
            let literal = end
                .iter()
                .any(|part| matches!(part, Part::Text { quoted: true, .. }));
            let end: String = end
                .iter()
                .map(|part| {
                    if let Part::Text { text, .. } = part {
                        text.as_str()
                    } else {
                        ""
                    }
                })
                .collect();
            self.heres.push((end, literal, cut));
            return Ok(Some(Redirect {
                fd,
                target: Target::Here(vec![PENDING]),
            }));
        }
        if self.peek().is_none_or(is_end) {
            return if self.peek().is_none() {
                Err(ParseError::Incomplete)
            } else {
                bad("a redirection without a target")
            };
        }
        let word = self.word()?;
        let target = match kind {
            "<" => Target::Read(word),
            ">>" => Target::Append(word),
            "<<<" => {
                let end = Part::Text {
                    text: "\n".to_owned(),
                    quoted: true,
                };
                Target::Here(word.into_iter().chain([end]).collect())
            }
            ">&" => match &word[..] {
                [Part::Text { text, .. }] if text.parse::<u8>().is_ok_and(|fd| fd <= 2) => {
                    Target::Same(text.parse().unwrap_or(1))
                }
                _ => return bad("only >&1 and >&2 are known"),
            },
            _ => Target::Write(word),
        };
        if both {
            return bad("&> is not known; write > FILE 2>&1");
        }
        Ok(Some(Redirect { fd, target }))
    }

    /// Reads the here-documents that the line before asked for, and puts them where they belong.
    pub(super) fn here_documents(&mut self, node: &mut Node) -> Parsed<()> {
        for (end, literal, cut) in std::mem::take(&mut self.heres) {
            let mut text = String::new();
            loop {
                if self.peek().is_none() {
                    return Err(ParseError::Incomplete);
                }
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
                let line: String = rest[..length].iter().collect();
                self.at = (self.at + length + 1).min(self.text.len());
                let line = if cut {
                    line.trim_start_matches('\t')
                } else {
                    line.as_str()
                };
                if line == end {
                    break;
                }
                text.push_str(line);
                text.push('\n');
            }
            let word = if literal {
                vec![Part::Text { text, quoted: true }]
            } else {
                expandable(&text)?
            };
            if !fill(node, &mut Some(word)) {
                return bad("a here-document has no place");
            }
        }
        Ok(())
    }
}

/// Stands where a here-document's text will be.
const PENDING: Part = Part::Arith(Vec::new());

/// Puts `word` into the first waiting place; true when there was one.
fn fill(node: &mut Node, word: &mut Option<Word>) -> bool {
    let redirects = |redirects: &mut Vec<Redirect>, word: &mut Option<Word>| {
        for redirect in redirects {
            if let Target::Here(text) = &mut redirect.target
                && *text == [PENDING]
            {
                *text = word.take().unwrap_or_default();
                return true;
            }
        }
        false
    };
    match node {
        Node::Simple { redirects: own, .. } => redirects(own, word),
        Node::Compound(compound, own) => {
            let inner = match &mut **compound {
                Compound::Group(list) | Compound::Subshell(list) => fill(list, word),
                Compound::If { arms, otherwise } => {
                    arms.iter_mut()
                        .any(|(condition, body)| fill(condition, word) || fill(body, word))
                        || otherwise.as_mut().is_some_and(|list| fill(list, word))
                }
                Compound::While {
                    condition, body, ..
                } => fill(condition, word) || fill(body, word),
                Compound::For { body, .. } => fill(body, word),
                Compound::Case { arms, .. } => arms.iter_mut().any(|(_, body)| fill(body, word)),
            };
            inner || redirects(own, word)
        }
        Node::Pipeline { stages, .. } => stages.iter_mut().any(|stage| fill(stage, word)),
        Node::And(a, b) | Node::Or(a, b) => fill(a, word) || fill(b, word),
        Node::List(nodes) => nodes.iter_mut().any(|node| fill(node, word)),
    }
}
